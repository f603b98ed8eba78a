//! The ledger on this machine: journal and index in one data folder.
//!
//! ```text
//! DATA/lock              locked by the one daemon that uses the folder, as the journal's folder and newest file are
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
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, mpsc},
    time::{Duration, Instant},
};

use jiff::Timestamp;

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
    Outcome, Record, RecordState, Records,
    checkpoint::SignedCheckpoint,
    clock::{Clock, ClockBounds},
    entry::{Entry, Event},
    index::{self, Index, IndexError},
    journal::{AppendError, Frames, Journal, JournalError, Position, Reader, Scan},
    layer::{ExportPlace, Later, Layer},
    lock::{Lock, tighten},
    state::{ApplyError, Memory, View},
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
    /// The id of this boot of the machine, by which an index that was open when it went down is known; none: the
    /// kernel's. Tests set it.
    pub boot_id: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { segment_size: 64 << 20, sink_at: 65_536, min_free: 256 << 20, boot_id: None }
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

/// The side that changes.
#[derive(Debug)]
pub struct EmbeddedLedger {
    journal: Journal,
    serial_numbers: SerialNumbers,
    shared: Arc<Shared>,
    /// Ends before the lock does.
    _rebuilder: Rebuilder,
    _lock: Lock,
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
    clock: Mutex<Clock>,
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

    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Err(error) = ledger.abandon_pending(now) {
            let LedgerError::Index(_) = error else { return Err(error) };
            // What was not asked for before is damaged.
            drop(ledger);
            ledger = EmbeddedLedger::recover(folder, settings, guards, true)?;
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
        let ledger = EmbeddedLedger::recover(folder, settings, &Guards::default(), true)?;
        let entries = ledger.journal.next_sequence() - 1;
        ledger.close()?;
        // What was there before; an operator asked for it to go.
        let _ = fs::remove_dir_all(index::aside(&folder.join("index")));
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
        if checkpoint.exists() || index::is_known(&folder.join("index")) {
            Journal::check_first_header(&folder.join("journal"))?;
        }
        let mut journal = open_journal(folder, settings)?;
        check_against_checkpoint(&journal, &checkpoint, &guards.audit_keys)?;
        let (alarm, alarms) = mpsc::sync_channel(1);
        let boot = settings.boot_id.clone().unwrap_or_else(boot_id);
        let site = index::Site { folder: folder.join("index"), journal: journal.id(), boot, alarm };
        let space = Arc::new(Space { folder: folder.to_owned(), min_free: settings.min_free });
        let setup = Setup { site, space: Arc::clone(&space), sink_at: settings.sink_at };
        let catalog = Arc::new(Catalog::open(&setup, &mut journal, anew)?);
        tighten(folder);
        let (newest_serial, newest_time) = {
            let follower = catalog.follower();
            (follower.applied.newest_serial, follower.applied.newest_time)
        };
        let rebuilder = Rebuilder::start(setup, alarms, &catalog, journal.reader().clone()).map_err(unusable)?;
        let head = RwLock::new(head(&journal));
        let newest_time = (journal.next_sequence() > 1).then_some(newest_time);
        let clock = Mutex::new(Clock::new(guards.clock.clone(), newest_time));
        let shared = Arc::new(Shared { catalog, head, space, trouble: Mutex::default(), clock });
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
        if let Some(why) = self.shared.memory().index.failure() {
            return Err(IndexError::Rebuilding(why.to_owned()).to_string());
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
