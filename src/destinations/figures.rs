//! What waits for each destination, as it was counted last.

use std::collections::BTreeMap;

use jiff::Timestamp;
use parking_lot::Mutex;

/// What waits for each destination, by its name.
#[derive(Debug, Default)]
pub(crate) struct Figures(Mutex<BTreeMap<String, Counted>>);

/// What waits for a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Certificates that wait for the next batch.
    pub(crate) certificates: u64,
    /// Since when the oldest of them does.
    pub(crate) oldest: Option<Timestamp>,
    /// Withdrawals that wait for the next batch.
    pub(crate) withdrawals: u64,
    /// Live certificates that batches left out, or the platform refused.
    pub(crate) unfit: usize,
    /// Batches that are not acknowledged.
    pub(crate) unacknowledged: u32,
    /// When the oldest of them was cut.
    pub(crate) oldest_unacknowledged: Option<Timestamp>,
    /// Why no batch is cut or written, if the daemon should.
    pub(crate) held: Option<String>,
}

impl Figures {
    /// What is known.
    pub(crate) fn get(&self) -> BTreeMap<String, Counted> {
        self.0.lock().clone()
    }

    /// It was counted again; what holds the destination stays as it is.
    pub(super) fn count(&self, destination: &str, counted: Counted) {
        let mut all = self.0.lock();
        let before = all.entry(destination.to_owned()).or_default();
        *before = Counted { held: before.held.take(), ..counted };
    }

    /// Batches are not cut or written for this reason, or are.
    pub(super) fn hold(&self, destination: &str, held: Option<String>) {
        self.0.lock().entry(destination.to_owned()).or_default().held = held;
    }
}
