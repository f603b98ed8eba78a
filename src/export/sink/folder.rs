//! A bundle as a folder, which appears whole and on stable storage, or not at all.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    super::manifest::is_file_name,
    interface::{Sink, SinkError},
};
use crate::{durable, temporary};

/// Writes a bundle's files below a temporary folder beside `path`. Dropped before [`FolderSink::finish`], it is gone; what
/// `kill -9` leaves, the next bundle into the same folder removes.
#[derive(Debug)]
pub struct FolderSink {
    path: PathBuf,
    temporary: PathBuf,
    /// Its lock says that somebody is writing here.
    _lock: File,
    file: Option<(PathBuf, File)>,
    folders: BTreeSet<PathBuf>,
}

impl FolderSink {
    /// For the folder `path`, which must not exist; the one above it is created.
    ///
    /// # Errors
    /// [`SinkError`].
    pub fn create(path: &Path) -> Result<Self, SinkError> {
        if path.symlink_metadata().is_ok() {
            return Err(SinkError::Exists(path.to_owned()));
        }
        let failed = |cause| SinkError::File { path: path.to_owned(), cause };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            durable::create_folder(parent).map_err(failed)?;
        }
        let (temporary, lock) = temporary::create_folder(path).map_err(failed)?;
        let folders = BTreeSet::from([temporary.clone()]);
        Ok(FolderSink { path: path.to_owned(), temporary, _lock: lock, file: None, folders })
    }

    /// Makes all of it durable and gives the folder its name.
    ///
    /// # Errors
    /// [`SinkError`]; then there is no folder.
    pub fn finish(mut self) -> Result<PathBuf, SinkError> {
        self.close()?;
        // From the innermost outwards.
        for folder in self.folders.iter().rev() {
            durable::sync_folder(folder).map_err(|cause| SinkError::File { path: folder.clone(), cause })?;
        }
        durable::rename_new(&self.temporary, &self.path).map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => SinkError::Exists(self.path.clone()),
            _ => SinkError::File { path: self.path.clone(), cause },
        })?;
        Ok(self.path.clone())
    }

    fn close(&mut self) -> Result<(), SinkError> {
        match self.file.take() {
            Some((path, file)) => file.sync_all().map_err(|cause| SinkError::File { path, cause }),
            None => Ok(()),
        }
    }
}

impl Sink for FolderSink {
    fn start(&mut self, name: &str) -> Result<(), SinkError> {
        self.close()?;
        if !is_file_name(name) {
            return Err(SinkError::Name(name.to_owned()));
        }
        let path = self.temporary.join(name);
        let failed = |cause| SinkError::File { path: self.path.join(name), cause };
        let parent = path.parent().unwrap_or(&self.temporary).to_owned();
        if !self.folders.contains(&parent) {
            fs::create_dir_all(&parent).map_err(failed)?;
            // All that are between.
            let between = parent.ancestors().take_while(|folder| *folder != self.temporary);
            self.folders.extend(between.map(Path::to_owned));
        }
        let file = File::options().write(true).create_new(true).open(&path).map_err(failed)?;
        self.file = Some((self.path.join(name), file));
        Ok(())
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), SinkError> {
        match &mut self.file {
            Some((path, file)) => file.write_all(octets).map_err(|cause| SinkError::File { path: path.clone(), cause }),
            None => Err(SinkError::File { path: self.path.clone(), cause: io::ErrorKind::InvalidInput.into() }),
        }
    }
}

impl Drop for FolderSink {
    fn drop(&mut self) {
        // Once it has its name there is nothing under this one.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}
