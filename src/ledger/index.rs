//! The index: where in the journal things are. Made from the journal, deleted without loss.
//!
//! ```text
//! DATA/index/mark              in which boot it is open, how far the journal was durable; see [`mark`]
//! DATA/index/NUMBER.names      sorted runs: where the newest reservation of a key or a device is, and its certificate; see
//!                              [`run`]
//! DATA/index/NUMBER.states     sorted runs: states that came after the issue
//! DATA/index/NUMBER.revoked    sorted runs: what may stand on a revocation list
//! DATA/index/NUMBER.ended      sorted runs: of what was scrapped or revoked, where it was so first and confirmed before
//! DATA/index/NUMBER.samples    sorted runs: where one serial number in every [`SAMPLE`] bytes of journal was reserved
//! DATA/index/NUMBER.recovered  sorted runs: where certificates are that were lost and found again
//! DATA/index/database/         sled: orders, exports, destinations and their batches, issuers, stations, proofs of
//!                              possession, vending codes, first-pass yields, numbers of lists, and the manifest; see
//!                              [`database`]
//! ```
//!
//! Serial numbers rise along the journal, so a sample and a short read of the journal find any of them.
//!
//! The manifest says which runs there are and how far the journal is applied, and pins what every run and the database
//! must hold. It changes in one batch with orders, exports and issuers; runs are on stable storage before it names them, and are
//! removed when it does not any more.
//!
//! # When it is not used
//!
//! sled is not durable against a power cut, so an index that was open when the machine went down is set aside and
//! rebuilt. So is one that an earlier start could not open, that belongs to another journal, that fails a check, or in
//! which sled panics. A check that fails while the daemon runs makes every further lookup fail
//! ([`IndexError::Rebuilding`]) until another index has been built: it never answers by what it is not sure of.

mod applied;
mod batch_values;
mod batches;
mod database;
mod entries;
mod error;
mod files;
mod first_pass;
mod kept;
mod lookup_key;
mod manifest;
mod mark;
mod peers;
mod place;
mod run;
#[cfg(test)]
pub(super) mod tests;
mod values;
mod vending;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, mpsc},
};

use parking_lot::{Mutex, MutexGuard};

use self::error::UnusableIndex;
pub(super) use self::{applied::Applied, error::IndexError, files::aside, lookup_key::LookupKey, place::Place};
use self::{
    database::{Database, Total},
    files::{clear_leftovers, remove_strays, set_aside, sync_files},
    manifest::Manifest,
    mark::{Mark, State},
    run::{Kind, Run, Value, Writer},
};
use super::{
    error::LedgerError,
    export::ExportId,
    journal::{Journal, Position, Reader},
    overlay::{ExportLocation, OrderLocation, Overlay, ProofLocation, StateChange},
    proof::ProofId,
    revoked::{CaId, RevokedKey, RevokedValue},
    vending::{VendingBatch, VendingCode},
};
use crate::{durable, serial::SerialNumber};

#[cfg(test)]
pub(super) use self::{database::PANIC_AT_OPEN, entries::SAMPLE};

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
    /// Wakes the thread that rebuilds it.
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
    /// Notified when an index fails.
    pub(super) alarm: mpsc::SyncSender<()>,
}

/// The number of runs of one level that are merged into one of the next.
const FAN_OUT: usize = 4;

/// How many bytes of the runs' filters are kept in memory, those of the newest runs first: enough for ten million
/// records. A lookup reads a page of each filter that is not.
const FILTER_MEMORY: u64 = 32 << 20;

/// What an entry takes on disk at most, its part of the filter and its fences included.
const BYTES_AN_ENTRY: u64 = 36;

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
                set_aside(&site.folder, &reason.to_string()).map_err(unusable)?;
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
    fn open_existing(site: &Site, journal: &Journal) -> Result<(Index, Runs, Option<Applied>), UnusableIndex> {
        let mark = Mark::read(&site.folder).ok_or(UnusableIndex::NoMark)?;
        match &mark.state {
            State::Closed => {}
            State::Open(boot) if *boot == site.boot => {}
            State::Open(_) => return Err(UnusableIndex::OpenInAnotherBoot),
            State::Opening(_) => return Err(UnusableIndex::OpeningEndedProcess),
            State::Failed => return Err(UnusableIndex::FailedBefore),
        }
        if mark.journal != site.journal {
            return Err(UnusableIndex::OtherJournal);
        }
        if mark.next > journal.end() {
            return Err(UnusableIndex::AheadOfJournal);
        }
        let opening = Mark { state: State::Opening(site.boot.clone()), ..mark.clone() };
        opening.write(&site.folder)?;
        let opened = Index::open_checked(site, journal)?;
        let open = Mark { state: State::Open(site.boot.clone()), ..mark };
        open.write(&site.folder)?;
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

    /// Whether it lies beside the journal, as it does unless the journal's disk failed.
    pub(super) fn is_beside(&self, journal: &Reader) -> bool {
        self.folder == journal.home().join("index")
    }

    /// Stops the use of the index: what it holds is in doubt. The alarm wakes the thread that rebuilds it.
    pub(super) fn fail(&self, why: &str) {
        if self.failed.set(why.to_owned()).is_err() {
            return;
        }
        tracing::error!(why, "the index failed; nothing is issued until it is rebuilt from the journal");
        // If it cannot be written, the index says no more than before, and is checked when it is opened.
        let _ = self.mark(State::Failed, &self.applied()).write(&self.folder);
        // A full channel: it was notified already.
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

    /// An answer, if the index may give one: a wrong "there is none" would be a second certificate (invariant 3).
    fn answer<T>(&self, lookup: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
        match self.failed.get() {
            Some(why) => Err(IndexError::Rebuilding(why.clone())),
            None => self.checked(lookup()),
        }
    }

    /// Up to where the journal is flushed into it. What comes after is in memory: no lookup reads beyond this.
    pub(super) fn end(&self) -> Position {
        self.applied().next
    }

    fn applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock()
    }

    fn mark(&self, state: State, applied: &Applied) -> Mark {
        Mark { state, journal: self.journal, next: applied.next, last: applied.last }
    }

    /// Where the newest reservation of a key or a device is.
    pub(super) fn by_lookup_key(&self, runs: &Runs, key: &LookupKey) -> Result<Option<Place>, IndexError> {
        self.answer(|| Ok(newest(runs, Kind::Names, key.as_bytes())?.map(Place::decode)))
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
    pub(super) fn state_change(&self, runs: &Runs, serial: &SerialNumber) -> Result<Option<StateChange>, IndexError> {
        self.answer(|| {
            let Some(value) = newest(runs, Kind::States, serial.as_bytes())? else { return Ok(None) };
            values::decode_state_change(&value).map(Some).ok_or_else(|| self.malformed("a state"))
        })
    }

    /// A value of the database, which `decode` reads; none if there is none.
    fn value<T>(
        &self,
        key: &[u8],
        what: &str,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, IndexError> {
        self.answer(|| {
            let Some(value) = self.database.get(key)? else { return Ok(None) };
            decode(&value).map(Some).ok_or_else(|| self.malformed(what))
        })
    }

    pub(super) fn order(&self, id: &str) -> Result<Option<OrderLocation>, IndexError> {
        self.value(&values::order_key(id), "an order", |value| values::decode_order(id, value))
    }

    pub(super) fn orders(&self) -> Result<Vec<OrderLocation>, IndexError> {
        self.answer(|| {
            let decode = |(key, value): (Vec<u8>, Vec<u8>)| {
                let id = std::str::from_utf8(key.get(1..)?).ok()?;
                values::decode_order(id, &value)
            };
            let orders = self.database.orders()?.into_iter();
            orders.map(|pair| decode(pair).ok_or_else(|| self.malformed("an order"))).collect()
        })
    }

    pub(super) fn export(&self, id: &ExportId) -> Result<Option<ExportLocation>, IndexError> {
        self.value(&values::export_key(id), "an export", |value| values::decode_export(id, value))
    }

    pub(super) fn proof(&self, id: &ProofId) -> Result<Option<ProofLocation>, IndexError> {
        self.value(&values::proof_key(id), "a proof of possession", values::decode_proof)
    }

    /// What is known of a certificate that may stand on a revocation list.
    pub(super) fn revoked(&self, runs: &Runs, key: &RevokedKey) -> Result<Option<RevokedValue>, IndexError> {
        self.answer(|| Ok(newest(runs, Kind::Revoked, key.as_bytes())?.map(revoked_value)))
    }

    /// All certificates that may stand on a revocation list, from the first key to the last.
    pub(super) fn revoked_between(
        &self,
        runs: &Runs,
        (first, last): (&RevokedKey, &RevokedKey),
    ) -> Result<BTreeMap<RevokedKey, RevokedValue>, IndexError> {
        self.answer(|| {
            let mut found = BTreeMap::new();
            let mut oldest_first: Vec<_> = of_kind(runs, Kind::Revoked).collect();
            oldest_first.reverse();
            for run in oldest_first {
                run.range((first.as_bytes(), last.as_bytes()), &mut |key, value| {
                    let key = RevokedKey::from_bytes(key).ok_or_else(|| self.malformed("a revoked certificate"))?;
                    found.insert(key, revoked_value(value));
                    Ok(())
                })?;
            }
            Ok(found)
        })
    }

    /// The number of a CA's newest revocation list.
    pub(super) fn crl_number(&self, ca: &CaId) -> Result<Option<u64>, IndexError> {
        let decode = |value: &[u8]| value.try_into().ok().map(u64::from_be_bytes);
        self.value(&values::crl_number_key(ca), "the number of a revocation list", decode)
    }

    pub(super) fn vending_code(&self, device: &str) -> Result<Option<VendingCode>, IndexError> {
        self.value(&vending::code_key(device), "a vending code", |value| vending::decode_code(device, value))
    }

    pub(super) fn vending_batch(&self, number: u32) -> Result<Option<VendingBatch>, IndexError> {
        let what = "a batch of vending codes";
        self.value(&vending::batch_key(number), what, |value| vending::decode_batch(number, value))
    }

    /// How many batches of vending codes there are.
    pub(super) fn vending_batches(&self) -> Result<u32, IndexError> {
        let decode = |value: &[u8]| value.try_into().ok().map(u32::from_be_bytes);
        Ok(self.value(vending::BATCHES, "the number of batches of vending codes", decode)?.unwrap_or(0))
    }

    /// Where a certificate is that was lost and found again.
    pub(super) fn recovered(&self, runs: &Runs, serial: &SerialNumber) -> Result<Option<Position>, IndexError> {
        self.answer(|| {
            let found = newest(runs, Kind::Recovered, serial.as_bytes())?;
            Ok(found.map(|value| run::position(&value)))
        })
    }

    /// SHA-256 of the newest configuration.
    pub(super) fn configuration(&self) -> Result<Option<[u8; 32]>, IndexError> {
        let decode = |value: &[u8]| value.try_into().ok();
        self.value(&values::configuration_key(), "the hash of the configuration", decode)
    }

    fn malformed(&self, what: &str) -> IndexError {
        IndexError::Damaged { path: self.folder.display().to_string(), what: format!("{what} in it cannot be read") }
    }

    /// Takes in settled changes, and with them how far the journal is applied. Returns the runs that there are then.
    ///
    /// # Errors
    /// [`IndexError::Write`] if nothing was taken in; the index is as it was. After any other the index has failed.
    pub(super) fn flush(&self, settled: &Overlay, applied: &Applied, runs: &Runs) -> Result<Runs, IndexError> {
        self.answer(|| {
            let mut runs = runs.clone();
            for (kind, entries) in [
                (Kind::Names, entries::names(settled)),
                (Kind::States, entries::states(settled)),
                (Kind::Samples, entries::samples(settled)),
                (Kind::Revoked, entries::revoked(settled)),
                (Kind::Ended, entries::ended(settled)),
                (Kind::Recovered, entries::recovered(settled)),
            ] {
                if !entries.is_empty() {
                    let run = self.write_run(kind, &entries, &runs)?;
                    runs.insert(0, Arc::new(run));
                }
            }
            let orders = settled.orders.iter().map(|(id, order)| (values::order_key(id), values::encode_order(order)));
            let exports =
                settled.exports.iter().map(|(id, export)| (values::export_key(id), values::encode_export(export)));
            let numbers = settled.crl_numbers.iter();
            let numbers = numbers.map(|(ca, number)| (values::crl_number_key(ca), number.to_be_bytes().to_vec()));
            let issuers =
                settled.issuers.iter().map(|(id, issuer)| (values::issuer_key(*id), values::encode_issuer(issuer)));
            let proofs = settled.proofs.iter().map(|(id, proof)| (values::proof_key(id), values::encode_proof(proof)));
            let peers = settled.peers.values().map(|peer| (peers::key(peer.number), peers::encode(peer)));
            let approvals = settled.approvals.iter();
            let approvals = approvals.map(|(number, one)| (peers::approval_key(*number), peers::encode_approval(one)));
            let epochs = settled.epochs.iter();
            let epochs = epochs.map(|(number, epoch)| (values::epoch_key(*number), values::encode_epoch(epoch)));
            let configuration = settled.configuration.map(|sha256| (values::configuration_key(), sha256.to_vec()));
            let codes = vending::pairs(&settled.vending_codes, &settled.vending_batches);
            let passes = self.pass_pairs(settled)?;
            let pairs = orders.chain(exports).chain(issuers).chain(peers).chain(numbers).chain(proofs);
            let pairs = pairs.chain(approvals).chain(configuration).chain(codes).chain(batch_values::pairs(settled));
            let pairs = pairs.chain(passes).chain(epochs).collect();
            self.database.write(pairs, |total| Manifest::new(applied, total, &runs).encode())?;
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

    /// Merges the runs of the lowest level of a kind that has many. Returns the runs that there are then; those that
    /// are no longer among them are removed, while readers that have them open may go on.
    pub(super) fn merge(&self, runs: &Runs) -> Result<Runs, IndexError> {
        let Some((kind, level)) = crowded(runs) else { return Ok(runs.clone()) };
        self.answer(|| {
            let of_level = |run: &Arc<Run>| run.pin.kind == kind && run.pin.level == level;
            // Runs of one kind and level are in the order of their age, so the merged one takes the place of the
            // newest.
            let first = runs.iter().position(of_level).unwrap_or(0);
            let merged: Vec<_> = runs.iter().filter(|run| of_level(run)).map(Arc::as_ref).collect();
            let Some(pin) = run::merge(&self.folder, &self.journal, next_number(runs), level + 1, &merged)? else {
                return Ok(runs.clone());
            };
            let mut after: Runs = runs.iter().filter(|run| !of_level(run)).cloned().collect();
            let run = Run::open(&self.folder, &self.journal, pin, filter_memory_left(&after))?;
            after.insert(first, Arc::new(run));
            let applied = self.applied().clone();
            self.database.write(Vec::new(), |total| Manifest::new(&applied, total, &after).encode())?;
            for run in merged {
                // What stays is removed at the next start.
                let _ = fs::remove_file(run.pin.path(&self.folder));
            }
            Ok(after)
        })
    }

    /// Says that the index may be used again, also after a power cut, which it need no longer fear.
    pub(super) fn close(&self) -> Result<(), IndexError> {
        // Later calls are refused, and that is no damage.
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

/// About how much disk an overlay takes in the index.
pub(super) fn bytes_of(settled: &Overlay) -> u64 {
    let ended = 2 * settled.revoked.len() + settled.ended.len();
    let named = settled.keys.len() + settled.devices.len() + settled.listed.len();
    (named + settled.state_changes.len() + ended) as u64 * BYTES_AN_ENTRY
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
fn newest(runs: &Runs, kind: Kind, key: &[u8]) -> Result<Option<Value>, IndexError> {
    for run in of_kind(runs, kind) {
        if let Some(value) = run.find(key)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn revoked_value(value: Value) -> RevokedValue {
    value.first_chunk().copied().unwrap_or_default()
}

/// The lowest level of a kind that has enough runs to be merged.
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

/// Whether an index in `folder` knows a journal, usable or not.
pub(super) fn exists(folder: &Path) -> bool {
    folder.is_dir()
}

/// Whether there is an index that knows a journal.
pub(super) fn is_known(folder: &Path) -> bool {
    Mark::read(folder).is_some()
}
