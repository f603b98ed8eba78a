//! A ledger's size and health in numbers, for those who watch it.

use jiff::Timestamp;

/// What can be told of a ledger without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Certificates of devices that were ever recorded.
    pub certificates: u64,
    /// Records and changes that the index does not have yet.
    pub index_lag: usize,
    /// Bytes that are free where the ledger is kept; none if that is not known.
    pub disk_free: Option<u64>,
    /// How many there must be.
    pub disk_needed: u64,
    /// Whether the mirror has all entries; none without one.
    pub mirrored: Option<bool>,
    /// Why the clock cannot be right; none if it can.
    pub clock: Option<String>,
}

/// A ledger that is watched.
pub trait Measured: Send + Sync + 'static {
    /// What is known at this moment, out of memory.
    fn figures(&self, now: Timestamp) -> Figures;

    /// How many bytes its entries take. Files may be looked at.
    fn bytes(&self) -> u64;

    /// When the newest backup was made, and how many entries it has. A file may be read.
    fn newest_backup(&self) -> Option<(Timestamp, u64)>;
}
