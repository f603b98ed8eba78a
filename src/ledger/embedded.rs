//! The ledger on this machine: journal and index in one data folder.
//!
//! ```text
//! DATA/lock              locked by the one daemon that uses the folder, as the journal's folder and newest file are
//! DATA/journal/*.journal the truth
//! DATA/index/            sled; may be deleted while no daemon runs
//! DATA/checkpoint        the newest checkpoint, if there is an audit key
//! ```
//!
//! What a start does when these do not agree:
//!
//! | the journal | and | then |
//! |---|---|---|
//! | has an unreadable end | the index or the checkpoint knows that it was durable | refused: it is damaged |
//! | has an unreadable end | nothing knows of it | cut off: a crash tore the last write |
//! | ends before what the index or the checkpoint knows, or has other entries | | refused, until an operator accepts the loss |
//! | is fine | the checkpoint is not signed by the audit key | refused, until somebody moves the checkpoint away |
//!
//! A daemon that went on without what is lost would give devices a second certificate, and replace the only proof.

mod accept;
mod batch;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    Action, Actor, Export, ExportId, Head, IssuedCertificate, IssuedRecords, Ledger, LedgerError, Operation, Order,
    Outcome, Record, RecordState, Records, Refusal,
    checkpoint::SignedCheckpoint,
    clock::{Clock, ClockBounds},
    entry::{Entry, Event},
    index::{self, Applied, Index},
    journal::{AppendError, Frames, Journal, JournalError, Position, ReadFrame, Reader, Scan},
    lock::{Lock, tighten},
    state::{ApplyError, ExportPlace, Later, Layer, Memory, Pending, View, change_at},
};
use crate::{
    serial::{SerialNumber, SerialNumbers},
    signer::PublicKey,
};

/// How the ledger uses its folder.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A new journal file is begun when the newest has this size, in bytes.
    pub segment_size: u32,
    /// So many settled records sink from memory into the index at once. Large numbers are cheap for the index; up to
    /// twice as many certificates are read again at a start.
    pub sink_at: usize,
    /// Nothing is reserved while the file system has less free space than this, in bytes; what is reserved is still
    /// recorded.
    pub min_free: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { segment_size: 64 << 20, sink_at: 65_536, min_free: 256 << 20 }
    }
}

/// What a ledger is held against when it is opened and used, besides itself.
#[derive(Clone, Debug, Default)]
pub struct Guards {
    /// The audit key and those before it: one of them must have signed the checkpoint file. With none, the file is held
    /// against the journal, but its signature is not verified.
    pub audit_keys: Vec<PublicKey>,
    /// When the clock cannot be right.
    pub clock: ClockBounds,
}

/// How long a batch that could not be written stands for the next: it may be that nobody asks for one because of it.
const TROUBLE_LASTS: Duration = Duration::from_secs(30);

/// How long the index is left alone after it did not take what is settled, as long as memory can hold it.
const SINK_AGAIN: Duration = Duration::from_secs(10);

/// The side that changes.
#[derive(Debug)]
pub struct EmbeddedLedger {
    journal: Journal,
    serial_numbers: SerialNumbers,
    shared: Arc<Shared>,
    indexer: Indexer,
    /// How far memory follows the journal.
    applied: Applied,
    sink_at: usize,
    _lock: Lock,
}

/// The side that reads; clones share it.
#[derive(Clone, Debug)]
pub struct EmbeddedRecords {
    shared: Arc<Shared>,
    journal: Reader,
}

/// What both sides and the indexer see.
#[derive(Debug)]
struct Shared {
    memory: RwLock<Memory>,
    index: Index,
    head: RwLock<Head>,
    space: Space,
    /// When and why the last batch could not be written, until one can.
    trouble: Mutex<Option<(Instant, String)>>,
    clock: Mutex<Clock>,
}

impl Shared {
    fn view<'a>(&'a self, journal: &'a Reader, draft: Layer) -> View<'a> {
        View { draft, memory: self.memory(), index: &self.index, journal }
    }

    fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory_mut(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The room on the data folder's file system.
#[derive(Debug)]
struct Space {
    folder: PathBuf,
    min_free: u64,
}

impl Space {
    /// sled does not recover from a write that found the disk full, so it is not let near that.
    fn must_hold(&self, bytes: u64) -> Result<(), LedgerError> {
        let room = rustix::fs::statvfs(&self.folder).map_err(|error| LedgerError::Write(error.into()))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        let needed = bytes.saturating_add(self.min_free / 4);
        if free > needed { Ok(()) } else { Err(LedgerError::NoRoom { free, needed }) }
    }

    /// What is in the way of new reservations, if anything is.
    fn refusal(&self) -> Option<Refusal> {
        // A file system that does not tell refuses writes by itself when it is full.
        let room = rustix::fs::statvfs(&self.folder).ok()?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        (free < self.min_free).then_some(Refusal::StorageLow { free, min_free: self.min_free })
    }
}

impl EmbeddedLedger {
    /// Opens the ledger in `folder`, or begins one. Reservations that a crash left without a certificate become
    /// abandoned.
    ///
    /// # Errors
    /// A folder that cannot be used or that another daemon uses; a damaged journal.
    pub fn open(
        folder: &Path,
        now: Timestamp,
        settings: &Settings,
    ) -> Result<(EmbeddedLedger, EmbeddedRecords), LedgerError> {
        EmbeddedLedger::open_guarded(folder, now, settings, &Guards::default())
    }

    /// As [`EmbeddedLedger::open`], held against `guards`.
    ///
    /// # Errors
    /// Besides, a checkpoint that none of the audit keys signed.
    pub fn open_guarded(
        folder: &Path,
        now: Timestamp,
        settings: &Settings,
        guards: &Guards,
    ) -> Result<(EmbeddedLedger, EmbeddedRecords), LedgerError> {
        let mut ledger = EmbeddedLedger::recover(folder, settings, guards, false)?;
        ledger.abandon_pending(now)?;
        let records = EmbeddedRecords { shared: Arc::clone(&ledger.shared), journal: ledger.journal.reader().clone() };
        Ok((ledger, records))
    }

    /// Deletes the index and makes it anew. Gives the number of the journal's entries.
    ///
    /// # Errors
    /// A folder that cannot be used or that a daemon uses; a damaged journal: then the index stays.
    pub fn reindex(folder: &Path, settings: &Settings) -> Result<u64, LedgerError> {
        let ledger = EmbeddedLedger::recover(folder, settings, &Guards::default(), true)?;
        let entries = ledger.journal.next_sequence() - 1;
        ledger.close()?;
        Ok(entries)
    }

    /// Opens journal and index and brings them together.
    fn recover(folder: &Path, settings: &Settings, guards: &Guards, anew: bool) -> Result<EmbeddedLedger, LedgerError> {
        let unusable = |cause: io::Error| LedgerError::Folder { folder: folder.display().to_string(), cause };
        let lock = Lock::take(folder)?;
        let checkpoint = checkpoint_file(folder);
        if checkpoint.exists() && !Journal::exists(&folder.join("journal"))? {
            // A new one would take its place as if nothing had been issued.
            let (path, what) = (checkpoint.display().to_string(), "there is no journal file".to_owned());
            return Err(LedgerError::Checkpoint { path, what });
        }
        let mut journal = open_journal(folder, settings)?;
        check_against_checkpoint(&journal, &checkpoint, &guards.audit_keys)?;
        let index_folder = folder.join("index");
        let (mut index, mut runs, mut applied) = Index::open(&index_folder, &mut journal)?;
        if anew {
            drop((index, runs));
            fs::remove_dir_all(&index_folder).map_err(unusable)?;
            (index, runs, applied) = Index::open(&index_folder, &mut journal)?;
        }
        tighten(folder);
        let memory = RwLock::new(Memory::new(runs, journal.end()));
        let head = RwLock::new(head(&journal));
        let space = Space { folder: folder.to_owned(), min_free: settings.min_free };
        let clock = Mutex::new(Clock::new(guards.clock.clone(), None));
        let shared = Arc::new(Shared { memory, index, head, space, trouble: Mutex::default(), clock });
        let mut ledger = EmbeddedLedger {
            serial_numbers: SerialNumbers::resume(journal.id(), None),
            applied: applied.unwrap_or_else(|| Applied::nothing(&journal)),
            journal,
            indexer: Indexer::start(Arc::clone(&shared)).map_err(unusable)?,
            shared,
            sink_at: settings.sink_at,
            _lock: lock,
        };
        ledger.replay()?;
        ledger.serial_numbers = SerialNumbers::resume(ledger.journal.id(), ledger.applied.newest_serial);
        if ledger.journal.next_sequence() > 1 {
            ledger.shared.clock().wrote(ledger.applied.newest_time);
        }
        Ok(ledger)
    }

    /// Brings memory and index up to the journal's end.
    fn replay(&mut self) -> Result<(), LedgerError> {
        let indexed = self.applied.next;
        let shared = Arc::clone(&self.shared);
        let journal = self.journal.reader().clone();
        let mut frames = journal.frames(self.applied.replay_from, self.journal.end()).peekable();

        // What the index counts but does not hold: reservations before `indexed` whose end is behind it.
        let mut pending = Layer::default();
        while let Some(frame) = frames.next_if(|frame| frame.as_ref().is_ok_and(|frame| frame.position < indexed)) {
            self.collect_pending(&mut pending, frame?)?;
        }
        shared.memory_mut().absorb(pending);

        let mut replayed: u64 = 0;
        while frames.peek().is_some() {
            // Many entries share a layer, as the operations of a batch do.
            let mut view = shared.view(&journal, Layer::default());
            for frame in frames.by_ref().take(REPLAYED_AT_ONCE) {
                let ReadFrame { position, next, chain, entry } = frame?;
                view.apply(&entry, position).map_err(|error| misfit(&journal, position, error))?;
                self.applied.note(&entry);
                (self.applied.last, self.applied.next) = (Some((position, chain)), next);
                replayed += 1;
            }
            let draft = view.into_draft();
            shared.memory_mut().absorb(draft);
            self.sink_if_due()?;
        }
        self.applied.next = self.journal.end();
        if replayed > 0 {
            tracing::info!(entries = replayed, "read the journal's tail behind the index");
        }
        Ok(())
    }

    fn collect_pending(&self, pending: &mut Layer, frame: ReadFrame) -> Result<(), LedgerError> {
        match frame.entry.event {
            Event::Reserved { serial_number, holder, replaces } => {
                let mut view = self.shared.view(self.journal.reader(), std::mem::take(pending));
                view.hold(serial_number, frame.position, Pending { holder, replaces });
                *pending = view.into_draft();
            }
            Event::Issued { serial_number, .. } | Event::Abandoned { serial_number, .. } => {
                // The index has what became of it.
                if let Some(reservation) = pending.records.remove(&serial_number).and_then(|place| place.pending) {
                    pending.forget(&reservation);
                }
            }
            // The index has it.
            _ => {}
        }
        Ok(())
    }

    /// After a start nobody is working on a reservation any more.
    fn abandon_pending(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let abandon = |serial_number: SerialNumber| {
            let reason = "the daemon stopped before the certificate was recorded".into();
            Operation { actor: Actor::daemon(), action: Action::Abandon { serial_number, reason } }
        };
        let operations: Vec<_> = self.shared.memory().pending.keys().copied().map(abandon).collect();
        if !operations.is_empty() {
            tracing::info!(reservations = operations.len(), "abandoned the reservations that a crash left unfinished");
            self.commit(now, &operations)?;
        }
        Ok(())
    }

    /// Lets what is settled sink into the index when it is much; waits for the indexer only when it is far behind.
    fn sink_if_due(&mut self) -> Result<(), LedgerError> {
        let settled = self.shared.memory().settled();
        let behind = settled >= 2 * self.sink_at;
        match self.indexer.collect(behind) {
            Err(LedgerError::Index(error)) if behind => return Err(LedgerError::IndexStuck(error)),
            Err(error) if behind => return Err(error),
            Err(error) => tracing::warn!(%error, "the index does not take what is settled; it stays in memory"),
            Ok(()) => {}
        }
        if settled >= self.sink_at && self.indexer.is_idle() {
            self.begin_to_sink();
        }
        Ok(())
    }

    fn begin_to_sink(&mut self) {
        let mut memory = self.shared.memory_mut();
        self.applied.replay_from = memory.pending.values().next().copied().unwrap_or(self.applied.next);
        let settled = memory.begin_to_sink();
        self.indexer.begin(Sinking { settled, applied: self.applied.clone() });
    }
}

/// Entries that are applied under one lock at a start.
const REPLAYED_AT_ONCE: usize = 1024;

impl Ledger for EmbeddedLedger {
    fn commit(&mut self, now: Timestamp, operations: &[Operation]) -> Result<Vec<Outcome>, LedgerError> {
        let before = self.journal.next_sequence();
        let committed = self.commit_batch(now, operations);
        match &committed {
            Err(error) => *self.shared.trouble() = Some((Instant::now(), error.to_string())),
            // What wrote nothing says nothing about writing.
            Ok(_) if self.journal.next_sequence() > before => *self.shared.trouble() = None,
            Ok(_) => {}
        }
        committed
    }

    fn close(mut self) -> Result<(), LedgerError> {
        let sunk = self.indexer.collect(true).and_then(|()| {
            self.begin_to_sink();
            self.indexer.collect(true)
        });
        match sunk {
            Ok(()) => Ok(self.shared.index.close()?),
            Err(error) => {
                tracing::warn!(%error, "the index is not up to date; the next start reads more of the journal");
                Ok(())
            }
        }
    }
}

/// The thread that writes settled records into the index, so that the committer need not wait for it.
#[derive(Debug)]
struct Indexer {
    work: mpsc::SyncSender<Sinking>,
    done: mpsc::Receiver<Result<(), (Sinking, LedgerError)>>,
    busy: bool,
    /// What could not be sunk, and when it was tried.
    failed: Option<(Sinking, Instant)>,
}

/// What sinks into the index, and how far the journal is applied with it.
#[derive(Clone, Debug)]
struct Sinking {
    settled: Arc<Layer>,
    applied: Applied,
}

impl Indexer {
    fn start(shared: Arc<Shared>) -> io::Result<Indexer> {
        let (work, works) = mpsc::sync_channel::<Sinking>(1);
        let (answers, done) = mpsc::sync_channel(1);
        thread::Builder::new().name("indexer".into()).spawn(move || {
            for sinking in works {
                let sunk = sink(&shared, &sinking).map_err(|error| (sinking, error));
                if answers.send(sunk).is_err() {
                    return; // The ledger is gone.
                }
            }
        })?;
        Ok(Indexer { work, done, busy: false, failed: None })
    }

    fn is_idle(&self) -> bool {
        !self.busy && self.failed.is_none()
    }

    fn begin(&mut self, sinking: Sinking) {
        // The thread lives as long as the ledger.
        self.busy = self.work.send(sinking).is_ok();
    }

    /// Hears whether the thread is done; waits for it if `wait`. What failed is begun again, but not too often unless
    /// `wait`.
    fn collect(&mut self, wait: bool) -> Result<(), LedgerError> {
        if let Some((sinking, _)) = self.failed.take_if(|(_, tried)| wait || tried.elapsed() >= SINK_AGAIN) {
            self.begin(sinking);
        }
        if !self.busy {
            return Ok(());
        }
        let answer = if wait { self.done.recv().ok() } else { self.done.try_recv().ok() };
        let Some(sunk) = answer else { return Ok(()) };
        self.busy = false;
        sunk.map_err(|(sinking, error)| {
            self.failed = Some((sinking, Instant::now()));
            error
        })
    }
}

/// Writes one layer into the index and merges runs where there are many.
fn sink(shared: &Shared, sinking: &Sinking) -> Result<(), LedgerError> {
    let before = shared.memory().runs.clone();
    shared.space.must_hold(2 * index::bytes_of(&sinking.settled))?;
    let mut runs = shared.index.sink(&sinking.settled, &sinking.applied, &before)?;
    let mut memory = shared.memory_mut();
    memory.runs.clone_from(&runs);
    memory.sinking = None;
    drop(memory);
    while let Some(bytes) = index::bytes_to_merge(&runs) {
        if shared.space.must_hold(2 * bytes).is_err() {
            break; // More runs are slower, not wrong.
        }
        let merged = shared.index.merge(&runs)?;
        // Who looks into the old runs holds the lock; once the new ones are in their place nobody does.
        shared.memory_mut().runs.clone_from(&merged);
        shared.index.remove_merged(&runs, &merged)?;
        runs = merged;
    }
    Ok(())
}

impl Records for EmbeddedRecords {
    fn by_serial_number(&self, serial_number: &SerialNumber) -> Result<Option<Record>, LedgerError> {
        self.view().record(serial_number)
    }

    fn by_device(&self, device: &str) -> Result<Option<Record>, LedgerError> {
        let view = self.view();
        match view.by_device(device)? {
            Some(serial_number) => view.record(&serial_number),
            None => Ok(None),
        }
    }

    fn order(&self, id: &str) -> Result<Option<Order>, LedgerError> {
        Ok(self.view().order(id)?.map(|place| place.order))
    }

    fn orders(&self) -> Result<Vec<Order>, LedgerError> {
        self.view().orders()
    }

    fn issued_under(&self, order: &str) -> Result<IssuedRecords, LedgerError> {
        let Some(place) = self.view().order(order)? else {
            return Ok(IssuedRecords::new(std::iter::empty()));
        };
        let end = self.shared.memory().end;
        let certificates = Certificates::of(self, order, place.created, end);
        let records = self.clone();
        Ok(IssuedRecords::new(certificates.map(move |found| found?.map(|record| records.as_it_is(record)).transpose())))
    }

    fn exports(&self, order: &str) -> Result<Vec<Export>, LedgerError> {
        self.view().exports(order)
    }

    fn export(&self, id: &ExportId) -> Result<Option<Export>, LedgerError> {
        Ok(self.view().export(id)?.map(|place| place.export))
    }

    fn exported(&self, id: &ExportId) -> Result<IssuedRecords, LedgerError> {
        let view = self.view();
        let (Some(order), Some(export)) = (view.order(&id.order)?, view.export(id)?) else {
            return Ok(IssuedRecords::new(std::iter::empty()));
        };
        let before = view.export(&ExportId { number: id.number - 1, ..id.clone() })?;
        let start = before.map_or(order.created, |before| before.position);
        let certificates = Certificates::of(self, &id.order, start, export.position);
        Ok(IssuedRecords::new(Exported { certificates, records: self.clone(), export, seen: 0 }))
    }

    fn head(&self) -> Head {
        *self.shared.head.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EmbeddedRecords {
    /// Whether the ledger can reserve and record now; otherwise why not.
    ///
    /// # Errors
    /// What is in the way.
    pub fn healthy(&self) -> Result<(), String> {
        let trouble = self.shared.trouble().clone();
        if let Some((_, why)) = trouble.filter(|(when, _)| when.elapsed() < TROUBLE_LASTS) {
            return Err(why);
        }
        if let Some(refusal) = self.shared.clock().refusal(Timestamp::now()) {
            return Err(refusal.to_string());
        }
        self.shared.space.refusal().map_or(Ok(()), |refusal| Err(refusal.to_string()))
    }

    /// What is wrong with what was recorded, without being in the way of recording more.
    ///
    /// # Errors
    /// The damage that the scrub or a read has found, with file and byte.
    pub fn intact(&self) -> Result<(), String> {
        self.journal.known_damage().map_or(Ok(()), Err)
    }

    pub(super) fn journal(&self) -> &Reader {
        &self.journal
    }

    /// All of the journal before it is durable.
    pub(super) fn end(&self) -> Position {
        self.shared.memory().end
    }

    fn view(&self) -> View<'_> {
        self.shared.view(&self.journal, Layer::default())
    }

    /// A certificate as it was issued, with what became of it since.
    fn as_it_is(&self, record: Record) -> Result<Record, LedgerError> {
        let later = self.view().later(&record.serial_number)?;
        match later {
            Some(Later { state, changed }) => {
                Ok(Record { state, changed: Some(change_at(&self.journal, changed)?), ..record })
            }
            None => Ok(record),
        }
    }
}

/// Reads an order's certificates from a part of the journal, each as it was issued.
struct Certificates {
    order: String,
    frames: Frames,
    records: EmbeddedRecords,
    /// Reservations of that part whose certificate is still to come; none: of other orders.
    reserved: HashMap<SerialNumber, Option<Record>>,
}

impl Certificates {
    fn of(records: &EmbeddedRecords, order: &str, from: Position, end: Position) -> Self {
        let frames = records.journal.frames(from, end);
        Certificates { order: order.to_owned(), frames, records: records.clone(), reserved: HashMap::new() }
    }

    fn take(&mut self, entry: Entry) -> Result<Option<Record>, LedgerError> {
        let Entry { time, actor, event } = entry;
        match event {
            Event::Reserved { serial_number, holder, replaces } => {
                let (state, reserved_at) = (RecordState::Reserved, time);
                let ours = holder.order == self.order;
                let record =
                    Record { serial_number, state, holder, actor, reserved_at, issued: None, replaces, changed: None };
                self.reserved.insert(serial_number, ours.then_some(record));
            }
            Event::Issued { serial_number, certificate } => {
                let record = match self.reserved.remove(&serial_number) {
                    Some(record) => record,
                    // Reserved before the part begins.
                    None => self.records.by_serial_number(&serial_number)?,
                };
                let issued = Some(IssuedCertificate { at: time, certificate });
                let ours = record.filter(|record| record.holder.order == self.order);
                return Ok(ours.map(|record| Record { state: RecordState::Issued, issued, changed: None, ..record }));
            }
            Event::Abandoned { serial_number, .. } => {
                self.reserved.remove(&serial_number);
            }
            _ => {}
        }
        Ok(None)
    }
}

impl Iterator for Certificates {
    type Item = Result<Option<Record>, LedgerError>;

    /// Reads one entry.
    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.frames.next()? {
            Ok(frame) => self.take(frame.entry),
            Err(error) => Err(error.into()),
        })
    }
}

/// The certificates of an export.
struct Exported {
    certificates: Certificates,
    records: EmbeddedRecords,
    export: ExportPlace,
    seen: u64,
}

impl Exported {
    /// Whether it was live when the export was created.
    fn was_live(&self, record: &Record) -> Result<bool, LedgerError> {
        let later = self.records.view().later(&record.serial_number)?;
        Ok(later.is_none_or(|later| later.state.is_live() || later.changed > self.export.position))
    }
}

impl Iterator for Exported {
    type Item = Result<Option<Record>, LedgerError>;

    /// Reads one entry.
    fn next(&mut self) -> Option<Self::Item> {
        let Some(found) = self.certificates.next() else {
            let ExportPlace { export, position } = &self.export;
            let (seen, counted) = (std::mem::replace(&mut self.seen, export.certificates), export.certificates);
            let what = || format!("the export {} counts {counted} certificates and has {seen}", export.id);
            return (seen != counted).then(|| Err(self.records.journal.misfit(*position, &what()).into()));
        };
        let live = found.and_then(|found| {
            let Some(record) = found else { return Ok(None) };
            Ok(self.was_live(&record)?.then_some(record))
        });
        self.seen += u64::from(matches!(live, Ok(Some(_))));
        Some(live)
    }
}

impl From<AppendError> for LedgerError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NotWritten(cause) => LedgerError::Write(cause),
            AppendError::Unknown(cause) => LedgerError::Fatal(cause),
            AppendError::Taken { path, what } => LedgerError::Taken { path, what },
            AppendError::TooLarge { .. } => LedgerError::Write(io::Error::new(io::ErrorKind::InvalidInput, error)),
        }
    }
}

fn head(journal: &Journal) -> Head {
    Head {
        ledger: journal.id(),
        sequence: journal.next_sequence() - 1,
        chain: *journal.chain(),
        part: journal.segment(),
    }
}

/// Where the newest checkpoint of the ledger in `folder` is.
pub fn checkpoint_file(folder: &Path) -> PathBuf {
    folder.join("checkpoint")
}

/// Opens the journal and locks it.
fn open_journal(folder: &Path, settings: &Settings) -> Result<Journal, LedgerError> {
    let mut journal = Journal::open(&folder.join("journal"), settings.segment_size)?;
    match journal.lock() {
        Ok(()) => Ok(journal),
        Err(JournalError::InUse { pid, .. }) => Err(LedgerError::Locked { folder: folder.display().to_string(), pid }),
        Err(error) => Err(error.into()),
    }
}

/// The journal must be one that goes on from the newest checkpoint, which one of the keys must have signed.
fn check_against_checkpoint(journal: &Journal, path: &Path, keys: &[PublicKey]) -> Result<(), LedgerError> {
    let differs = |what: String| LedgerError::Checkpoint { path: path.display().to_string(), what };
    let not_trusted = |what: String| LedgerError::CheckpointNotTrusted { path: path.display().to_string(), what };
    let Some(signed) = SignedCheckpoint::read(path).map_err(not_trusted)? else {
        return Ok(());
    };
    if keys.is_empty() {
        tracing::warn!(file = %path.display(), "there is no audit key: the checkpoint's signature is not verified");
    } else {
        signed.verify(keys).map_err(not_trusted)?;
    }
    let checkpoint = signed.checkpoint;
    if checkpoint.journal != journal.id() {
        return Err(differs("the journal is another ledger's".into()));
    }
    let entries = journal.next_sequence() - 1;
    if checkpoint.sequence > entries {
        let unreadable = journal.unreadable_end().map(|what| format!(" ({what})")).unwrap_or_default();
        return Err(differs(format!(
            "it knows {} entries, and only {entries} can be read{unreadable}",
            checkpoint.sequence
        )));
    }
    let chain = Scan::open(journal.reader().folder())?.chain_after(checkpoint.sequence)?.unwrap_or_default();
    if chain != checkpoint.chain {
        return Err(differs(format!("the entries up to number {} are not those that it knows", checkpoint.sequence)));
    }
    Ok(())
}

fn misfit(journal: &Reader, position: Position, error: ApplyError) -> LedgerError {
    match error {
        ApplyError::Ledger(error) => error,
        ApplyError::Misfit(what) => journal.misfit(position, &what).into(),
    }
}
