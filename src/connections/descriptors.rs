//! The process' file descriptors, shared out between the ports; some are kept for the HSM and the journal.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many connections each port may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// TLS handshakes under way.
    pub(crate) handshakes: usize,
    /// Connections over TLS.
    pub(crate) tls: usize,
    /// Connections over the Unix socket.
    pub(crate) socket: usize,
    /// Connections to the HTTP port.
    pub(crate) http: usize,
    /// Connections to the EST port.
    pub(crate) est: usize,
}

impl Limits {
    /// Below this the daemon says at the start that it is little.
    pub(crate) const FEW_DESCRIPTORS: usize = 1024;

    /// More connections than this would only cost memory.
    const MOST: usize = 8192;

    /// Shares out `free` descriptors, those that the process may still open when all else of it is open.
    pub(crate) fn new(free: usize) -> Limits {
        let reserve = (free / 4).min(512);
        let small = (free / 16).clamp(4, 256);
        let half = (free.saturating_sub(reserve + 3 * small) / 2).clamp(4, Limits::MOST);
        Limits { handshakes: half, tls: half, socket: small, http: small, est: small }
    }
}

/// Lets the process open as many files as the system allows it, and gives that number; the usual limit of 1024 is there
/// for programs that use select(2).
pub(crate) fn raise_descriptor_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // What cannot be raised stays as it is.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current };
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// How many files the process has open.
pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_never_all_for_connections() {
        for free in [64, 200, 900, 4096, 20_000, 1 << 20] {
            let Limits { handshakes, tls, socket, http, est } = Limits::new(free);
            let all = handshakes + tls + socket + http + est;
            assert!(all + (free / 4).min(512) <= free, "{free}: {all}");
            assert!([handshakes, tls, socket, http, est].into_iter().all(|limit| limit >= 4), "{free}");
        }
    }
}
