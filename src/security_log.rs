//! The security log: the events of the log that a security officer reads ([`security::TARGET`]), by themselves, in a file as JSON
//! lines and at a receiver of syslog (RFC 5424).
//!
//! Whoever logs never waits: each sink has a bounded queue and a thread of its own. What does not fit into the queue of a sink that
//! is slow or away is lost to it, counted in a metric, and told in the sink itself when it takes records again.

mod file;
mod record;
mod sink;
mod syslog;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

pub use self::syslog::{Address, AddressError};
use self::{file::LogFile, record::Record, sink::Sink, syslog::Syslog};
use crate::{metrics, security};

/// How many records wait for a sink.
const QUEUE: usize = 4096;

/// How long a sink that failed is left alone, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Where the records go.
#[derive(Clone, Debug)]
pub struct SecurityLog {
    sinks: Arc<Vec<Queue>>,
}

#[derive(Debug)]
struct Queue {
    name: &'static str,
    sender: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

enum Message {
    Record(Arc<Record>),
    /// All before it was written, or given up.
    Flush(SyncSender<()>),
}

impl SecurityLog {
    /// Begins a log in a file, at a receiver, or in both.
    ///
    /// # Errors
    /// The file cannot be opened. A receiver may come later.
    pub fn start(file: Option<&Path>, receiver: Option<Address>) -> io::Result<SecurityLog> {
        let mut sinks = Vec::new();
        if let Some(path) = file {
            sinks.push(Queue::start("file", LogFile::open(path)?)?);
        }
        if let Some(address) = receiver {
            sinks.push(Queue::start("syslog", Syslog::new(address))?);
        }
        Ok(SecurityLog { sinks: Arc::new(sinks) })
    }

    /// Waits until what is in the queues is written, but not for long.
    pub fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for sink in self.sinks.iter() {
            let (done, wait) = sync_channel(1);
            if sink.sender.try_send(Message::Flush(done)).is_ok() {
                // Late or not, the process ends.
                let _ = wait.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for SecurityLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != security::TARGET {
            return;
        }
        let record = Arc::new(Record::of(event));
        for sink in self.sinks.iter() {
            sink.send(Arc::clone(&record));
        }
    }
}

impl Queue {
    fn start(name: &'static str, sink: impl Sink) -> io::Result<Queue> {
        let (sender, records) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { name, sink, lost: Arc::clone(&lost) };
        thread::Builder::new().name(format!("security-{name}")).spawn(move || writer.run(&records))?;
        Ok(Queue { name, sender, lost })
    }

    fn send(&self, record: Arc<Record>) {
        match self.sender.try_send(Message::Record(record)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                metrics::security_records_lost(self.name);
            }
        }
    }
}

/// A sink's thread.
struct Writer<S> {
    name: &'static str,
    sink: S,
    lost: Arc<AtomicU64>,
}

impl<S: Sink> Writer<S> {
    fn run(mut self, records: &Receiver<Message>) {
        // The queue is there as long as the process is.
        while let Ok(message) = records.recv() {
            match message {
                Message::Record(record) => {
                    self.write(&record);
                    let lost = self.lost.swap(0, Ordering::Relaxed);
                    if lost > 0 {
                        self.write(&Record::lost(lost));
                    }
                }
                Message::Flush(done) => drop(done.try_send(())),
            }
        }
    }

    /// Writes a record, however long that takes: those that come meanwhile wait in the queue, or are lost.
    fn write(&mut self, record: &Record) {
        let (mut pause, longest) = PAUSE;
        let mut failing = false;
        loop {
            match self.sink.write(record) {
                Ok(()) => break,
                Err(error) => {
                    if !failing {
                        tracing::error!(sink = self.name, %error, "the security log is not written; it is tried again");
                    }
                    failing = true;
                    thread::sleep(pause);
                    pause = (pause * 2).min(longest);
                }
            }
        }
        if failing {
            tracing::info!(sink = self.name, "the security log is written again");
        }
    }
}

#[cfg(test)]
mod tests;
