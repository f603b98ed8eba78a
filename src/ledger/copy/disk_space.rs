//! The room on the data folder's file system, and whether it is there at all.

use std::{io, path::Path};

use rustix::fs::StatVfsMountFlags;

use crate::ledger::{error::LedgerError, journal::Reader, refusal::Refusal};

/// How much room there must be.
#[derive(Debug)]
pub(in crate::ledger) struct DiskSpace {
    /// Beside it the index lies.
    pub(in crate::ledger) journal: Reader,
    pub(in crate::ledger) min_free: u64,
}

impl DiskSpace {
    /// sled does not recover from a write that found the disk full, so it is not let near that.
    pub(in crate::ledger) fn ensure(&self, bytes: u64) -> Result<(), LedgerError> {
        let room = rustix::fs::statvfs(self.journal.home())
            .map_err(|error| LedgerError::NotWritten(Box::new(io::Error::from(error))))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        let needed = bytes.saturating_add(self.min_free / 4);
        if free > needed { Ok(()) } else { Err(LedgerError::Full { free, needed }) }
    }

    /// How many bytes are free, if the file system says so.
    pub(in crate::ledger) fn free(&self) -> Option<u64> {
        let room = rustix::fs::statvfs(self.journal.home()).ok()?;
        Some(room.f_bavail.saturating_mul(room.f_frsize))
    }

    /// What is in the way of new reservations, if anything is.
    pub(in crate::ledger) fn refusal(&self) -> Option<Refusal> {
        // A file system without this figure refuses writes by itself when it is full.
        let free = self.free()?;
        (free < self.min_free).then_some(Refusal::StorageLow { free, min_free: self.min_free })
    }
}

/// What keeps anybody from writing into a data folder, as far as that shows without a write.
pub(in crate::ledger) fn fault(home: &Path) -> Option<String> {
    let journal = home.join("journal");
    match rustix::fs::statvfs(&journal) {
        Err(error) => {
            let error = io::Error::from(error);
            Some(format!("the journal's folder {} cannot be reached: {error}; is its disk there?", journal.display()))
        }
        Ok(system) if system.f_flag.contains(StatVfsMountFlags::RDONLY) => Some(format!(
            "the file system of {} is mounted read-only, as a system does after errors of the disk; look at the disk",
            journal.display()
        )),
        Ok(_) => None,
    }
}
