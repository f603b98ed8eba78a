//! Makes checkpoints: at each new part of the ledger, at a set interval, and when the daemon goes down. Of several daemons that share
//! a ledger, whoever finds it due makes one for all.
//!
//! A checkpoint does not delay requests: it takes one place in the committer's queue and one signature of a key
//! of its own. While the HSM is away it is retried, and nothing waits for it.
//!
//! `named by the file ≤ recorded in the ledger ≤ signed`: the file is replaced after the record is durable, so the ledger
//! always has all that the file knows.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{task::JoinHandle, time::MissedTickBehavior};

use crate::{
    committer::{CommitError, Committer},
    durable::{self, Access},
    hash::sha256,
    ledger::{
        Head, Records,
        checkpoint::{Checkpoint, SignedCheckpoint},
    },
    signer::{PublicKey, SignError, Signer},
};

/// How often it is checked whether a checkpoint is due.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The pauses between attempts: the first, and the longest after doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Makes checkpoints of one ledger with one key.
pub(crate) struct Checkpoints {
    /// Signs with the audit key.
    pub(crate) signer: Arc<dyn Signer>,
    /// Its public half.
    pub(crate) key: PublicKey,
    /// The ledger.
    pub(crate) records: Arc<dyn Records>,
    /// Records them.
    pub(crate) committer: Committer,
    /// Where the newest is kept.
    pub(crate) file: PathBuf,
    /// How long entries may be without a checkpoint.
    pub(crate) interval: Duration,
    /// Whether the earlier ones are lost: the file was gone, so none was held against the entries that the ledger had at
    /// the start.
    pub(crate) earlier_checkpoints_lost: AtomicBool,
    /// What is known of the newest.
    pub(crate) figures: Mutex<Figures>,
}

/// What is known of the newest checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// When it was made; none if there is none.
    pub(crate) at: Option<Timestamp>,
    /// How many entries it covers.
    pub(crate) entries: u64,
    /// How long the ledger has had entries that it does not cover.
    pub(crate) lag: Duration,
}

/// Why there is no new checkpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    /// The HSM did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The HSM's signature is wrong.
    #[error("the HSM's signature does not verify: {0}")]
    Wrong(String),
    /// The ledger did not record it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// It is recorded, but its file could not be written.
    #[error("cannot write {path}: {cause}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        cause: std::io::Error,
    },
}

impl Checkpoints {
    /// Makes checkpoints until the task is aborted.
    pub(crate) fn spawn(self: Arc<Self>) -> JoinHandle<()> {
        tokio::spawn(async move { self.run().await })
    }

    async fn run(&self) {
        let newest = self.newest().map(|newest| newest.checkpoint);
        if let Some(newest) = &newest {
            self.made(newest);
        }
        let mut schedule = Schedule::new(newest);
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let head = self.records.head();
            self.adopt(&mut schedule, head.part).await;
            self.figures.lock().lag = schedule.age(&head, Instant::now());
            if !schedule.is_due(&head, self.interval, Instant::now()) {
                continue;
            }
            match self.make().await {
                Ok(checkpoint) => schedule.made(&checkpoint, head.part, Instant::now()),
                Err(CheckpointError::Commit(CommitError::Closed)) => return,
                Err(error) => schedule.failed(&error, Instant::now()),
            }
        }
    }

    /// What another daemon of this ledger has made counts as this one's own, if its key is the same.
    async fn adopt(&self, schedule: &mut Schedule, part: u32) {
        let Some(note) = self.records.followed_checkpoint() else { return };
        let Ok(signed) = SignedCheckpoint::parse(&note) else { return };
        if signed.checkpoint.sequence <= schedule.covered || signed.verify(std::slice::from_ref(&self.key)).is_err() {
            return;
        }
        if let Err(error) = self.keep(note.to_string()).await {
            tracing::warn!(%error, "the checkpoint of another daemon could not be kept");
        }
        schedule.made(&signed.checkpoint, part, Instant::now());
        self.made(&signed.checkpoint);
    }

    /// Replaces the file.
    async fn keep(&self, note: String) -> Result<(), CheckpointError> {
        let path = self.file.clone();
        let written = tokio::task::spawn_blocking(move || durable::write(&path, note.as_bytes(), Access::Owner)).await;
        let failed = |cause| CheckpointError::File { path: self.file.display().to_string(), cause };
        written.map_err(|error| failed(error.into()))?.map_err(failed)
    }

    /// Makes a checkpoint now, unless the newest covers everything. Gives the newest; none if there is nothing to cover.
    ///
    /// # Errors
    /// If the HSM does not sign or the ledger does not record.
    pub(crate) async fn make_last(&self) -> Result<Option<SignedCheckpoint>, CheckpointError> {
        let newest = self.newest();
        let covered = newest.as_ref().map(|newest| newest.checkpoint.clone());
        if !Schedule::new(covered).uncovered(&self.records.head()) {
            return Ok(newest);
        }
        self.make().await?;
        Ok(self.newest())
    }

    async fn make(&self) -> Result<Checkpoint, CheckpointError> {
        let checkpoint = Checkpoint::new(&self.records.head(), Timestamp::now());
        let signature = self.signer.sign(checkpoint.to_string().into_bytes()).await?;
        let signed = checkpoint.clone().signed(&self.key, signature.into_bytes());
        signed.verify(std::slice::from_ref(&self.key)).map_err(|error| CheckpointError::Wrong(error.to_string()))?;
        let note = signed.to_string();
        let earlier_checkpoints_lost = self.earlier_checkpoints_lost.load(Ordering::Relaxed);
        self.committer.checkpoint(note.clone(), earlier_checkpoints_lost).await?;
        if earlier_checkpoints_lost {
            tracing::warn!(
                entries = checkpoint.sequence,
                "earlier checkpoints are lost: these entries were compared with none"
            );
            self.earlier_checkpoints_lost.store(false, Ordering::Relaxed);
        }

        self.keep(note.clone()).await?;
        self.made(&checkpoint);
        tracing::info!(
            entries = checkpoint.sequence,
            chain = hex::encode(checkpoint.chain),
            sha256 = hex::encode(sha256(note.as_bytes())),
            file = %self.file.display(),
            "checkpoint"
        );
        Ok(checkpoint)
    }

    /// What is known of the newest.
    pub(crate) fn figures(&self) -> Figures {
        *self.figures.lock()
    }

    fn made(&self, checkpoint: &Checkpoint) {
        let mut figures = self.figures.lock();
        *figures = Figures { at: Some(checkpoint.time), entries: checkpoint.sequence, ..*figures };
    }

    /// The newest that was made; a start has checked that it fits the ledger.
    fn newest(&self) -> Option<SignedCheckpoint> {
        SignedCheckpoint::read(&self.file).ok()?
    }
}

/// When the next checkpoint is due.
struct Schedule {
    /// The last entry that a checkpoint covers.
    covered: u64,
    /// When the newest was made by this process.
    made: Option<Instant>,
    /// The part of the ledger in which it was made.
    part: Option<u32>,
    /// Since when there are entries that none covers.
    uncovered_since: Option<Instant>,
    /// After a failure: when to try again, and the pause after the next.
    retry: Option<(Instant, Duration)>,
}

impl Schedule {
    fn new(newest: Option<Checkpoint>) -> Self {
        let covered = newest.map_or(0, |checkpoint| checkpoint.sequence);
        Schedule { covered, made: None, part: None, uncovered_since: None, retry: None }
    }

    /// Whether there are entries that no checkpoint covers. A checkpoint's own entry needs none.
    fn uncovered(&self, head: &Head) -> bool {
        head.sequence > self.covered + u64::from(self.covered > 0)
    }

    /// How long entries have waited for a checkpoint.
    fn age(&mut self, head: &Head, now: Instant) -> Duration {
        if !self.uncovered(head) {
            self.uncovered_since = None;
            return Duration::ZERO;
        }
        now.duration_since(*self.uncovered_since.get_or_insert(now))
    }

    fn is_due(&self, head: &Head, interval: Duration, now: Instant) -> bool {
        if !self.uncovered(head) {
            return false;
        }
        match self.retry {
            Some((at, _)) => at <= now,
            // What a process before left uncovered is covered at once.
            None => self.part != Some(head.part) || self.made.is_none_or(|made| now.duration_since(made) >= interval),
        }
    }

    fn made(&mut self, checkpoint: &Checkpoint, part: u32, now: Instant) {
        if self.retry.take().is_some() {
            tracing::info!("checkpoints are made again");
        }
        self.covered = checkpoint.sequence;
        (self.made, self.part, self.uncovered_since) = (Some(now), Some(part), None);
    }

    fn failed(&mut self, error: &CheckpointError, now: Instant) {
        let pause = self.retry.map_or(FIRST_PAUSE, |(_, pause)| pause);
        if self.retry.is_none() {
            tracing::warn!(%error, "no checkpoint could be made; trying again until one can");
        }
        self.retry = Some((now + pause, (pause * 2).min(LONGEST_PAUSE)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn head(sequence: u64, part: u32) -> Head {
        Head { ledger: [0; 16], sequence, chain: [0; 32], part }
    }

    #[test]
    fn checkpoint_is_due_at_interval_and_new_part_only() {
        let start = Instant::now();
        let mut schedule = Schedule::new(None);
        assert!(!schedule.is_due(&head(0, 1), HOUR, start));
        assert!(schedule.is_due(&head(5, 1), HOUR, start));
        schedule.made(&Checkpoint::new(&head(5, 1), Timestamp::now()), 1, start);
        // Entry 6 is the checkpoint itself.
        let later = start + 2 * HOUR;
        assert!(!schedule.is_due(&head(6, 1), HOUR, later) && !schedule.is_due(&head(6, 2), HOUR, later));
        assert!(schedule.is_due(&head(7, 1), HOUR, later));
        schedule.made(&Checkpoint::new(&head(7, 1), Timestamp::now()), 1, later);
        assert!(!schedule.is_due(&head(100, 1), HOUR, later));
        assert!(schedule.is_due(&head(100, 2), HOUR, later));
        assert_eq!(schedule.age(&head(100, 2), later), Duration::ZERO);
        assert_eq!(schedule.age(&head(101, 2), later + HOUR), HOUR);
    }

    #[test]
    fn failed_checkpoint_is_retried_with_growing_pauses() {
        let mut schedule = Schedule::new(None);
        let mut now = Instant::now();
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            schedule.failed(&CheckpointError::Commit(CommitError::Closed), now);
            assert!(!schedule.is_due(&head(5, 1), HOUR, now));
            now += Duration::from_secs(pause);
            assert!(schedule.is_due(&head(5, 1), HOUR, now), "after {pause}");
        }
    }
}
