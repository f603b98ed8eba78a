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
                CsrError::ProofOfPossession | CsrError::SignatureEncoding(_) => (Code::InvalidArgument, "POP_INVALID"),
                CsrError::SignatureUnsupported(_) => (Code::InvalidArgument, "CSR_SIGNATURE_UNSUPPORTED"),
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
                Refusal::OrderExists(..) => (Code::AlreadyExists, "ORDER_EXISTS"),
                Refusal::OrderClosed(_) | Refusal::OrderOutOfWindow { .. } => {
                    (Code::FailedPrecondition, "ORDER_CLOSED")
                }
                Refusal::OrderExhausted { .. } => (Code::ResourceExhausted, "ORDER_EXHAUSTED"),
                Refusal::ProfileRefused { .. } => (Code::PermissionDenied, "PROFILE_REFUSED"),
                Refusal::StationRefused { .. } | Refusal::ProfileStationRefused { .. } => {
                    (Code::PermissionDenied, "STATION_REFUSED")
                }
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
                Refusal::ClockImplausible { .. } => (Code::Unavailable, "CLOCK_IMPLAUSIBLE"),
                Refusal::TooLarge { .. } => (Code::InvalidArgument, "REQUEST_INVALID"),
                Refusal::StorageLow { .. } => (Code::Unavailable, "STORAGE_LOW"),
                Refusal::NotReserved(_) => (Code::Internal, "INTERNAL"),
            },
            IssueError::HsmUnavailable { .. } => (Code::Unavailable, "HSM_UNAVAILABLE"),
            IssueError::StorageUnavailable(_) => (Code::Unavailable, "STORAGE_LOW"),
            IssueError::StorageDamaged => (Code::DataLoss, "STORAGE_DAMAGED"),
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
        let message = shortened(message);
        let mut details = ErrorDetails::with_error_info(self.reason, DOMAIN, HashMap::new());
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        Status::with_error_details(self.code, message, details)
    }
}

/// The longest message, in bytes: it may name what the peer sent, of any length.
const MESSAGE: usize = 1024;

fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE {
        message.truncate(message.floor_char_boundary(MESSAGE));
        message.push('…');
    }
    message
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

/// What there is too much of.
#[derive(Debug, thiserror::Error)]
pub(super) enum Excess {
    /// Calls of one peer.
    #[error("this peer has {0}, which is the most; wait for replies and read them")]
    Requests(String),
    /// Streams of one peer.
    #[error("this peer has {0}, which is the most; end some first")]
    Streams(String),
    /// Streams of records of all peers.
    #[error("all peers together have {0} streams of records, which is the most; try again later")]
    AllStreams(usize),
}

/// The status of a call that would be one too many. Counts it.
pub(super) fn too_many(excess: &Excess) -> Status {
    let reason = match excess {
        Excess::Requests(_) => "TOO_MANY_REQUESTS",
        Excess::Streams(_) | Excess::AllStreams(_) => "TOO_MANY_STREAMS",
    };
    metrics::refusal(reason);
    Cause { code: Code::ResourceExhausted, reason, retry_after: Some(RETRY_AFTER) }.status(excess.to_string())
}

/// The status that ends a stream whose peer takes nothing for too long. Counts it.
pub(super) fn stalled(limit: Duration) -> Status {
    let reason = "STREAM_STALLED";
    metrics::refusal(reason);
    let message = format!("the peer took no reply for {limit:?}; open the stream again when replies can be read");
    Cause { code: Code::Aborted, reason, retry_after: Some(RETRY_AFTER) }.status(message)
}

/// The status of a call whose request did not arrive, or was not answered, in time. Counts it.
pub(super) fn too_slow(limit: Duration) -> Status {
    let reason = "REQUEST_TOO_SLOW";
    metrics::refusal(reason);
    let message = format!("the request did not arrive and was not answered within {limit:?}");
    Cause { code: Code::DeadlineExceeded, reason, retry_after: Some(RETRY_AFTER) }.status(message)
}

/// The status of a request that gRPC's own layer could not read, in place of `status`, which that layer gave. Counts it.
///
/// What it calls INTERNAL (no protobuf, a wrong compression flag, a message cut short) is the peer's doing, as is a message
/// over the limit. Whatever has details is our own answer and stays.
pub(super) fn unreadable(status: Status) -> Status {
    let (code, reason) = match status.code() {
        Code::Internal if status.details().is_empty() => (Code::InvalidArgument, "REQUEST_INVALID"),
        Code::OutOfRange if status.details().is_empty() => (Code::OutOfRange, "MESSAGE_TOO_LARGE"),
        _ => return status,
    };
    metrics::refusal(reason);
    let message = match code {
        Code::OutOfRange => format!("the message is too large: {}", status.message()),
        _ => format!("the request cannot be read as the protocol's message: {}", status.message()),
    };
    Cause { code, reason, retry_after: None }.status(message)
}

/// The status of a failed call.
pub fn failed_call(error: &IssueError) -> Status {
    Cause::of(error).status(error.to_string())
}

/// The status of a failed look-up; the log has what happened.
pub fn storage(error: &LedgerError) -> Status {
    tracing::error!(%error, "the ledger could not be read");
    match error {
        LedgerError::Unavailable { notice, .. } => failed_call(&IssueError::StorageUnavailable((*notice).into())),
        error if error.is_damage() => failed_call(&IssueError::StorageDamaged),
        _ => failed_call(&IssueError::Internal),
    }
}

/// The status for a record that does not exist.
pub fn record_unknown(message: String) -> Status {
    Cause { code: Code::NotFound, reason: "RECORD_UNKNOWN", retry_after: None }.status(message)
}

/// The status for a signer that does not exist.
pub fn signer_unknown(message: String) -> Status {
    Cause { code: Code::NotFound, reason: "SIGNER_UNKNOWN", retry_after: None }.status(message)
}

/// The status for a peer without a role.
pub fn unauthenticated(message: String) -> Status {
    Cause { code: Code::Unauthenticated, reason: "ROLE_REQUIRED", retry_after: None }.status(message)
}

/// The status for a peer with another role.
pub fn role_required(message: String) -> Status {
    Cause { code: Code::PermissionDenied, reason: "ROLE_REQUIRED", retry_after: None }.status(message)
}
