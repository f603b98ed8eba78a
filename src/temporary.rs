//! Temporary files and folders: how they are named, and which of them are leftovers of a killed process.
//!
//! A file is written as `.NAME.RANDOM.MACHINE.PROCESS.tmp` beside its destination and renamed when it is whole. `kill -9`
//! leaves it there. The first file that a process writes into a folder removes such leftovers, if both signs agree that
//! their writer is gone: no process of that number runs on this machine, and no process holds the lock (flock(2))
//! that a writer keeps on its file. The number alone is not enough, because containers that share a folder and a host name see
//! different processes; the lock alone is not, because some network file systems have none. Files of other machines are left
//! alone.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
    sync::LazyLock,
};

use parking_lot::Mutex;

/// The folders that this process has swept; a process writes into a handful of them.
static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Creates a temporary file beside `path` with these permission bits (before the umask), locked until it is closed.
///
/// # Errors
/// Any I/O error.
pub(crate) fn create(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let temporary = name_beside(path)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    // Where there are no locks, the process number has to do.
    let _ = file.try_lock();
    Ok((temporary, file))
}

/// Creates a temporary folder beside `path`, locked until the file that comes with it is closed.
///
/// # Errors
/// Any I/O error.
pub(crate) fn create_folder(path: &Path) -> io::Result<(PathBuf, File)> {
    let temporary = name_beside(path)?;
    fs::create_dir(&temporary)?;
    let folder = File::open(&temporary)?;
    let _ = folder.try_lock();
    Ok((temporary, folder))
}

fn name_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    sweep_once(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:08x}{}", rand::random::<u32>(), ending(process::id())));
    Ok(path.with_file_name(temporary))
}

/// How the names of the files end that this process of this machine is writing.
pub(crate) fn ending(process: u32) -> String {
    static MACHINE: LazyLock<String> =
        LazyLock::new(|| fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned());
    format!(".{}.{process}.tmp", *MACHINE)
}

fn sweep_once(folder: &Path) {
    if SWEPT.lock().insert(folder.to_owned()) {
        sweep(folder);
    }
}

/// Removes what processes of this machine that are gone left in the folder. Leftovers are harmless, so errors are too.
pub(crate) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(is_of_ended_process) && is_unlocked(&entry.path()) {
            let _ = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
                _ => fs::remove_file(entry.path()),
            };
        }
    }
}

fn is_of_ended_process(name: &str) -> bool {
    let stem = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
    let process = stem.and_then(|stem| stem.rsplit_once('.')?.1.parse::<u32>().ok());
    process.is_some_and(|process| name.ends_with(&ending(process)) && !Path::new(&format!("/proc/{process}")).exists())
}

fn is_unlocked(path: &Path) -> bool {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    // What cannot be opened, or is neither a regular file nor a folder, is not ours to remove.
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).ok();
    let file = file.filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file() || metadata.is_dir()));
    file.is_some_and(|file| !matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

    use super::*;

    /// The number of a process that has ended.
    fn ended_process() -> io::Result<u32> {
        let mut child = process::Command::new("true").spawn()?;
        child.wait()?;
        Ok(child.id())
    }

    /// Only what is surely a leftover of this machine goes: not a file of a running process, of another machine, under a
    /// lock, or that merely looks alike.
    #[test]
    fn first_file_in_a_folder_removes_leftovers_alone() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let gone = ended_process()?;
        let leftover = format!(".a.pem.00c0ffee{}", ending(gone));
        let locked = format!(".b.pem.00c0ffee{}", ending(gone));
        let folder_left = format!(".aws.0001.00c0ffee{}", ending(gone));
        fs::create_dir(folder.path().join(&folder_left))?;
        fs::write(folder.path().join(&folder_left).join("data"), "half")?;
        let kept = [
            locked.clone(),
            format!(".c.pem.00c0ffee{}", ending(process::id())),
            format!(".d.pem.00c0ffee.elsewhere.{gone}.tmp"),
            format!("e.pem.00c0ffee{}", ending(gone)),
            ".export-abc123".to_owned(),
        ];
        for name in kept.iter().chain([&leftover]) {
            fs::write(folder.path().join(name), "half")?;
        }
        let writer = File::open(folder.path().join(&locked))?;
        writer.lock()?;
        let path = folder.path().join("new");
        let (temporary, file) = create(&path, 0o644)?;
        assert!(!folder.path().join(&leftover).exists() && !folder.path().join(&folder_left).exists());
        for name in &kept {
            assert!(folder.path().join(name).exists(), "{name}");
        }
        // A concurrent sweep leaves the file alone that is being written here.
        assert!(!is_unlocked(&temporary));
        drop((file, writer));
        sweep(folder.path());
        assert!(!folder.path().join(&locked).exists());
        Ok(())
    }
}
