//! A copy with batches that were read and never acknowledged: a server whose main process was killed shows for a moment what no
//! standby has, and its successor has something else. Such a copy is put aside when its daemon starts again, and the ledger is read
//! from the database.

use std::{fs, io, path::Path};

use crate::durable::{self, Access};

/// In the data folder, from the moment when that is found until the copy is put aside.
const FILE: &str = "unacknowledged";

/// What the copy's journal is called then, in the data folder; the one before it is removed.
pub(super) const ASIDE: &str = "journal.unacknowledged";

/// Has the next start put the copy in this folder aside.
///
/// # Errors
/// An I/O error.
pub(super) fn note(folder: &Path) -> io::Result<()> {
    durable::write(&folder.join(FILE), b"the copy is put aside at the next start\n", Access::Owner)
}

/// Puts the copy in this folder aside if that was noted; gives whether it was.
///
/// # Errors
/// An I/O error.
#[expect(clippy::disallowed_methods, reason = "the journal's files are synced, and the folder is below")]
pub(super) fn put_aside(folder: &Path) -> io::Result<bool> {
    let noted = folder.join(FILE);
    if !noted.exists() {
        return Ok(false);
    }
    let (journal, aside) = (folder.join("journal"), folder.join(ASIDE));
    // Whatever a crash interrupted goes on; an empty folder in the journal's place is what came after it was put aside.
    if journal.exists() && fs::read_dir(&journal)?.next().is_some() {
        remove(&aside)?;
        fs::rename(&journal, &aside)?;
        durable::create_folder(&journal)?;
    }
    remove(&folder.join("index"))?;
    durable::sync_folder(folder)?;
    fs::remove_file(&noted)?;
    durable::sync_folder(folder)?;
    Ok(true)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
