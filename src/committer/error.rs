//! Why an operation did not happen.

use std::sync::Arc;

use crate::{
    ledger::{LedgerError, Refusal},
    serial::SerialNumber,
};

/// Why an operation did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The rules of the ledger forbid it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The storage failed.
    #[error("{0}")]
    Storage(Arc<LedgerError>),
    /// The ledger answered something else than what was asked for: a mistake in this program, which no retry cures.
    #[error("the ledger gave an outcome that does not fit the operation")]
    Unexpected,
    /// A certificate and the reservation that it should fulfil have different serial numbers: a mistake in this
    /// program.
    #[error("the certificate {certificate} does not have the serial number of its reservation, {reservation}")]
    OtherSerialNumber {
        /// What was reserved.
        reservation: SerialNumber,
        /// What was signed.
        certificate: SerialNumber,
    },
    /// The thread is gone: the daemon is shutting down, or a sync failed.
    #[error("the ledger is closed")]
    Closed,
}
