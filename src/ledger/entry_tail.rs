//! The entries of a ledger in their order, as they come.

use std::fmt;

use super::{entry::Entry, error::LedgerError};

type Read = Box<dyn FnMut(usize) -> Result<Vec<(u64, Entry)>, LedgerError> + Send>;

/// Entries in their order, without a gap; what is not there yet comes later.
pub struct EntryTail(Read);

impl EntryTail {
    pub(super) fn new(read: impl FnMut(usize) -> Result<Vec<(u64, Entry)>, LedgerError> + Send + 'static) -> EntryTail {
        EntryTail(Box::new(read))
    }

    /// The next entries with their sequence numbers, this number at most; none if there are no more for now.
    ///
    /// # Errors
    /// Those of the storage.
    pub fn read(&mut self, most: usize) -> Result<Vec<(u64, Entry)>, LedgerError> {
        (self.0)(most)
    }
}

impl fmt::Debug for EntryTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EntryTail")
    }
}
