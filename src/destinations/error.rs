//! Why there is no batch, or no bundle.

use std::{sync::Arc, time::Duration};

use crate::{
    ca::NoIssuer,
    committer::CommitError,
    export::{
        bundle::BundleError, certificate::InvalidIssuer, jws::JwsError, settings::UnreadableSettings, sink::SinkError,
    },
    ledger::{BatchId, LedgerError},
    signer::SignError,
};

/// Why there is no batch, or no bundle.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum BatchError {
    /// No such destination is configured.
    #[error(
        "there is no destination {} in the daemon's configuration{}",
        crate::quote::quoted(.name),
        if .known.is_empty() { String::new() } else { format!("; the destinations are {}", .known) }
    )]
    DestinationUnknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// No such batch.
    #[error("there is no batch {0}")]
    BatchUnknown(BatchId),
    /// Nothing came since the batch before.
    #[error("there is nothing new for {name}{}", left_out(*.unfit))]
    Nothing {
        /// The destination.
        name: String,
        /// How many devices are left out as before.
        unfit: usize,
    },
    /// A setting is wrong.
    #[error(
        "the platform of {name} would refuse more than {most} devices, so a setting is wrong: {}",
        .first.join("; ")
    )]
    TooManyUnfit {
        /// The destination.
        name: String,
        /// How many may be.
        most: usize,
        /// The first few, with why.
        first: Vec<String>,
    },
    /// Batches are cut faster than this one.
    #[error("other batches of {0} were cut again and again meanwhile; try again")]
    Overtaken(String),
    /// The results cannot be read, or are not of the batch.
    #[error("{0}")]
    Results(String),
    /// The platform refused more than the ledger takes note of.
    #[error(
        "the platform refused {failed} of {of}, more than {most}: mend the cause, register the bundle again and acknowledge \
         that"
    )]
    TooManyFailed {
        /// How many it refused.
        failed: usize,
        /// Of how many.
        of: u64,
        /// How many may be.
        most: usize,
    },
    /// The files are not what was signed.
    #[error(
        "the files of the batch {id} are not those that were signed when they were made first: {what}; do not use them, and \
         have the journal verified"
    )]
    Changed {
        /// The batch.
        id: BatchId,
        /// What differs.
        what: String,
    },
    /// Its settings are of another version.
    #[error("{0}")]
    Settings(Arc<UnreadableSettings>),
    /// A file could not be made.
    #[error("{0}")]
    Bundle(Arc<BundleError>),
    /// A file could not be written.
    #[error("{0}")]
    Sink(Arc<SinkError>),
    /// No chain can stand beside a certificate.
    #[error(transparent)]
    Issuer(#[from] NoIssuer),
    /// An issuer's chain cannot be written.
    #[error(transparent)]
    Chain(#[from] InvalidIssuer),
    /// The audit key cannot sign a manifest.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// There is no audit key any more.
    #[error("the batch {0} was never signed, and the daemon has no [audit] key now")]
    NoAuditKey(BatchId),
    /// The HSM does not sign.
    #[error("the HSM does not sign at present")]
    HsmUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// The ledger did not record it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The ledger could not be read.
    #[error("{0}")]
    Storage(Arc<LedgerError>),
    /// A bug.
    #[error("internal error; the daemon's log says more")]
    Internal,
}

fn left_out(unfit: usize) -> String {
    match unfit {
        0 => String::new(),
        unfit => format!("; {unfit} devices are left out, whose platform would refuse them"),
    }
}

impl From<LedgerError> for BatchError {
    fn from(error: LedgerError) -> Self {
        BatchError::Storage(Arc::new(error))
    }
}

impl From<UnreadableSettings> for BatchError {
    fn from(error: UnreadableSettings) -> Self {
        BatchError::Settings(Arc::new(error))
    }
}

impl From<BundleError> for BatchError {
    fn from(error: BundleError) -> Self {
        BatchError::Bundle(Arc::new(error))
    }
}

impl From<SinkError> for BatchError {
    fn from(error: SinkError) -> Self {
        BatchError::Sink(Arc::new(error))
    }
}

impl From<SignError> for BatchError {
    fn from(error: SignError) -> Self {
        tracing::warn!(%error, "the manifest of a batch was not signed");
        let SignError::Unavailable { retry_after, .. } = error;
        BatchError::HsmUnavailable { retry_after }
    }
}

impl From<tokio::task::JoinError> for BatchError {
    fn from(error: tokio::task::JoinError) -> Self {
        tracing::error!(%error, "a batch was not finished");
        BatchError::Internal
    }
}
