//! Memory and index brought up to a journal, and what decides and reads on them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::{
    batch::BatchWriter,
    catalog::{Catalog, Setup},
    disk_space::DiskSpace,
    rebuild::Rebuilder,
    records::CopyRecords,
    settings::{Guards, Settings},
    state::{Common, head},
};
use crate::{
    ledger::{clock::Clock, error::LedgerError, index, journal::Journal, refusal::Refusal},
    serial::SerialNumbers,
};

/// The index of a journal, and memory above it, applied up to the journal's end.
pub(in crate::ledger) struct Indexed {
    setup: Setup,
    alarms: mpsc::Receiver<()>,
    catalog: Arc<Catalog>,
}

impl Indexed {
    /// Opens the index in `folder`, or makes it, and applies what the journal has beyond it. `rebuild`: whatever the index is, it
    /// is rebuilt.
    pub(in crate::ledger) fn open(
        folder: &Path,
        journal: &mut Journal,
        settings: &Settings,
        rebuild: bool,
    ) -> Result<Indexed, LedgerError> {
        let (alarm, alarms) = mpsc::sync_channel(1);
        let boot = settings.boot_id.clone().unwrap_or_else(boot_id);
        let site = index::Site { folder: folder.join("index"), journal: journal.id(), boot, alarm };
        let space = Arc::new(DiskSpace { journal: journal.reader().clone(), min_free: settings.min_free });
        let setup = Setup { site, space, flush_at: settings.flush_at };
        let catalog = Arc::new(Catalog::open(&setup, journal, rebuild)?);
        Ok(Indexed { setup, alarms, catalog })
    }
}

/// A copy of the ledger's entries on this machine, with all that is known from them.
#[derive(Debug)]
pub(in crate::ledger) struct LedgerCopy {
    pub(in crate::ledger) writer: BatchWriter,
    /// Its thread ends with it.
    _rebuilder: Rebuilder,
}

impl LedgerCopy {
    /// From an opened journal and its index. `homes`: the data folder and the mirror's. `may_lack`: why the journal may lack its newest entries.
    pub(in crate::ledger) fn new(
        journal: Journal,
        Indexed { setup, alarms, catalog }: Indexed,
        guards: &Guards,
        homes: Vec<PathBuf>,
        may_lack: Option<Refusal>,
    ) -> Result<LedgerCopy, LedgerError> {
        let applied = catalog.follower().applied.clone();
        let (newest_serial, newest_time) = (applied.newest_serial, applied.newest_time);
        let space = Arc::clone(&setup.space);
        let folder = journal.reader().home();
        let unusable = |cause| LedgerError::Folder { folder: folder.display().to_string(), cause };
        let rebuilder = Rebuilder::start(setup, alarms, &catalog, journal.reader().clone()).map_err(unusable)?;
        let newest_time = (journal.next_sequence() > 1).then_some(newest_time);
        let common = Common {
            catalog,
            journal: journal.reader().clone(),
            head: RwLock::new(head(&journal)),
            certificates: applied.certificates.into(),
            space,
            last_error: Mutex::default(),
            away: Mutex::default(),
            looked: watch::Sender::default(),
            followed_checkpoint: Mutex::default(),
            clock: Mutex::new(Clock::new(guards.clock.clone(), newest_time)),
            may_lack,
            mirror_state: journal.mirror_state(),
            homes,
        };
        let serial_numbers = SerialNumbers::resume(journal.id(), newest_serial);
        let writer = BatchWriter { journal, serial_numbers, common: Arc::new(common), gathers_claims: false };
        Ok(LedgerCopy { writer, _rebuilder: rebuilder })
    }

    /// The side that reads.
    pub(in crate::ledger) fn records(&self) -> CopyRecords {
        CopyRecords { common: Arc::clone(&self.writer.common) }
    }

    /// Makes the next start quick.
    pub(in crate::ledger) fn close(&mut self) {
        self.writer.journal.note_stop();
        let common = &self.writer.common;
        if let Err(error) = common.follower().close(&common.catalog) {
            tracing::warn!(%error, "the index is not up to date; the next start reads more of the journal");
        }
    }
}

impl Drop for LedgerCopy {
    fn drop(&mut self) {
        // Nothing writes into the folder after its lock is free.
        self.writer.common.follower().stop();
    }
}

/// The kernel's id of this boot.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
