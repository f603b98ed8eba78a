//! `DATA/shared`: that the folder holds a copy of a ledger that several daemons share, and which epochs were begun from it. A
//! folder with it is not opened as a ledger of its own: two histories would begin.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    durable::{self, Access},
    text_file,
};

const FILE: &str = "shared";
/// The longest file, in bytes.
const LONGEST: u64 = 1 << 16;

const TITLE: &str = "birthmark shared ledger copy 1";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Marker {
    /// The ledger's id.
    pub(in crate::ledger) ledger: [u8; 16],
    /// The epochs that were begun from this folder and may be open, the newest last.
    pub(in crate::ledger) epochs: Vec<u64>,
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

impl Marker {
    /// Reads the file; none if there is none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::ledger) fn read(folder: &Path) -> Result<Option<Marker>, String> {
        let path = path(folder);
        let text = match text_file::read(&path, LONGEST) {
            Err(text_file::TextError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| format!("{}: {error}", path.display()))?,
        };
        let parse = || {
            let mut lines = text.lines();
            if lines.next()? != TITLE {
                return None;
            }
            let mut ledger = [0; 16];
            hex::decode_to_slice(lines.next()?.strip_prefix("ledger ")?, &mut ledger).ok()?;
            let epochs = lines.next()?.strip_prefix("epochs")?.split_whitespace().map(|epoch| epoch.parse().ok());
            Some(Marker { ledger, epochs: epochs.collect::<Option<_>>()? })
        };
        parse().map(Some).ok_or_else(|| format!("{}: it is not as birthmark writes it", path.display()))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// An I/O error.
    pub(in crate::ledger) fn write(&self, folder: &Path) -> io::Result<()> {
        let epochs: String = self.epochs.iter().map(|epoch| format!(" {epoch}")).collect();
        let text = format!("{TITLE}\nledger {}\nepochs{epochs}\n", hex::encode(self.ledger));
        durable::write(&path(folder), text.as_bytes(), Access::Owner)
    }

    /// From now on the folder holds a ledger of its own.
    ///
    /// # Errors
    /// An I/O error.
    pub(in crate::ledger) fn remove(folder: &Path) -> io::Result<()> {
        match fs::remove_file(path(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => durable::sync_folder(folder),
        }
    }
}
