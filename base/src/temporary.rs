//! Temporary files and folders: how they are named, and which of them are leftovers of a killed process.
//!
//! A file is written as `.NAME.RANDOM.MACHINE.PROCESS.tmp` beside its destination and renamed when it is whole. `kill -9`
//! leaves it there. The first file that a process writes into a folder removes such leftovers, if both signs agree that
//! their writer is gone: no process of that number runs on this machine, and no process holds the lock (flock(2))
//! that a writer keeps on its file. The number alone is not enough, because containers that share a folder and a host name see
//! different processes; the lock alone is not, because some network file systems have none. Files of other machines are left
//! alone.
//!
//! Windows has no list of processes to look into without calls of its own; there the lock decides alone, which its file
//! systems and shares have.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    process,
    sync::LazyLock,
};

use parking_lot::Mutex;

use crate::text_file;

/// The folders that this process has swept; a process writes into a handful of them.
static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Creates a temporary file beside `path` with these permission bits (before the umask), locked until it is closed.
///
/// # Errors
/// Any I/O error.
pub fn create(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let temporary = name_beside(path)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    // On Windows a new file has the access control list of its folder.
    #[cfg(not(unix))]
    let _ = mode;
    let file = options.open(&temporary)?;
    // Where there are no locks, the process number has to do.
    let _ = file.try_lock();
    Ok((temporary, file))
}

/// Creates a temporary folder beside `path`, locked until the file that comes with it is closed.
///
/// # Errors
/// Any I/O error.
pub fn create_folder(path: &Path) -> io::Result<(PathBuf, File)> {
    let temporary = name_beside(path)?;
    fs::create_dir(&temporary)?;
    let folder = open_folder(&temporary)?;
    let _ = folder.try_lock();
    Ok((temporary, folder))
}

/// Opens a folder, to lock or sync it.
#[cfg(unix)]
fn open_folder(folder: &Path) -> io::Result<File> {
    File::open(folder)
}

/// Opens a folder, to lock it: Windows asks for a flag (FILE_FLAG_BACKUP_SEMANTICS).
#[cfg(windows)]
fn open_folder(folder: &Path) -> io::Result<File> {
    use std::os::windows::fs::OpenOptionsExt;
    OpenOptions::new().read(true).custom_flags(0x0200_0000).open(folder)
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
pub fn ending(process: u32) -> String {
    static MACHINE: LazyLock<String> = LazyLock::new(machine);
    format!(".{}.{process}.tmp", *MACHINE)
}

#[cfg(unix)]
fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn machine() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

/// Whether a process of this number may be running.
#[cfg(unix)]
fn may_run(process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    // What is no process id runs nowhere.
    process.is_some_and(|process| rustix::process::test_kill_process(process) != Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
fn may_run(process: u32) -> bool {
    process == process::id()
}

fn sweep_once(folder: &Path) {
    if SWEPT.lock().insert(folder.to_owned()) {
        sweep(folder);
    }
}

/// Removes what processes of this machine that are gone left in the folder. Leftovers are harmless, so errors are too.
pub fn sweep(folder: &Path) {
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
    process.is_some_and(|process| name.ends_with(&ending(process)) && !may_run(process))
}

fn is_unlocked(path: &Path) -> bool {
    // What cannot be opened, or is neither a regular file nor a folder, is not ours to remove.
    let file = if path.is_dir() { open_folder(path).ok() } else { text_file::open_at_once(path).ok() };
    let file = file.filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file() || metadata.is_dir()));
    file.is_some_and(|file| !matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

    use super::*;

    /// The number of a process that has ended.
    fn ended_process() -> io::Result<u32> {
        let mut listing = process::Command::new(std::env::current_exe()?);
        let mut child = listing.arg("--list").stdout(process::Stdio::null()).spawn()?;
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
