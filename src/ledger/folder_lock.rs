//! One daemon at a time uses a data folder, and only its user reads it.
//!
//! Locked are the journal's folder and its newest file, because these are what two daemons must not share: a lock file
//! beside them can be removed, or the journal be reached on another path. `DATA/lock` is locked as well, since that is
//! where birthmark 0.1 looks.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::error::LedgerError;
use crate::{
    durable,
    file_lock::{lock_file, lock_holder},
};

/// The locks of a data folder; the kernel frees them however the process ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _files: [File; 2],
}

impl FolderLock {
    /// Makes the folders that are missing, and locks them.
    pub(super) fn take(folder: &Path) -> Result<FolderLock, LedgerError> {
        let unusable = |cause: io::Error| LedgerError::Folder { folder: folder.display().to_string(), cause };
        let journal = folder.join("journal");
        durable::create_folder(&journal).map_err(unusable)?;
        tighten(folder);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(folder.join("lock"));
        let lock = lock.map_err(unusable)?;
        let journal = File::open(journal).map_err(unusable)?;
        for file in [&lock, &journal] {
            if !lock_file(file).map_err(unusable)? {
                let pid = lock_holder(file);
                return Err(LedgerError::Locked { folder: folder.display().to_string(), pid });
            }
        }
        Ok(FolderLock { _files: [lock, journal] })
    }
}

/// Restricts the ledger's files to their owner (mode 600, folders 700): older versions
/// let others read it, and whoever can open a file can lock it. What is not the ledger's is left alone.
pub(super) fn tighten(folder: &Path) {
    let tightened = close(folder).and_then(|()| {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if ["lock", "checkpoint", "journal", "place", "index", "shared"].iter().any(|ours| name.starts_with(ours)) {
                close_all(&entry.path())?;
            }
        }
        Ok(())
    });
    if let Err(error) = tightened {
        tracing::warn!(folder = %folder.display(), %error, "the data folder cannot be closed to other users");
    }
}

fn close_all(path: &Path) -> io::Result<()> {
    close(path)?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            close_all(&entry?.path())?;
        }
    }
    Ok(())
}

fn close(path: &Path) -> io::Result<()> {
    let metadata = match path.symlink_metadata() {
        // The index's files come and go.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    let mode = metadata.permissions().mode();
    // A symbolic link has no mode of its own.
    if mode & 0o077 == 0 || metadata.is_symlink() {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode & 0o700))
}
