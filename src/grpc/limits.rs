//! How much one peer may have open at a time, over all of its connections: so that none can fill the daemon's memory or
//! keep the others out (invariant 9). What is beyond is refused with a reason, and counted.
//!
//! | what | at most | beyond it |
//! |---|---|---|
//! | connections of a station; of others | [`STATION_CONNECTIONS`]; [`CONNECTIONS`] | an idle one is closed, or `TOO_MANY_CONNECTIONS` |
//! | HTTP/2 streams of a connection | [`STREAMS_PER_CONNECTION`] | the client waits; REFUSED_STREAM if it does not |
//! | calls of a peer, until their replies are taken | [`CALLS`] | `TOO_MANY_REQUESTS` |
//! | certificates in a peer's Confirm calls, the same | [`CONFIRMATIONS`] | `TOO_MANY_REQUESTS` |
//! | Issue streams of a peer | [`ISSUE_STREAMS`] | `TOO_MANY_STREAMS` |
//! | streams and lists of records of a peer; in all | [`RECORD_STREAMS`]; [`ALL_RECORD_STREAMS`] | `TOO_MANY_STREAMS` |

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::status::{self, Excess};
use crate::roster::{Roster, Seen};

/// Connections of one station, which needs one or two.
pub(super) const STATION_CONNECTIONS: usize = 16;

/// Connections of one operator or auditor, whose scripts may run many commands at once.
pub(super) const CONNECTIONS: usize = 64;

/// HTTP/2 streams of one connection (SETTINGS_MAX_CONCURRENT_STREAMS).
pub(super) const STREAMS_PER_CONNECTION: u32 = 128;

/// Calls of one peer, from their headers until their last reply is handed to the connection.
const CALLS: usize = 256;

/// Certificates in the Confirm calls of one peer, until the replies are handed to the connection.
const CONFIRMATIONS: usize = 8_000;

/// Issue streams of one peer.
const ISSUE_STREAMS: usize = 64;

/// Streams and lists of records of one peer.
const RECORD_STREAMS: usize = 8;

/// Streams and lists of records in all.
const ALL_RECORD_STREAMS: usize = 64;

/// One of a limited number of things that a peer may have; free again when it is dropped.
pub(super) type Permit = OwnedSemaphorePermit;

/// Every peer that has a connection.
#[derive(Debug)]
pub(super) struct Limits {
    peers: Mutex<HashMap<Arc<str>, Weak<PeerLimits>>>,
    record_streams: Arc<Semaphore>,
    window: usize,
    roster: Arc<Roster>,
}

impl Limits {
    /// Each peer may have `window` unanswered requests in progress.
    pub(super) fn new(window: usize, roster: Arc<Roster>) -> Self {
        let record_streams = Arc::new(Semaphore::new(ALL_RECORD_STREAMS));
        Limits { peers: Mutex::default(), record_streams, window, roster }
    }

    /// What is known of everybody who has been here.
    pub(super) fn seen(&self) -> HashMap<Arc<str>, Arc<Seen>> {
        self.roster.all()
    }

    /// What the peer of this name has open, over all of its connections.
    pub(super) fn peer(&self, name: &str) -> Arc<PeerLimits> {
        let mut peers = self.peers.lock();
        if let Some(limits) = peers.get(name).and_then(Weak::upgrade) {
            return limits;
        }
        // Those without a connection or a call are forgotten.
        peers.retain(|_, limits| limits.strong_count() > 0);
        let limits = Arc::new(PeerLimits::new(name.into(), self));
        peers.insert(Arc::clone(&limits.name), Arc::downgrade(&limits));
        limits
    }
}

/// What one peer has open, over all of its connections.
#[derive(Debug)]
pub(super) struct PeerLimits {
    name: Arc<str>,
    seen: Arc<Seen>,
    roster: Arc<Roster>,
    calls: Arc<Semaphore>,
    confirmations: Arc<Semaphore>,
    issue_streams: Arc<Semaphore>,
    record_streams: Arc<Semaphore>,
    all_record_streams: Arc<Semaphore>,
    window: Arc<Semaphore>,
}

impl PeerLimits {
    fn new(name: Arc<str>, limits: &Limits) -> Self {
        let at_most = |number| Arc::new(Semaphore::new(number));
        let roster = Arc::clone(&limits.roster);
        let seen = roster.of(&name);
        seen.connect();
        PeerLimits {
            roster,
            seen,
            name,
            calls: at_most(CALLS),
            confirmations: at_most(CONFIRMATIONS),
            issue_streams: at_most(ISSUE_STREAMS),
            record_streams: at_most(RECORD_STREAMS),
            all_record_streams: Arc::clone(&limits.record_streams),
            window: at_most(limits.window),
        }
    }

    /// As logs and the ledger name it.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Something was refused to it, and it was told so.
    pub(super) fn refused(&self, reason: &str, detail: &str) {
        self.roster.refusals().note(&self.name, reason, detail);
    }

    /// When it was here, and what it was given.
    pub(super) fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// A call; it counts until its reply is taken.
    ///
    /// # Errors
    /// `TOO_MANY_REQUESTS`.
    pub(super) fn call(&self) -> Result<Permit, Status> {
        self.seen.call();
        self.take(&self.calls, 1, || Excess::Requests(format!("{CALLS} calls whose replies it has not taken")))
    }

    /// `number` certificates to confirm; they count until the reply is taken.
    ///
    /// # Errors
    /// `TOO_MANY_REQUESTS`.
    pub(super) fn confirmations(&self, number: u32) -> Result<Permit, Status> {
        let excess = || Excess::Requests(format!("{CONFIRMATIONS} certificates in Confirm calls at a time"));
        self.take(&self.confirmations, number, excess)
    }

    /// An Issue stream.
    ///
    /// # Errors
    /// `TOO_MANY_STREAMS`.
    pub(super) fn issue_stream(&self) -> Result<Permit, Status> {
        self.take(&self.issue_streams, 1, || Excess::Streams(format!("{ISSUE_STREAMS} Issue streams")))
    }

    /// A stream or list of records: the peer's own, and one of those that there are in all.
    ///
    /// # Errors
    /// `TOO_MANY_STREAMS`.
    pub(super) fn record_stream(&self) -> Result<[Permit; 2], Status> {
        let own = self.take(&self.record_streams, 1, || {
            Excess::Streams(format!("{RECORD_STREAMS} calls that list records, orders or exports"))
        })?;
        let all = Arc::clone(&self.all_record_streams).try_acquire_owned();
        let all = all.map_err(|_| status::too_many(&Excess::AllStreams(ALL_RECORD_STREAMS)))?;
        Ok([own, all])
    }

    /// Waits for a permit for one more request in progress.
    pub(super) async fn request(&self) -> Option<Permit> {
        // It is never closed.
        Arc::clone(&self.window).acquire_owned().await.ok()
    }

    fn take(&self, of: &Arc<Semaphore>, number: u32, excess: impl Fn() -> Excess) -> Result<Permit, Status> {
        Arc::clone(of).try_acquire_many_owned(number).map_err(|_| {
            tracing::debug!(peer = %self.name, "refused a call: too many at a time");
            status::too_many(&excess())
        })
    }
}

impl Drop for PeerLimits {
    fn drop(&mut self) {
        self.seen.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(status: &Status) -> String {
        use tonic_types::StatusExt;
        status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
    }

    #[test]
    fn limits_of_a_peer_count_all_of_its_connections() {
        let limits = Limits::new(8, Arc::default());
        let connections: Vec<_> = (0..3).map(|_| limits.peer("station:l/1")).collect();
        let calls: Vec<_> = (0..CALLS).map(|number| connections[number % 3].call()).collect();
        assert!(calls.iter().all(Result::is_ok));
        let refused = connections[0].call().unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (tonic::Code::ResourceExhausted, "TOO_MANY_REQUESTS"));
        assert!(limits.peer("station:l/2").call().is_ok(), "others have their own");
        drop(calls);
        assert!(connections[0].call().is_ok());
        drop(connections);
        let _other = limits.peer("station:l/1");
        assert_eq!(limits.peers.lock().len(), 1, "those that are gone are forgotten");
    }

    #[test]
    fn record_streams_are_bounded_for_a_peer_and_in_all() {
        let limits = Limits::new(8, Arc::default());
        let names = (0..=ALL_RECORD_STREAMS / RECORD_STREAMS).map(|number| format!("auditor:{number}"));
        let peers: Vec<_> = names.map(|name| limits.peer(&name)).collect();
        let mut open = Vec::new();
        for peer in &peers[..peers.len() - 1] {
            open.extend((0..RECORD_STREAMS).map(|_| peer.record_stream().unwrap()));
            let refused = peer.record_stream().unwrap_err();
            assert_eq!(reason(&refused), "TOO_MANY_STREAMS");
            assert!(refused.message().contains("this peer"), "{}", refused.message());
        }
        let refused = peers[peers.len() - 1].record_stream().unwrap_err();
        assert_eq!(reason(&refused), "TOO_MANY_STREAMS");
        assert!(refused.message().contains("all peers"), "{}", refused.message());
        drop(open);
        assert!(peers[0].record_stream().is_ok());
    }
}
