//! Why a request, or an item of one, is not fulfilled. `status.rs` makes the reply of it.

use std::sync::Arc;

use crate::{
    ca::NoIssuer,
    committer::CommitError,
    destinations::BatchError,
    enroll::EnrollError,
    id::InvalidId,
    issuer::IssueError,
    ledger::{ExportId, LedgerError, Refusal},
    profile::OrderTermsError,
    proof::ProofError,
};

/// Why a request is not fulfilled.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// A field that must be an id is none.
    #[error("{field} {cause}")]
    Id {
        /// The field's name in the protocol.
        field: &'static str,
        /// What is wrong with it.
        cause: InvalidId,
    },
    /// Another field is not as the protocol demands.
    #[error("{0}")]
    Invalid(String),
    /// No certificates could be made under the order.
    #[error(transparent)]
    OrderTerms(#[from] OrderTermsError),
    /// No certificate was issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// There is no proof of possession.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// There is no batch, or no bundle.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// No such export.
    #[error("there is no export {}", crate::quote::quoted(&.0.to_string()))]
    ExportUnknown(ExportId),
    /// Nobody was enrolled.
    #[error(transparent)]
    Enroll(Arc<EnrollError>),
    /// The ledger did not do what was asked for.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The ledger could not be read.
    #[error("{0}")]
    Storage(Arc<LedgerError>),
    /// No such issuer in the ledger.
    #[error("there is no issuer {} of generation {generation}", crate::quote::quoted(.name))]
    IssuerUnknown {
        /// The name that was asked for.
        name: String,
        /// The generation that was asked for.
        generation: u32,
    },
    /// No chain may be shown beside a certificate.
    #[error(transparent)]
    Issuer(#[from] NoIssuer),
    /// No such device in the ledger.
    #[error("there is no record of the device {}", crate::quote::quoted(.0))]
    DeviceUnknown(String),
    /// What a device stores is not what was issued.
    #[error("{0}")]
    OtherCertificate(String),
    /// The daemon is going down.
    #[error("the daemon is shutting down")]
    Draining,
    /// A bug; the log has what happened.
    #[error("internal error; the daemon's log says more")]
    Internal,
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        RequestError::Commit(CommitError::Refused(refusal))
    }
}

impl RequestError {
    /// For an id in a field.
    pub(super) fn id(field: &'static str) -> impl FnOnce(InvalidId) -> Self {
        move |cause| RequestError::Id { field, cause }
    }
}
