//! How slowly a connection may take its answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// How many octets of an answer a connection must take in each time limit of the port.
pub(super) const LEAST_TAKEN: u64 = 64 * 1024;

/// How little a connection may take of its answer: an answer that is sent for as long as the client listens is small.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<AtomicBool>);

impl Patience {
    /// The answer goes on for ever, and there is little of it at a time.
    pub(super) fn take_little(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// How many octets it must take in each time limit of the port.
    pub(super) fn least(&self) -> u64 {
        if self.0.load(Ordering::Relaxed) { 1 } else { LEAST_TAKEN }
    }
}
