//! The index: where in the journal things are. Made from the journal, deleted without loss.
//!
//! It is one sled tree, because sled makes batches atomic per tree: what the index holds and the position up to
//! which it was applied change together.
//!
//! | key | value |
//! |---|---|
//! | `r`, `f` | sorted runs: where the newest reservation of a key or a device is; see [`run`] |
//! | `m` | the manifest: which runs there are |
//! | `s` serial number | where it was reserved, for one in every [`SAMPLE`] bytes of the journal |
//! | `t` serial number | its state and the entry that made it so, once that is something that came after the issue |
//! | `o` order id | the order, its counts, and how far it is exported |
//! | `e` order id, 0, number | an export |
//! | `a` | what is applied: see [`Applied`] |
//! | `b` | the boot in which the index was opened; absent after an orderly close |
//!
//! Serial numbers rise along the journal, so a sample and a short read of the journal find any of them.
//!
//! sled is not durable against a power cut (it does not sync, and may overwrite what it still needs). Therefore an
//! index that was open when the machine went down is not used again.

mod run;

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use jiff::Timestamp;

pub(super) use self::run::Name;
use self::run::Run;
use super::{
    Actor, Export, ExportId, LedgerError, Order, OrderTerms, RecordState,
    entry::{Entry, Event},
    journal::{ChainHash, Journal, Position},
    state::{ExportPlace, Later, Layer, OrderPlace, Place},
};
use crate::{pattern::Pattern, serial::SerialNumber};

#[derive(Debug)]
pub(super) struct Index {
    tree: sled::Db,
    boot: String,
}

/// The runs that make up the index, the newest first.
pub(super) type Runs = Vec<Arc<Run>>;

/// How far the index follows the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    /// The journal's id.
    pub(super) journal: [u8; 16],
    /// The last applied frame and the chain hash after it; none if there is none.
    pub(super) last: Option<(Position, ChainHash)>,
    /// The next frame to apply.
    pub(super) next: Position,
    /// Where the reading begins at a start: the oldest reservation that had no certificate, or `next`.
    pub(super) replay_from: Position,
    /// The greatest serial number so far.
    pub(super) newest_serial: Option<SerialNumber>,
    /// The time of the newest entry.
    pub(super) newest_time: Timestamp,
}

/// How much of the index sled may keep in memory, in bytes.
const CACHE: u64 = 32 << 20;

/// So many bytes of the journal may have to be read to find a reservation: those of some dozens of certificates.
const SAMPLE: u32 = 48 << 10;

/// The form of what is stored; another number for each. A new event in the journal is a new form as well: what an older
/// daemon cannot read is then read by it, and refused.
const FORMAT: u8 = 3;

/// So many runs of one level are merged into one of the next.
const FAN_OUT: usize = 4;

impl Index {
    /// Opens the index, or makes an empty one. One that cannot be used is set aside. Before that, the journal's end is
    /// settled with what the index knows of it.
    pub(super) fn open(folder: &Path, journal: &mut Journal) -> Result<(Index, Runs, Option<Applied>), LedgerError> {
        let unusable = |cause: io::Error| LedgerError::Folder { folder: folder.display().to_string(), cause };
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        if folder.exists() {
            match Index::open_existing(folder, &boot) {
                Ok(index) => {
                    index.attest(journal)?;
                    journal.settle(index.known_durable(journal))?;
                    match index.what_is_applied(journal) {
                        Ok((runs, applied)) => return Ok((index.opened().map_err(unusable)?, runs, applied)),
                        Err(reason) => {
                            drop(index);
                            set_aside(folder, &reason).map_err(unusable)?;
                        }
                    }
                }
                Err(error) => set_aside(folder, &error.to_string()).map_err(unusable)?,
            }
        }
        journal.settle(None)?;
        let index = Index::open_existing(folder, &boot).and_then(Index::opened).map_err(unusable)?;
        Ok((index, Runs::new(), None))
    }

    /// An index that knows another journal is evidence that this one is not the whole.
    fn attest(&self, journal: &Journal) -> Result<(), LedgerError> {
        match self.tree.get(b"a").ok().flatten().and_then(|bytes| Applied::decode(&bytes)) {
            Some(applied) => Ok(journal.attest(applied.journal, applied.last)?),
            None => Ok(()),
        }
    }

    /// How far the index was applied, whether it can be used or not: all before it had been durable.
    fn known_durable(&self, journal: &Journal) -> Option<Position> {
        let applied = Applied::decode(&self.tree.get(b"a").ok()??)?;
        (applied.journal == journal.id()).then_some(applied.next)
    }

    fn open_existing(folder: &Path, boot: &str) -> io::Result<Index> {
        clear_leftovers(folder)?;
        let config = sled::Config::new().path(folder).cache_capacity(CACHE).flush_every_ms(Some(500));
        let tree = config.open().map_err(io::Error::other)?;
        Ok(Index { tree, boot: boot.to_owned() })
    }

    fn opened(self) -> io::Result<Index> {
        self.tree.insert(b"b", self.boot.as_bytes()).map_err(io::Error::other)?;
        self.tree.flush().map_err(io::Error::other)?;
        Ok(self)
    }

    /// The runs and what is applied, if the index fits the journal; otherwise why it does not.
    fn what_is_applied(&self, journal: &Journal) -> Result<(Runs, Option<Applied>), String> {
        let read = |key: &[u8]| self.tree.get(key).map_err(|error| error.to_string());
        if read(b"b")?.is_some_and(|boot| *boot != *self.boot.as_bytes()) {
            return Err("it was open when the machine went down".into());
        }
        let Some(bytes) = read(b"a")? else {
            // Closed or killed before anything was applied.
            self.remove_strays(&Runs::new()).map_err(|error| error.to_string())?;
            return Ok((Runs::new(), None));
        };
        let applied = Applied::decode(&bytes).ok_or("it does not say how far it follows the journal")?;
        if applied.journal != journal.id() {
            return Err("it belongs to another journal".into());
        }
        if applied.next > journal.end() {
            return Err("it is ahead of the journal".into());
        }
        if let Some((position, chain)) = applied.last
            && journal.reader().chain_at(position) != Some(chain)
        {
            return Err("the journal has changed since".into());
        }
        let runs = self.open_runs().map_err(|error| error.to_string())?.ok_or("a run is missing")?;
        self.remove_strays(&runs).map_err(|error| error.to_string())?;
        Ok((runs, Some(applied)))
    }

    fn open_runs(&self) -> sled::Result<Option<Runs>> {
        let manifest = self.tree.get(b"m")?.unwrap_or_default();
        let mut runs = Runs::new();
        for (number, level, entries) in decode_manifest(&manifest) {
            match Run::open(&self.tree, number, level, entries)? {
                Some(run) => runs.push(Arc::new(run)),
                None => return Ok(None),
            }
        }
        Ok(Some(runs))
    }

    /// Removes what a crash left of runs that were not yet, or no longer, in the manifest.
    fn remove_strays(&self, runs: &Runs) -> sled::Result<()> {
        for number in Run::stored(&self.tree)? {
            if !runs.iter().any(|run| run.number == number) {
                Run::remove(&self.tree, number)?;
            }
        }
        Ok(())
    }

    /// Where the newest reservation of a key or a device is.
    pub(super) fn by_name(&self, runs: &Runs, name: &Name) -> sled::Result<Option<Position>> {
        for run in runs {
            if let Some(position) = run.find(&self.tree, name)? {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }

    /// A place in the journal at or before the reservation of a serial number, and not far.
    pub(super) fn before(&self, serial: &SerialNumber) -> sled::Result<Option<Position>> {
        let range = key(b's', &[])..=key(b's', serial.as_bytes());
        let found = self.tree.range(range).next_back().transpose()?;
        Ok(found.and_then(|(_, value)| value.first_chunk().map(|bytes| Position::from_bytes(*bytes))))
    }

    /// The state of a serial number, if it changed after its certificate was issued.
    pub(super) fn later(&self, serial: &SerialNumber) -> sled::Result<Option<Later>> {
        Ok(self.tree.get(key(b't', serial.as_bytes()))?.and_then(|value| decode_later(&value)))
    }

    pub(super) fn order(&self, id: &str) -> sled::Result<Option<OrderPlace>> {
        Ok(self.tree.get(key(b'o', id.as_bytes()))?.and_then(|value| decode_order(id, &value)))
    }

    pub(super) fn orders(&self) -> sled::Result<Vec<OrderPlace>> {
        let decode = |found: sled::Result<(sled::IVec, sled::IVec)>| match found {
            Ok((key, value)) => std::str::from_utf8(&key[1..]).ok().and_then(|id| decode_order(id, &value)).map(Ok),
            Err(error) => Some(Err(error)),
        };
        self.tree.scan_prefix(b"o").filter_map(decode).collect()
    }

    pub(super) fn export(&self, id: &ExportId) -> sled::Result<Option<ExportPlace>> {
        Ok(self.tree.get(export_key(id))?.and_then(|value| decode_export(id, &value)))
    }

    /// Takes in settled changes, and with them how far the journal is applied. Gives the runs that there are then.
    pub(super) fn sink(&self, settled: &Layer, applied: &Applied, runs: &Runs) -> sled::Result<Runs> {
        let mut runs = runs.clone();
        let names = names(settled);
        if !names.is_empty() {
            let entries = names.len() as u64;
            let number = next_number(&runs);
            runs.insert(0, Arc::new(Run::write(&self.tree, number, 0, entries, names.into_iter().map(Ok))?));
        }
        let mut batch = sled::Batch::default();
        let mut records: Vec<_> = settled.records.iter().collect();
        records.sort_unstable_by_key(|(serial, _)| **serial);
        let mut sampled: Option<Position> = None;
        for (serial, Place { reserved, .. }) in records {
            if !sampled.is_some_and(|sampled| sampled.is_within(SAMPLE, *reserved)) {
                batch.insert(key(b's', serial.as_bytes()), &reserved.to_bytes());
                sampled = Some(*reserved);
            }
        }
        let mut later: Vec<_> = settled.later.iter().collect();
        later.sort_unstable_by_key(|(serial, _)| **serial);
        for (serial, later) in later {
            if let Some(value) = encode_later(later) {
                batch.insert(key(b't', serial.as_bytes()), value);
            }
        }
        for (id, order) in &settled.orders {
            batch.insert(key(b'o', id.as_bytes()), encode_order(order));
        }
        for (id, export) in &settled.exports {
            batch.insert(export_key(id), encode_export(export));
        }
        batch.insert(b"m", encode_manifest(&runs));
        batch.insert(b"a", applied.encode());
        self.tree.apply_batch(batch)?;
        Ok(runs)
    }

    /// Merges the runs of the lowest level that has many. Gives the runs that there are then; those that are no longer
    /// among them may be removed when nobody looks into them any more.
    pub(super) fn merge(&self, runs: &Runs) -> sled::Result<Runs> {
        let Some(level) = crowded_level(runs) else { return Ok(runs.clone()) };
        // Runs of one level stand side by side, so the merged one takes their place in the order of age.
        let first = runs.iter().position(|run| run.level == level).unwrap_or(0);
        let merged: Vec<_> = runs.iter().filter(|run| run.level == level).map(Arc::as_ref).collect();
        let merged = Run::merge(&self.tree, next_number(runs), level + 1, &merged)?;
        let mut runs: Runs = runs.iter().filter(|run| run.level != level).cloned().collect();
        runs.insert(first, Arc::new(merged));
        self.tree.insert(b"m", encode_manifest(&runs))?;
        Ok(runs)
    }

    /// Removes the runs of `before` that are not among `after`.
    pub(super) fn remove_merged(&self, before: &Runs, after: &Runs) -> sled::Result<()> {
        let gone = before.iter().filter(|run| !after.iter().any(|other| other.number == run.number));
        gone.into_iter().try_for_each(|run| Run::remove(&self.tree, run.number))
    }

    /// Says that the index may be used again, also after a power cut, which it need no longer fear.
    pub(super) fn close(&self) -> sled::Result<()> {
        self.tree.remove(b"b")?;
        self.tree.flush()?;
        Ok(())
    }
}

/// About how much disk a layer takes in the index.
pub(super) fn bytes_of(settled: &Layer) -> u64 {
    (settled.keys.len() + settled.devices.len()) as u64 * run::BYTES_AN_ENTRY
}

/// About how much disk the next merged run takes; none if there is nothing to merge.
pub(super) fn bytes_to_merge(runs: &Runs) -> Option<u64> {
    let level = crowded_level(runs)?;
    let entries: u64 = runs.iter().filter(|run| run.level == level).map(|run| run.entries).sum();
    Some(entries * run::BYTES_AN_ENTRY)
}

/// The lowest level that has so many runs that they are to be merged.
fn crowded_level(runs: &Runs) -> Option<u8> {
    let crowded = |level: u8| runs.iter().filter(|run| run.level == level).count() >= FAN_OUT;
    runs.iter().map(|run| run.level).find(|level| crowded(*level))
}

/// What a run is made of: keys and devices whose newest record is among the settled ones.
fn names(settled: &Layer) -> Vec<run::Entry> {
    let place = |serial: &Option<SerialNumber>| settled.records.get(serial.as_ref()?).map(|place| place.reserved);
    let keys = settled.keys.iter().filter_map(|(key, serial)| Some((Name::of_key(key), place(serial)?)));
    let devices = settled.devices.iter().filter_map(|(device, serial)| Some((Name::of_device(device), place(serial)?)));
    let mut names: Vec<_> = keys.chain(devices).collect();
    names.sort_unstable_by_key(|(name, _)| *name);
    names
}

fn next_number(runs: &Runs) -> u32 {
    runs.iter().map(|run| run.number).max().unwrap_or(0) + 1
}

fn encode_manifest(runs: &Runs) -> Vec<u8> {
    let encode = |run: &Arc<Run>| {
        let mut bytes = run.number.to_be_bytes().to_vec();
        bytes.push(run.level);
        bytes.extend_from_slice(&run.entries.to_be_bytes());
        bytes
    };
    runs.iter().flat_map(encode).collect()
}

fn decode_manifest(bytes: &[u8]) -> Vec<(u32, u8, u64)> {
    let decode = |[a, b, c, d, level, entries @ ..]: &[u8; 13]| {
        (u32::from_be_bytes([*a, *b, *c, *d]), *level, u64::from_be_bytes(*entries))
    };
    bytes.as_chunks().0.iter().map(decode).collect()
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

#[expect(clippy::disallowed_methods, reason = "whatever a crash leaves of the names, the index is made anew")]
fn set_aside(folder: &Path, reason: &str) -> io::Result<()> {
    let aside = folder.with_extension("unusable");
    tracing::warn!(reason, aside = %aside.display(), "the index is set aside and made anew from the journal");
    let removed = if aside.is_dir() { fs::remove_dir_all(&aside) } else { fs::remove_file(&aside) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(folder, aside)
}

fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(kind);
    key.extend_from_slice(rest);
    key
}

/// An order's id has no 0, so no order's exports lie among another's.
fn export_key(ExportId { order, number }: &ExportId) -> Vec<u8> {
    key(b'e', &[order.as_bytes(), &[0], &number.to_be_bytes()].concat())
}

/// The states that come after the certificate's issue, with how they are stored.
const LATER: [(RecordState, u8); 3] =
    [(RecordState::Confirmed, 1), (RecordState::Scrapped, 2), (RecordState::Revoked, 3)];

/// None for other states, which the journal tells.
fn encode_later(later: &Later) -> Option<Vec<u8>> {
    let (_, code) = LATER.into_iter().find(|(state, _)| *state == later.state)?;
    Some(key(code, &later.changed.to_bytes()))
}

fn decode_later(value: &[u8]) -> Option<Later> {
    let (code, changed) = value.split_first()?;
    let (state, _) = LATER.into_iter().find(|(_, known)| known == code)?;
    Some(Later { state, changed: Position::from_bytes(changed.try_into().ok()?) })
}

/// The parts of an order that the key does not hold.
#[derive(serde::Serialize, serde::Deserialize)]
struct OrderValue {
    profile: String,
    quantity: u64,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    stations: Vec<Pattern>,
    attributes: BTreeMap<String, String>,
    closed: bool,
    issued: u64,
    reserved: u64,
    confirmed: u64,
    scrapped: u64,
    revoked: u64,
    created_at: Timestamp,
    created: [u8; 8],
    exports: u32,
    exported: [u8; 8],
    unexported: u64,
}

fn encode_order(place: &OrderPlace) -> Vec<u8> {
    let Order { terms, closed, issued, reserved, confirmed, scrapped, revoked, created_at } = place.order.clone();
    let OrderTerms { id: _, profile, quantity, not_before, not_after, stations, attributes } = terms;
    // Plain data with string keys: JSON takes it always.
    serde_json::to_vec(&OrderValue {
        profile,
        quantity,
        not_before,
        not_after,
        stations,
        attributes,
        closed,
        issued,
        reserved,
        confirmed,
        scrapped,
        revoked,
        created_at,
        created: place.created.to_bytes(),
        exports: place.exports,
        exported: place.exported.to_bytes(),
        unexported: place.unexported,
    })
    .unwrap_or_default()
}

fn decode_order(id: &str, value: &[u8]) -> Option<OrderPlace> {
    let value: OrderValue = serde_json::from_slice(value).ok()?;
    let terms = OrderTerms {
        id: id.to_owned(),
        profile: value.profile,
        quantity: value.quantity,
        not_before: value.not_before,
        not_after: value.not_after,
        stations: value.stations,
        attributes: value.attributes,
    };
    let OrderValue { closed, issued, reserved, confirmed, scrapped, revoked, created_at, .. } = value;
    let order = Order { terms, closed, issued, reserved, confirmed, scrapped, revoked, created_at };
    Some(OrderPlace {
        order,
        created: Position::from_bytes(value.created),
        exports: value.exports,
        exported: Position::from_bytes(value.exported),
        unexported: value.unexported,
    })
}

/// The parts of an export that the key does not hold.
#[derive(serde::Serialize, serde::Deserialize)]
struct ExportValue {
    certificates: u64,
    created_at: Timestamp,
    created_by: String,
    acknowledged: Option<(Timestamp, String)>,
    position: [u8; 8],
}

fn encode_export(ExportPlace { export, position }: &ExportPlace) -> Vec<u8> {
    let Export { id: _, certificates, created_at, created_by, acknowledged } = export;
    // Plain data with string keys: JSON takes it always.
    serde_json::to_vec(&ExportValue {
        certificates: *certificates,
        created_at: *created_at,
        created_by: created_by.to_string(),
        acknowledged: acknowledged.as_ref().map(|(at, by)| (*at, by.to_string())),
        position: position.to_bytes(),
    })
    .unwrap_or_default()
}

fn decode_export(id: &ExportId, value: &[u8]) -> Option<ExportPlace> {
    let ExportValue { certificates, created_at, created_by, acknowledged, position } =
        serde_json::from_slice(value).ok()?;
    let export = Export {
        id: id.clone(),
        certificates,
        created_at,
        created_by: Actor(created_by.into()),
        acknowledged: acknowledged.map(|(at, by)| (at, Actor(by.into()))),
    };
    Some(ExportPlace { export, position: Position::from_bytes(position) })
}

impl Applied {
    /// Nothing of the journal is applied.
    pub(super) fn nothing(journal: &Journal) -> Self {
        let start = Position::start();
        Applied {
            journal: journal.id(),
            last: None,
            next: start,
            replay_from: start,
            newest_serial: None,
            newest_time: Timestamp::UNIX_EPOCH,
        }
    }

    /// Takes note of the newest entry.
    pub(super) fn note(&mut self, entry: &Entry) {
        // Times do not decrease, but when an operator has set them right.
        self.newest_time = entry.time;
        if let Event::Reserved { serial_number, .. } = &entry.event {
            self.newest_serial = self.newest_serial.max(Some(*serial_number));
        }
    }

    fn encode(&self) -> Vec<u8> {
        let (position, chain) = self.last.unwrap_or((Position::from_bytes([0; 8]), [0; 32]));
        let newest_serial = self.newest_serial.map_or([0; SerialNumber::LENGTH], |serial| *serial.as_bytes());
        [
            [FORMAT].as_slice(),
            &self.journal,
            &position.to_bytes(),
            &chain,
            &self.next.to_bytes(),
            &self.replay_from.to_bytes(),
            &newest_serial,
            &self.newest_time.as_microsecond().to_be_bytes(),
        ]
        .concat()
    }

    /// None of another format: then the index is made anew.
    fn decode(bytes: &[u8]) -> Option<Applied> {
        let (journal, rest) = bytes.strip_prefix(&[FORMAT])?.split_first_chunk::<16>()?;
        let (position, rest) = rest.split_first_chunk::<8>()?;
        let (chain, rest) = rest.split_first_chunk::<32>()?;
        let (next, rest) = rest.split_first_chunk::<8>()?;
        let (replay_from, rest) = rest.split_first_chunk::<8>()?;
        let (newest_serial, rest) = rest.split_first_chunk::<{ SerialNumber::LENGTH }>()?;
        let newest_time = i64::from_be_bytes(rest.try_into().ok()?);
        Some(Applied {
            journal: *journal,
            last: (*position != [0; 8]).then(|| (Position::from_bytes(*position), *chain)),
            next: Position::from_bytes(*next),
            replay_from: Position::from_bytes(*replay_from),
            newest_serial: SerialNumber::try_from(newest_serial.as_slice()).ok(),
            newest_time: Timestamp::from_microsecond(newest_time).ok()?,
        })
    }
}
