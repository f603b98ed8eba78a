//! The files in the index's folder: what is put aside, what is removed, what is made durable.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{mark, run::Run};
use crate::durable;

/// Removes what a crash left of runs that were not yet, or no longer, in the manifest.
pub(super) fn remove_strays(folder: &Path, runs: &[Arc<Run>]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let kept = path.is_dir()
            || path.file_name().is_some_and(|name| name == mark::FILE)
            || runs.iter().any(|run| run.pin.path(folder) == path);
        if !kept {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// sled cannot open a database in which a crash left an unfinished snapshot.
pub(super) fn clear_leftovers(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Where an index that cannot be used is kept for analysis.
pub(crate) fn aside(folder: &Path) -> PathBuf {
    folder.with_extension("unusable")
}

#[expect(clippy::disallowed_methods, reason = "whatever a crash leaves of the names, the index is rebuilt")]
pub(super) fn set_aside(folder: &Path, reason: &str) -> io::Result<()> {
    let aside = aside(folder);
    tracing::warn!(reason, aside = %aside.display(), "the index is set aside and rebuilt from the journal");
    let removed = if aside.is_dir() { fs::remove_dir_all(&aside) } else { fs::remove_file(&aside) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(folder, aside)
}

/// Puts all files of a folder, and their names, on stable storage.
pub(super) fn sync_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_files(&entry.path())?;
        } else {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    durable::sync_folder(folder)
}
