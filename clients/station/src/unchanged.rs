//! A folder that is looked at again and again: which of its files somebody may still be writing.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    path::Path,
    time::{Instant, SystemTime},
};

/// Size and time of the last change of a file: what changes while somebody writes it.
type Look = (u64, SystemTime);

/// A file of the folder.
pub(crate) struct Known {
    look: Look,
    /// Since when it is unchanged.
    pub(crate) since: Instant,
    /// The daemon was asked, as it looks now.
    pub(crate) taken: bool,
}

/// What one look at the folder found.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) files: HashMap<OsString, Look>,
    /// Entries that have the name of a wanted file and are not files, each with what it is.
    pub(crate) others: HashMap<OsString, String>,
}

/// An entry that cannot be examined does not keep the others from being found.
pub(crate) fn look(folder: &Path, is_wanted: impl Fn(&fs::DirEntry) -> bool) -> io::Result<Found> {
    let mut found = Found::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !is_wanted(&entry) {
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
pub(crate) fn settled(known: &mut HashMap<OsString, Known>, now: HashMap<OsString, Look>) -> Vec<OsString> {
    let mut names = Vec::new();
    let mut next = HashMap::with_capacity(now.len());
    for (name, look) in now {
        let file = match known.remove(&name) {
            Some(file) if file.look == look => {
                names.push(name.clone());
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
