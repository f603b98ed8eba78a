//! Backups: a copy of the journal and its newest checkpoint, made while the daemon runs, and the way back.
//!
//! A backup is a folder that looks like a data folder: `journal verify`, `dump` and `reconcile` take it as one. It holds
//! what was whole when it was made; what came after it is missing, so a ledger that is made of it issues nothing until
//! an operator has said that nothing is missing any more.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    checkpoint::SignedCheckpoint,
    copy::checkpoint_file,
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
    /// A backup into the data folder.
    #[error(
        "the backup's folder {} is the data folder {} or lies in it, and would be lost with it; name a folder elsewhere, best \
         on another disk", backup.display(), data.display()
    )]
    Within {
        /// The backup's folder.
        backup: PathBuf,
        /// The data folder.
        data: PathBuf,
    },
    /// The backup's folder cannot be used.
    #[error("the backup's folder {} cannot be used: {cause}; it must be a folder that this user may write", backup.display())]
    Unusable {
        /// The folder.
        backup: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
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
/// A backup in the data folder, damage, a backup of another ledger or of one that had more entries, or an I/O error.
pub fn back_up(data: &Path, to: &Path) -> Result<Copied, BackupError> {
    // The daemon may have gone on with the mirror.
    let from = journal::complete(&data.join("journal"));
    if journal::is_empty(&from).map_err(LedgerError::from)? {
        return Err(BackupError::NoJournal(data.to_owned()));
    }
    let unusable = |cause| BackupError::Unusable { backup: to.to_owned(), cause };
    // Before anything is made there.
    if real(to).map_err(unusable)?.starts_with(real(data).map_err(unusable)?) {
        return Err(BackupError::Within { backup: to.to_owned(), data: data.to_owned() });
    }
    let _lock = FolderLock::take(to).map_err(|error| match error {
        LedgerError::Folder { cause, .. } => unusable(cause),
        error => error.into(),
    })?;
    // First, so that the journal has what it covers.
    let checkpoint = read_checkpoint(data)?;
    let copied = journal::copy(&from, &to.join("journal"), Newest::Missing).map_err(LedgerError::from)?;
    forget(to)?;
    if let Some(text) = checkpoint {
        write_checkpoint(to, &text)?;
    }
    note(data, copied.entries)?;
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

/// Where a data folder says when its newest backup was made.
fn mark(data: &Path) -> PathBuf {
    data.join("newest-backup")
}

/// Notes in the data folder that a backup was made, for the status page and the metrics. Everybody who may look into the folder
/// may read it: backups may be made by another user than the daemon's.
fn note(data: &Path, entries: u64) -> Result<(), BackupError> {
    let (path, text) = (mark(data), format!("{} {entries}\n", Timestamp::now()));
    match durable::write(&path, text.as_bytes(), Access::Public) {
        // Of a ledger that can only be read.
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            Ok(())
        }
        written => written.map_err(|cause| BackupError::File { path, cause }),
    }
}

/// When the newest backup of a data folder was made, and how many entries it has.
pub(crate) fn newest(data: &Path) -> Option<(Timestamp, u64)> {
    let text = fs::read_to_string(mark(data)).ok()?;
    let (time, entries) = text.trim_end().split_once(' ')?;
    Some((time.parse().ok()?, entries.parse().ok()?))
}

/// The newest checkpoint of a data folder or a backup, if it has one.
pub fn newest_checkpoint(folder: &Path) -> Option<SignedCheckpoint> {
    SignedCheckpoint::read(&checkpoint_file(folder)).ok().flatten()
}

/// A path without links and dots, as far as it exists; the rest as it will be.
fn real(path: &Path) -> io::Result<PathBuf> {
    let mut real = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::ParentDir => {
                real.pop();
            }
            component => real.push(component),
        }
        if let Ok(found) = real.canonicalize() {
            real = found;
        }
    }
    Ok(real)
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
