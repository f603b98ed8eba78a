//! The room on the data folder's file system.

use std::io;

use crate::ledger::{error::LedgerError, journal::Reader, refusal::Refusal};

/// How much room there must be.
#[derive(Debug)]
pub(super) struct DiskSpace {
    /// Beside it the index lies.
    pub(super) journal: Reader,
    pub(super) min_free: u64,
}

impl DiskSpace {
    /// sled does not recover from a write that found the disk full, so it is not let near that.
    pub(super) fn ensure(&self, bytes: u64) -> Result<(), LedgerError> {
        let room = rustix::fs::statvfs(self.journal.home())
            .map_err(|error| LedgerError::NotWritten(Box::new(io::Error::from(error))))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        let needed = bytes.saturating_add(self.min_free / 4);
        if free > needed { Ok(()) } else { Err(LedgerError::Full { free, needed }) }
    }

    /// What is in the way of new reservations, if anything is.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        // A file system without this figure refuses writes by itself when it is full.
        let room = rustix::fs::statvfs(self.journal.home()).ok()?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        (free < self.min_free).then_some(Refusal::StorageLow { free, min_free: self.min_free })
    }
}
