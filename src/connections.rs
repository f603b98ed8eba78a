//! Bounds on connections, so that a peer that opens many and uses none delays no other (invariant 9).
//!
//! Each port has a number of [`Seats`], and each source (an address, an identity, a local user) a part of them. A
//! connection that comes when all are taken gets the seat of an idle one: first of one that has never said anything,
//! then of the source that has the most, then of the one that has been idle the longest. A peer that has as many as one
//! peer may have replaces its own connection that has been idle the longest. Only when a call is open on every one, the
//! new one is refused, with the limit that it met ([`Full`]). So accepting never waits.
//!
//! [`Limits`] shares the process' descriptors out between the ports, and keeps some for the HSM and the journal.

mod descriptors;
mod handshakes;
mod refusals;

use std::{
    collections::HashMap,
    hash::Hash,
    io,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use parking_lot::{Mutex, MutexGuard};

use self::refusals::Refusals;
pub(crate) use self::{
    descriptors::{Limits, open_descriptors, raise_descriptor_limit},
    handshakes::Handshake,
    refusals::Reason,
};
use crate::metrics;

/// What happens on a connection.
#[derive(Debug)]
pub(crate) struct Activity {
    heard: AtomicBool,
    calls: AtomicUsize,
    quiet_since: Mutex<Instant>,
}

impl Activity {
    pub(crate) fn new() -> Arc<Activity> {
        Arc::new(Activity {
            heard: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            quiet_since: Mutex::new(Instant::now()),
        })
    }

    /// The peer has said something.
    pub(crate) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// What the peer has said counts for nothing.
    pub(crate) fn forget(&self) {
        self.heard.store(false, Ordering::Relaxed);
    }

    /// Whether the peer has ever said anything.
    pub(crate) fn was_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Since when no call has been open; `None` while one is.
    pub(crate) fn quiet_since(&self) -> Option<Instant> {
        let since = *self.quiet_since.lock();
        (self.calls.load(Ordering::Acquire) == 0).then_some(since)
    }

    /// A call is open until the guard is dropped.
    pub(crate) fn begin_call(self: &Arc<Self>) -> OpenCall {
        self.hear();
        self.calls.fetch_add(1, Ordering::AcqRel);
        OpenCall(Arc::clone(self))
    }
}

/// An open call on a connection.
#[derive(Debug)]
pub(crate) struct OpenCall(Arc<Activity>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        *self.0.quiet_since.lock() = Instant::now();
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The slots for connections of one port.
#[derive(Debug)]
pub(crate) struct Seats<S> {
    port: &'static str,
    limit: usize,
    per_source: usize,
    taken: Mutex<Taken<S>>,
    /// Seats that are not dropped yet, those that were taken away included.
    open: AtomicUsize,
    refusals: Refusals,
}

#[derive(Debug)]
struct Taken<S> {
    next: u64,
    by_id: HashMap<u64, Holder<S>>,
    by_source: HashMap<S, usize>,
}

#[derive(Debug)]
struct Holder<S> {
    source: S,
    activity: Arc<Activity>,
    leave: oneshot::Sender<()>,
}

/// Why there is no seat: each of these connections has an open call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// All that one peer may have.
    #[error("this peer has {0} connections with open calls, which is the most; end some of its calls first")]
    Peer(usize),
    /// All that one source may have of the port's.
    #[error("{0} connections from here have open calls, which is the most; end some first")]
    Source(usize),
    /// All of the port.
    #[error("all {0} connections that the daemon can have here have open calls; try again later")]
    Port(usize),
}

impl<S: Clone + Eq + Hash> Taken<S> {
    fn count(&self, source: &S) -> usize {
        self.by_source.get(source).copied().unwrap_or(0)
    }

    /// The connection of one peer that has been idle the longest. One that has said nothing yet has only just come, as
    /// a command's does before its call: it is no worse than the others.
    fn longest_idle(&self, source: &S) -> Option<u64> {
        let own = self.by_id.iter().filter(|(_, holder)| holder.source == *source);
        own.filter_map(|(id, holder)| Some((holder.activity.quiet_since()?, *id))).min().map(|(_, id)| id)
    }

    /// The connection that has to make room, of this source or of any.
    fn quietest(&self, only: Option<&S>) -> Option<u64> {
        let candidates = self.by_id.iter().filter(|(_, holder)| only.is_none_or(|only| *only == holder.source));
        let quiet = candidates.filter_map(|(id, holder)| {
            let since = holder.activity.quiet_since()?;
            Some(((holder.activity.was_heard(), usize::MAX - self.count(&holder.source), since, *id), *id))
        });
        quiet.min().map(|(_, id)| id)
    }

    fn remove(&mut self, id: u64) -> Option<Holder<S>> {
        let holder = self.by_id.remove(&id)?;
        if let Some(count) = self.by_source.get_mut(&holder.source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&holder.source);
            }
        }
        Some(holder)
    }
}

impl<S: Clone + Eq + Hash> Seats<S> {
    /// `limit` seats, and `per_source` of them for one source, at a port that logs and metrics call `port`.
    pub(crate) fn new(port: &'static str, limit: usize, per_source: usize) -> Arc<Self> {
        metrics::known_connection_reasons(port, Reason::ALL.into_iter().map(Reason::as_str));
        let taken = Mutex::new(Taken { next: 0, by_id: HashMap::new(), by_source: HashMap::new() });
        Arc::new(Seats { port, limit, per_source, taken, open: AtomicUsize::new(0), refusals: Refusals::default() })
    }

    /// As [`Seats::new`], of a port whose connections begin with a TLS handshake.
    pub(crate) fn of_tls(port: &'static str, limit: usize, per_source: usize) -> Arc<Self> {
        Handshake::prepare(port);
        Seats::new(port, limit, per_source)
    }

    fn taken(&self) -> MutexGuard<'_, Taken<S>> {
        self.taken.lock()
    }

    /// A seat for a connection.
    ///
    /// # Errors
    /// If every connection that could make room has an open call.
    pub(crate) fn take(self: &Arc<Self>, source: S, activity: Arc<Activity>) -> Result<Seat<S>, Full> {
        self.take_within(source, usize::MAX, activity)
    }

    /// A seat for a connection of a peer that may have `most` of them.
    ///
    /// # Errors
    /// As [`Seats::take`].
    pub(crate) fn take_within(
        self: &Arc<Self>,
        source: S,
        most: usize,
        activity: Arc<Activity>,
    ) -> Result<Seat<S>, Full> {
        let mut taken = self.taken();
        let own = taken.count(&source);
        let makes_room = if own >= most {
            Some(taken.longest_idle(&source).ok_or(Full::Peer(most))?)
        } else if own >= self.per_source {
            Some(taken.quietest(Some(&source)).ok_or(Full::Source(self.per_source))?)
        } else if taken.by_id.len() >= self.limit {
            Some(taken.quietest(None).ok_or(Full::Port(self.limit))?)
        } else {
            None
        };
        if let Some(leaver) = makes_room.and_then(|id| taken.remove(id)) {
            // A receiver that is gone has left by itself.
            let _ = leaver.leave.send(());
        }
        let id = taken.next;
        taken.next += 1;
        let (leave, told_to_leave) = oneshot::channel();
        *taken.by_source.entry(source.clone()).or_insert(0) += 1;
        taken.by_id.insert(id, Holder { source, activity, leave });
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Seat { seats: Arc::clone(self), id, told_to_leave })
    }

    /// Lets those leave that were told to, so that no flood takes more descriptors than there are seats.
    pub(crate) async fn settle(&self) {
        while self.open.load(Ordering::Relaxed) > self.limit + self.limit / 8 + 8 {
            tokio::task::yield_now().await;
        }
    }

    /// An accept that fails (no file descriptor left, say) would fail again at once.
    pub(crate) async fn cannot_accept(&self, error: &io::Error) {
        self.refused(Reason::Accept, || error.to_string());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    /// Counts and logs that a connection was refused or closed; `detail` says which, and more.
    pub(crate) fn refused(&self, reason: Reason, detail: impl FnOnce() -> String) {
        metrics::connection_refused(self.port, reason.as_str());
        self.refusals.log(self.port, reason, detail);
    }
}

/// A connection's slot; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat<S: Clone + Eq + Hash> {
    seats: Arc<Seats<S>>,
    id: u64,
    told_to_leave: oneshot::Receiver<()>,
}

impl<S: Clone + Eq + Hash> Seat<S> {
    /// Ready when another connection got the seat.
    pub(crate) fn poll_told_to_leave(&mut self, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.told_to_leave).poll(context).map(drop)
    }

    /// Resolves when another connection got the seat.
    pub(crate) async fn told_to_leave(&mut self) {
        std::future::poll_fn(|context| self.poll_told_to_leave(context)).await;
    }

    /// Counts what became of its TLS handshake.
    pub(crate) fn shook_hands(&self, result: Handshake) {
        result.count(self.seats.port);
    }

    /// As [`Seats::refused`].
    pub(crate) fn refused(&self, reason: Reason, detail: impl FnOnce() -> String) {
        self.seats.refused(reason, detail);
    }
}

impl<S: Clone + Eq + Hash> Drop for Seat<S> {
    fn drop(&mut self) {
        self.seats.taken().remove(self.id);
        self.seats.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The address as a source: a host with one IPv6 address usually has its whole /64 (RFC 7421).
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(seats: &Arc<Seats<&'static str>>, source: &'static str) -> Option<(Seat<&'static str>, Arc<Activity>)> {
        let activity = Activity::new();
        seats.take(source, Arc::clone(&activity)).ok().map(|seat| (seat, activity))
    }

    fn must_leave(seat: &mut Seat<&'static str>) -> bool {
        seat.poll_told_to_leave(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn silent_connection_of_the_busiest_source_makes_room() {
        let seats = Seats::new("test", 4, 3);
        let (mut heard, activity) = take(&seats, "a").unwrap();
        activity.hear();
        let (mut of_b, _) = take(&seats, "b").unwrap();
        let (mut first, _) = take(&seats, "a").unwrap();
        let (mut second, _) = take(&seats, "a").unwrap();
        let (mut new, _) = take(&seats, "c").unwrap();
        assert!(must_leave(&mut first));
        for stays in [&mut heard, &mut of_b, &mut second, &mut new] {
            assert!(!must_leave(stays));
        }
    }

    #[test]
    fn source_at_its_limit_makes_room_itself() {
        let seats = Seats::new("test", 10, 2);
        let (mut of_b, _) = take(&seats, "b").unwrap();
        let (mut first, _) = take(&seats, "a").unwrap();
        let (mut second, _) = take(&seats, "a").unwrap();
        let (mut third, _) = take(&seats, "a").unwrap();
        assert!(must_leave(&mut first));
        assert!(![&mut of_b, &mut second, &mut third].into_iter().any(must_leave));
    }

    /// Also before one that has only just come and said nothing yet; others' are left alone.
    #[test]
    fn peer_at_its_limit_replaces_its_longest_idle_connection() {
        let seats = Seats::new("test", 10, 5);
        let (mut of_b, _) = take(&seats, "b").unwrap();
        let connect = || {
            let activity = Activity::new();
            seats.take_within("a", 3, Arc::clone(&activity)).map(|seat| (seat, activity))
        };
        let [(mut busy, first), (mut idle, second), (mut just_come, third)] = [(); 3].map(|()| connect().unwrap());
        let call = first.begin_call();
        second.hear();
        let (mut new, fourth) = connect().unwrap();
        assert!(must_leave(&mut idle));
        assert!(![&mut of_b, &mut busy, &mut just_come, &mut new].into_iter().any(must_leave));
        let calls = [third, fourth].map(|activity| activity.begin_call());
        let refused = connect().unwrap_err();
        assert_eq!(refused, Full::Peer(3));
        assert!(refused.to_string().contains("3 connections"), "{refused}");
        drop(call);
        assert!(connect().is_ok() && must_leave(&mut busy), "it is idle now");
        drop(calls);
    }

    #[test]
    fn connection_with_an_open_call_keeps_its_seat() {
        let seats = Seats::new("test", 2, 2);
        let (mut busy, activity) = take(&seats, "a").unwrap();
        let call = activity.begin_call();
        let (mut quiet, _) = take(&seats, "b").unwrap();
        let (mut new, activity) = take(&seats, "c").unwrap();
        let _other = activity.begin_call();
        assert!(must_leave(&mut quiet) && !must_leave(&mut busy));
        assert!(take(&seats, "d").is_none());
        drop(call);
        let (_last, _) = take(&seats, "d").unwrap();
        assert!(must_leave(&mut busy) && !must_leave(&mut new));
    }

    #[test]
    fn dropped_seat_is_free_again() {
        let seats = Seats::new("test", 1, 1);
        for _ in 0..3 {
            let (mut seat, activity) = take(&seats, "a").unwrap();
            let _call = activity.begin_call();
            assert!(take(&seats, "b").is_none() && !must_leave(&mut seat));
        }
        assert_eq!(seats.open.load(Ordering::Relaxed), 0);
        assert!(seats.taken().by_source.is_empty());
    }

    #[test]
    fn addresses_of_one_host_are_one_source() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
