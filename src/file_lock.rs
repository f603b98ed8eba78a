//! Locks of files against other processes.

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    thread,
    time::Duration,
};

/// How often, and after which pause, a lock is tried: a process that ends may hold it for a moment longer, as may its
/// child on the way to another program.
const LOCK_ATTEMPTS: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Locks a file (flock(2)); false if another process has it locked.
///
/// # Errors
/// The system cannot lock it.
pub(crate) fn lock_file(file: &File) -> io::Result<bool> {
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(false)
}

/// The process that holds the lock of a file, if the system reveals it without doubt.
pub(crate) fn lock_holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let here = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // 1: FLOCK  ADVISORY  WRITE 4711 08:01:131200 0 EOF
    let held = locks.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = fields[..] else { return None };
        let (_, its_inode) = place.rsplit_once(':')?;
        // A process of another namespace has no number here.
        (its_inode == inode.to_string()).then_some((place.to_owned(), pid.parse().ok().filter(|pid| *pid > 0)?))
    });
    let held: Vec<(String, u32)> = held.collect();
    match &held[..] {
        // Some file systems have another number here than in the metadata.
        [(_, pid)] => Some(*pid),
        several => several.iter().find(|(place, _)| *place == here).map(|(_, pid)| *pid),
    }
}
