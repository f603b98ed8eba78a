//! The file of a run: parts of it are read, and checked.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::format::{Part, Sums};
use crate::ledger::index::error::IndexError;

#[derive(Debug)]
pub(super) struct RunFile {
    path: PathBuf,
    file: File,
    sums: Sums,
}

impl RunFile {
    pub(super) fn open(path: PathBuf, sums: Sums) -> Result<RunFile, IndexError> {
        match File::open(&path) {
            Ok(file) => Ok(RunFile { path, file, sums }),
            Err(cause) => Err(unreadable(&path, cause)),
        }
    }

    pub(super) fn length(&self) -> Result<u64, IndexError> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|cause| unreadable(&self.path, cause))
    }

    pub(super) fn damaged(&self, what: &str) -> IndexError {
        IndexError::Damaged { path: self.path.display().to_string(), what: what.to_owned() }
    }

    /// Fills `bytes` with a part, and checks it.
    pub(super) fn read_part(&self, part: Part, place: u64, offset: u64, bytes: &mut [u8]) -> Result<(), IndexError> {
        self.read_at(offset, bytes)?;
        if self.fits(part, place, bytes) {
            Ok(())
        } else {
            Err(self.damaged(&format!("the checksum at byte {offset} does not fit")))
        }
    }

    /// Whether a part that was read ends with its checksum.
    pub(super) fn fits(&self, part: Part, place: u64, bytes: &[u8]) -> bool {
        self.sums.fit(part, place, bytes)
    }

    pub(super) fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), IndexError> {
        self.file.read_exact_at(bytes, offset).map_err(|cause| unreadable(&self.path, cause))
    }
}

fn unreadable(path: &Path, cause: io::Error) -> IndexError {
    IndexError::Read { path: path.display().to_string(), cause }
}
