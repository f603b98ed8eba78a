//! The only place where errors become gRPC statuses. Each has a google.rpc.ErrorInfo with the domain `birthmark` and
//! a reason from the protocol; what may go away by itself has a RetryInfo as well.

use std::{collections::HashMap, time::Duration};

use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

use crate::{
    csr::CsrError,
    issuer::IssueError,
    ledger::{LedgerError, Refusal},
    metrics,
    profile::ProfileError,
};

/// The domain of all ErrorInfo details.
pub const DOMAIN: &str = "birthmark";

/// How long a station should wait when the daemon cannot say better.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What an error is for the peer.
struct Cause {
    code: Code,
    reason: &'static str,
    retry_after: Option<Duration>,
}

impl Cause {
    fn of(error: &IssueError) -> Cause {
        let (code, reason) = match error {
            IssueError::RequestInvalid(_) => (Code::InvalidArgument, "REQUEST_INVALID"),
            IssueError::ProfileUnknown(_) => (Code::NotFound, "PROFILE_UNKNOWN"),
            IssueError::Csr(error) => match error {
                CsrError::Malformed(_) => (Code::InvalidArgument, "CSR_MALFORMED"),
                CsrError::ProofOfPossession => (Code::InvalidArgument, "POP_INVALID"),
                CsrError::KeyWeak(_) => (Code::InvalidArgument, "KEY_WEAK"),
                CsrError::KeyUnsupported(_) => (Code::InvalidArgument, "KEY_UNSUPPORTED"),
            },
            IssueError::Profile(error) => match error {
                ProfileError::StationRefused { .. } => (Code::PermissionDenied, "STATION_REFUSED"),
                ProfileError::KeyUnsupported { .. } => (Code::InvalidArgument, "KEY_UNSUPPORTED"),
                ProfileError::OrderRequired(_) => (Code::InvalidArgument, "REQUEST_INVALID"),
                ProfileError::IssuerEnding(_) => (Code::FailedPrecondition, "ISSUER_ENDING"),
                ProfileError::SubjectRefused(_) => (Code::PermissionDenied, "SUBJECT_REFUSED"),
            },
            IssueError::Refused(refusal) => match refusal {
                Refusal::OrderUnknown(_) => (Code::NotFound, "ORDER_UNKNOWN"),
                Refusal::OrderExists(_) => (Code::AlreadyExists, "ORDER_EXISTS"),
                Refusal::OrderClosed(_) | Refusal::OrderOutOfWindow { .. } => {
                    (Code::FailedPrecondition, "ORDER_CLOSED")
                }
                Refusal::OrderExhausted { .. } => (Code::ResourceExhausted, "ORDER_EXHAUSTED"),
                Refusal::ProfileRefused { .. } => (Code::PermissionDenied, "PROFILE_REFUSED"),
                Refusal::StationRefused { .. } => (Code::PermissionDenied, "STATION_REFUSED"),
                Refusal::KeyReused { .. } => (Code::AlreadyExists, "KEY_REUSED"),
                Refusal::KeyBlocked { .. } => (Code::AlreadyExists, "KEY_BLOCKED"),
                Refusal::DeviceHasCertificate { .. } => (Code::AlreadyExists, "DEVICE_HAS_CERTIFICATE"),
                Refusal::ReissueRequired { .. } => (Code::FailedPrecondition, "REISSUE_REQUIRED"),
                Refusal::ReissueRefused { .. } => (Code::FailedPrecondition, "REISSUE_REFUSED"),
                Refusal::RecordUnknown(_) => (Code::NotFound, "RECORD_UNKNOWN"),
                Refusal::ConfirmRefused { .. } => (Code::PermissionDenied, "STATION_REFUSED"),
                Refusal::StateRefused { .. } => (Code::FailedPrecondition, "STATE_REFUSED"),
                Refusal::ExportUnknown(_) => (Code::NotFound, "EXPORT_UNKNOWN"),
                Refusal::NothingToExport(_) => (Code::FailedPrecondition, "NOTHING_TO_EXPORT"),
                Refusal::ClockBackwards { .. } => (Code::Unavailable, "CLOCK_BACKWARDS"),
                Refusal::StorageLow { .. } => (Code::Unavailable, "STORAGE_LOW"),
                Refusal::NotReserved(_) => (Code::Internal, "INTERNAL"),
            },
            IssueError::HsmUnavailable { .. } => (Code::Unavailable, "HSM_UNAVAILABLE"),
            IssueError::StorageUnavailable(_) => (Code::Unavailable, "STORAGE_LOW"),
            IssueError::Draining => (Code::Unavailable, "DRAINING"),
            IssueError::Internal => (Code::Internal, "INTERNAL"),
        };
        let retry_after = match error {
            IssueError::HsmUnavailable { retry_after } => Some(*retry_after),
            _ if code == Code::Unavailable => Some(RETRY_AFTER),
            _ => None,
        };
        Cause { code, reason, retry_after }
    }

    fn status(self, message: String) -> Status {
        let mut details = ErrorDetails::with_error_info(self.reason, DOMAIN, HashMap::new());
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        Status::with_error_details(self.code, message, details)
    }
}

/// The status of a refused item, as its reply carries it. Counts it.
pub fn refused_item(error: &IssueError) -> pb::Status {
    let cause = Cause::of(error);
    metrics::refusal(cause.reason);
    let status = cause.status(error.to_string());
    // tonic keeps the encoded google.rpc.Status in the details.
    pb::Status::decode(status.details()).unwrap_or_else(|_| pb::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

/// The status of a failed call.
pub fn failed_call(error: &IssueError) -> Status {
    Cause::of(error).status(error.to_string())
}

/// The status of a failed look-up; the log has what happened.
pub fn storage(error: &LedgerError) -> Status {
    tracing::error!(%error, "the ledger could not be read");
    match error {
        LedgerError::Index(error) => failed_call(&IssueError::StorageUnavailable(error.for_peers().into())),
        _ => failed_call(&IssueError::Internal),
    }
}

/// The status for a record that does not exist.
pub fn record_unknown(message: String) -> Status {
    Cause { code: Code::NotFound, reason: "RECORD_UNKNOWN", retry_after: None }.status(message)
}

/// The status for a peer without a role.
pub fn unauthenticated(message: String) -> Status {
    Cause { code: Code::Unauthenticated, reason: "ROLE_REQUIRED", retry_after: None }.status(message)
}

/// The status for a peer with another role.
pub fn role_required(message: String) -> Status {
    Cause { code: Code::PermissionDenied, reason: "ROLE_REQUIRED", retry_after: None }.status(message)
}
