//! The side that changes, from its opening to its end.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, mpsc},
    time::Instant,
};

use jiff::Timestamp;

use parking_lot::{Mutex, RwLock};

use super::{
    batch::BatchWriter,
    catalog::{Catalog, Setup},
    checkpoint_file::{CheckpointFault, check_against_checkpoint, check_against_expected, checkpoint_file},
    disk_space::DiskSpace,
    mirror::bring_together,
    rebuild::Rebuilder,
    records::EmbeddedRecords,
    settings::{Guards, Settings},
    shared::{Shared, head},
};
use crate::{
    ledger::{
        actor::Actor,
        api::Ledger,
        clock::Clock,
        error::LedgerError,
        folder_lock::{FolderLock, tighten},
        index::{self, IndexError},
        journal::{Journal, JournalError, Whereabouts, forget_place},
        operation::{Action, Operation, Outcome},
        refusal::Refusal,
    },
    serial::{SerialNumber, SerialNumbers},
};

/// The side that changes.
#[derive(Debug)]
pub struct EmbeddedLedger {
    pub(super) writer: BatchWriter,
    /// Ends before the lock does.
    _rebuilder: Rebuilder,
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
    ) -> Result<(EmbeddedLedger, EmbeddedRecords), LedgerError> {
        EmbeddedLedger::open_guarded(folder, now, settings, &Guards::default())
    }

    /// As [`EmbeddedLedger::open`], checked with `guards`.
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
            let LedgerError::Unavailable { .. } = error else { return Err(error) };
            // What was not asked for before is damaged.
            drop(ledger);
            ledger = EmbeddedLedger::recover(folder, settings, guards, true)?;
            ledger.abandon_pending(now)?;
        }
        let records = EmbeddedRecords { shared: Arc::clone(&ledger.writer.shared) };
        Ok((ledger, records))
    }

    /// Deletes the index and rebuilds it. Gives the number of the journal's entries.
    ///
    /// # Errors
    /// A folder that cannot be used or that a daemon uses; a damaged journal: then the index stays.
    pub fn reindex(folder: &Path, settings: &Settings) -> Result<u64, LedgerError> {
        let ledger = EmbeddedLedger::recover(folder, settings, &Guards::default(), true)?;
        let entries = ledger.writer.journal.next_sequence() - 1;
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
        rebuild: bool,
    ) -> Result<EmbeddedLedger, LedgerError> {
        let unusable = |cause: io::Error| LedgerError::Folder { folder: folder.display().to_string(), cause };
        let lock = FolderLock::take(folder)?;
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
        let (alarm, alarms) = mpsc::sync_channel(1);
        let boot = settings.boot_id.clone().unwrap_or_else(boot_id);
        let site = index::Site { folder: folder.join("index"), journal: journal.id(), boot, alarm };
        let space = Arc::new(DiskSpace { journal: journal.reader().clone(), min_free: settings.min_free });
        let setup = Setup { site, space: Arc::clone(&space), flush_at: settings.flush_at };
        let catalog = Arc::new(Catalog::open(&setup, &mut journal, rebuild)?);
        if may_lack.is_none() {
            journal.take_place()?;
            match &settings.mirror {
                Some(mirror) => journal.start_mirror(&mirror.join("journal")).map_err(unusable)?,
                None => journal.part_from_mirror()?,
            }
        }
        let mirror_state = journal.mirror_state();
        tighten(folder);
        let (newest_serial, newest_time) = {
            let follower = catalog.follower();
            (follower.applied.newest_serial, follower.applied.newest_time)
        };
        let rebuilder = Rebuilder::start(setup, alarms, &catalog, journal.reader().clone()).map_err(unusable)?;
        let head = RwLock::new(head(&journal));
        let newest_time = (journal.next_sequence() > 1).then_some(newest_time);
        let clock = Mutex::new(Clock::new(guards.clock.clone(), newest_time));
        let last_error = Mutex::default();
        let reader = journal.reader().clone();
        let shared = Shared { catalog, journal: reader, head, space, last_error, clock, may_lack, mirror_state };
        let shared = Arc::new(shared);
        let serial_numbers = SerialNumbers::resume(journal.id(), newest_serial);
        let writer = BatchWriter { journal, serial_numbers, shared };
        let locks = std::iter::once(lock).chain(mirror.into_lock()).collect();
        Ok(EmbeddedLedger { writer, _rebuilder: rebuilder, _locks: locks })
    }

    /// After a start nobody is working on a reservation any more: each becomes abandoned (invariant 2).
    fn abandon_pending(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let abandon = |serial_number: SerialNumber| {
            let reason = "the daemon stopped before the certificate was recorded".into();
            Operation { actor: Actor::daemon(), action: Action::Abandon { serial_number, reason } }
        };
        let operations: Vec<_> = self.writer.shared.memory().reservations().map(abandon).collect();
        if !operations.is_empty() {
            tracing::info!(reservations = operations.len(), "abandoned the reservations that a crash left unfinished");
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
        let before = self.writer.journal.next_sequence();
        let committed = self.writer.commit(now, operations);
        let shared = &self.writer.shared;
        match &committed {
            Err(error) => *shared.last_error() = Some((Instant::now(), error.to_string())),
            // A batch without entries is no proof that writing works.
            Ok(_) if self.writer.journal.next_sequence() > before => *shared.last_error() = None,
            Ok(_) => {}
        }
        committed
    }

    fn close(mut self) -> Result<(), LedgerError> {
        self.writer.journal.note_stop();
        let shared = &self.writer.shared;
        if let Err(error) = shared.follower().close(&shared.catalog) {
            tracing::warn!(%error, "the index is not up to date; the next start reads more of the journal");
        }
        Ok(())
    }
}

impl Drop for EmbeddedLedger {
    fn drop(&mut self) {
        // Nothing writes into the folder after its lock is free.
        self.writer.shared.follower().stop();
    }
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

/// The kernel's id of this boot.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
