//! The content of a batch, read from the ledger page by page.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    batch::{Batch, BatchId, BatchTerms, Destination, Place},
    error::LedgerError,
    head::ChainHash,
    record::{Change, Record},
};
use crate::serial::SerialNumber;

/// A certificate of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As it was issued.
    pub record: Record,
    /// When it was confirmed, if the destination gets it for that.
    pub confirmed_at: Option<Timestamp>,
}

/// A certificate that went out in an earlier batch, and is not to be trusted any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// As it is where the batch was cut: scrapped or revoked.
    pub record: Record,
    /// Why and when.
    pub change: Change,
    /// The number of the batch it went out in.
    pub batch: u32,
    /// The certificate that its device has instead, where the batch was cut.
    pub replaced_by: Option<(SerialNumber, Bytes)>,
}

/// Up to where the ledger was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchEnd {
    /// How many entries the batch before had looked at.
    pub first: u64,
    /// How many entries this one has looked at.
    pub end: u64,
    /// Where those end.
    pub place: Place,
    /// The chain hash there.
    pub chain: ChainHash,
}

/// What waits for a destination's next batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many certificates.
    pub certificates: u64,
    /// When the oldest of them was issued or confirmed.
    pub oldest: Option<Timestamp>,
    /// How many withdrawals.
    pub withdrawals: u64,
}

/// What may be in a batch, whether its platform takes it or not. Nothing is locked while it is read.
pub trait BatchContent: Send {
    /// Some more certificates, in the order of the journal; none at the end. A page may be empty.
    ///
    /// # Errors
    /// Those of the storage.
    fn page(&mut self) -> Result<Option<Vec<Member>>, LedgerError>;

    /// Up to where it was read.
    fn end(&self) -> BatchEnd;

    /// A certificate by its serial number, if it is live where the batch is cut.
    ///
    /// # Errors
    /// Those of the storage.
    fn member(&self, serial_number: &SerialNumber) -> Result<Option<Member>, LedgerError>;

    /// The withdrawals among what was read, in the order of the journal.
    ///
    /// # Errors
    /// Those of the storage.
    fn withdrawals(&self) -> Result<Vec<SerialNumber>, LedgerError>;

    /// One of them.
    ///
    /// # Errors
    /// Those of the storage.
    fn withdrawal(&self, serial_number: &SerialNumber) -> Result<Withdrawal, LedgerError>;

    /// When all pages were read: gives what there is so far, and lets what was recorded meanwhile be read as well.
    ///
    /// # Errors
    /// Those of the storage.
    fn go_on(&mut self) -> Result<Backlog, LedgerError>;
}

/// A batch that was cut, with all that its files are made of.
pub struct FoundBatch {
    /// What was decided.
    pub terms: Arc<BatchTerms>,
    /// As it stands.
    pub batch: Batch,
    /// What may be in it.
    pub content: Box<dyn BatchContent>,
}

/// What a destination's next batch is to be made of.
pub struct NextBatch {
    /// The id that it has if it is cut next.
    pub id: BatchId,
    /// The destination.
    pub destination: Arc<Destination>,
    /// What may be in it.
    pub content: Box<dyn BatchContent>,
}
