//! From a data folder and a database to a ledger.

use std::{
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    database::Database,
    error::{Failure, SharedError},
    follow::{Following, lost},
    ledger::{Life, SharedLedger},
    settings::DatabaseSettings,
    sql::HeadRow,
    unacknowledged,
};
use crate::ledger::{
    copy::{
        CopyRecords, Guards, Indexed, LedgerCopy, Settings, check_against_checkpoint, check_against_expected,
        checkpoint_file,
    },
    embedded::Claim,
    epoch::Epoch,
    error::LedgerError,
    folder_lock::tighten,
    journal::{Batch, Journal, JournalError, split_after},
    marker::Marker,
};

/// How long an epoch of the same name must be silent to be taken for one that is over.
const NAMESAKE: Duration = Duration::from_secs(3);

/// A daemon that lives is heard of more often than this. One that was killed has been silent for so long, or is waited for.
const HEARD: Duration = Duration::from_millis(2500);

/// The pause between two attempts to reach a database that is away at a start.
const START_PAUSE: Duration = Duration::from_secs(2);

impl SharedLedger {
    /// Waits, before a start, until the database answers: after a power cut it may come up later than the daemon. `told` hears why
    /// it is waited for, once for each reason.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn wait_for_database(shared: &DatabaseSettings, mut told: impl FnMut(&str)) -> Result<(), LedgerError> {
        let database = Database::new(shared).map_err(SharedError::at_start)?;
        let mut said = String::new();
        while let Some(why) = database.is_unreachable() {
            if why != said {
                told(&why);
                said = why;
            }
            thread::sleep(START_PAUSE);
        }
        Ok(())
    }

    /// Opens the copy in `folder`, or begins one, brings it up to the database, and begins an epoch.
    ///
    /// # Errors
    /// A database that is away, or not fit; a copy that it does not continue; another daemon of the same name.
    pub fn open(
        folder: &Path,
        now: Timestamp,
        settings: &Settings,
        guards: &Guards,
        shared: &DatabaseSettings,
    ) -> Result<(SharedLedger, CopyRecords), LedgerError> {
        SharedLedger::open_claimed(folder, now, (settings, guards), shared, Claim::default())
    }

    /// As [`SharedLedger::open`], with the lock that was taken.
    ///
    /// # Errors
    /// The same.
    pub fn open_claimed(
        folder: &Path,
        now: Timestamp,
        (settings, guards): (&Settings, &Guards),
        shared: &DatabaseSettings,
        claim: Claim,
    ) -> Result<(SharedLedger, CopyRecords), LedgerError> {
        let lock = claim.lock(folder)?;
        let mut database = Database::new(shared).map_err(SharedError::at_start)?;
        database.connect().map_err(SharedError::at_start)?;
        let id = database.ledger().map_err(at_start)?;
        let (marker, mut copy) = open_copy(folder, settings, guards, id)?;
        copy.writer.gathers_claims = true;
        let head = database.look(u64::MAX, None).map_err(at_start)?.head;
        let following = find_known(&database, &mut copy, &head).map_err(SharedError::at_start)?;
        let life = Life {
            name: shared.daemon.clone(),
            folder: folder.to_owned(),
            ledger: id,
            epochs: marker.epochs,
            begun: false,
            lease: shared.lease,
        };
        let mut ledger = SharedLedger::new((copy, database, following), life, lock);
        // What it had before it was ended was acknowledged to it, or made certain, but for its last second.
        ledger.acknowledged = ledger.following.known;
        let begun = Instant::now();
        let before = ledger.copy.writer.journal.next_sequence();
        ledger.catch_up_at_start()?;
        let entries = ledger.copy.writer.journal.next_sequence() - before;
        if entries > 0 {
            tracing::info!(
                entries,
                seconds = begun.elapsed().as_secs(),
                "the copy is brought up to the ledger's database"
            );
        }
        let journal = &ledger.copy.writer.journal;
        check_against_checkpoint(journal, &checkpoint_file(folder), &guards.audit_keys)?;
        if let Some(expected) = &guards.expected_checkpoint {
            check_against_expected(journal, expected, &guards.audit_keys)?;
        }
        ledger.refuse_twin()?;
        ledger.refuse_namesake(shared.lease)?;
        // This begins the epoch.
        ledger.persist(now, &[])?;
        let records = ledger.copy.records();
        Ok((ledger, records))
    }

    /// Reads all that the copy lacks; over a slow network in smaller pages.
    fn catch_up_at_start(&mut self) -> Result<(), LedgerError> {
        loop {
            match self.catch_up() {
                Err(Failure::Away(_)) if self.database.page > 1 => {
                    self.database.connect().map_err(SharedError::at_start)?
                }
                caught => return caught.map_err(at_start),
            }
        }
    }

    /// An open epoch that was begun from this folder is over, since the folder is locked, unless the folder was copied: then the
    /// daemon that it was copied from is still heard of.
    fn refuse_twin(&mut self) -> Result<(), LedgerError> {
        let (begun, mut first) = (Instant::now(), None);
        loop {
            let looked = self.database.look(self.following.known, None).map_err(at_start)?;
            self.following.take_in(&mut self.copy, &looked)?;
            let memory = self.copy.writer.common.memory();
            let own = looked.daemons.iter().filter(|daemon| {
                let known = memory.epochs.get(&daemon.epoch).filter(|epoch| epoch.is_open());
                self.life.epochs.contains(&daemon.epoch) && known.is_some_and(|epoch| epoch.daemon == self.life.name)
            });
            let Some(own) = own.max_by_key(|daemon| daemon.renewed) else { return Ok(()) };
            if first.is_some_and(|renewed| renewed != own.renewed) {
                let opened = memory.epochs.get(&own.epoch).map(|epoch| format!("{:.0}", epoch.opened));
                let (name, since) = (self.life.name.clone(), opened.unwrap_or_default());
                return Err(SharedError::SameName { name, epoch: own.epoch, since }.at_start());
            }
            first = Some(own.renewed);
            // After a fail-over the clock that its age is by may be another one.
            let age = Duration::from_micros(u64::try_from(own.age).unwrap_or(0));
            if age >= HEARD || begun.elapsed() >= HEARD {
                return Ok(());
            }
            drop(memory);
            thread::sleep(Duration::from_millis(250));
        }
    }

    /// An open epoch of this daemon's name that was not begun from this folder is another daemon's, unless it is silent: then it is
    /// given up when the lease is over.
    fn refuse_namesake(&mut self, lease: Duration) -> Result<(), LedgerError> {
        let begun = Instant::now();
        let mut first = None;
        loop {
            let namesake = {
                let memory = self.copy.writer.common.memory();
                let mine = |epoch: &&Arc<Epoch>| epoch.daemon == self.life.name;
                let known = |epoch: &&Arc<Epoch>| self.life.epochs.contains(&epoch.number);
                memory.open_epochs().filter(|epoch| mine(epoch) && !known(epoch)).last().cloned()
            };
            let Some(namesake) = namesake else { return Ok(()) };
            let looked = self.database.look(self.following.known, None).map_err(at_start)?;
            self.following.take_in(&mut self.copy, &looked)?;
            self.lives.look(&looked.daemons, &self.open_epochs(), Instant::now());
            let renewed =
                looked.daemons.iter().find(|daemon| daemon.epoch == namesake.number).map(|daemon| daemon.renewed);
            if *first.get_or_insert(renewed) != renewed {
                let (name, since) = (self.life.name.clone(), format!("{:.0}", namesake.opened));
                return Err(SharedError::SameName { name, epoch: namesake.number, since }.at_start());
            }
            if begun.elapsed() >= lease.max(NAMESAKE) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(500).min(lease));
        }
    }
}

fn at_start(failure: Failure) -> LedgerError {
    match failure {
        Failure::Ledger(error) => error,
        Failure::Again(what) | Failure::Away(what) => LedgerError::Storage(what.into()),
    }
}

/// The daemons that have not ended, as the copy in a folder that no daemon uses has it.
pub(super) fn open_daemons(folder: &Path, id: [u8; 16]) -> Result<Vec<String>, LedgerError> {
    let (_, mut copy) = open_copy(folder, &Settings::default(), &Guards::default(), id)?;
    let open = copy.writer.common.memory().open_epochs().map(|epoch| epoch.daemon.clone()).collect();
    copy.close();
    Ok(open)
}

/// Opens the copy of the ledger with this id. An index that knows more than the journal is no evidence here: the journal is not on
/// stable storage before it is in the database.
fn open_copy(
    folder: &Path,
    settings: &Settings,
    guards: &Guards,
    id: [u8; 16],
) -> Result<(Marker, LedgerCopy), LedgerError> {
    let refused = |what: String| SharedError::Folder(what).at_start();
    let unusable = |cause| LedgerError::Folder { folder: folder.display().to_string(), cause };
    if let Some(aside) = unacknowledged::put_aside(folder).map_err(unusable)? {
        tracing::warn!(
            "the copy had batches that were never acknowledged: its journal is {} now, and it is read again from the database",
            aside.display()
        );
    }
    let marker = Marker::read(folder).map_err(refused)?;
    let has_entries = Journal::exists(&folder.join("journal"))?;
    let marker = match marker {
        Some(marker) if marker.ledger == id => marker,
        Some(marker) => {
            return Err(refused(format!(
                "the folder {} holds a copy of the ledger {}, and the database holds the ledger {}",
                folder.display(),
                hex::encode(marker.ledger),
                hex::encode(id)
            )));
        }
        None if has_entries => {
            return Err(refused(format!(
                "the folder {} holds a ledger of its own; take it over with \"birthmark ledger create --from\", or give this \
                 daemon an empty folder",
                folder.display()
            )));
        }
        None => {
            let marker = Marker { ledger: id, epochs: Vec::new() };
            marker.write(folder).map_err(unusable)?;
            marker
        }
    };
    let open = || -> Result<LedgerCopy, LedgerError> {
        let mut journal = Journal::open_copy(&folder.join("journal"), id, settings.segment_size)?;
        journal.lock().map_err(|error| match error {
            JournalError::InUse { pid, .. } => LedgerError::Locked { folder: folder.display().to_string(), pid },
            error => error.into(),
        })?;
        let indexed = Indexed::open(folder, &mut journal, settings, false)?;
        journal.take_place()?;
        tighten(folder);
        LedgerCopy::new(journal, indexed, guards, vec![folder.to_owned()], None)
    };
    let copy = match open() {
        Err(error @ LedgerError::Lost { .. }) => {
            tracing::warn!(%error, "the index is made again");
            fs::remove_dir_all(folder.join("index")).map_err(unusable)?;
            open()?
        }
        copy => copy?,
    };
    Ok((marker, copy))
}

/// Up to which batch the copy goes; the end of a batch that a crash cut short is completed.
fn find_known(database: &Database, copy: &mut LedgerCopy, head: &HeadRow) -> Result<Following, SharedError> {
    let mut following = Following::default();
    let (entries, chain) = (copy.writer.journal.next_sequence() - 1, *copy.writer.journal.chain());
    if entries == 0 {
        return Ok(following);
    }
    if entries > head.sequence {
        let what = format!("this daemon's copy has {entries} entries, and it has {}", head.sequence);
        return Err(lost(copy, head, what));
    }
    let away = |failure: Failure| match failure {
        Failure::Ledger(error) => SharedError::Differs { what: error.to_string() },
        Failure::Again(what) | Failure::Away(what) => SharedError::Away { place: database.place().to_owned(), what },
    };
    let gone = |number: u64| SharedError::Differs { what: format!("the batch {number} is not there") };
    let read = |number: u64| database.batch(number).map_err(away)?.ok_or_else(|| gone(number));
    // The newest batch that begins at or before the copy's newest entry.
    let (mut low, mut high) = (1, head.batch);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match read(middle)?.first <= entries {
            true => low = middle,
            false => high = middle - 1,
        }
    }
    let row = read(low)?;
    let differs = || SharedError::Differs {
        what: format!(
            "in the batch {low}, up to the entry {entries}, where this daemon's copy ends, the entries are others"
        ),
    };
    let (there, rest) = split_after(row.frames(), row.first, entries).ok_or_else(differs)?;
    if there != chain {
        return Err(differs());
    }
    if !rest.is_empty() {
        let batch = Batch { first: entries + 1, place: copy.writer.journal.end(), frames: rest };
        copy.follow(batch, |_| {}).map_err(|error| SharedError::Differs { what: error.to_string() })?;
    }
    following.known = low;
    Ok(following)
}
