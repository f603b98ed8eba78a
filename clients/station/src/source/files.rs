//! Files that hold one CSR each: which they are, and reading them.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use birthmark_base::text_file::{self, TextError};

use super::decode::LONGEST_TEXT;
use crate::input::extension;

/// The beginning of a file that is named as CSRs are; one byte more than the longest CSR's.
pub(super) fn read_csr_file(path: &Path) -> Result<Vec<u8>, TextError> {
    text_file::open_regular(path).and_then(read_beginning)
}

/// As [`read_csr_file`], of a file or pipe that is open.
pub(super) fn read_beginning(file: File) -> Result<Vec<u8>, TextError> {
    let mut content = Vec::new();
    file.take(LONGEST_TEXT as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// Whether the entry is a file (or a link to one) that is named as CSRs are.
pub(super) fn is_csr_file(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    // Half-written files of other programs begin with a dot.
    !name.as_encoded_bytes().starts_with(b".")
        && extension(Path::new(&name)).is_some_and(|name| ["csr", "pem", "der", "p10", "req"].contains(&name.as_str()))
        && entry.file_type().is_ok_and(|kind| !kind.is_dir())
}
