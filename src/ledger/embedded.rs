//! The ledger on this machine: journal and index in one data folder.
//!
//! ```text
//! DATA/lock              held by the one daemon that uses the folder
//! DATA/journal/*.journal the truth
//! DATA/index/            where things are; may be deleted while no daemon runs
//! DATA/checkpoint        the newest checkpoint, if there is an audit key
//! ```
//!
//! What a start does when these do not agree:
//!
//! | the journal | and | then |
//! |---|---|---|
//! | has an unreadable end | the index or the checkpoint knows that it was durable | refused: it is damaged |
//! | has an unreadable end | nothing knows of it | cut off: a crash tore the last write |
//! | ends before what the index knows | | the index is set aside and made anew: an older journal was restored |
//! | ends before what the checkpoint knows, or has other entries | | refused, until somebody moves the checkpoint away |
//!
//! The index may be behind or ahead by accident; a checkpoint is there to tell, and a daemon that went on would replace
//! the only proof with a new one.

use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, mpsc},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

mod follow;
mod space;
#[cfg(test)]
mod tests;

use self::{
    follow::{Catalog, Follower, Rebuilder, Setup},
    space::Space,
};
use super::{
    Action, Actor, Export, ExportId, Head, IssuedCertificate, IssuedRecords, Ledger, LedgerError, Operation, Order,
    Outcome, Record, RecordState, Records, Refusal,
    checkpoint::SignedCheckpoint,
    decide::decide,
    entry::{Entry, Event},
    index::{self, Index, IndexError},
    journal::{AppendError, Frames, Journal, Position, Reader, Scan},
    layer::{ExportPlace, Later, Layer},
    state::{ApplyError, Memory, View},
};
use crate::{
    durable,
    serial::{SerialNumber, SerialNumbers},
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
    /// The id of this boot of the machine, by which an index that was open when it went down is known; none: the
    /// kernel's. Tests set it.
    pub boot_id: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { segment_size: 64 << 20, sink_at: 65_536, min_free: 256 << 20, boot_id: None }
    }
}

/// How far the clock may be behind the newest entry before nothing more is issued.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(5);

/// How long a batch that could not be written stands for the next: it may be that nobody asks for one because of it.
const TROUBLE_LASTS: Duration = Duration::from_secs(30);

/// The side that changes.
#[derive(Debug)]
pub struct EmbeddedLedger {
    journal: Journal,
    serial_numbers: SerialNumbers,
    shared: Arc<Shared>,
    /// Ends before the lock does.
    _rebuilder: Rebuilder,
    _lock: File,
}

/// The side that reads; clones share it.
#[derive(Clone, Debug)]
pub struct EmbeddedRecords {
    shared: Arc<Shared>,
    journal: Reader,
}

/// What both sides see.
#[derive(Debug)]
struct Shared {
    catalog: Arc<Catalog>,
    head: RwLock<Head>,
    space: Arc<Space>,
    /// When and why the last batch could not be written, until one can.
    trouble: Mutex<Option<(Instant, String)>>,
}

impl Shared {
    fn view<'a>(&'a self, journal: &'a Reader, draft: Layer) -> View<'a> {
        View { draft, memory: self.memory(), journal }
    }

    fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.catalog.memory()
    }

    /// A batch has it to itself.
    fn follower(&self) -> MutexGuard<'_, Follower> {
        self.catalog.follower()
    }

    fn trouble(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut ledger = EmbeddedLedger::recover(folder, settings, false)?;
        if let Err(error) = ledger.abandon_pending(now) {
            let LedgerError::Index(_) = error else { return Err(error) };
            // What was not asked for before is damaged.
            drop(ledger);
            ledger = EmbeddedLedger::recover(folder, settings, true)?;
            ledger.abandon_pending(now)?;
        }
        let records = EmbeddedRecords { shared: Arc::clone(&ledger.shared), journal: ledger.journal.reader().clone() };
        Ok((ledger, records))
    }

    /// Deletes the index and makes it anew. Gives the number of the journal's entries.
    ///
    /// # Errors
    /// A folder that cannot be used or that a daemon uses; a damaged journal: then the index stays.
    pub fn reindex(folder: &Path, settings: &Settings) -> Result<u64, LedgerError> {
        let ledger = EmbeddedLedger::recover(folder, settings, true)?;
        let entries = ledger.journal.next_sequence() - 1;
        ledger.close()?;
        // What was there before; an operator asked for it to go.
        let _ = fs::remove_dir_all(index::aside(&folder.join("index")));
        Ok(entries)
    }

    /// Opens journal and index and brings them together.
    fn recover(folder: &Path, settings: &Settings, anew: bool) -> Result<EmbeddedLedger, LedgerError> {
        let unusable = |cause: io::Error| LedgerError::Folder { folder: folder.display().to_string(), cause };
        let journal_folder = folder.join("journal");
        durable::create_folder(&journal_folder).map_err(unusable)?;
        let lock = lock(folder)?;

        let mut journal = Journal::open(&journal_folder, settings.segment_size)?;
        check_against_checkpoint(&journal, &checkpoint_file(folder))?;
        let (alarm, alarms) = mpsc::sync_channel(1);
        let boot = settings.boot_id.clone().unwrap_or_else(boot_id);
        let site = index::Site { folder: folder.join("index"), journal: journal.id(), boot, alarm };
        let space = Arc::new(Space { folder: folder.to_owned(), min_free: settings.min_free });
        let setup = Setup { site, space: Arc::clone(&space), sink_at: settings.sink_at };
        let catalog = Arc::new(Catalog::open(&setup, &mut journal, anew)?);
        let newest_serial = catalog.follower().applied.newest_serial;
        let rebuilder = Rebuilder::start(setup, alarms, &catalog, journal.reader().clone()).map_err(unusable)?;
        let head = RwLock::new(head(&journal));
        let shared = Arc::new(Shared { catalog, head, space, trouble: Mutex::default() });
        let serial_numbers = SerialNumbers::resume(journal.id(), newest_serial);
        Ok(EmbeddedLedger { journal, serial_numbers, shared, _rebuilder: rebuilder, _lock: lock })
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
            for outcome in self.commit(now, &operations)? {
                if let Outcome::Failed(error) = outcome
                    && let LedgerError::Index(cause) = &*error
                {
                    return Err(IndexError::Rebuilding(cause.to_string()).into());
                }
            }
        }
        Ok(())
    }
}

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

    fn close(self) -> Result<(), LedgerError> {
        if let Err(error) = self.shared.follower().close(&self.shared.catalog) {
            tracing::warn!(%error, "the index is not up to date; the next start reads more of the journal");
        }
        Ok(())
    }
}

impl Drop for EmbeddedLedger {
    fn drop(&mut self) {
        // Nothing writes into the folder after its lock is free.
        self.shared.follower().stop();
    }
}

impl EmbeddedLedger {
    fn commit_batch(&mut self, now: Timestamp, operations: &[Operation]) -> Result<Vec<Outcome>, LedgerError> {
        // Before anything of this batch is durable: what fails here fails all of it.
        let shared = Arc::clone(&self.shared);
        let mut follower = shared.follower();
        follower.sink_if_due(&shared.catalog)?;

        // Entries carry microseconds, and their times never decrease.
        let newest = follower.applied.newest_time;
        let time = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now).max(newest);
        let clock = (now + CLOCK_TOLERANCE < newest).then_some(Refusal::ClockBackwards { now, newest });
        let nothing_new = clock.or_else(|| self.shared.space.refusal());

        let journal = self.journal.reader().clone();
        let mut view = shared.view(&journal, Layer::default());
        let mut outcomes = Vec::with_capacity(operations.len());
        let mut applied = follower.applied.clone();
        let mut stage = |operation: &Operation| -> Result<Outcome, LedgerError> {
            let (outcome, event) = match decide(&view, time, &mut self.serial_numbers, operation) {
                Ok(decision) => decision,
                Err(error) => return Ok(Outcome::Failed(Arc::new(error))),
            };
            if let (Outcome::Reserved(_), Some(refusal)) = (&outcome, &nothing_new) {
                return Ok(Outcome::Refused(refusal.clone()));
            }
            if let Some(event) = event {
                let entry = Entry { time, actor: operation.actor.clone(), event };
                let position = self.journal.stage(&entry)?;
                view.apply(&entry, position).map_err(|error| contradiction(&view.memory.index, error))?;
                applied.note(&entry);
                applied.last = Some((position, [0; 32]));
            }
            Ok(outcome)
        };
        for operation in operations {
            match stage(operation) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    self.journal.discard();
                    return Err(error);
                }
            }
        }
        let draft = view.into_draft();
        self.journal.commit()?;

        applied.next = self.journal.end();
        applied.last = applied.last.map(|(position, _)| (position, *self.journal.chain()));
        follower.applied = applied;
        let mut memory = self.shared.catalog.memory_mut();
        memory.absorb(draft);
        memory.end = self.journal.end();
        drop(memory);
        *self.shared.head.write().unwrap_or_else(PoisonError::into_inner) = head(&self.journal);
        Ok(outcomes)
    }
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
        let Some(place) = self.view().order(order)? else { return Ok(Box::new(std::iter::empty())) };
        let end = self.shared.memory().end;
        let certificates = Certificates::of(self, order, place.created, end);
        let records = self.clone();
        Ok(Box::new(certificates.map(move |record| records.as_it_is(record?))))
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
            return Ok(Box::new(std::iter::empty()));
        };
        let before = view.export(&ExportId { number: id.number - 1, ..id.clone() })?;
        let start = before.map_or(order.created, |before| before.position);
        let certificates = Certificates::of(self, &id.order, start, export.position);
        Ok(Box::new(Exported { certificates, records: self.clone(), export, seen: 0 }))
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
        if let Some(why) = self.shared.memory().index.failure() {
            return Err(IndexError::Rebuilding(why.to_owned()).to_string());
        }
        self.shared.space.refusal().map_or(Ok(()), |refusal| Err(refusal.to_string()))
    }

    fn view(&self) -> View<'_> {
        self.shared.view(&self.journal, Layer::default())
    }

    /// A certificate as it was issued, with what became of it since.
    fn as_it_is(&self, record: Record) -> Result<Record, LedgerError> {
        let view = self.view();
        match view.later(&record.serial_number)? {
            Some(Later { state, changed }) => {
                let changed = Some(view.change(&record.serial_number, changed)?);
                Ok(Record { state, changed, ..record })
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
    type Item = Result<Record, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = match self.frames.next()? {
                Ok(frame) => self.take(frame.entry),
                Err(error) => Err(error.into()),
            };
            if let Some(found) = found.transpose() {
                return Some(found);
            }
        }
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
    type Item = Result<Record, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(found) = self.certificates.next() else {
                let ExportPlace { export, position } = &self.export;
                let (seen, counted) = (std::mem::replace(&mut self.seen, export.certificates), export.certificates);
                let what = || format!("the export {} counts {counted} certificates and has {seen}", export.id);
                return (seen != counted).then(|| Err(self.records.journal.misfit(*position, &what()).into()));
            };
            match found.and_then(|record| Ok((self.was_live(&record)?, record))) {
                Ok((true, record)) => {
                    self.seen += 1;
                    return Some(Ok(record));
                }
                Ok((false, _)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl From<AppendError> for LedgerError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NotWritten(cause) => LedgerError::Write(cause),
            AppendError::Unknown(cause) => LedgerError::Fatal(cause),
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

/// The journal must be one that goes on from the newest checkpoint.
fn check_against_checkpoint(journal: &Journal, path: &Path) -> Result<(), LedgerError> {
    let differs = |what: String| LedgerError::Checkpoint { path: path.display().to_string(), what };
    let Some(SignedCheckpoint { checkpoint, .. }) = SignedCheckpoint::read(path).map_err(differs)? else {
        return Ok(());
    };
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

/// A new entry was allowed, and does not fit what is known: then that comes from an index that is wrong.
fn contradiction(index: &Index, error: ApplyError) -> LedgerError {
    match error {
        ApplyError::Ledger(error) => error,
        ApplyError::Misfit(what) => {
            let error = IndexError::Contradiction(what);
            index.fail(&error.to_string());
            error.into()
        }
    }
}

/// The kernel's id of this boot.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Sees to it that one daemon at a time uses the folder; the kernel frees the lock however the daemon ends.
fn lock(folder: &Path) -> Result<File, LedgerError> {
    let unusable = |cause: io::Error| LedgerError::Folder { folder: folder.display().to_string(), cause };
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LedgerError::Locked(folder.display().to_string())),
        Err(TryLockError::Error(cause)) => Err(unusable(cause)),
    }
}
