//! A copy with batches that were read and never acknowledged: a server whose main process was killed shows for a moment what no
//! standby has, and its successor has something else. Such a copy is put aside when its daemon starts again, and the ledger is read
//! from the database.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::durable::{self, Access};

/// In the data folder, from the moment when that is found until the copy is put aside.
const FILE: &str = "unacknowledged";

/// What the copy's journal is called then, in the data folder, with a number from 1 on behind it.
const ASIDE: &str = "journal.unacknowledged";

/// Has the next start put the copy in this folder aside.
///
/// # Errors
/// An I/O error.
pub(super) fn note(folder: &Path) -> io::Result<()> {
    durable::write(&folder.join(FILE), b"the copy is put aside at the next start\n", Access::Owner)
}

/// Puts the copy in this folder aside if that was noted; gives where its journal is then.
///
/// # Errors
/// An I/O error.
#[expect(clippy::disallowed_methods, reason = "the journal's files are synced, and the folder is below")]
pub(super) fn put_aside(folder: &Path) -> io::Result<Option<PathBuf>> {
    let noted = folder.join(FILE);
    if !noted.exists() {
        return Ok(None);
    }
    let journal = folder.join("journal");
    let aside_as = |number: u32| folder.join(format!("{ASIDE}.{number}"));
    let newest = (1..).take_while(|number| aside_as(*number).exists()).last().unwrap_or(0);
    let mut aside = aside_as(newest.max(1));
    // Whatever a crash interrupted goes on; an empty folder in the journal's place is what came after it was put aside.
    if journal.exists() && fs::read_dir(&journal)?.next().is_some() {
        aside = aside_as(newest + 1);
        fs::rename(&journal, &aside)?;
        durable::create_folder(&journal)?;
    }
    match fs::remove_dir_all(folder.join("index")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    durable::sync_folder(folder)?;
    fs::remove_file(&noted)?;
    durable::sync_folder(folder)?;
    Ok(Some(aside))
}
