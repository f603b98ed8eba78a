//! Reads the whole journal in the background, so that damage in what is never asked for is found while there is a
//! backup to restore it from: once after each start, and at an interval.
//!
//! It runs at the lowest priority and a bounded rate, and changes nothing. What it finds is logged with file and byte,
//! counted, and shown by `/readyz` until a later scrub finds the place whole; a file that was restored from a backup
//! under its name is used without a restart.

use std::{
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{embedded::EmbeddedRecords, journal::JournalError};
use crate::metrics;

/// How fast it reads, in bytes a second: a hundred gigabytes take an hour.
const RATE: u64 = 32 << 20;

/// The scrub of a ledger; dropped, it ends.
#[derive(Debug)]
pub struct Scrub {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scrub {
    /// Reads the journal now, and again whenever `interval` has passed since.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(records: EmbeddedRecords, interval: Duration) -> io::Result<Scrub> {
        let (stop, stopped) = mpsc::sync_channel(0);
        let thread = thread::Builder::new().name("scrub".into()).spawn(move || {
            // On Linux the priority is the thread's own. Without it the bounded rate is gentle enough.
            let _ = rustix::process::setpriority_process(None, 19);
            while scrub(&records, &stopped) && matches!(stopped.recv_timeout(interval), Err(RecvTimeoutError::Timeout))
            {
            }
        })?;
        Ok(Scrub { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads everything that is durable now. Whether it came to the end.
fn scrub(records: &EmbeddedRecords, stopped: &Receiver<()>) -> bool {
    let (reader, end) = (records.journal(), records.end());
    let started = Instant::now();
    let mut bytes = 0;
    let mut pause = |read: u64| {
        bytes += read;
        metrics::scrubbed(read);
        let due = Duration::from_secs_f64(bytes as f64 / RATE as f64);
        let early = due.saturating_sub(started.elapsed());
        matches!(stopped.recv_timeout(early), Err(RecvTimeoutError::Timeout))
    };
    let mut damage: Vec<JournalError> = Vec::new();
    let mut before = None;
    for number in 1..=end.segment() {
        before = match reader.check_file(number, end, before, &mut pause) {
            Ok(None) => return false,
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "the scrub found the journal damaged");
                damage.push(error);
                None
            }
        };
    }
    reader.replace_damage(&damage);
    metrics::scrub_finished();
    let seconds = started.elapsed().as_secs_f64();
    if damage.is_empty() {
        tracing::info!(bytes, files = end.segment(), seconds, "the scrub found the journal whole");
    }
    true
}
