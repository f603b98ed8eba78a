//! Reading files of the journal.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::error::JournalError;

pub(super) fn folder_error(folder: &Path) -> impl Fn(io::Error) -> JournalError + '_ {
    move |cause| JournalError::io(folder, cause)
}

/// Reads `length` bytes of `file` at `offset`; short only at the end of the file.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The whole content of a file.
pub(super) fn read_whole(file: &File, path: &Path) -> Result<Vec<u8>, JournalError> {
    let read = || -> io::Result<Vec<u8>> {
        let length = file.metadata()?.len();
        let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut content = vec![0; length];
        let read = read_up_to(file, &mut content, 0)?;
        content.truncate(read);
        Ok(content)
    };
    read().map_err(|error| JournalError::io(path, error))
}
