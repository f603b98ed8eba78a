//! What has happened to a certificate, entry by entry.

use super::{batch::BatchId, entry::Entry, export::ExportId};

/// An entry that concerns a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Counts the ledger's entries from 1.
    pub sequence: u64,
    /// The entry.
    pub entry: Entry,
    /// What the certificate has to do with it.
    pub concern: Concern,
}

/// What a certificate has to do with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concern {
    /// The entry is about the certificate.
    Subject,
    /// It went out in this export of its order.
    InExport(ExportId),
    /// It went out in this batch of a destination.
    InBatch(BatchId),
    /// It was withdrawn in this batch of a destination, as it had been scrapped or revoked.
    Withdrawn(BatchId),
}
