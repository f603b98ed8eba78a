//! Whether a file is still the one that was written before.

use std::{fs::File, io, os::unix::fs::MetadataExt, path::Path};

/// Why the newest file is not the one that was written before.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotOwn {
    /// Its name is gone.
    #[error("it was removed")]
    Removed,
    /// Somebody else wrote it, or put another file in its place.
    #[error("{0}")]
    Changed(String),
    /// The disk does not tell.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Checks that the file is still the one with this name, and ends where this process has written up to: a daemon that
/// writes on after its file was replaced, or beside another one, hands out what is lost.
pub(super) fn check(file: &File, path: &Path, end: u32) -> Result<(), NotOwn> {
    let own = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (own.dev(), own.ino()) => {}
        Ok(_) => return Err(NotOwn::Changed("another file has its name".into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NotOwn::Removed),
        Err(error) => return Err(error.into()),
    }
    match own.len() == u64::from(end) {
        true => Ok(()),
        false => Err(NotOwn::Changed(format!("it has {} bytes, and this process wrote {end}", own.len()))),
    }
}
