//! Backups: a copy of the journal and its newest checkpoint, made while the daemon runs, and the way back.
//!
//! A backup is a folder that looks like a data folder: `journal verify`, `dump` and `reconcile` take it as one. It holds
//! what was whole when it was made; what came after it is missing, so a ledger that is made of it issues nothing until
//! an operator has said that nothing is missing any more.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    checkpoint::SignedCheckpoint,
    embedded::checkpoint_file,
    error::LedgerError,
    folder_lock::FolderLock,
    journal::{self, Copied, Newest, forget_place},
};
use crate::durable::{self, Access};

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The journal, or its copy.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// There is nothing to copy.
    #[error("{} holds no journal", .0.display())]
    NoJournal(PathBuf),
    /// What is there may have what the backup has not.
    #[error(
        "there is a journal in {}, and it may hold what the backup does not; move the data folder elsewhere, and keep it for \
         \"birthmark journal reconcile\"", .0.display()
    )]
    InTheWay(PathBuf),
    /// A backup into the data folder itself.
    #[error("{} is the data folder itself", .0.display())]
    Itself(PathBuf),
    /// A file that could not be read or written.
    #[error("cannot copy {}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// Brings the backup in `to`, if there is one, up to the ledger in `data`, which a daemon may be using.
///
/// # Errors
/// Damage, a backup of another ledger or of one that had more entries, or an I/O error.
pub fn back_up(data: &Path, to: &Path) -> Result<Copied, BackupError> {
    // The daemon may have gone on with the mirror.
    let from = journal::complete(&data.join("journal"));
    if journal::is_empty(&from).map_err(LedgerError::from)? {
        return Err(BackupError::NoJournal(data.to_owned()));
    }
    let _lock = FolderLock::take(to)?;
    if same_folder(data, to) {
        return Err(BackupError::Itself(to.to_owned()));
    }
    // First, so that the journal has what it covers.
    let checkpoint = read_checkpoint(data)?;
    let copied = journal::copy(&from, &to.join("journal"), Newest::Missing).map_err(LedgerError::from)?;
    forget(to)?;
    if let Some(text) = checkpoint {
        write_checkpoint(to, &text)?;
    }
    Ok(copied)
}

/// Makes a data folder of a backup. The ledger in it issues nothing before an operator has said that it lacks nothing.
///
/// # Errors
/// A journal in `data`, damage in the backup, or an I/O error.
pub fn restore(backup: &Path, data: &Path) -> Result<Copied, BackupError> {
    let from = backup.join("journal");
    if journal::is_empty(&from).map_err(LedgerError::from)? {
        return Err(BackupError::NoJournal(backup.to_owned()));
    }
    if !journal::is_empty(&data.join("journal")).map_err(LedgerError::from)? {
        return Err(BackupError::InTheWay(data.to_owned()));
    }
    let _lock = FolderLock::take(data)?;
    // Before there is a journal that it could be taken for the place of.
    forget(data)?;
    let copied = journal::copy(&from, &data.join("journal"), Newest::Missing).map_err(LedgerError::from)?;
    // One that is there knows more, or another ledger: then it is held against the journal at the start.
    if let Some(text) = read_checkpoint(backup)?
        && !checkpoint_file(data).exists()
    {
        write_checkpoint(data, &text)?;
    }
    Ok(copied)
}

/// The newest checkpoint of a data folder or a backup, if it has one.
pub fn newest_checkpoint(folder: &Path) -> Option<SignedCheckpoint> {
    SignedCheckpoint::read(&checkpoint_file(folder)).ok().flatten()
}

fn same_folder(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn forget(folder: &Path) -> Result<(), BackupError> {
    let journal = folder.join("journal");
    forget_place(&journal).map_err(|cause| BackupError::File { path: journal, cause })
}

fn read_checkpoint(folder: &Path) -> Result<Option<Vec<u8>>, BackupError> {
    let path = checkpoint_file(folder);
    match fs::read(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(BackupError::File { path, cause }),
    }
}

fn write_checkpoint(folder: &Path, text: &[u8]) -> Result<(), BackupError> {
    let path = checkpoint_file(folder);
    durable::write(&path, text, Access::Owner).map_err(|cause| BackupError::File { path, cause })
}
