//! How far events are published: a file that is whole after any crash.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::error::EventsError;
use crate::{
    durable::{self, Access},
    file_lock::lock_file,
};

/// The longest file that is read.
const LONGEST: u64 = 4096;

/// The form of the file.
const FORM: u32 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Content {
    form: u32,
    after: u64,
}

/// How far events are published. Held by one process at a time.
#[derive(Debug)]
pub(super) struct Cursor {
    path: PathBuf,
    /// The newest that is on stable storage.
    written: u64,
    _locked: File,
}

impl Cursor {
    /// Opens the cursor; `after` is where a new one begins.
    pub(super) fn open(path: &Path, after: u64) -> Result<Cursor, EventsError> {
        let file = |source| EventsError::NotWritten { path: path.to_owned(), source };
        let lock = PathBuf::from(format!("{}.lock", path.display()));
        let locked = File::options().create(true).append(true).open(&lock).map_err(file)?;
        if !lock_file(&locked).map_err(file)? {
            return Err(EventsError::InUse(path.to_owned()));
        }
        let written = match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => after,
            Ok(metadata) if metadata.len() > LONGEST => return Err(EventsError::Cursor(path.to_owned())),
            _ => read(path)?,
        };
        Ok(Cursor { path: path.to_owned(), written, _locked: locked })
    }

    /// The sequence number of the last event that is published for certain.
    pub(super) fn after(&self) -> u64 {
        self.written
    }

    /// Writes it, if it has gone on.
    pub(super) fn write(&mut self, after: u64) -> Result<(), EventsError> {
        if after == self.written {
            return Ok(());
        }
        let content = serde_json::to_vec(&Content { form: FORM, after }).unwrap_or_default();
        durable::write(&self.path, &content, Access::Public)
            .map_err(|source| EventsError::NotWritten { path: self.path.clone(), source })?;
        self.written = after;
        Ok(())
    }
}

fn read(path: &Path) -> Result<u64, EventsError> {
    let octets =
        fs::read(path).map_err(|error| EventsError::File { path: path.to_owned(), cause: error.to_string() })?;
    match serde_json::from_slice(&octets) {
        Ok(Content { form: FORM, after }) => Ok(after),
        _ => Err(EventsError::Cursor(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is one process's, goes on where it was, and is never guessed from what is no cursor.
    #[test]
    fn cursor_goes_on_and_is_held_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cursor");
        let mut cursor = Cursor::open(&path, 7).unwrap();
        assert!(matches!(Cursor::open(&path, 0), Err(EventsError::InUse(_))));
        assert_eq!(cursor.after(), 7);
        cursor.write(9).unwrap();
        drop(cursor);
        assert_eq!(Cursor::open(&path, 7).unwrap().after(), 9);
        for damaged in ["", "9", "{\"form\":2,\"after\":3}", "{\"form\":1"] {
            durable::write(&path, damaged.as_bytes(), Access::Public).unwrap();
            assert!(matches!(Cursor::open(&path, 0), Err(EventsError::Cursor(_))), "{damaged}");
        }
    }
}
