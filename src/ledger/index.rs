//! The index: where in the journal things are. Made from the journal, deleted without loss.
//!
//! ```text
//! DATA/index/mark              in which boot it is open, how far the journal was durable; see [`mark`]
//! DATA/index/NUMBER.names      sorted runs: where the newest reservation of a key or a device is; see [`run`]
//! DATA/index/NUMBER.states     sorted runs: states that came after the issue
//! DATA/index/NUMBER.samples    sorted runs: where one serial number in every [`SAMPLE`] bytes of journal was reserved
//! DATA/index/database/         sled: orders, exports, and the manifest; see [`database`]
//! ```
//!
//! Serial numbers rise along the journal, so a sample and a short read of the journal find any of them.
//!
//! The manifest says which runs there are and how far the journal is applied, and pins what every run and the database
//! must hold. It changes in one batch with orders and exports; runs are on stable storage before it names them, and are
//! removed when it does not any more.
//!
//! # When it is not used
//!
//! sled is not durable against a power cut, so an index that was open when the machine went down is set aside and
//! rebuilt. So is one that an earlier start could not open, that belongs to another journal, that fails a check, or in
//! which sled panics. A check that fails while the daemon runs makes every further look-up fail
//! ([`IndexError::Rebuilding`]) until another index has been built: it never answers by what it is not sure of.

mod applied;
mod database;
mod error;
mod mark;
mod run;
#[cfg(test)]
pub(super) use self::database::tests::PANIC_AT_OPEN;
#[cfg(test)]
pub(super) mod tests;
mod values;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
};

pub use self::error::IndexError;
pub(super) use self::{applied::Applied, run::LookupKey};
use self::{
    database::{Database, Total},
    mark::{Mark, State},
    run::{
        Kind, Pin, Run,
        write::{self, Writer},
    },
};
use super::{
    ExportId, LedgerError,
    journal::{Journal, Position},
    layer::{ExportPlace, Later, Layer, OrderPlace, Place},
};
use crate::{durable, serial::SerialNumber};

/// The index, open.
#[derive(Debug)]
pub(super) struct Index {
    folder: PathBuf,
    journal: [u8; 16],
    boot: String,
    database: Database,
    /// As it is in the manifest.
    applied: Mutex<Applied>,
    /// Why it cannot be used any more.
    failed: OnceLock<String>,
    /// Who rebuilds it.
    alarm: mpsc::SyncSender<()>,
}

/// The runs that make up the index, the newest first.
pub(super) type Runs = Vec<Arc<Run>>;

/// Where the index is, and what it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// Its folder.
    pub(super) folder: PathBuf,
    /// The journal's id.
    pub(super) journal: [u8; 16],
    /// The kernel's id of this boot.
    pub(super) boot: String,
    /// Told when an index fails.
    pub(super) alarm: mpsc::SyncSender<()>,
}

/// So many bytes of the journal may have to be read to find a reservation: those of some dozens of certificates.
pub(super) const SAMPLE: u32 = 48 << 10;

/// The form of the manifest and what it pins; another number for each. A new event in the journal is a new form as well:
/// what an older daemon cannot read is then read by it, and refused.
const FORMAT: u8 = 4;

/// So many runs of one level are merged into one of the next.
const FAN_OUT: usize = 4;

/// How many bytes of the runs' filters are kept in memory, those of the newest runs first: enough for ten million
/// records. A look-up reads a page of each filter that is not.
const FILTER_MEMORY: u64 = 32 << 20;

/// What an entry takes on disk at most, its part of the filter and its fences included.
const BYTES_AN_ENTRY: u64 = 32;

/// The first byte of an order's key in the database.
const ORDER: u8 = b'o';

impl Site {
    /// Holds what the mark knows of the journal against it, whether the index can be used or not, and settles the
    /// journal's end with that.
    ///
    /// # Errors
    /// The journal has lost what the index knows of, or is damaged.
    pub(super) fn settle(&self, journal: &mut Journal) -> Result<(), LedgerError> {
        let mark = Mark::read(&self.folder);
        if let Some(mark) = &mark {
            journal.attest(mark.journal, mark.last)?;
        }
        Ok(journal.settle(mark.map(|mark| mark.next))?)
    }

    fn new_mark(&self, state: State) -> Mark {
        Mark { state, journal: self.journal, next: Position::start(), last: None }
    }
}

impl Index {
    /// Opens the index; none if there is none. An index that cannot be used is set aside.
    pub(super) fn open(site: &Site, journal: &Journal) -> Result<Option<(Index, Runs, Option<Applied>)>, LedgerError> {
        if fs::symlink_metadata(&site.folder).is_err() {
            return Ok(None);
        }
        match Index::open_existing(site, journal) {
            Ok(opened) => Ok(Some(opened)),
            Err(reason) => {
                let unusable = |cause| LedgerError::Folder { folder: site.folder.display().to_string(), cause };
                set_aside(&site.folder, &reason).map_err(unusable)?;
                Ok(None)
            }
        }
    }

    /// Makes an empty index; what is in its place is set aside, for this reason.
    pub(super) fn create(site: &Site, reason: &str) -> Result<Index, LedgerError> {
        let unusable = |cause: io::Error| LedgerError::Folder { folder: site.folder.display().to_string(), cause };
        if fs::symlink_metadata(&site.folder).is_ok() {
            set_aside(&site.folder, reason).map_err(unusable)?;
        }
        durable::create_folder(&site.folder).map_err(unusable)?;
        site.new_mark(State::Opening(site.boot.clone())).write(&site.folder).map_err(unusable)?;
        let (database, _) = Database::open(&site.folder.join("database"))?;
        site.new_mark(State::Open(site.boot.clone())).write(&site.folder).map_err(unusable)?;
        Ok(Index::new(site, database, Applied::nothing(site.journal)))
    }

    fn new(site: &Site, database: Database, applied: Applied) -> Self {
        let Site { folder, journal, boot, alarm } = site.clone();
        Index { folder, journal, boot, database, applied: Mutex::new(applied), failed: OnceLock::new(), alarm }
    }

    /// The index, its runs and what is applied, if it can be used; otherwise why it cannot.
    fn open_existing(site: &Site, journal: &Journal) -> Result<(Index, Runs, Option<Applied>), String> {
        let mark = Mark::read(&site.folder)
            .ok_or("it does not say whether it was closed in order, or is of an older version")?;
        match &mark.state {
            State::Closed => {}
            State::Open(boot) if *boot == site.boot => {}
            State::Open(_) => return Err("it was open when the machine went down".into()),
            State::Opening(_) => return Err("the last attempt to open it ended the process".into()),
            State::Failed => return Err("it failed before".into()),
        }
        if mark.journal != site.journal {
            return Err("it belongs to another journal".into());
        }
        if mark.next > journal.end() {
            return Err("it is ahead of the journal".into());
        }
        let opening = Mark { state: State::Opening(site.boot.clone()), ..mark.clone() };
        opening.write(&site.folder).map_err(|error| error.to_string())?;
        let opened = Index::open_checked(site, journal).map_err(|error| error.to_string())?;
        let open = Mark { state: State::Open(site.boot.clone()), ..mark };
        open.write(&site.folder).map_err(|error| error.to_string())?;
        Ok(opened)
    }

    fn open_checked(site: &Site, journal: &Journal) -> Result<(Index, Runs, Option<Applied>), IndexError> {
        let folder = &site.folder;
        clear_leftovers(&folder.join("database")).map_err(IndexError::Write)?;
        let (database, manifest) = Database::open(&folder.join("database"))?;
        let damaged = |what: &str| IndexError::Damaged { path: folder.display().to_string(), what: what.to_owned() };
        let Some(manifest) = manifest else {
            if database.total() != Total::default() {
                return Err(damaged("it has orders or exports, and no manifest"));
            }
            // Closed or killed before anything was applied.
            remove_strays(folder, &[]).map_err(IndexError::Write)?;
            return Ok((Index::new(site, database, Applied::nothing(site.journal)), Runs::new(), None));
        };
        let Manifest { applied, total, pins } =
            Manifest::decode(&manifest).ok_or_else(|| damaged("its manifest is not whole, or of another version"))?;
        if total != database.total() {
            return Err(damaged("its orders and exports are not those that its manifest counts"));
        }
        if applied.journal != site.journal {
            return Err(damaged("it belongs to another journal"));
        }
        if applied.next > journal.end() {
            return Err(damaged("it is ahead of the journal"));
        }
        if let Some((position, chain)) = applied.last
            && journal.reader().chain_at(position) != Some(chain)
        {
            return Err(damaged("the journal has changed since"));
        }
        let mut runs = Runs::new();
        for pin in pins {
            runs.push(Arc::new(Run::open(folder, &site.journal, pin, filter_memory_left(&runs))?));
        }
        remove_strays(folder, &runs).map_err(IndexError::Write)?;
        Ok((Index::new(site, database, applied.clone()), runs, Some(applied)))
    }

    /// Why it cannot be used any more, if it cannot.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// Lets the index be used no more: what it holds is in doubt. It is rebuilt by whoever hears the alarm.
    pub(super) fn fail(&self, why: &str) {
        if self.failed.set(why.to_owned()).is_err() {
            return;
        }
        tracing::error!(why, "the index failed; nothing is issued until it is rebuilt from the journal");
        // If it cannot be written, the index says no more than before, and is checked when it is opened.
        let _ = self.mark(State::Failed, &self.applied()).write(&self.folder);
        // A full channel: it was told already.
        let _ = self.alarm.try_send(());
    }

    /// Passes on what a part of the index gave; what shows damage fails the index.
    fn checked<T>(&self, result: Result<T, IndexError>) -> Result<T, IndexError> {
        if let Err(error) = &result
            && error.is_damage()
        {
            self.fail(&error.to_string());
        }
        result
    }

    /// An answer, if the index may give one.
    fn answer<T>(&self, look: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
        match self.failed.get() {
            Some(why) => Err(IndexError::Rebuilding(why.clone())),
            None => self.checked(look()),
        }
    }

    /// Up to where the journal is settled in it. What is settled later is in memory: no look-up reads beyond this.
    pub(super) fn end(&self) -> Position {
        self.applied().next
    }

    fn applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, state: State, applied: &Applied) -> Mark {
        Mark { state, journal: self.journal, next: applied.next, last: applied.last }
    }

    /// Where the newest reservation of a key or a device is.
    pub(super) fn by_name(&self, runs: &Runs, key: &LookupKey) -> Result<Option<Position>, IndexError> {
        self.answer(|| {
            let found = newest(runs, Kind::Names, key.as_bytes())?;
            Ok(found.map(|value| run::position(&value)))
        })
    }

    /// A place in the journal at or before the reservation of a serial number, and not far.
    pub(super) fn before(&self, runs: &Runs, serial: &SerialNumber) -> Result<Option<Position>, IndexError> {
        self.answer(|| {
            let mut nearest = None;
            for run in of_kind(runs, Kind::Samples) {
                nearest = nearest.max(run.floor(serial.as_bytes())?);
            }
            Ok(nearest.map(|(_, value)| run::position(&value)))
        })
    }

    /// The state of a serial number, if it changed after its certificate was issued.
    pub(super) fn later(&self, runs: &Runs, serial: &SerialNumber) -> Result<Option<Later>, IndexError> {
        self.answer(|| {
            let Some(value) = newest(runs, Kind::States, serial.as_bytes())? else { return Ok(None) };
            values::decode_later(&value).map(Some).ok_or_else(|| self.malformed("a state"))
        })
    }

    pub(super) fn order(&self, id: &str) -> Result<Option<OrderPlace>, IndexError> {
        self.answer(|| {
            let Some(value) = self.database.get(&values::order_key(id))? else { return Ok(None) };
            values::decode_order(id, &value).map(Some).ok_or_else(|| self.malformed("an order"))
        })
    }

    pub(super) fn orders(&self) -> Result<Vec<OrderPlace>, IndexError> {
        self.answer(|| {
            let decode = |(key, value): (Vec<u8>, Vec<u8>)| {
                let id = std::str::from_utf8(key.get(1..)?).ok()?;
                values::decode_order(id, &value)
            };
            let orders = self.database.orders()?.into_iter();
            orders.map(|pair| decode(pair).ok_or_else(|| self.malformed("an order"))).collect()
        })
    }

    pub(super) fn export(&self, id: &ExportId) -> Result<Option<ExportPlace>, IndexError> {
        self.answer(|| {
            let Some(value) = self.database.get(&values::export_key(id))? else { return Ok(None) };
            values::decode_export(id, &value).map(Some).ok_or_else(|| self.malformed("an export"))
        })
    }

    fn malformed(&self, what: &str) -> IndexError {
        IndexError::Damaged { path: self.folder.display().to_string(), what: format!("{what} in it cannot be read") }
    }

    /// Takes in settled changes, and with them how far the journal is applied. Returns the runs that there are then.
    ///
    /// # Errors
    /// [`IndexError::Write`] if nothing was taken in; the index is as it was. After any other the index has failed.
    pub(super) fn flush(&self, settled: &Layer, applied: &Applied, runs: &Runs) -> Result<Runs, IndexError> {
        self.answer(|| {
            let mut runs = runs.clone();
            for (kind, entries) in
                [(Kind::Names, names(settled)), (Kind::States, states(settled)), (Kind::Samples, samples(settled))]
            {
                if !entries.is_empty() {
                    let run = self.write_run(kind, &entries, &runs)?;
                    runs.insert(0, Arc::new(run));
                }
            }
            let orders = settled.orders.iter().map(|(id, order)| (values::order_key(id), values::encode_order(order)));
            let exports =
                settled.exports.iter().map(|(id, export)| (values::export_key(id), values::encode_export(export)));
            let pairs = orders.chain(exports).collect();
            self.database.write(pairs, |total| Manifest::of(applied, total, &runs).encode())?;
            self.applied().clone_from(applied);
            // Without it the index says no more than before, which is true as well.
            if let Err(error) = self.mark(State::Open(self.boot.clone()), applied).write(&self.folder) {
                tracing::warn!(%error, "the index's mark could not be written");
            }
            Ok(runs)
        })
    }

    fn write_run(&self, kind: Kind, entries: &[u8], runs: &Runs) -> Result<Run, IndexError> {
        let count = (entries.len() / kind.entry()) as u64;
        let named = (kind, next_number(runs), 0);
        let mut writer = Writer::create(&self.folder, &self.journal, named, count).map_err(IndexError::Write)?;
        entries.chunks(kind.entry()).try_for_each(|entry| writer.push(entry))?;
        Run::open(&self.folder, &self.journal, writer.finish()?, filter_memory_left(runs))
    }

    /// Merges the runs of the lowest level of a kind that has many. Returns the runs that there are then; those that are
    /// no longer among them are removed, and whoever still looks into them may go on.
    pub(super) fn merge(&self, runs: &Runs) -> Result<Runs, IndexError> {
        let Some((kind, level)) = crowded(runs) else { return Ok(runs.clone()) };
        self.answer(|| {
            let of_level = |run: &Arc<Run>| run.pin.kind == kind && run.pin.level == level;
            // Runs of one kind and level are in the order of their age, so the merged one takes the place of the newest.
            let first = runs.iter().position(of_level).unwrap_or(0);
            let merged: Vec<_> = runs.iter().filter(|run| of_level(run)).map(Arc::as_ref).collect();
            let Some(pin) = write::merge(&self.folder, &self.journal, next_number(runs), level + 1, &merged)? else {
                return Ok(runs.clone());
            };
            let mut after: Runs = runs.iter().filter(|run| !of_level(run)).cloned().collect();
            let run = Run::open(&self.folder, &self.journal, pin, filter_memory_left(&after))?;
            after.insert(first, Arc::new(run));
            let applied = self.applied().clone();
            self.database.write(Vec::new(), |total| Manifest::of(&applied, total, &after).encode())?;
            for run in merged {
                // What stays is removed at the next start.
                let _ = fs::remove_file(run.pin.path(&self.folder));
            }
            Ok(after)
        })
    }

    /// Says that the index may be used again, also after a power cut, which it need no longer fear.
    pub(super) fn close(&self) -> Result<(), IndexError> {
        // Whoever asks later is refused, and that is no damage.
        self.failed.set("it is closed".into()).map_err(IndexError::Rebuilding)?;
        self.database.close()?;
        let sync = || -> io::Result<()> {
            sync_files(&self.folder.join("database"))?;
            self.mark(State::Closed, &self.applied()).write(&self.folder)
        };
        sync().map_err(IndexError::Write)
    }

    #[cfg(test)]
    pub(super) fn database_panics(&self) {
        self.database.panic();
    }
}

/// Puts all files of a folder, and their names, on stable storage.
fn sync_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_files(&entry.path())?;
        } else {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    durable::sync_folder(folder)
}

/// About how much disk a layer takes in the index.
pub(super) fn bytes_of(settled: &Layer) -> u64 {
    (settled.keys.len() + settled.devices.len() + settled.later.len()) as u64 * BYTES_AN_ENTRY
}

/// About how much disk the next merged run takes; none if there is nothing to merge.
pub(super) fn bytes_to_merge(runs: &Runs) -> Option<u64> {
    let (kind, level) = crowded(runs)?;
    let merged = of_kind(runs, kind).filter(|run| run.pin.level == level);
    Some(merged.map(|run| run.pin.length).sum())
}

fn of_kind(runs: &Runs, kind: Kind) -> impl Iterator<Item = &Arc<Run>> {
    runs.iter().filter(move |run| run.pin.kind == kind)
}

/// The value of a key in the newest run that has it.
fn newest(runs: &Runs, kind: Kind, key: &[u8]) -> Result<Option<[u8; 9]>, IndexError> {
    for run in of_kind(runs, kind) {
        if let Some(value) = run.find(key)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// The lowest level of a kind that has so many runs that they are to be merged.
fn crowded(runs: &Runs) -> Option<(Kind, u8)> {
    let crowded = |kind, level| of_kind(runs, kind).filter(|run| run.pin.level == level).count() >= FAN_OUT;
    runs.iter().map(|run| (run.pin.kind, run.pin.level)).find(|(kind, level)| crowded(*kind, *level))
}

fn filter_memory_left(runs: &[Arc<Run>]) -> u64 {
    FILTER_MEMORY.saturating_sub(runs.iter().map(|run| run.memory()).sum())
}

fn next_number(runs: &Runs) -> u32 {
    runs.iter().map(|run| run.pin.number).max().unwrap_or(0) + 1
}

/// Keys and devices whose newest record is among the settled ones, as entries of a run.
fn names(settled: &Layer) -> Vec<u8> {
    let place = |serial: &Option<SerialNumber>| settled.records.get(serial.as_ref()?).map(|place| place.reserved);
    let keys = settled.keys.iter().filter_map(|(key, serial)| Some((LookupKey::from_key(key), place(serial)?)));
    let devices =
        settled.devices.iter().filter_map(|(device, serial)| Some((LookupKey::from_device(device), place(serial)?)));
    let mut names: Vec<_> = keys.chain(devices).collect();
    names.sort_unstable_by_key(|(name, _)| *name);
    names.iter().flat_map(|(name, position)| name.as_bytes().iter().copied().chain(position.to_bytes())).collect()
}

/// What became of certificates, as entries of a run.
fn states(settled: &Layer) -> Vec<u8> {
    let encode = |(serial, later): (&SerialNumber, &Later)| Some((*serial, values::encode_later(later)?));
    let mut states: Vec<_> = settled.later.iter().filter_map(encode).collect();
    states.sort_unstable_by_key(|(serial, _)| *serial);
    states.iter().flat_map(|(serial, value)| serial.as_bytes().iter().copied().chain(*value)).collect()
}

/// Where some of the settled records were reserved, as entries of a run: each record has one of them before it, and near.
fn samples(settled: &Layer) -> Vec<u8> {
    let mut records: Vec<_> = settled.records.iter().collect();
    records.sort_unstable_by_key(|(serial, _)| **serial);
    let mut samples = Vec::new();
    let mut sampled: Option<Position> = None;
    for (serial, Place { reserved, .. }) in records {
        if !sampled.is_some_and(|sampled| sampled.is_within(SAMPLE, *reserved)) {
            samples.extend_from_slice(serial.as_bytes());
            samples.extend_from_slice(&reserved.to_bytes());
            sampled = Some(*reserved);
        }
    }
    samples
}

/// What the index is made of.
struct Manifest {
    applied: Applied,
    total: Total,
    pins: Vec<Pin>,
}

impl Manifest {
    fn of(applied: &Applied, total: Total, runs: &Runs) -> Self {
        Manifest { applied: applied.clone(), total, pins: runs.iter().map(|run| run.pin).collect() }
    }

    fn encode(&self) -> Vec<u8> {
        let Manifest { applied, total, pins } = self;
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&applied.encode());
        bytes.extend_from_slice(&total.pairs.to_le_bytes());
        bytes.extend_from_slice(&total.orders.to_le_bytes());
        bytes.extend_from_slice(&total.sum.to_le_bytes());
        pins.iter().for_each(|pin| bytes.extend_from_slice(&pin.encode()));
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// None if it is not whole, or of another format: then the index is rebuilt.
    fn decode(bytes: &[u8]) -> Option<Manifest> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body).to_le_bytes() != *sum {
            return None;
        }
        let (applied, rest) = body.strip_prefix(&[FORMAT])?.split_at_checked(Applied::LENGTH)?;
        let (pairs, rest) = rest.split_first_chunk()?;
        let (orders, rest) = rest.split_first_chunk()?;
        let (sum, rest) = rest.split_first_chunk()?;
        let total = Total {
            pairs: u64::from_le_bytes(*pairs),
            orders: u64::from_le_bytes(*orders),
            sum: u128::from_le_bytes(*sum),
        };
        let (pins, rest) = rest.as_chunks::<{ Pin::LENGTH }>();
        let pins = pins.iter().map(Pin::decode).collect::<Option<_>>()?;
        rest.is_empty().then_some(())?;
        Some(Manifest { applied: Applied::decode(applied)?, total, pins })
    }
}

/// Removes what a crash left of runs that were not yet, or no longer, in the manifest.
fn remove_strays(folder: &Path, runs: &[Arc<Run>]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let kept = path.is_dir()
            || path.file_name().is_some_and(|name| name == mark::FILE)
            || runs.iter().any(|run| run.pin.path(folder) == path);
        if !kept {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// sled cannot open a database in which a crash left an unfinished snapshot.
fn clear_leftovers(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether an index in `folder` knows a journal, usable or not.
pub(super) fn is_known(folder: &Path) -> bool {
    Mark::read(folder).is_some()
}

/// Where an index that cannot be used is kept for whoever wants to know why.
pub(super) fn aside(folder: &Path) -> PathBuf {
    folder.with_extension("unusable")
}

#[expect(clippy::disallowed_methods, reason = "whatever a crash leaves of the names, the index is rebuilt")]
fn set_aside(folder: &Path, reason: &str) -> io::Result<()> {
    let aside = aside(folder);
    tracing::warn!(reason, aside = %aside.display(), "the index is set aside and rebuilt from the journal");
    let removed = if aside.is_dir() { fs::remove_dir_all(&aside) } else { fs::remove_file(&aside) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(folder, aside)
}
