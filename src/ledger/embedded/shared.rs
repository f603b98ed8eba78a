//! What both sides of the ledger see.

use std::{sync::Arc, time::Instant};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

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
pub(super) struct Shared {
    pub(super) catalog: Arc<Catalog>,
    pub(super) journal: Reader,
    pub(super) head: RwLock<Head>,
    pub(super) space: Arc<DiskSpace>,
    /// When and why the last batch could not be written, until one can.
    pub(super) last_error: Mutex<Option<(Instant, String)>>,
    pub(super) clock: Mutex<Clock>,
    /// Why the journal may lack its newest entries; nothing is issued then.
    pub(super) may_lack: Option<Refusal>,
    /// Of the journal's mirror, if there is one.
    pub(super) mirror_state: Option<MirrorState>,
}

impl Shared {
    /// What is known, with an empty overlay for what a batch changes.
    pub(super) fn view(&self) -> View<'_> {
        View { draft: Overlay::default(), memory: self.memory(), journal: &self.journal }
    }

    pub(super) fn memory(&self) -> RwLockReadGuard<'_, MemTable> {
        self.catalog.memory()
    }

    /// A batch has it to itself.
    pub(super) fn follower(&self) -> MutexGuard<'_, Follower> {
        self.catalog.follower()
    }

    pub(super) fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock()
    }

    pub(super) fn last_error(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.last_error.lock()
    }

    /// All of the journal before it is durable.
    pub(super) fn end(&self) -> Position {
        self.memory().end
    }
}

/// What the journal has come to.
pub(super) fn head(journal: &Journal) -> Head {
    Head {
        ledger: journal.id(),
        sequence: journal.next_sequence() - 1,
        chain: *journal.chain(),
        part: journal.segment(),
    }
}
