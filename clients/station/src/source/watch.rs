//! A folder that is watched: which file is whole, and which waits.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    io,
    path::Path,
    thread,
    time::Duration,
};

use birthmark_base::text_file::TextError;

use super::{
    decode,
    files::{is_csr_file, read_csr_file},
    reader::{Ended, Reader},
};
use crate::{
    archive::Archive,
    hold::Gate,
    unchanged::{Known, look, settled},
};

/// Looks at the folder every `poll`, since notifications do not reach across network shares, and takes a file
/// once two looks found it unchanged: until then somebody may still be writing it. One that is not whole or cannot
/// be read is final only after it was unchanged for `settle`. No entry of the folder ends the watch.
pub(super) fn watch(
    reader: &mut Reader,
    folder: &Path,
    poll: Duration,
    settle: Duration,
    keep_days: u16,
) -> Result<(), Ended> {
    let mut archive = Archive::new(folder, reader.places.folder(), keep_days);
    let mut known = HashMap::new();
    let mut readable = true;
    let mut told = HashSet::new();
    loop {
        for fault in archive.turn(jiff::ZonedDateTime::now().date()) {
            reader.progress.say(&fault);
        }
        match look(folder, is_csr_file) {
            Ok(found) => {
                if !readable {
                    reader.progress.say(&format!("{} can be read again", folder.display()));
                    readable = true;
                }
                told.retain(|name| found.others.contains_key(name));
                for (name, what) in found.others {
                    if told.insert(name.clone()) {
                        reader.progress.say(&format!("{} is left alone: {what}", folder.join(name).display()));
                    }
                }
                let unchanged = settled(&mut known, found.files);
                let there = |path: &Path| path.file_name().is_some_and(|name| known.contains_key(name));
                reader.places.holds().retain(there);
                take(reader, folder, unchanged, &mut known, settle)?;
            }
            Err(error) => {
                // A network share that is gone comes back.
                if readable {
                    reader.progress.say(&format!("cannot read {}: {error}; will keep trying", folder.display()));
                    readable = false;
                }
            }
        }
        if reader.items.is_closed() {
            return Err(Ended::Unwanted);
        }
        thread::sleep(poll);
    }
}

/// Takes those of the unchanged files that are whole, and that nothing holds back.
fn take(
    reader: &mut Reader,
    folder: &Path,
    unchanged: Vec<OsString>,
    known: &mut HashMap<OsString, Known>,
    settle: Duration,
) -> Result<(), Ended> {
    for name in unchanged {
        let path = folder.join(&name);
        let Some(file) = known.get_mut(&name) else { continue };
        let holds = reader.places.holds();
        // A file that is held is asked for again when its time has come.
        if file.taken && !holds.is_due(&path) {
            continue;
        }
        let content = read_csr_file(&path);
        let unfinished = match &content {
            Ok(content) => decode::is_unfinished(content),
            Err(TextError::Io(error)) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => true,
        };
        if unfinished && file.since.elapsed() < settle {
            continue;
        }
        if holds.gate(&path) == Gate::Closed {
            return Ok(());
        }
        file.taken = true;
        reader.file(path, content)?;
    }
    Ok(())
}
