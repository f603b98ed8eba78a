//! How memory and index follow the journal: at a start, while entries are committed, and when the index failed.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::disk_space::DiskSpace;
use crate::{
    ledger::{
        apply::ApplyError,
        entry::{Entry, Event},
        error::LedgerError,
        index::{self, Applied, Index, IndexError, Runs, Site},
        journal::{Journal, Position, ReadFrame, Reader},
        memtable::MemTable,
        overlay::{Overlay, Pending},
        view::View,
    },
    serial::SerialNumber,
};

/// What is known, and what brings it up to the journal. Lock order: `follower` before `memory`.
#[derive(Debug)]
pub(in crate::ledger) struct Catalog {
    memory: RwLock<MemTable>,
    follower: Mutex<Follower>,
}

/// What an index is made with.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct Setup {
    pub(in crate::ledger) site: Site,
    pub(in crate::ledger) space: Arc<DiskSpace>,
    pub(in crate::ledger) flush_at: usize,
}

/// Entries that are applied under one lock.
const APPLIED_AT_ONCE: usize = 1024;

/// Retry interval after a failed flush, as long as memory can hold what is settled.
const FLUSH_AGAIN: Duration = Duration::from_secs(10);

/// Why the journal could not be applied.
#[derive(Debug)]
pub(in crate::ledger) enum ReplayError {
    Ledger(LedgerError),
    /// An entry contradicts what is known, from the index or from the entries before.
    Contradiction(Position, String),
    /// It is not needed any more.
    Stopped,
}

impl<E: Into<LedgerError>> From<E> for ReplayError {
    fn from(error: E) -> Self {
        ReplayError::Ledger(error.into())
    }
}

impl ReplayError {
    /// Why the index is to be rebuilt, if it may be the cause.
    fn index_failure(&self) -> Option<String> {
        match self {
            ReplayError::Contradiction(position, what) => {
                Some(format!("the entry at {position} contradicts it: {what}"))
            }
            ReplayError::Ledger(LedgerError::Unavailable { cause, .. }) => Some(cause.to_string()),
            _ => None,
        }
    }

    pub(in crate::ledger) fn accuse(self, journal: &Reader) -> LedgerError {
        match self {
            ReplayError::Ledger(error) => error,
            ReplayError::Contradiction(position, what) => journal.contradiction(position, &what).into(),
            ReplayError::Stopped => IndexError::Rebuilding("the daemon ends".into()).into(),
        }
    }
}

impl Catalog {
    /// Opens the index and applies what the journal has beyond it. An index that cannot be used, or that the journal's
    /// entries contradict, is set aside and rebuilt: the journal is accused only by itself. `rebuild`: whatever the
    /// index is, it is rebuilt.
    pub(in crate::ledger) fn open(setup: &Setup, journal: &mut Journal, rebuild: bool) -> Result<Catalog, LedgerError> {
        setup.site.settle(journal)?;
        let (reader, end) = (journal.reader().clone(), journal.end());
        let go_on = AtomicBool::new(false);
        let mut reason = "it is to be rebuilt".to_owned();
        if !rebuild && let Some((index, runs, applied)) = Index::open(&setup.site, journal)? {
            let applied = applied.unwrap_or_else(|| Applied::nothing(journal.id()));
            let mut catalog = Catalog::new(setup, index, runs, applied, end)?;
            match catalog.replay(&reader, end, &go_on) {
                Ok(()) => return Ok(catalog),
                Err(error) => reason = error.index_failure().ok_or_else(|| error.accuse(&reader))?,
            }
        }
        Catalog::rebuild(setup, &reader, end, &reason, &go_on).map_err(|error| error.accuse(&reader))
    }

    /// Makes a new index, and applies the whole journal, which alone is the truth (invariant 6); what is in its place
    /// is set aside for this reason.
    pub(in crate::ledger) fn rebuild(
        setup: &Setup,
        journal: &Reader,
        end: Position,
        reason: &str,
        stop: &AtomicBool,
    ) -> Result<Catalog, ReplayError> {
        let index = Index::create(&setup.site, reason)?;
        let mut catalog = Catalog::new(setup, index, Runs::new(), Applied::nothing(setup.site.journal), end)?;
        catalog.replay(journal, end, stop)?;
        Ok(catalog)
    }

    fn new(setup: &Setup, index: Index, runs: Runs, applied: Applied, end: Position) -> Result<Catalog, LedgerError> {
        let indexer = Indexer::start().map_err(IndexError::Write)?;
        let follower = Follower { indexer, applied, space: Arc::clone(&setup.space), flush_at: setup.flush_at };
        let memory = MemTable::new(Arc::new(index), runs, end);
        Ok(Catalog { memory: RwLock::new(memory), follower: Mutex::new(follower) })
    }

    pub(in crate::ledger) fn memory(&self) -> RwLockReadGuard<'_, MemTable> {
        self.memory.read()
    }

    pub(in crate::ledger) fn memory_mut(&self) -> RwLockWriteGuard<'_, MemTable> {
        self.memory.write()
    }

    pub(in crate::ledger) fn follower(&self) -> MutexGuard<'_, Follower> {
        self.follower.lock()
    }

    fn view<'a>(&'a self, journal: &'a Reader, draft: Overlay) -> View<'a> {
        View::new(draft, self.memory(), journal)
    }

    /// Brings memory and index up to the journal's end.
    fn replay(&mut self, journal: &Reader, end: Position, stop: &AtomicBool) -> Result<(), ReplayError> {
        let Applied { next: indexed, replay_from, .. } = self.follower().applied;
        // What the index counts but does not hold: reservations before `indexed` whose end is after it.
        let mut pending = Overlay::default();
        for frame in journal.frames(replay_from, indexed) {
            self.collect_pending(&mut pending, frame?, journal);
        }
        let (issuers, peers) = (self.memory().index.issuers()?, self.memory().index.peers()?);
        let approvals = self.memory().index.approvals()?;
        let destinations = self.memory().index.destinations()?;
        let epochs = self.memory().index.epochs()?;
        let mut memory = self.memory_mut();
        memory.approvals.extend(approvals.into_iter().map(|approval| (approval.number, Arc::new(approval))));
        memory.peers.extend(peers.into_iter().map(|peer| (Arc::clone(&peer.name.0), Arc::new(peer))));
        memory.issuers.extend(issuers.into_iter().map(|issuer| (issuer.id, Arc::new(issuer))));
        memory.destinations.extend(destinations.into_iter().map(|found| (found.name.clone(), Arc::new(found))));
        memory.epochs.extend(epochs.into_iter().map(|epoch| (epoch.number, Arc::new(epoch))));
        memory.absorb(pending);
        drop(memory);
        let replayed = self.apply(journal, end, stop, |_| {})?;
        if replayed > 0 {
            tracing::info!(entries = replayed, "applied the journal's entries that the index did not have");
        }
        Ok(())
    }

    /// Applies the journal's entries from where it is applied up to `end`. Returns how many there were.
    /// `note` is told of each.
    pub(in crate::ledger) fn apply(
        &self,
        journal: &Reader,
        end: Position,
        stop: &AtomicBool,
        mut note: impl FnMut(&Entry),
    ) -> Result<u64, ReplayError> {
        let mut follower = self.follower();
        let mut frames = journal.frames(follower.applied.next, end).peekable();
        let mut replayed: u64 = 0;
        while frames.peek().is_some() {
            if stop.load(Ordering::Relaxed) {
                return Err(ReplayError::Stopped);
            }
            follower.flush_if_due(self)?;
            // Many entries share an overlay, as the operations of a batch do.
            let mut view = self.view(journal, Overlay::default());
            for frame in frames.by_ref().take(APPLIED_AT_ONCE) {
                let ReadFrame { position, next, chain, entry } = frame?;
                view.apply(&entry, position).map_err(|error| match error {
                    ApplyError::Ledger(error) => ReplayError::Ledger(error),
                    ApplyError::Contradiction(what) => ReplayError::Contradiction(position, what),
                })?;
                follower.applied.note(&entry);
                note(&entry);
                (follower.applied.last, follower.applied.next) = (Some((position, chain)), next);
                replayed += 1;
            }
            let draft = view.into_draft();
            self.memory_mut().absorb(draft);
        }
        follower.applied.next = end;
        self.memory_mut().end = end;
        Ok(replayed)
    }

    fn collect_pending(&self, pending: &mut Overlay, frame: ReadFrame, journal: &Reader) {
        match frame.entry.event {
            Event::Reserved { serial_number, holder, replaces } => {
                let mut view = self.view(journal, std::mem::take(pending));
                view.hold(serial_number, frame.position, Pending { holder, replaces });
                *pending = view.into_draft();
            }
            Event::Issued { serial_number, .. } | Event::Abandoned { serial_number, .. } => {
                // The index has what became of it.
                if let Some(reservation) = pending.records.remove(&serial_number).and_then(|location| location.pending)
                {
                    pending.forget(&reservation);
                }
                forget_proof(pending, &serial_number);
            }
            Event::ProofReserved { serial_number, terms } => {
                let mut view = self.view(journal, std::mem::take(pending));
                view.hold_proof(serial_number, frame.position, &terms);
                *pending = view.into_draft();
            }
            Event::ProofIssued { serial_number, .. } => forget_proof(pending, &serial_number),
            // The index has it.
            _ => {}
        }
    }

    /// Takes what another catalog knows in place of what this one does.
    pub(in crate::ledger) fn replace(&self, other: &Catalog, follower: &mut Follower) {
        // What was here ends after the locks are free: its thread may be waiting for what does not answer.
        std::mem::swap(&mut *self.memory_mut(), &mut *other.memory_mut());
        std::mem::swap(follower, &mut *other.follower());
    }
}

/// Forgets the reservation of a proof of possession; the index has what became of it.
fn forget_proof(pending: &mut Overlay, serial: &SerialNumber) {
    if let Some(id) = pending.proof_reservation(serial).map(|(id, _)| id.clone()) {
        pending.proofs.remove(&id);
    }
}

/// Brings memory and index up to the journal.
#[derive(Debug)]
pub(in crate::ledger) struct Follower {
    indexer: Indexer,
    /// How far memory follows the journal.
    pub(in crate::ledger) applied: Applied,
    space: Arc<DiskSpace>,
    flush_at: usize,
}

impl Follower {
    /// Flushes what is settled into the index when it is much; waits for the indexer only when that has fallen far
    /// behind.
    ///
    /// # Errors
    /// Memory holds all that it may (invariant 9), and the index takes nothing at present.
    pub(in crate::ledger) fn flush_if_due(&mut self, catalog: &Catalog) -> Result<(), LedgerError> {
        let memory = catalog.memory();
        let settled = memory.settled();
        // Until it is rebuilt hardly anything is settled: what the index must be asked for is refused.
        let failed = memory.index.failure().is_some();
        drop(memory);
        if failed {
            return Ok(());
        }
        let behind = settled >= 2 * self.flush_at;
        match self.indexer.collect(catalog, behind) {
            Err(error) if behind => return Err(error),
            Err(error) => tracing::warn!(%error, "the index does not take what is settled; it stays in memory"),
            Ok(()) => {}
        }
        if settled >= self.flush_at && self.indexer.is_idle() {
            self.begin_flush(catalog);
        }
        Ok(())
    }

    fn begin_flush(&mut self, catalog: &Catalog) {
        let mut memory = catalog.memory_mut();
        self.applied.replay_from = memory.oldest_reservation().unwrap_or(self.applied.next);
        let settled = memory.begin_flush();
        let (index, runs, space) = (Arc::clone(&memory.index), memory.runs.clone(), Arc::clone(&self.space));
        self.indexer.begin(Job { settled, applied: self.applied.clone(), index, runs, space });
    }

    /// Whether the indexer has ended what it was at.
    pub(in crate::ledger) fn is_idle(&mut self, catalog: &Catalog) -> bool {
        // The index has failed; what else fails does not matter.
        let _ = self.indexer.collect(catalog, false);
        !self.indexer.busy
    }

    /// Lets the index take all that is settled, and closes it.
    pub(in crate::ledger) fn close(&mut self, catalog: &Catalog) -> Result<(), LedgerError> {
        let index = Arc::clone(&catalog.memory().index);
        if let Some(why) = index.failure() {
            return Err(IndexError::Rebuilding(why.to_owned()).into());
        }
        self.indexer.collect(catalog, true)?;
        self.begin_flush(catalog);
        self.indexer.collect(catalog, true)?;
        Ok(index.close()?)
    }

    /// Ends the indexer's thread.
    pub(in crate::ledger) fn stop(&mut self) {
        self.indexer.stop();
    }
}

/// The thread that writes settled records into the index, so that the committer need not wait for it.
#[derive(Debug)]
struct Indexer {
    jobs: Option<mpsc::SyncSender<Job>>,
    done: mpsc::Receiver<Result<Runs, (Job, LedgerError)>>,
    thread: Option<JoinHandle<()>>,
    busy: bool,
    /// What was not taken, and when it was tried.
    failed: Option<(Job, Instant)>,
}

/// What the index is to take in, and how far the journal is applied with it.
#[derive(Debug)]
struct Job {
    settled: Arc<Overlay>,
    applied: Applied,
    index: Arc<Index>,
    runs: Runs,
    space: Arc<DiskSpace>,
}

impl Indexer {
    fn start() -> io::Result<Indexer> {
        let (jobs, work) = mpsc::sync_channel::<Job>(1);
        let (answers, done) = mpsc::sync_channel(1);
        let run = move || {
            for job in work {
                let done = job.run().map_err(|error| (job, error));
                if answers.send(done).is_err() {
                    return; // The ledger is gone.
                }
            }
        };
        let thread = thread::Builder::new().name("indexer".into()).spawn(run)?;
        Ok(Indexer { jobs: Some(jobs), done, thread: Some(thread), busy: false, failed: None })
    }

    fn is_idle(&self) -> bool {
        !self.busy && self.failed.is_none()
    }

    fn begin(&mut self, job: Job) {
        // If the thread has ended, that is noticed when its answer is collected.
        self.busy = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
    }

    /// Collects the result of the thread; waits for it if `wait`. What failed is begun again, but not too often unless
    /// `wait`.
    fn collect(&mut self, catalog: &Catalog, wait: bool) -> Result<(), LedgerError> {
        if let Some((job, _)) = self.failed.take_if(|(_, tried)| wait || tried.elapsed() >= FLUSH_AGAIN) {
            self.begin(job);
        }
        if !self.busy {
            return Ok(());
        }
        let answer = match wait {
            true => self.done.recv().map_err(|_| mpsc::TryRecvError::Disconnected),
            false => self.done.try_recv(),
        };
        match answer {
            Err(mpsc::TryRecvError::Empty) => return Ok(()),
            Err(mpsc::TryRecvError::Disconnected) => catalog.memory().index.fail("the indexer's thread panicked"),
            Ok(Ok(runs)) => {
                let mut memory = catalog.memory_mut();
                memory.runs = runs;
                memory.flushing = None;
            }
            Ok(Err((job, error))) => {
                self.busy = false;
                if !job.index.is_beside(&job.space.journal) {
                    // The journal's disk failed, and the index is still there: there must be another one.
                    job.index.fail(&error.to_string());
                    return Ok(());
                }
                self.failed = Some((job, Instant::now()));
                return Err(error);
            }
        }
        self.busy = false;
        Ok(())
    }

    fn stop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic was noticed when its answer was collected.
            let _ = thread.join();
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Job {
    /// Writes the overlay into the index and merges runs where there are many.
    fn run(&self) -> Result<Runs, LedgerError> {
        self.space.ensure(2 * index::bytes_of(&self.settled))?;
        let mut runs = self.index.flush(&self.settled, &self.applied, &self.runs)?;
        while let Some(bytes) = index::bytes_to_merge(&runs) {
            if self.space.ensure(2 * bytes).is_err() {
                break; // More runs are slower, not wrong.
            }
            match self.index.merge(&runs) {
                Ok(merged) => runs = merged,
                Err(error) => {
                    tracing::warn!(%error, "the index's runs could not be merged");
                    break;
                }
            }
        }
        Ok(runs)
    }
}
