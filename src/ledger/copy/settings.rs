//! What an operator or a test chooses.

use std::path::PathBuf;

use crate::ledger::clock::ClockBounds;
use crate::signer::PublicKey;

/// How the ledger uses its folder.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A new journal file is begun when the newest has this size, in bytes.
    pub segment_size: u32,
    /// The number of settled records that are flushed from memory into the index at once. Large numbers are cheap for
    /// the index; up to twice as many certificates are read again at a start.
    pub flush_at: usize,
    /// Nothing is reserved while the file system has less free space than this, in bytes; what is reserved is still
    /// recorded.
    pub min_free: u64,
    /// A folder on another disk for a second journal, which has every entry before it is answered; none if absent.
    pub mirror: Option<PathBuf>,
    /// The id of this boot of the machine, by which an index that was open when it went down is known; none: the
    /// kernel's. Tests set it.
    pub boot_id: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { segment_size: 64 << 20, flush_at: 65_536, min_free: 256 << 20, mirror: None, boot_id: None }
    }
}

/// What a ledger is checked with when it is opened and used.
#[derive(Clone, Debug, Default)]
pub struct Guards {
    /// The audit key and those before it: one of them must have signed the checkpoint file. With none, the file is
    /// compared with the journal, but its signature is not verified.
    pub audit_keys: Vec<PublicKey>,
    /// A checkpoint that was kept elsewhere, which the journal must continue as well.
    pub expected_checkpoint: Option<PathBuf>,
    /// When the clock cannot be right.
    pub clock: ClockBounds,
}
