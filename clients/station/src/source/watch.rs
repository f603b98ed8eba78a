//! A folder that is watched: which file is whole, and which waits.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use birthmark_base::text_file::TextError;

use super::{
    decode,
    files::{is_csr_file, read_csr_file},
    reader::{Ended, Reader},
};
use crate::hold::Gate;

/// Size and time of the last change of a file: what changes while somebody writes it.
type Look = (u64, SystemTime);

/// A file of the folder.
struct Known {
    look: Look,
    /// Since when it is unchanged.
    since: Instant,
    /// The daemon was asked, as it looks now.
    taken: bool,
}

/// What one look at the folder found.
#[derive(Default)]
struct Found {
    files: HashMap<OsString, Look>,
    /// Entries that are named like CSRs and are not files, each with what it is.
    others: HashMap<OsString, String>,
}

/// Looks at the folder every `poll`, since notifications do not reach across network shares, and takes a file
/// once two looks found it unchanged: until then somebody may still be writing it. One that is not whole or cannot
/// be read is final only after it was unchanged for `settle`. No entry of the folder ends the watch.
pub(super) fn watch(reader: &mut Reader, folder: &Path, poll: Duration, settle: Duration) -> Result<(), Ended> {
    let mut known = HashMap::new();
    let mut readable = true;
    let mut told = HashSet::new();
    loop {
        match look(folder) {
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

/// An entry that cannot be examined does not keep the others from being found.
fn look(folder: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !is_csr_file(&entry) {
            continue;
        }
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => {
                let changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.files.insert(entry.file_name(), (metadata.len(), changed));
            }
            Ok(_) => drop(found.others.insert(entry.file_name(), "it is not a file".to_owned())),
            // It vanished between the two calls, or is a link to nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                    found.others.insert(entry.file_name(), "it is a link to a file that does not exist".to_owned());
                }
            }
            Err(error) => drop(found.others.insert(entry.file_name(), error.to_string())),
        }
    }
    Ok(found)
}

/// The names of the files that did not change since the last look, sorted. `known` remembers the files that are in the
/// folder now.
fn settled(known: &mut HashMap<OsString, Known>, now: HashMap<OsString, Look>) -> Vec<OsString> {
    let mut names = Vec::new();
    let mut next = HashMap::with_capacity(now.len());
    for (name, look) in now {
        let file = match known.remove(&name) {
            Some(file) if file.look == look => {
                // Most tools make an empty file first.
                if look.0 > 0 {
                    names.push(name.clone());
                }
                file
            }
            _ => Known { look, since: Instant::now(), taken: false },
        };
        next.insert(name, file);
    }
    *known = next;
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_stopped_changing_is_taken_once() {
        let look = |files: &[(&str, u64)]| {
            files.iter().map(|(name, size)| (OsString::from(name), (*size, SystemTime::UNIX_EPOCH))).collect()
        };
        let mut known = HashMap::new();
        for (files, expected) in [
            (&[("a", 10), ("b", 0)][..], &[][..]),
            (&[("a", 10), ("b", 5)], &["a"]),
            (&[("a", 10), ("b", 9)], &[]),
            (&[("a", 10), ("b", 9)], &["b"]),
            (&[("a", 10)], &[]),
            // Another one of the same name, later.
            (&[("a", 12), ("b", 9)], &[]),
            (&[("a", 12), ("b", 9)], &["a", "b"]),
        ] {
            let mut names = settled(&mut known, look(files));
            names.retain(|name| known.get_mut(name).is_some_and(|file| !std::mem::replace(&mut file.taken, true)));
            assert_eq!(names, expected.iter().map(OsString::from).collect::<Vec<_>>());
        }
    }
}
