//! The side that changes, from its opening to its end.

use std::{fs, io, path::Path, sync::Arc, time::Instant};

use jiff::Timestamp;

use super::mirror::bring_together;
use crate::{
    ledger::{
        actor::Actor,
        api::Ledger,
        copy::{
            CheckpointFault, CopyRecords, Guards, Indexed, LedgerCopy, Settings, check_against_checkpoint,
            check_against_expected, checkpoint_file,
        },
        epoch::Epoch,
        error::LedgerError,
        folder_lock::{FolderLock, tighten},
        index::{self, IndexError},
        journal::{Journal, JournalError, Whereabouts, forget_place},
        marker::Marker,
        operation::{Action, Operation, Outcome},
        refusal::Refusal,
    },
    serial::SerialNumber,
};

/// The lock of a ledger that is not open yet.
#[derive(Debug, Default)]
pub struct Claim(Option<FolderLock>);

impl Claim {
    /// Locks a ledger's folder, so that nobody else opens it meanwhile. One that is not there is not made.
    ///
    /// # Errors
    /// A folder that cannot be used or that another daemon uses.
    pub fn take(folder: &Path) -> Result<Claim, LedgerError> {
        folder.join("journal").is_dir().then(|| FolderLock::take(folder)).transpose().map(Claim)
    }

    /// The lock, taken now if it was not before.
    pub(in crate::ledger) fn lock(self, folder: &Path) -> Result<FolderLock, LedgerError> {
        self.0.map_or_else(|| FolderLock::take(folder), Ok)
    }
}

/// The side that changes.
#[derive(Debug)]
pub struct EmbeddedLedger {
    /// Ends before the lock does.
    pub(super) copy: LedgerCopy,
    _locks: Vec<FolderLock>,
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
    ) -> Result<(EmbeddedLedger, CopyRecords), LedgerError> {
        EmbeddedLedger::open_guarded(folder, now, settings, &Guards::default(), Claim::default())
    }

    /// As [`EmbeddedLedger::open`], with the lock that was taken, checked with `guards`.
    ///
    /// # Errors
    /// Besides, a checkpoint that none of the audit keys signed.
    pub fn open_guarded(
        folder: &Path,
        now: Timestamp,
        settings: &Settings,
        guards: &Guards,
        claim: Claim,
    ) -> Result<(EmbeddedLedger, CopyRecords), LedgerError> {
        let mut ledger = EmbeddedLedger::recover(folder, settings, guards, claim, false)?;
        if let Err(error) = ledger.abandon_pending(now) {
            let LedgerError::Unavailable { .. } = error else { return Err(error) };
            // What was not asked for before is damaged.
            drop(ledger);
            ledger = EmbeddedLedger::recover(folder, settings, guards, Claim::default(), true)?;
            ledger.abandon_pending(now)?;
        }
        let records = ledger.copy.records();
        Ok((ledger, records))
    }

    /// Deletes the index and rebuilds it. Gives the number of the journal's entries.
    ///
    /// # Errors
    /// A folder that cannot be used or that a daemon uses; a damaged journal: then the index stays.
    pub fn reindex(folder: &Path, settings: &Settings) -> Result<u64, LedgerError> {
        let ledger = EmbeddedLedger::recover(folder, settings, &Guards::default(), Claim::default(), true)?;
        let entries = ledger.copy.writer.journal.next_sequence() - 1;
        ledger.close()?;
        // What was there before; an operator asked for it to go.
        let _ = fs::remove_dir_all(index::aside(&folder.join("index")));
        Ok(entries)
    }

    /// Opens journal and index and brings them together. `rebuild`: whatever the index is, it is rebuilt.
    pub(super) fn recover(
        folder: &Path,
        settings: &Settings,
        guards: &Guards,
        claim: Claim,
        rebuild: bool,
    ) -> Result<EmbeddedLedger, LedgerError> {
        let unusable = |cause: io::Error| LedgerError::Folder { folder: folder.display().to_string(), cause };
        let lock = claim.lock(folder)?;
        if let Some(marker) = Marker::read(folder).map_err(|what| LedgerError::Storage(what.into()))? {
            return Err(LedgerError::Storage(copy_of_another(folder, &marker).into()));
        }
        let mirror = bring_together(folder, settings)?;
        let checkpoint = checkpoint_file(folder);
        if checkpoint.exists() && !Journal::exists(&folder.join("journal"))? {
            // A new one would take its place as if nothing had been issued.
            let (path, what) = (checkpoint.display().to_string(), "there is no journal file".to_owned());
            return Err(CheckpointFault::Differs { path, what }.into());
        }
        if checkpoint.exists() || index::is_known(&folder.join("index")) {
            Journal::check_first_header(&folder.join("journal"))?;
        }
        let mut journal = open_journal(folder, settings)?;
        check_against_checkpoint(&journal, &checkpoint, &guards.audit_keys)?;
        if let Some(expected) = &guards.expected_checkpoint {
            check_against_expected(&journal, expected, &guards.audit_keys)?;
        }
        let may_lack = match mirror.vouches() {
            true => None,
            false => may_lack(&journal, index::exists(&folder.join("index")))?,
        };
        let indexed = Indexed::open(folder, &mut journal, settings, rebuild)?;
        if may_lack.is_none() {
            journal.take_place()?;
            match &settings.mirror {
                Some(mirror) => journal.start_mirror(&mirror.join("journal")).map_err(unusable)?,
                None => journal.part_from_mirror()?,
            }
        }
        tighten(folder);
        let homes = std::iter::once(folder).chain(settings.mirror.as_deref()).map(Path::to_owned).collect();
        let copy = LedgerCopy::new(journal, indexed, guards, homes, may_lack)?;
        let locks = std::iter::once(lock).chain(mirror.into_lock()).collect();
        Ok(EmbeddedLedger { copy, _locks: locks })
    }

    /// After a start nobody is working on a reservation any more: each becomes abandoned (invariant 2). Epochs are those of daemons
    /// that shared the ledger before it was taken out of their database.
    fn abandon_pending(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let abandon = |serial_number: SerialNumber| {
            let reason = "the daemon stopped before the certificate was recorded".into();
            Operation { actor: Actor::daemon(), action: Action::Abandon { serial_number, reason } }
        };
        let mut operations: Vec<_> = self.copy.writer.common.memory().reservations().map(abandon).collect();
        if !operations.is_empty() {
            tracing::info!(reservations = operations.len(), "abandoned the reservations that a crash left unfinished");
        }
        let end =
            |epoch: &Arc<Epoch>| Operation { actor: Actor::daemon(), action: Action::EndEpoch { epoch: epoch.number } };
        operations.extend(self.copy.writer.common.memory().open_epochs().map(end));
        if !operations.is_empty() {
            for outcome in self.commit(now, &operations)? {
                if let Outcome::Failed(error) = outcome
                    && let LedgerError::Unavailable { cause, .. } = &*error
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
        let before = self.copy.writer.journal.next_sequence();
        let committed = self.copy.writer.commit(now, operations, |journal, _| Ok(journal.commit()?));
        let common = &self.copy.writer.common;
        match &committed {
            Err(error) => *common.last_error() = Some((Instant::now(), error.to_string())),
            // A batch without entries is no proof that writing works.
            Ok(_) if self.copy.writer.journal.next_sequence() > before => *common.last_error() = None,
            Ok(_) => {}
        }
        committed
    }

    fn close(mut self) -> Result<(), LedgerError> {
        self.copy.close();
        Ok(())
    }
}

/// Two histories would begin.
fn copy_of_another(folder: &Path, marker: &Marker) -> String {
    format!(
        "the folder {} holds a copy of the ledger {}, which several daemons share; name its database (ledger.database), or take \
         the ledger out of it with \"birthmark ledger leave\"",
        folder.display(),
        hex::encode(marker.ledger)
    )
}

/// Opens the journal and locks it.
pub(super) fn open_journal(folder: &Path, settings: &Settings) -> Result<Journal, LedgerError> {
    let mut journal = Journal::open(&folder.join("journal"), settings.segment_size)?;
    match journal.lock() {
        Ok(()) => Ok(journal),
        Err(JournalError::InUse { pid, .. }) => Err(LedgerError::Locked { folder: folder.display().to_string(), pid }),
        Err(error) => Err(error.into()),
    }
}

/// Why the journal may lack its newest entries, if it may: it is not where a daemon left it. What birthmark wrote before
/// there were places has an index beside it (`indexed`), which copies of the journal have not.
fn may_lack(journal: &Journal, indexed: bool) -> Result<Option<Refusal>, LedgerError> {
    let what = match journal.whereabouts()? {
        Whereabouts::Own => return Ok(None),
        Whereabouts::NoPlace if indexed => return Ok(None),
        Whereabouts::NoPlace | Whereabouts::Unknown => {
            // There will be an index from now on.
            let folder = journal.reader().folder();
            let unusable = |cause| LedgerError::Folder { folder: folder.display().to_string(), cause };
            forget_place(&folder).map_err(unusable)?;
            "nothing shows that a daemon of this place wrote it last".to_owned()
        }
        Whereabouts::Elsewhere(what) => what,
    };
    let refusal = Refusal::MayLackEntries(format!(
        "the journal was restored, copied or moved ({what}), so that certificates which were issued since may be missing; \
         stop the daemon, take them back with \"birthmark journal reconcile\", and say that nothing is missing any more \
         with \"birthmark journal accept-loss\" (docs/restore.md)"
    ));
    tracing::error!(folder = %journal.reader().folder().display(), "{refusal}");
    Ok(Some(refusal))
}
