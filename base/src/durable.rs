//! Files that are either there, whole and on stable storage, or not there at all.
//!
//! What a file is written with, and why:
//!
//! | step | without it |
//! |---|---|
//! | write a temporary file in the same folder | a crash leaves half of the content under the name |
//! | `fsync` of the file, before its name | the name may reach the disk before the content: an empty file |
//! | `rename`, or `link` where nothing may be replaced | readers see half of the content |
//! | `fsync` of the folder | the name is lost |
//!
//! fsync(2): it "does not necessarily ensure that the entry in the directory containing the file has also reached
//! disk". That file systems order none of these by themselves is measured in Pillai et al., "All File Systems Are Not
//! Created Equal: On the Complexity of Crafting Crash-Consistent Applications", OSDI 2014. ext4 writes the content
//! before a rename over an existing name (mount option `auto_da_alloc`), which covers one case of the second step
//! only.
//!
//! A failed `fsync` is never tried again: Linux marks the pages clean, so that a second call succeeds although the
//! content is not on the disk (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
//! Here the file is then removed and the error returned; the journal ends the process.
//!
//! On Windows the steps are the same but the last: no call syncs a folder there, and NTFS writes changes of names through
//! its own log. Who may read a file follows from the folder that it is in, not from [`Access`]: keys belong into a folder
//! of their user.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::temporary;

/// What a new file's permission bits are (before the umask).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone may read it: certificates, exports, records.
    Public,
    /// Only the owner may read it: keys, PINs.
    Owner,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Access::Public => 0o644,
            Access::Owner => 0o600,
        }
    }
}

/// Creates or replaces `path` so that after any crash it holds either its old or its new content: writes a
/// temporary file beside it, syncs it, renames it, syncs the folder.
///
/// # Errors
/// Any I/O error; `path` then holds its old content, or the new one if only the folder could not be synced.
#[expect(clippy::disallowed_methods, reason = "the one place that renames, between the two fsyncs")]
pub fn write(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let (temporary, _locked) = write_temporary(path, content, access)?;
    fs::rename(&temporary, path).inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    sync_folder_of(path)
}

/// As [`write()`], but fails with [`io::ErrorKind::AlreadyExists`] if `path` exists.
///
/// # Errors
/// Any I/O error; no file is left behind.
pub fn write_new(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let (temporary, _locked) = write_temporary(path, content, access)?;
    // `link` refuses an existing name, `rename` does not.
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    linked?;
    sync_folder_of(path)
}

/// A file that is written piece by piece, and appears under its name only when all of it is on stable storage.
#[derive(Debug)]
pub struct Unfinished {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl Unfinished {
    /// Begins a temporary file beside `path`.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn create(path: &Path, access: Access) -> io::Result<Self> {
        let (temporary, file) = temporary::create(path, access.mode())?;
        Ok(Unfinished { path: path.to_owned(), temporary, file })
    }

    /// The temporary file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Syncs it and gives it its name, in place of any file that has it; after a crash the name has the old content or
    /// all of the new.
    ///
    /// # Errors
    /// Any I/O error; the name is then as it was.
    #[expect(clippy::disallowed_methods, reason = "renames between the two fsyncs")]
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        sync_folder_of(&self.path)
    }

    /// As [`Unfinished::finish`], but fails with [`io::ErrorKind::AlreadyExists`] if another file has the name.
    ///
    /// # Errors
    /// Any I/O error; the name is then as it was.
    pub fn finish_new(self) -> io::Result<()> {
        self.file.sync_all()?;
        rename_new(&self.temporary, &self.path)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once it is finished there is nothing under this name.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Gives a file or folder that is on stable storage its name, unless something has it, and makes the name durable.
///
/// # Errors
/// Any I/O error; [`io::ErrorKind::AlreadyExists`] if something has the name.
#[cfg(target_os = "linux")]
#[expect(clippy::disallowed_methods, reason = "the content is synced before, the folder after")]
pub fn rename_new(temporary: &Path, path: &Path) -> io::Result<()> {
    use rustix::{
        fs::{CWD, RenameFlags},
        io::Errno,
    };
    match rustix::fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        // Not every network file system knows the flag, and memory sticks know no links.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if path.symlink_metadata().is_ok() => {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::rename(temporary, path)?,
        renamed => renamed?,
    }
    sync_folder_of(path)
}

/// As on Linux, but of two that do it at the same time one may replace what the other has made: no portable call refuses
/// a name that is taken.
///
/// # Errors
/// Any I/O error; [`io::ErrorKind::AlreadyExists`] if something has the name.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "the content is synced before, the folder after")]
pub fn rename_new(temporary: &Path, path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(temporary, path)?;
    sync_folder_of(path)
}

/// What is added to the name of a file that is to take the place of another one.
const STAGED: &str = "new";

/// Where the next file of this name is put, until [`take_staged`].
pub fn staged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(STAGED);
    name.into()
}

/// Puts staged files in the place of those of a folder, one after the other, if the last of them is there: that is staged when
/// all are, so whoever finds it after a crash goes on. Whether it did.
///
/// # Errors
/// Any I/O error.
#[expect(clippy::disallowed_methods, reason = "the content is synced before, the folder after each")]
pub fn take_staged(folder: &Path, names: &[&str]) -> io::Result<bool> {
    let paths: Vec<_> = names.iter().map(|name| folder.join(name)).collect();
    if !paths.last().is_some_and(|last| staged(last).exists()) {
        return Ok(false);
    }
    for path in &paths {
        match fs::rename(staged(path), path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => sync_folder(folder)?,
        }
    }
    Ok(true)
}

/// Makes the folder's entries (files created, renamed or removed in it) durable.
///
/// # Errors
/// Any I/O error.
#[cfg(unix)]
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Windows syncs no folders (see the module).
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Syncs all files that were written into a folder: one syncfs(2) is far faster than an fsync(2) for each.
///
/// # Errors
/// Any I/O error.
#[cfg(target_os = "linux")]
pub fn sync_files(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

/// Syncs the files of a folder, one after another.
///
/// # Errors
/// Any I/O error.
#[cfg(not(target_os = "linux"))]
pub fn sync_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::OpenOptions::new().write(true).open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}

/// Creates the folder and those above it that are missing, and makes them durable; also those that a process before
/// created and did not come to sync.
///
/// # Errors
/// Any I/O error.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for folder in folder.canonicalize()?.ancestors() {
        match sync_folder(folder) {
            // Where this process may not even look, or nobody can write, it created nothing.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::InvalidInput
                ) => {}
            synced => synced?,
        }
    }
    Ok(())
}

fn write_temporary(path: &Path, content: &[u8], access: Access) -> io::Result<(PathBuf, File)> {
    let (temporary, mut file) = temporary::create(path, access.mode())?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    Ok((temporary, file))
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync_folder(folder),
        _ => sync_folder(Path::new(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new file never replaces an old one and leaves nothing behind.
    #[test]
    fn new_file_never_replaces_one_and_leaves_no_temporary() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("key.pem");
        write_new(&path, b"first", Access::Owner)?;
        let again = write_new(&path, b"second", Access::Owner).map_err(|e| e.kind());
        assert_eq!(again, Err(io::ErrorKind::AlreadyExists));
        assert_eq!(fs::read(&path)?, b"first");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        }
        write(&path, b"third", Access::Owner)?;
        assert_eq!(fs::read(&path)?, b"third");
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }
}
