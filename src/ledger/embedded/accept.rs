//! What an operator accepts while no daemon runs, each recorded in the journal: the loss of entries, and a clock that
//! contradicts the newest entry.

use std::{fs, io, path::Path};

use jiff::Timestamp;

use super::{
    batch::to_microseconds,
    checkpoint_file::{check_against_checkpoint, checkpoint_file},
    open::{EmbeddedLedger, open_journal},
    settings::{Guards, Settings},
};
use crate::{
    durable,
    ledger::{
        actor::Actor,
        api::Ledger,
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
    /// If nothing is lost, or the journal is damaged otherwise.
    pub fn accept_loss(
        folder: &Path,
        now: Timestamp,
        settings: &Settings,
        actor: Actor,
        reason: String,
    ) -> Result<String, LedgerError> {
        let what = match EmbeddedLedger::recover(folder, settings, &Guards::default(), false) {
            Ok(ledger) if ledger.writer.shared.may_lack.is_some() => return ledger.accept_place(now, actor, reason),
            Ok(ledger) => {
                ledger.close()?;
                return Err(LedgerError::NothingToAccept("the journal has all that index and checkpoint know".into()));
            }
            Err(LedgerError::Lost { what, .. }) => what,
            Err(error) => return Err(error),
        };
        let lock = FolderLock::take(folder)?;
        let mut journal = open_journal(folder, settings)?;
        journal.settle(None)?;
        // Durable before the evidence goes.
        let newest = newest_time(&journal)?.unwrap_or(now);
        let event = Event::LossAccepted { what: what.clone(), reason };
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
        EmbeddedLedger::recover(folder, settings, &Guards::default(), false)?.close()?;
        Ok(what)
    }

    /// Records that an operator found the clock right although it contradicts the newest entry, so that the daemon
    /// goes on at the time that it is. Gives that entry's time.
    ///
    /// # Errors
    /// If clock and journal agree, or the ledger cannot be opened.
    pub fn accept_clock(
        folder: &Path,
        now: Timestamp,
        settings: &Settings,
        actor: Actor,
        reason: String,
    ) -> Result<Timestamp, LedgerError> {
        let mut ledger = EmbeddedLedger::recover(folder, settings, &Guards::default(), false)?;
        let newest = ledger.writer.shared.follower().applied.newest_time;
        if ledger.writer.shared.clock().refusal(now).is_none() {
            let what = format!("the clock ({now}) and the newest entry ({newest}) do not contradict each other");
            return Err(LedgerError::NothingToAccept(what));
        }
        ledger.append(&Entry { time: to_microseconds(now), actor, event: Event::ClockAccepted { reason } })?;
        ledger.close()?;
        Ok(newest)
    }

    /// The journal is taken for what it is here, whatever it may lack: gives what that is.
    fn accept_place(mut self, now: Timestamp, actor: Actor, reason: String) -> Result<String, LedgerError> {
        let entries = self.writer.journal.next_sequence() - 1;
        let what = format!(
            "the journal was restored, copied or moved: what was recorded after its entry {entries}, if anything was"
        );
        let newest = self.writer.shared.follower().applied.newest_time;
        let event = Event::LossAccepted { what: what.clone(), reason };
        self.append(&Entry { time: to_microseconds(now).max(newest), actor, event })?;
        self.writer.journal.take_place()?;
        self.close()?;
        Ok(what)
    }

    /// Writes an entry that changes nothing of what is known.
    fn append(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        let position = self.writer.journal.stage(entry)?;
        self.writer.journal.commit()?;
        let mut follower = self.writer.shared.follower();
        follower.applied.note(entry);
        follower.applied.last = Some((position, *self.writer.journal.chain()));
        follower.applied.next = self.writer.journal.end();
        Ok(())
    }
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
