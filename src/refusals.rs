//! Refused requests on their way into the journal: summed by who asked, order and reason, so that a peer that is refused
//! thousands of times a second costs an entry now and then, and no request waits for the disk.
//!
//! What bounds it, for each peer: a bucket of tokens for the devices that are named, one for the entries, and the kinds of
//! refusals that wait at a time. What goes beyond is counted. A device that is refused again for the same reason is named
//! once in a while only.
//!
//! A device that is refused and asks again in the same moment must be known as refused when its certificate is recorded:
//! [`Refusals::settle`] has the entry written first. It costs a load of an atomic number as long as nothing waits.

mod bucket;
mod recent;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::{bucket::Bucket, recent::Recent};
use crate::{
    client::Reason,
    committer::{CommitError, Committer},
    ledger::{Actor, NAMED_DEVICES, RefusalScope, RequestsRefused},
    metrics,
};

/// How long refusals gather before they are written.
const GATHER: Duration = Duration::from_millis(500);

/// The pause after the ledger did not take them.
const PAUSE: Duration = Duration::from_secs(5);

/// How many kinds of refusals of one peer wait at most.
const KINDS: usize = 32;

/// How many peers have refusals that wait, or a bucket that is not full.
const PEERS: usize = 1024;

/// How many stations have a metric of their own.
const LABELS: usize = 256;

/// Devices that a peer may have named at once, and a second after that: some thousand kilobytes of journal a day.
const NAMES: (f64, f64) = (4096.0, 2.0);

/// Entries that a peer may cause at once, and a second after that.
const ENTRIES: (f64, f64) = (64.0, 0.5);

/// A request that was refused.
pub(crate) struct Refused<'a> {
    pub(crate) actor: &'a Actor,
    /// Empty: none.
    pub(crate) order: &'a str,
    /// None: it names none that could be one.
    pub(crate) device: Option<&'a str>,
    pub(crate) reason: &'static str,
    pub(crate) scope: RefusalScope,
}

/// Gathers refused requests, and has them recorded.
#[derive(Debug)]
pub(crate) struct Refusals {
    waiting: Mutex<Waiting>,
    /// How many devices of `waiting` are named.
    named: AtomicUsize,
    wake: Notify,
    /// All refusals since the start.
    counted: AtomicU64,
    committer: Committer,
}

/// What is refused alike, for one peer.
type Kind = (String, &'static str);

/// How many requests were refused for each reason, and when the last was.
pub(crate) type ByReason = BTreeMap<&'static str, (u64, Timestamp)>;

#[derive(Debug, Default)]
struct Waiting {
    peers: HashMap<Actor, Peer>,
    recent: Recent,
    /// The stations that have metrics of their own, and what was refused to them since the start.
    stations: HashMap<Actor, ByReason>,
    /// Refusals of peers that there was no room for.
    dropped: u64,
}

#[derive(Debug)]
struct Peer {
    /// Each in as many entries as its devices need: their tokens bound them.
    kinds: BTreeMap<Kind, Vec<Gathered>>,
    names: Bucket,
    entries: Bucket,
    dropped: u64,
}

#[derive(Debug)]
struct Gathered {
    scope: RefusalScope,
    count: u64,
    devices: Vec<String>,
    since: Timestamp,
}

/// An entry that is to be.
type Ready = (Actor, Kind, RequestsRefused);

impl Refusals {
    pub(crate) fn new(committer: Committer) -> Arc<Self> {
        let (waiting, named, wake) = (Mutex::default(), AtomicUsize::new(0), Notify::new());
        Arc::new(Refusals { waiting, named, wake, counted: AtomicU64::new(0), committer })
    }

    /// How many requests were refused since the start.
    pub(crate) fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// Has what may be refused to this station counted from 0 on, if there are not too many.
    pub(crate) fn expect(&self, station: &Actor) {
        let mut waiting = self.waiting.lock();
        if waiting.stations.contains_key(station) || waiting.stations.len() >= LABELS {
            return;
        }
        waiting.stations.insert(station.clone(), ByReason::new());
        drop(waiting);
        if let Some(name) = station.station() {
            let reasons = Reason::ALL.iter().filter(|reason| **reason != Reason::ReplyMismatch);
            reasons.for_each(|reason| metrics::known_refused_request(name, reason.as_str()));
        }
    }

    /// What was refused to stations since the start: to the first [`LABELS`] of them.
    pub(crate) fn by_station(&self) -> Vec<(Actor, ByReason)> {
        self.waiting.lock().stations.iter().map(|(station, reasons)| (station.clone(), reasons.clone())).collect()
    }

    /// Takes note of a refusal; it is written soon.
    pub(crate) fn note(&self, refused: &Refused<'_>) {
        let mut waiting = self.waiting.lock();
        metrics::refused_request(waiting.count(refused.actor, refused.reason), refused.reason);
        self.counted.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        if waiting.note(refused, now) {
            self.named.fetch_add(1, Ordering::Relaxed);
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Has what waits about a device written, before it gets a certificate.
    pub(crate) async fn settle(&self, device: &str) {
        if self.named.load(Ordering::Relaxed) == 0 {
            return;
        }
        let named = |gathered: &Gathered| gathered.devices.iter().any(|named| named == device);
        let ready = self.take(|_, gathered| named(gathered));
        self.record(ready).await;
    }

    /// Writes what gathers, for as long as the daemon runs.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            tokio::time::sleep(GATHER).await;
            let now = Instant::now();
            let ready = self.take(|entries, _| entries.take(now));
            if !self.record(ready).await {
                tokio::time::sleep(PAUSE).await;
            }
            // What had no token for an entry.
            if self.waiting.lock().is_any() {
                self.wake.notify_one();
            }
        }
    }

    /// Writes all that waits, at the end of a run.
    pub(crate) async fn finish(&self) {
        let ready = self.take(|_, _| true);
        self.record(ready).await;
    }

    fn take(&self, mut wanted: impl FnMut(&mut Bucket, &Gathered) -> bool) -> Vec<Ready> {
        let mut waiting = self.waiting.lock();
        let mut ready = Vec::new();
        for (actor, peer) in &mut waiting.peers {
            let Peer { kinds, entries, dropped, .. } = peer;
            for (kind, pieces) in kinds.iter_mut() {
                for gathered in pieces.extract_if(.., |gathered| wanted(entries, gathered)) {
                    self.named.fetch_sub(gathered.devices.len(), Ordering::Relaxed);
                    let Gathered { scope, count, devices, since } = gathered;
                    let (order, reason) = (kind.0.clone(), kind.1.to_owned());
                    let dropped = std::mem::take(dropped);
                    let refused = RequestsRefused { order, reason, scope, count, devices, since, dropped };
                    ready.push((actor.clone(), kind.clone(), refused));
                }
            }
            kinds.retain(|_, pieces| !pieces.is_empty());
        }
        ready
    }

    /// Whether the ledger took them; what it did not take waits on.
    async fn record(&self, ready: Vec<Ready>) -> bool {
        // All at once, so that they share a sync of the journal.
        let recorded = ready.into_iter().map(async |(actor, kind, refused)| {
            let result = self.committer.note_refused(actor.clone(), refused.clone()).await;
            result.map_err(|error| (error, actor, kind, refused))
        });
        let mut all = true;
        for result in futures_util::future::join_all(recorded).await {
            let Err((error, actor, kind, refused)) = result else { continue };
            all = false;
            if matches!(error, CommitError::Closed) {
                continue;
            }
            tracing::debug!(%error, "refusals could not be recorded; they wait");
            self.named.fetch_add(refused.devices.len(), Ordering::Relaxed);
            self.waiting.lock().put_back(actor, kind, refused);
        }
        all
    }
}

impl Waiting {
    /// Whether the device is named by what waits now, and was not before.
    fn note(&mut self, refused: &Refused<'_>, now: Instant) -> bool {
        if self.peers.len() >= PEERS && !self.peers.contains_key(refused.actor) {
            self.peers.retain(|_, peer| !peer.is_idle(now));
            if self.peers.len() >= PEERS {
                self.dropped += 1;
                if self.dropped.is_power_of_two() {
                    tracing::warn!(
                        dropped = self.dropped,
                        "refusals of too many peers at once; some are recorded nowhere"
                    );
                }
                return false;
            }
        }
        let peer = self.peers.entry(refused.actor.clone()).or_insert_with(|| Peer::new(now));
        let kind = (refused.order.to_owned(), refused.reason);
        if peer.kinds.len() >= KINDS && !peer.kinds.contains_key(&kind) {
            peer.dropped += 1;
            return false;
        }
        let new = || Gathered { scope: refused.scope, count: 0, devices: Vec::new(), since: Timestamp::now() };
        let pieces = peer.kinds.entry(kind).or_default();
        // An outage is not the devices' own.
        let device = refused.device.filter(|_| refused.scope != RefusalScope::Daemon && peer.names.is_any(now));
        let told = |device| (&*refused.actor.0, refused.order, refused.reason, device);
        let named = device.filter(|&device| self.recent.is_new(told(device), now) && peer.names.take(now));
        let full = |gathered: &Gathered| gathered.devices.len() >= NAMED_DEVICES;
        if pieces.last().is_none_or(|last| named.is_some() && full(last)) {
            pieces.push(new());
        }
        if let Some(gathered) = pieces.last_mut() {
            gathered.count += 1;
            gathered.devices.extend(named.map(str::to_owned));
        }
        named.is_some()
    }

    fn put_back(&mut self, actor: Actor, kind: Kind, refused: RequestsRefused) {
        let peer = self.peers.entry(actor).or_insert_with(|| Peer::new(Instant::now()));
        peer.dropped += refused.dropped;
        let RequestsRefused { scope, count, devices, since, .. } = refused;
        let pieces = peer.kinds.entry(kind).or_default();
        match pieces.first_mut().filter(|first| first.devices.len() + devices.len() <= NAMED_DEVICES) {
            Some(first) => {
                first.count += count;
                first.since = first.since.min(since);
                first.devices.extend(devices);
            }
            None => pieces.insert(0, Gathered { scope, count, devices, since }),
        }
    }

    fn is_any(&self) -> bool {
        self.peers.values().any(|peer| !peer.kinds.is_empty())
    }

    /// Counts it for the station. Gives the value of the metric's label: the peer, if it is a station and there are not too many.
    fn count(&mut self, actor: &Actor, reason: &'static str) -> String {
        let Some(station) = actor.station() else { return "none".to_owned() };
        if self.stations.len() >= LABELS && !self.stations.contains_key(actor) {
            return "other".to_owned();
        }
        let refused = self.stations.entry(actor.clone()).or_default().entry(reason).or_default();
        *refused = (refused.0 + 1, Timestamp::now());
        station.to_owned()
    }
}

impl Peer {
    fn new(now: Instant) -> Self {
        let (names, entries) = (Bucket::new(NAMES, now), Bucket::new(ENTRIES, now));
        Peer { kinds: BTreeMap::new(), names, entries, dropped: 0 }
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.kinds.is_empty() && self.dropped == 0 && self.names.is_full(now) && self.entries.is_full(now)
    }
}

#[cfg(test)]
mod tests;
