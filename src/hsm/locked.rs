//! Memory that is never written to swap space.

#![expect(unsafe_code, reason = "the memory to lock is named by its address")]

use std::io;

/// Locks the pages that hold these octets into memory. They stay locked as long as the process lives: another secret may be on the
/// same page, and there are few.
///
/// # Errors
/// What the kernel says, most often that RLIMIT_MEMLOCK is reached.
pub(super) fn lock(octets: &[u8]) -> io::Result<()> {
    if octets.is_empty() {
        return Ok(());
    }
    // SAFETY: mlock reads and writes none of it, and fails if these addresses are not the process' (mlock(2)).
    unsafe { rustix::mm::mlock(octets.as_ptr().cast_mut().cast(), octets.len()) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    #[test]
    fn locked_memory_is_counted_by_the_kernel() {
        let secret = vec![7_u8; 3 << 12];
        lock(&secret).unwrap();
        assert!(locked_kib() >= 12, "{}", locked_kib());
        lock(&[]).unwrap();
    }
}
