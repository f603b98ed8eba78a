//! What an operator accepts while no daemon runs, each recorded in the journal: the loss of entries, and a clock that
//! contradicts the newest entry.

use std::{fs, io, path::Path};

use jiff::Timestamp;

use super::open::{Claim, EmbeddedLedger, open_journal};
use crate::{
    durable,
    ledger::{
        acceptance::{Acceptable, Agreed, Grounds},
        actor::Actor,
        api::Ledger,
        copy::{Guards, Settings, check_against_checkpoint, checkpoint_file, to_microseconds},
        entry::{Entry, Event},
        error::LedgerError,
        folder_lock::FolderLock,
        journal::{Journal, Position},
    },
};

impl EmbeddedLedger {
    /// Goes on without entries that index or checkpoint know and the journal has lost, and records that an operator
    /// agreed. Gives what was lost.
    ///
    /// # Errors
    /// If nothing is lost, the journal is damaged otherwise, or others agreed to something else.
    pub fn accept_loss(
        folder: &Path,
        now: Timestamp,
        settings: &Settings,
        actor: Actor,
        grounds: impl Into<Grounds>,
    ) -> Result<String, LedgerError> {
        let what = match Missing::find(folder, settings)? {
            Missing::Perhaps(ledger) => return ledger.accept_place(now, actor, grounds.into()),
            Missing::Known(what) => what,
        };
        let lock = FolderLock::take(folder)?;
        let mut journal = open_journal(folder, settings)?;
        let (reason, agreed) = permitted(grounds.into(), &acceptable(&journal, what.clone()))?;
        journal.settle(None)?;
        // Durable before the evidence goes.
        let newest = newest_time(&journal)?.unwrap_or(now);
        let event = Event::LossAccepted { what: what.clone(), reason, agreed };
        journal.stage(&Entry { time: to_microseconds(now).max(newest), actor, event })?;
        journal.commit()?;
        journal.take_place()?;
        journal.part_from_mirror()?;
        let unusable = |cause: io::Error| LedgerError::Folder { folder: folder.display().to_string(), cause };
        let checkpoint = checkpoint_file(folder);
        if check_against_checkpoint(&journal, &checkpoint, &[]).is_err() {
            keep_aside(&checkpoint, now).map_err(unusable)?;
        }
        drop((journal, lock));
        match fs::remove_dir_all(folder.join("index")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
            _ => {}
        }
        EmbeddedLedger::recover(folder, settings, &Guards::default(), Claim::default(), false)?.close()?;
        Ok(what)
    }

    /// What [`EmbeddedLedger::accept_loss`] would accept. Nothing is written.
    ///
    /// # Errors
    /// If nothing is lost, or the journal is damaged otherwise.
    pub fn acceptable_loss(folder: &Path, settings: &Settings) -> Result<Acceptable, LedgerError> {
        match Missing::find(folder, settings)? {
            Missing::Perhaps(ledger) => {
                let found = acceptable(&ledger.copy.writer.journal, missing_after(&ledger.copy.writer.journal));
                ledger.close()?;
                Ok(found)
            }
            Missing::Known(what) => {
                let _lock = FolderLock::take(folder)?;
                Ok(acceptable(&open_journal(folder, settings)?, what))
            }
        }
    }

    /// Records that an operator found the clock right although it contradicts the newest entry, so that the daemon
    /// goes on at the time that it is. Gives that entry's time.
    ///
    /// # Errors
    /// If clock and journal agree, the ledger cannot be opened, or others agreed to something else.
    pub fn accept_clock(
        folder: &Path,
        now: Timestamp,
        settings: &Settings,
        actor: Actor,
        grounds: impl Into<Grounds>,
    ) -> Result<Timestamp, LedgerError> {
        let (mut ledger, newest, found) = contradiction(folder, now, settings)?;
        let (reason, agreed) = permitted(grounds.into(), &found)?;
        let event = Event::ClockAccepted { reason, agreed };
        ledger.append(&Entry { time: to_microseconds(now), actor, event })?;
        ledger.close()?;
        Ok(newest)
    }

    /// What [`EmbeddedLedger::accept_clock`] would accept. Nothing is written.
    ///
    /// # Errors
    /// If clock and journal agree, or the ledger cannot be opened.
    pub fn acceptable_clock(folder: &Path, now: Timestamp, settings: &Settings) -> Result<Acceptable, LedgerError> {
        let (ledger, _, found) = contradiction(folder, now, settings)?;
        ledger.close()?;
        Ok(found)
    }

    /// The journal is taken for what it is here, whatever it may lack: gives what that is.
    fn accept_place(mut self, now: Timestamp, actor: Actor, grounds: Grounds) -> Result<String, LedgerError> {
        let what = missing_after(&self.copy.writer.journal);
        let (reason, agreed) = permitted(grounds, &acceptable(&self.copy.writer.journal, what.clone()))?;
        let newest = self.copy.writer.common.follower().applied.newest_time;
        let event = Event::LossAccepted { what: what.clone(), reason, agreed };
        self.append(&Entry { time: to_microseconds(now).max(newest), actor, event })?;
        self.copy.writer.journal.take_place()?;
        self.close()?;
        Ok(what)
    }

    /// Writes an entry that changes nothing of what is known.
    fn append(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        let position = self.copy.writer.journal.stage(entry)?;
        self.copy.writer.journal.commit()?;
        let mut follower = self.copy.writer.common.follower();
        follower.applied.note(entry);
        follower.applied.last = Some((position, *self.copy.writer.journal.chain()));
        follower.applied.next = self.copy.writer.journal.end();
        Ok(())
    }
}

/// What the journal lacks.
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Missing {
    /// Whatever came after its newest entry, if anything did: it is not where a daemon left it.
    Perhaps(EmbeddedLedger),
    /// What index or checkpoint know.
    Known(String),
}

impl Missing {
    fn find(folder: &Path, settings: &Settings) -> Result<Missing, LedgerError> {
        match EmbeddedLedger::recover(folder, settings, &Guards::default(), Claim::default(), false) {
            Ok(ledger) if ledger.copy.writer.common.may_lack.is_some() => Ok(Missing::Perhaps(ledger)),
            Ok(ledger) => {
                ledger.close()?;
                Err(LedgerError::NothingToAccept("the journal has all that index and checkpoint know".into()))
            }
            Err(LedgerError::Lost { what, .. }) => Ok(Missing::Known(what)),
            Err(error) => Err(error),
        }
    }
}

fn missing_after(journal: &Journal) -> String {
    let entries = journal.next_sequence() - 1;
    format!("the journal was restored, copied or moved: what was recorded after its entry {entries}, if anything was")
}

/// The ledger, its newest entry's time, and that the clock contradicts it.
fn contradiction(
    folder: &Path,
    now: Timestamp,
    settings: &Settings,
) -> Result<(EmbeddedLedger, Timestamp, Acceptable), LedgerError> {
    let ledger = EmbeddedLedger::recover(folder, settings, &Guards::default(), Claim::default(), false)?;
    let newest = ledger.copy.writer.common.follower().applied.newest_time;
    if ledger.copy.writer.common.clock().refusal(now).is_none() {
        let what = format!("the clock ({now}) and the newest entry ({newest}) do not contradict each other");
        return Err(LedgerError::NothingToAccept(what));
    }
    let what = format!("the clock, although the newest entry is of {newest}");
    let found = acceptable(&ledger.copy.writer.journal, what);
    Ok((ledger, newest, found))
}

fn acceptable(journal: &Journal, what: String) -> Acceptable {
    let (ledger, entries, chain) = (journal.id(), journal.next_sequence() - 1, *journal.chain());
    Acceptable { ledger, entries, chain, what }
}

/// Reason and agreement as the entry has them, if others agreed to just what was found.
fn permitted(grounds: Grounds, found: &Acceptable) -> Result<(String, Option<Box<Agreed>>), LedgerError> {
    let agreed = match grounds.agreed {
        Some((expected, _)) if expected != *found => {
            return Err(LedgerError::AgreedOtherwise(differs(&expected, found)));
        }
        agreed => agreed.map(|(_, agreed)| Box::new(agreed)),
    };
    Ok((grounds.reason, agreed))
}

fn differs(expected: &Acceptable, found: &Acceptable) -> String {
    if expected.ledger != found.ledger {
        let [expected, found] = [expected.ledger, found.ledger].map(hex::encode);
        return format!("it is about the ledger {expected}, and this is {found}");
    }
    if (expected.entries, expected.chain) != (found.entries, found.chain) {
        let [theirs, ours] =
            [expected, found].map(|at| format!("{} entries (chain hash {})", at.entries, hex::encode(at.chain)));
        return format!("it is about a journal of {theirs}, and this one has {ours}");
    }
    format!("it is about \"{}\", and there is now: {}", expected.what, found.what)
}

/// The time of the newest entry.
fn newest_time(journal: &Journal) -> Result<Option<Timestamp>, LedgerError> {
    let mut newest = None;
    // The newest file may not have an entry yet.
    for frame in
        journal.reader().frames(Position::file_start(journal.segment().saturating_sub(1).max(1)), journal.end())
    {
        newest = Some(frame?.entry.time);
    }
    Ok(newest)
}

/// Gives the file a name with the time at which it was put aside.
fn keep_aside(path: &Path, now: Timestamp) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".lost-{}", now.as_second()));
    durable::write_new(Path::new(&name), &fs::read(path)?, durable::Access::Owner)?;
    fs::remove_file(path)
}
