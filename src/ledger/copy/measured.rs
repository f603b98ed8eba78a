//! The size and health of the ledger on this machine.

use std::{fs, sync::atomic::Ordering};

use jiff::Timestamp;

use super::records::CopyRecords;
use crate::ledger::{
    backup,
    measured::{Figures, Measured},
};

impl Measured for CopyRecords {
    fn figures(&self, now: Timestamp) -> Figures {
        let common = &self.common;
        Figures {
            certificates: common.certificates.load(Ordering::Relaxed),
            index_lag: common.memory().unindexed(),
            disk_free: common.space.free(),
            disk_needed: common.space.min_free,
            mirrored: common.mirror_state.is_some().then(|| self.mirrored().is_ok()),
            clock: common.clock().refusal(now).map(|refusal| refusal.to_string()),
        }
    }

    fn bytes(&self) -> u64 {
        let Ok(files) = fs::read_dir(self.journal().folder()) else { return 0 };
        files.filter_map(|file| file.ok()?.metadata().ok()).filter(|file| file.is_file()).map(|file| file.len()).sum()
    }

    fn newest_backup(&self) -> Option<(Timestamp, u64)> {
        backup::newest(&self.journal().home())
    }
}
