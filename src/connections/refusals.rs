//! Why connections are refused or closed, and the log of it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::security;

/// Why a connection was not taken, or taken from its peer, before it had done anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The TLS handshake failed.
    Handshake,
    /// Nothing came, or not all that belongs to the beginning, in time.
    Silent,
    /// There were too many, and nothing happened on this one.
    Crowded,
    /// There were too many, and all of them had open calls.
    Limit,
    /// Its peer's certificate was revoked or has expired.
    Revoked,
    /// The system gave none, as when the process has no descriptor left.
    Accept,
}

impl Reason {
    pub(super) const ALL: [Reason; 6] =
        [Reason::Handshake, Reason::Silent, Reason::Crowded, Reason::Limit, Reason::Revoked, Reason::Accept];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Reason::Handshake => "handshake",
            Reason::Silent => "silent",
            Reason::Crowded => "crowded",
            Reason::Limit => "limit",
            Reason::Revoked => "revoked",
            Reason::Accept => "accept",
        }
    }
}

/// Logs refusals, one line a second for each reason: a flood of connections must not fill the disk with its log.
#[derive(Debug, Default)]
pub(super) struct Refusals([Mutex<(Option<Instant>, u64)>; Reason::ALL.len()]);

impl Refusals {
    const PAUSE: Duration = Duration::from_secs(1);

    pub(super) fn log(&self, port: &str, reason: Reason, detail: impl FnOnce() -> String) {
        let Some(state) = self.0.get(reason as usize) else { return };
        let mut state = state.lock();
        let (last, skipped) = &mut *state;
        if last.is_some_and(|last| last.elapsed() < Refusals::PAUSE) {
            *skipped += 1;
            return;
        }
        *last = Some(Instant::now());
        let more = std::mem::take(skipped);
        drop(state);
        let (reason, detail) = (reason.as_str(), detail());
        tracing::warn!(target: security::TARGET, port, reason, detail, more_since_last = more, "refused a connection");
    }
}
