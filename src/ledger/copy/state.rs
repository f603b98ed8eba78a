//! What both sides of the ledger see.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use tokio::sync::watch;

use super::{
    catalog::{Catalog, Follower},
    disk_space::DiskSpace,
};
use crate::ledger::{
    clock::Clock,
    head::Head,
    journal::{Journal, MirrorState, Position, Reader},
    memtable::MemTable,
    overlay::Overlay,
    refusal::Refusal,
    view::View,
};

/// What both sides see.
#[derive(Debug)]
pub(in crate::ledger) struct Common {
    pub(in crate::ledger) catalog: Arc<Catalog>,
    pub(in crate::ledger) journal: Reader,
    pub(in crate::ledger) head: RwLock<Head>,
    /// How many certificates of devices were ever recorded.
    pub(in crate::ledger) certificates: AtomicU64,
    pub(in crate::ledger) space: Arc<DiskSpace>,
    /// When and why the last batch could not be written, until one can.
    pub(in crate::ledger) last_error: Mutex<Option<(Instant, String)>>,
    /// What is the matter with what makes entries durable, while it cannot be reached.
    pub(in crate::ledger) away: Mutex<Option<Away>>,
    /// From when on all that others had written before is known here; none where nobody else writes.
    pub(in crate::ledger) looked: watch::Sender<Option<Instant>>,
    /// The note of the newest checkpoint that was read of what others wrote.
    pub(in crate::ledger) followed_checkpoint: Mutex<Option<Arc<str>>>,
    pub(in crate::ledger) clock: Mutex<Clock>,
    /// Why the journal may lack its newest entries; nothing is issued then.
    pub(in crate::ledger) may_lack: Option<Refusal>,
    /// Of the journal's mirror, if there is one.
    pub(in crate::ledger) mirror_state: Option<MirrorState>,
    /// The data folder and the mirror's, if there is one.
    pub(in crate::ledger) homes: Vec<PathBuf>,
}

/// What makes entries durable cannot be reached.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct Away {
    /// Which, since when and why, for people.
    pub(in crate::ledger) why: String,
    /// Until when all that others wrote is known here.
    pub(in crate::ledger) as_of: Timestamp,
}

impl Common {
    /// What is known, with an empty overlay for what a batch changes.
    pub(in crate::ledger) fn view(&self) -> View<'_> {
        View::new(Overlay::default(), self.memory(), &self.journal)
    }

    pub(in crate::ledger) fn memory(&self) -> RwLockReadGuard<'_, MemTable> {
        self.catalog.memory()
    }

    /// A batch has it to itself.
    pub(in crate::ledger) fn follower(&self) -> MutexGuard<'_, Follower> {
        self.catalog.follower()
    }

    pub(in crate::ledger) fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock()
    }

    pub(in crate::ledger) fn last_error(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.last_error.lock()
    }

    /// All of the journal before it is durable.
    pub(in crate::ledger) fn end(&self) -> Position {
        self.memory().end
    }
}

/// What the journal has come to.
pub(in crate::ledger) fn head(journal: &Journal) -> Head {
    Head {
        ledger: journal.id(),
        sequence: journal.next_sequence() - 1,
        chain: *journal.chain(),
        part: journal.segment(),
    }
}
