//! Files that appear whole or not at all, and never in place of another.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};

use super::error::ExportError;
use crate::{durable, temporary};

/// A file of a batch.
#[derive(Clone, Debug)]
pub struct WrittenFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
}

/// A file that does not have its name yet; dropped before it has, it is gone. What `kill -9` leaves, the next export into
/// the folder removes.
pub(super) struct Staged {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    size: u64,
    sha256: digest::Context,
}

impl Staged {
    pub(super) fn new(path: PathBuf) -> Result<Self, ExportError> {
        if path.symlink_metadata().is_ok() {
            return Err(ExportError::Exists(path));
        }
        let (temporary, file) = temporary::create(&path, 0o644).map_err(|cause| {
            let folder = path.parent().unwrap_or(Path::new("."));
            ExportError::File { path: folder.to_owned(), cause }
        })?;
        let sha256 = digest::Context::new(&digest::SHA256);
        Ok(Staged { path, temporary, file: BufWriter::new(file), size: 0, sha256 })
    }

    pub(super) fn append(&mut self, content: &[u8]) -> Result<(), ExportError> {
        self.size += content.len() as u64;
        self.sha256.update(content);
        self.file.write_all(content).map_err(|cause| ExportError::File { path: self.path.clone(), cause })
    }

    fn publish(mut self) -> Result<WrittenFile, ExportError> {
        let path = self.path.clone();
        let failed = |cause| ExportError::File { path: path.clone(), cause };
        self.file.flush().map_err(failed)?;
        self.file.get_ref().sync_all().map_err(failed)?;
        name(&self.temporary, &path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => ExportError::Exists(path.clone()),
            _ => failed(error),
        })?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.sha256.clone().finish().as_ref());
        Ok(WrittenFile { path, size: self.size, sha256 })
    }
}

/// Gives the file its name, unless another file has it meanwhile.
fn name(temporary: &Path, path: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        // Not every network file system knows the flag; memory sticks know no links.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::hard_link(temporary, path),
        named => Ok(named?),
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Leftovers are harmless.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Gives all files their names, or none.
pub(super) fn publish(staged: impl Iterator<Item = Staged>, folder: &Path) -> Result<Vec<WrittenFile>, ExportError> {
    let mut written: Vec<WrittenFile> = Vec::new();
    for file in staged {
        match file.publish() {
            Ok(file) => written.push(file),
            Err(error) => {
                // Only this call has created them.
                for file in written {
                    let _ = fs::remove_file(file.path);
                }
                return Err(error);
            }
        }
    }
    durable::sync_folder(folder).map_err(|cause| ExportError::File { path: folder.to_owned(), cause })?;
    Ok(written)
}
