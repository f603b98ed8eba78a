//! What has to be read from the disk: orders, the size of the journal, when the newest backup was made. It is read by
//! itself, with pauses that are [`SHARE`] times as long as the reading took.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::{
    orders::OrderRates,
    snapshot::{Listed, OpenOrder, Orders},
    sources::Sources,
};
use crate::live::Live;

/// The pauses between two readings: the shortest, and the longest.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How much longer a pause is than the reading before it.
const SHARE: u32 = 50;

/// How often the files are looked at: their number and sizes change slowly.
const FILES: Duration = Duration::from_secs(10);

/// What was read last.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) orders: Listed<OpenOrder, Orders>,
    pub(super) bytes: u64,
    /// When the newest backup was made, and how many entries it has.
    pub(super) backup: Option<(Timestamp, u64)>,
}

/// What was read last, and what rates are made of.
pub(super) struct Stored {
    newest: Arc<Live<Read>>,
    reading: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    rates: OrderRates,
    files: Option<Instant>,
}

impl Default for Stored {
    fn default() -> Self {
        let orders = Listed { listed: Vec::new(), left_out: 0, others: Orders::default() };
        let newest = Live::new(Arc::new(Read { orders, bytes: 0, backup: None }));
        Stored { newest, reading: Mutex::default() }
    }
}

impl Stored {
    pub(super) fn get(&self) -> Arc<Read> {
        self.newest.get()
    }

    /// Reads all; gives the pause until it is to be read again. What cannot be read stays as it was.
    pub(super) fn read(&self, sources: &Sources) -> Duration {
        let begun = Instant::now();
        let mut reading = self.reading.lock();
        let mut read = Read::clone(&self.get());
        match reading.rates.read(&*sources.records, Timestamp::now(), begun) {
            Ok(orders) => read.orders = orders,
            // Readiness says so, and the log.
            Err(error) => tracing::debug!(%error, "the orders could not be read for the status"),
        }
        if reading.files.is_none_or(|looked| begun.duration_since(looked) >= FILES) {
            reading.files = Some(begun);
            read.bytes = sources.measured.bytes();
            read.backup = sources.measured.newest_backup();
        }
        self.newest.set(Arc::new(read));
        (begun.elapsed() * SHARE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }
}
