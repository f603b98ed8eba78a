//! Which peers have been here since the daemon was started, when they were last seen, and how many certificates they were
//! given: what the list of stations and the status show beside what the ledger knows.

mod told;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::told::Refusals;

/// How often the numbers are looked at, and how many of them a rate is made of.
const INTERVAL: Duration = Duration::from_secs(5);
const SAMPLES: usize = 12;

/// For how long a peer has no connection before the log says that it is gone: many connect anew for each device.
const GONE: Duration = Duration::from_secs(60);

/// The peers that have been here: no more than there are valid certificates of their CA.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    seen: Mutex<HashMap<Arc<str>, Arc<Seen>>>,
    refusals: Refusals,
}

/// What is known of one peer.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Microseconds since 1970; 0: it made no call.
    last: AtomicI64,
    issued: AtomicU64,
    presence: Mutex<Presence>,
    /// What `issued` was, at each interval of the last minute, the oldest first.
    before: Mutex<VecDeque<u64>>,
}

/// Whether a peer is connected, and what the log has said of that.
#[derive(Debug, Default)]
struct Presence {
    /// How many of its connections there are; the next begins before the last is over.
    connections: usize,
    /// It was connected since the log was looked after.
    came: bool,
    /// Since when it is not.
    left: Option<Instant>,
    told: bool,
    /// What it had been issued when the log said that it is connected.
    issued: u64,
}

/// What the log is to say of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Connected,
    /// And how many certificates it was given meanwhile.
    Gone(u64),
}

impl Seen {
    /// It has a connection.
    pub(crate) fn connect(&self) {
        let mut presence = self.presence.lock();
        presence.connections += 1;
        (presence.came, presence.left) = (true, None);
    }

    /// It has none any more.
    pub(crate) fn leave(&self) {
        let mut presence = self.presence.lock();
        presence.connections = presence.connections.saturating_sub(1);
        presence.left = (presence.connections == 0).then(Instant::now);
    }

    /// Whether it has a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.presence.lock().connections > 0
    }

    /// What the log is to say, once.
    fn told(&self, now: Instant) -> Option<Told> {
        let mut presence = self.presence.lock();
        if std::mem::take(&mut presence.came) && !presence.told {
            (presence.told, presence.issued) = (true, self.issued());
            return Some(Told::Connected);
        }
        let gone = presence.left.is_some_and(|left| now.duration_since(left) >= GONE);
        if presence.told && gone {
            presence.told = false;
            return Some(Told::Gone(self.issued() - presence.issued));
        }
        None
    }

    /// It makes a call.
    pub(crate) fn call(&self) {
        self.last.store(Timestamp::now().as_microsecond(), Ordering::Relaxed);
    }

    /// It was given a certificate.
    pub(crate) fn issue(&self) {
        self.issued.fetch_add(1, Ordering::Relaxed);
    }

    /// When it made its last call.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        let last = self.last.load(Ordering::Relaxed);
        (last != 0).then(|| Timestamp::from_microsecond(last).ok()).flatten()
    }

    /// How many certificates it was given.
    pub(crate) fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    /// How many a second, over the last minute.
    pub(crate) fn rate(&self) -> f64 {
        let before = self.before.lock();
        let Some(oldest) = before.front() else { return 0.0 };
        self.issued().saturating_sub(*oldest) as f64 / (before.len() as f64 * INTERVAL.as_secs_f64())
    }

    fn sample(&self) {
        let mut before = self.before.lock();
        if before.len() == SAMPLES {
            before.pop_front();
        }
        before.push_back(self.issued());
    }
}

/// A connection of a peer, until it is dropped.
#[derive(Debug)]
pub(crate) struct Here(Arc<Seen>);

impl Here {
    /// It makes a call.
    pub(crate) fn call(&self) {
        self.0.call();
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Roster {
    /// The peer of this name has a connection now.
    pub(crate) fn enter(&self, name: &Arc<str>) -> Here {
        let seen = self.of(name);
        seen.connect();
        Here(seen)
    }

    /// What is known of the peer of this name, from now on.
    pub(crate) fn of(&self, name: &Arc<str>) -> Arc<Seen> {
        Arc::clone(self.seen.lock().entry(Arc::clone(name)).or_default())
    }

    /// Everybody who has been here.
    pub(crate) fn all(&self) -> HashMap<Arc<str>, Arc<Seen>> {
        self.seen.lock().clone()
    }

    /// What was refused, for the log.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Tells in the log who came and who is gone, and what was refused.
    fn tell(&self) {
        let now = Instant::now();
        for (peer, seen) in self.all() {
            match seen.told(now) {
                Some(Told::Connected) => tracing::info!(%peer, "connected"),
                Some(Told::Gone(issued)) => tracing::info!(%peer, issued, "gone"),
                None => {}
            }
        }
        self.refusals.tell();
    }

    /// Looks at the numbers until the roster is dropped.
    pub(crate) async fn watch(roster: Weak<Roster>) {
        let mut interval = tokio::time::interval(INTERVAL);
        while let Some(roster) = roster.upgrade() {
            roster.seen.lock().values().for_each(|seen| seen.sample());
            roster.tell();
            drop(roster);
            interval.tick().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tester that connects anew for each device is one line when it begins, and one when it is gone.
    #[test]
    fn peer_that_reconnects_is_told_twice() {
        let (roster, now) = (Roster::default(), Instant::now());
        let seen = roster.of(&"station:l/1".into());
        let mut told = Vec::new();
        for _ in 0..100 {
            seen.connect();
            seen.issue();
            seen.leave();
            told.extend(seen.told(now));
        }
        assert_eq!(told, [Told::Connected]);
        assert_eq!(seen.told(now + 2 * GONE), Some(Told::Gone(99)));
        assert_eq!(seen.told(now + 3 * GONE), None);
        seen.connect();
        assert_eq!(seen.told(now + 4 * GONE), Some(Told::Connected));
        assert_eq!(seen.told(now + 9 * GONE), None, "it is connected all the time");
    }

    #[test]
    fn roster_has_the_rate_of_the_last_minute() {
        let roster = Roster::default();
        let seen = roster.of(&"station:l/1".into());
        assert_eq!((seen.last(), seen.rate()), (None, 0.0));
        seen.call();
        assert!(seen.last().is_some());
        for _ in 0..2 * SAMPLES {
            seen.sample();
            (0..10).for_each(|_| seen.issue());
        }
        assert_eq!((roster.of(&"station:l/1".into()).issued(), seen.rate()), (240, 2.0));
        for _ in 0..SAMPLES {
            seen.sample();
        }
        assert_eq!(seen.rate(), 0.0);
    }
}
