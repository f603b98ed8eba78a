//! What the daemon knows of itself at a moment: one typed [`Snapshot`], made in one place ([`Status`]), from which the status
//! page, `/status.json` and the gauges of `/metrics` are all made, so that none contradicts another.
//!
//! A snapshot is made when somebody asks for one, and twice a second as long as a page is open, out of memory: counters, what the
//! committer and the HSM's threads publish, the roster of stations. What has to be read from the disk (orders, the size of the journal, the mark of the newest backup) is read by
//! itself and at most for a fiftieth of the time ([`stored`]), so that a ledger of many thousand orders costs as little
//! as a small one. Nothing here takes a lock that the path of a CSR holds for longer than it takes to copy a number.
//!
//! It is bounded: [`stations::STATIONS`] stations and [`orders::ORDERS`] open orders; the others are counted and summed.

mod gather;
mod gauges;
mod history;
mod orders;
mod snapshot;
mod sources;
mod stations;
mod stored;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, timeout},
};

pub(crate) use self::{
    history::History,
    snapshot::{Condition, Snapshot},
    sources::Sources,
};
use self::{history::Recorder, stored::Stored};

/// How often a snapshot is made.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long whoever asks for one waits for it.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The newest snapshot and the last hour. A daemon has one.
pub(crate) struct Status {
    sources: Sources,
    started_at: Timestamp,
    newest: watch::Sender<Arc<Snapshot>>,
    stored: Stored,
    recorder: Mutex<Recorder>,
}

impl Status {
    /// The status of a daemon that is made of these. The first snapshot is made at once; the others by [`Status::run`].
    pub(crate) fn new(sources: Sources) -> Arc<Status> {
        let started_at = Timestamp::now();
        let recorder = Recorder::new(sources.throughput.counted(), sources.refusals.counted());
        let (stored, recorder) = (Stored::default(), Mutex::new(recorder));
        stored.read(&sources);
        let first = gather::snapshot(&sources, &stored, &recorder.lock(), started_at);
        let newest = watch::Sender::new(Arc::new(first));
        Arc::new(Status { sources, started_at, newest, stored, recorder })
    }

    /// Makes snapshots until the task is aborted.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::spawn(Arc::clone(&self).read_stored());
        loop {
            ticks.tick().await;
            let status = Arc::clone(&self);
            // A disk or a module that hangs may hold it up.
            let made = spawn_blocking(move || match status.newest.receiver_count() {
                // Nobody looks, and only the last hour is kept.
                0 => drop(status.note()),
                _ => status.renew(),
            });
            let made = made.await;
            if made.is_err() {
                tracing::error!("the status could not be made; this is a bug");
            }
        }
    }

    fn newest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.newest.borrow())
    }

    /// The newest snapshot, half a second old at most while the daemon is well, however often it is asked for.
    pub(crate) async fn recent(self: &Arc<Self>) -> Arc<Snapshot> {
        let newest = self.newest();
        let age = Duration::try_from(Timestamp::now().duration_since(newest.at).abs());
        if age.is_ok_and(|age| age < INTERVAL) { newest } else { self.fresh().await }
    }

    /// A snapshot of this moment, the newest from now on; or the newest, while none can be made.
    pub(crate) async fn fresh(self: &Arc<Self>) -> Arc<Snapshot> {
        let status = Arc::clone(self);
        drop(timeout(LONGEST_WAIT, spawn_blocking(move || status.renew())).await);
        self.newest()
    }

    /// The newest snapshot, and those that follow.
    pub(crate) async fn follow(self: &Arc<Self>) -> watch::Receiver<Arc<Snapshot>> {
        let follower = self.newest.subscribe();
        self.recent().await;
        follower
    }

    /// The last hour.
    pub(crate) fn history(&self) -> History {
        self.recorder.lock().history()
    }

    /// Makes a snapshot now.
    fn renew(&self) {
        let Some(recorder) = self.note() else { return };
        let snapshot = gather::snapshot(&self.sources, &self.stored, &recorder, self.started_at);
        drop(recorder);
        self.newest.send_replace(Arc::new(snapshot));
    }

    /// Takes note of this moment for the last hour.
    fn note(&self) -> Option<MutexGuard<'_, Recorder>> {
        // None: a snapshot is being made, and a disk or a module holds it up.
        let mut recorder = self.recorder.try_lock_for(LONGEST_WAIT)?;
        let counted = (self.sources.throughput.counted(), self.sources.refusals.counted());
        recorder.note(counted, self.sources.readiness.obstacles().is_empty());
        Some(recorder)
    }

    async fn read_stored(self: Arc<Self>) {
        loop {
            let status = Arc::clone(&self);
            let pause = spawn_blocking(move || status.stored.read(&status.sources)).await;
            tokio::time::sleep(pause.unwrap_or(stored::LONGEST_PAUSE)).await;
        }
    }
}

#[cfg(test)]
mod tests;
