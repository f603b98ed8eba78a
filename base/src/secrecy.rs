//! Keeps what is secret in this process' memory (PINs, private keys of stations and TLS) from being written to a disk.

use std::io;

/// From now on this process leaves no core dump, and no other process of the same user may read its memory. Every
/// command calls it first: the PIN is read by `serve`, `ceremony`, `hsm check` and `station enroll`, keys by others.
///
/// RLIMIT_CORE alone would not do: Linux ignores it where `core_pattern` is a pipe, as with systemd-coredump and apport
/// (core(5)); it is what children inherit, whose memory may hold a copy of the environment with the PIN.
/// `PR_SET_DUMPABLE` covers pipes too, and forbids ptrace (PR_SET_DUMPABLE(2const)); MADV_DONTDUMP would cover neither
/// what a PKCS#11 module copies nor what stands on a stack. It makes `/proc/<pid>` root's, but the files that
/// `birthmark bench` and monitors read (`stat`, `status`, `task/<tid>/stat`) stay readable for all.
///
/// # Errors
/// What the kernel says.
#[cfg(unix)]
pub fn forbid_core_dumps() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Windows writes dumps of a program that crashes only where an administrator has asked for them
/// (Windows Error Reporting, LocalDumps), and a program cannot forbid it.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn forbid_core_dumps() -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::process::{DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit};

    #[test]
    fn process_leaves_no_core_dump() {
        forbid_core_dumps().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
    }
}
