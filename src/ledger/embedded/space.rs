//! The room on the data folder's file system.

use std::path::PathBuf;

use crate::ledger::{LedgerError, Refusal};

/// How much room there must be.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) folder: PathBuf,
    pub(super) min_free: u64,
}

impl Space {
    /// sled does not recover from a write that found the disk full, so it is not let near that.
    pub(super) fn must_hold(&self, bytes: u64) -> Result<(), LedgerError> {
        let room = rustix::fs::statvfs(&self.folder).map_err(|error| LedgerError::Write(error.into()))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        let needed = bytes.saturating_add(self.min_free / 4);
        if free > needed { Ok(()) } else { Err(LedgerError::NoRoom { free, needed }) }
    }

    /// What is in the way of new reservations, if anything is.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        // A file system that does not tell refuses writes by itself when it is full.
        let room = rustix::fs::statvfs(&self.folder).ok()?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        (free < self.min_free).then_some(Refusal::StorageLow { free, min_free: self.min_free })
    }
}
