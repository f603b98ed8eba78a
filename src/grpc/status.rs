//! The only place where errors become gRPC statuses. Each has a google.rpc.ErrorInfo with the domain `birthmark` and
//! a reason from the protocol; what may go away by itself has a RetryInfo as well.

use std::{collections::HashMap, sync::Arc, time::Duration};

use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

use super::{access::Refused, request_error::RequestError};
use crate::{
    client::Reason,
    committer::CommitError,
    connections::Full,
    csr::CsrError,
    destinations::BatchError,
    enroll::EnrollError,
    issuer::IssueError,
    ledger::{LedgerError, Refusal, RefusalScope},
    metrics,
    profile::ProfileError,
    proof::ProofError,
};

/// The domain of all ErrorInfo details.
pub(super) const DOMAIN: &str = "birthmark";

/// How long a station should wait when the daemon cannot say better.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why requests are refused, as they are counted.
pub(crate) fn counted_reasons() -> impl Iterator<Item = &'static str> {
    // The first is for clients alone, the others for operators, but for devices that show a code.
    let of_stations =
        Reason::ALL.iter().filter(|reason| **reason != Reason::ReplyMismatch).map(|reason| reason.as_str());
    of_stations.chain(["CODE_UNKNOWN", "CODE_REFUSED"])
}

/// What an error is for the peer.
struct Cause {
    code: Code,
    reason: &'static str,
    retry_after: Option<Duration>,
}

impl Cause {
    /// One that stays until something else is sent.
    fn lasting(code: Code, reason: &'static str) -> Cause {
        let retry_after = (code == Code::Unavailable).then_some(RETRY_AFTER);
        Cause { code, reason, retry_after }
    }

    fn for_request(error: &RequestError) -> Cause {
        match error {
            RequestError::Id { .. } | RequestError::Invalid(_) | RequestError::OrderTerms(_) => {
                Cause::lasting(Code::InvalidArgument, "REQUEST_INVALID")
            }
            RequestError::Issue(error) => Cause::for_issue(error),
            RequestError::Proof(error) => Cause::for_proof(error),
            RequestError::Batch(error) => Cause::for_batch(error),
            RequestError::ExportUnknown(_) => Cause::lasting(Code::NotFound, "EXPORT_UNKNOWN"),
            RequestError::Enroll(error) => Cause::for_enrolment(error),
            RequestError::Commit(error) => Cause::for_commit(error),
            RequestError::Storage(error) => Cause::for_storage(error),
            RequestError::IssuerUnknown { .. } => Cause::lasting(Code::NotFound, "ISSUER_UNKNOWN"),
            RequestError::Issuer(_) => Cause::lasting(Code::DataLoss, "ISSUER_MISMATCH"),
            RequestError::DeviceUnknown(_) => Cause::lasting(Code::NotFound, "RECORD_UNKNOWN"),
            RequestError::OtherCertificate(_) => Cause::lasting(Code::FailedPrecondition, "CERTIFICATE_MISMATCH"),
            RequestError::Draining => Cause::lasting(Code::Unavailable, "DRAINING"),
            RequestError::Internal => Cause::lasting(Code::Internal, "INTERNAL"),
        }
    }

    fn for_issue(error: &IssueError) -> Cause {
        let (code, reason) = match error {
            IssueError::ProfileUnknown { .. } => (Code::NotFound, "PROFILE_UNKNOWN"),
            IssueError::Csr(error) => return Cause::for_csr(error),
            IssueError::Profile(error) => match error {
                ProfileError::StationRefused { .. } => (Code::PermissionDenied, "STATION_REFUSED"),
                ProfileError::KeyUnsupported { .. } => (Code::InvalidArgument, "KEY_UNSUPPORTED"),
                ProfileError::OrderRequired(_) => (Code::InvalidArgument, "REQUEST_INVALID"),
                ProfileError::IssuerExpiring(_) => (Code::FailedPrecondition, "ISSUER_EXPIRING"),
                ProfileError::DeviceIdLikeCode { .. } => (Code::PermissionDenied, "DEVICE_ID_LIKE_CODE"),
                ProfileError::SubjectRefused(_) => (Code::PermissionDenied, "SUBJECT_REFUSED"),
            },
            IssueError::Issuer(_) => (Code::DataLoss, "ISSUER_MISMATCH"),
            IssueError::Commit(error) => return Cause::for_commit(error),
            IssueError::HsmUnavailable { retry_after } => {
                let retry_after = Some(*retry_after);
                return Cause { code: Code::Unavailable, reason: "HSM_UNAVAILABLE", retry_after };
            }
            IssueError::Internal => (Code::Internal, "INTERNAL"),
        };
        Cause::lasting(code, reason)
    }

    fn for_csr(error: &CsrError) -> Cause {
        let reason = match error {
            CsrError::Malformed(_) => "CSR_MALFORMED",
            CsrError::ProofOfPossession | CsrError::SignatureEncoding(_) => "POP_INVALID",
            CsrError::SignatureUnsupported(_) => "CSR_SIGNATURE_UNSUPPORTED",
            CsrError::KeyWeak(_) => "KEY_WEAK",
            CsrError::KeyUnsupported(_) => "KEY_UNSUPPORTED",
        };
        Cause::lasting(Code::InvalidArgument, reason)
    }

    fn for_enrolment(error: &EnrollError) -> Cause {
        match error {
            EnrollError::Csr(error) => Cause::for_csr(error),
            EnrollError::Hsm(_) | EnrollError::Certificate(_) | EnrollError::NotConfigured => {
                Cause::lasting(Code::FailedPrecondition, "STATION_CA_UNAVAILABLE")
            }
            _ => Cause::lasting(Code::InvalidArgument, "REQUEST_INVALID"),
        }
    }

    fn for_proof(error: &ProofError) -> Cause {
        match error {
            ProofError::IssuerUnknown { .. } => Cause::lasting(Code::NotFound, "ISSUER_UNKNOWN"),
            ProofError::IssuerExpiring(_) => Cause::lasting(Code::FailedPrecondition, "ISSUER_EXPIRING"),
            ProofError::Name(_) => Cause::lasting(Code::PermissionDenied, "SUBJECT_REFUSED"),
            ProofError::Key(_) | ProofError::Malformed(_) => Cause::lasting(Code::Internal, "INTERNAL"),
            ProofError::Commit(error) => Cause::for_commit(error),
            ProofError::HsmUnavailable { retry_after } => {
                let retry_after = Some(*retry_after);
                Cause { code: Code::Unavailable, reason: "HSM_UNAVAILABLE", retry_after }
            }
        }
    }

    fn for_batch(error: &BatchError) -> Cause {
        let (code, reason) = match error {
            BatchError::DestinationUnknown { .. } => (Code::NotFound, "DESTINATION_UNKNOWN"),
            BatchError::BatchUnknown(_) => (Code::NotFound, "BATCH_UNKNOWN"),
            BatchError::Nothing { .. } => (Code::FailedPrecondition, "NOTHING_TO_EXPORT"),
            BatchError::TooManyUnfit { .. } => (Code::FailedPrecondition, "TOO_MANY_UNFIT"),
            BatchError::TooManyFailed { .. } => (Code::FailedPrecondition, "TOO_MANY_FAILED"),
            BatchError::Results(_) => (Code::InvalidArgument, "RESULTS_INVALID"),
            BatchError::Changed { .. } | BatchError::Settings(_) | BatchError::Bundle(_) => {
                (Code::DataLoss, "BUNDLE_CHANGED")
            }
            BatchError::Issuer(_) | BatchError::Chain(_) => (Code::DataLoss, "ISSUER_MISMATCH"),
            BatchError::Commit(error) => return Cause::for_commit(error),
            BatchError::Storage(error) => return Cause::for_storage(error),
            BatchError::HsmUnavailable { retry_after } => {
                let retry_after = Some(*retry_after);
                return Cause { code: Code::Unavailable, reason: "HSM_UNAVAILABLE", retry_after };
            }
            BatchError::NoAuditKey(_) | BatchError::Jws(_) => {
                return Cause { code: Code::Unavailable, reason: "HSM_UNAVAILABLE", retry_after: None };
            }
            BatchError::Overtaken(_) => {
                let retry_after = Some(RETRY_AFTER);
                return Cause { code: Code::Aborted, reason: "BATCH_OVERTAKEN", retry_after };
            }
            BatchError::Sink(_) | BatchError::Internal => (Code::Internal, "INTERNAL"),
        };
        Cause::lasting(code, reason)
    }

    fn for_commit(error: &CommitError) -> Cause {
        match error {
            CommitError::Refused(refusal) => Cause::for_refusal(refusal),
            CommitError::Storage(error) => Cause::for_storage(error),
            CommitError::Closed => Cause::lasting(Code::Unavailable, "DRAINING"),
            CommitError::Unexpected | CommitError::OtherSerialNumber { .. } => {
                Cause::lasting(Code::Internal, "INTERNAL")
            }
        }
    }

    fn for_refusal(refusal: &Refusal) -> Cause {
        let (code, reason) = match refusal {
            Refusal::OrderUnknown(_) => (Code::NotFound, "ORDER_UNKNOWN"),
            Refusal::OrderExists(..) => (Code::AlreadyExists, "ORDER_EXISTS"),
            Refusal::OrderClosed(_) => (Code::FailedPrecondition, "ORDER_CLOSED"),
            Refusal::OrderPaused { .. } => (Code::FailedPrecondition, "ORDER_PAUSED"),
            Refusal::QuantityBelowUsed { .. } => (Code::FailedPrecondition, "QUANTITY_BELOW_USED"),
            Refusal::ApprovalUnknown(_) => (Code::NotFound, "APPROVAL_UNKNOWN"),
            Refusal::ApprovalOver { .. } => (Code::FailedPrecondition, "APPROVAL_OVER"),
            Refusal::ApprovalOwn { .. } => (Code::PermissionDenied, "APPROVAL_OWN"),
            Refusal::DeviceNotOnOrder { .. } => (Code::PermissionDenied, "DEVICE_NOT_ON_ORDER"),
            Refusal::ListIncomplete { .. } => (Code::FailedPrecondition, "ORDER_LIST_INCOMPLETE"),
            Refusal::ListOutOfOrder { .. } => (Code::FailedPrecondition, "ORDER_LIST_OUT_OF_ORDER"),
            Refusal::DayExhausted { .. } => (Code::ResourceExhausted, "ORDER_DAY_EXHAUSTED"),
            Refusal::PeerKeyRevoked { .. } => (Code::AlreadyExists, "KEY_BLOCKED"),
            Refusal::OrderOutOfWindow { .. } => (Code::FailedPrecondition, "ORDER_OUTSIDE_WINDOW"),
            Refusal::OrderExhausted { .. } => (Code::ResourceExhausted, "ORDER_EXHAUSTED"),
            Refusal::ProfileRefused { .. } => (Code::PermissionDenied, "PROFILE_REFUSED"),
            Refusal::StationRefused { .. } | Refusal::ProfileStationRefused { .. } | Refusal::ConfirmRefused { .. } => {
                (Code::PermissionDenied, "STATION_REFUSED")
            }
            Refusal::KeyReused { .. } => (Code::AlreadyExists, "KEY_REUSED"),
            Refusal::KeyBlocked { .. } => (Code::AlreadyExists, "KEY_BLOCKED"),
            Refusal::DeviceHasCertificate { .. } => (Code::AlreadyExists, "DEVICE_HAS_CERTIFICATE"),
            Refusal::ReissueRequired { .. } => (Code::FailedPrecondition, "REISSUE_REQUIRED"),
            Refusal::ReissueRefused { .. } => (Code::FailedPrecondition, "REISSUE_REFUSED"),
            Refusal::RecordUnknown(_) => (Code::NotFound, "RECORD_UNKNOWN"),
            Refusal::StateRefused { .. } => (Code::FailedPrecondition, "STATE_REFUSED"),
            Refusal::BatchUnknown(_) => (Code::NotFound, "BATCH_UNKNOWN"),
            Refusal::BatchAcknowledged { .. } => (Code::AlreadyExists, "BATCH_ACKNOWLEDGED"),
            Refusal::CodeUnknown(_) => (Code::NotFound, "CODE_UNKNOWN"),
            Refusal::CodeRefused { .. } => (Code::FailedPrecondition, "CODE_REFUSED"),
            Refusal::ClockBackwards { .. } => (Code::Unavailable, "CLOCK_BACKWARDS"),
            Refusal::ClockImplausible { .. } => (Code::Unavailable, "CLOCK_IMPLAUSIBLE"),
            Refusal::TooLarge { .. } => (Code::InvalidArgument, "REQUEST_INVALID"),
            Refusal::StorageLow { .. } => (Code::Unavailable, "STORAGE_LOW"),
            Refusal::MayLackEntries(_) => (Code::Unavailable, "LEDGER_RESTORED"),
            Refusal::ReservationLost(_) => (Code::Unavailable, "RESERVATION_LOST"),
            // What no peer asks for.
            Refusal::NotReserved(_)
            | Refusal::CrlNumberUsed { .. }
            | Refusal::BatchOvertaken(_)
            | Refusal::RecoveryConflict { .. } => (Code::Internal, "INTERNAL"),
        };
        Cause::lasting(code, reason)
    }

    fn for_storage(error: &LedgerError) -> Cause {
        let (code, reason) = match Storage::from_error(error) {
            Storage::Full(_) => (Code::Unavailable, "STORAGE_LOW"),
            Storage::Failing(_) => (Code::Unavailable, "STORAGE_UNAVAILABLE"),
            Storage::Damaged => (Code::DataLoss, "STORAGE_DAMAGED"),
            Storage::Internal => (Code::Internal, "INTERNAL"),
        };
        Cause::lasting(code, reason)
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

/// A failure of the storage, as peers may know it.
enum Storage {
    /// There is no room, with what to say about it.
    Full(String),
    /// It cannot be written, or read, at present, with what to say about it.
    Failing(String),
    /// What is recorded cannot be read. The log names the place.
    Damaged,
    /// A bug, or nothing that a peer could make use of. Logged where it happened.
    Internal,
}

impl Storage {
    fn from_error(error: &LedgerError) -> Storage {
        match error {
            LedgerError::NotWritten(cause) if error.is_full() => Storage::Full(cause.to_string()),
            error if error.is_full() => Storage::Full(error.to_string()),
            LedgerError::NotWritten(cause) => Storage::Failing(cause.to_string()),
            error if error.is_damage() => Storage::Damaged,
            LedgerError::Unavailable { notice, .. } => Storage::Failing((*notice).into()),
            _ => Storage::Internal,
        }
    }

    fn message(self) -> String {
        match self {
            Storage::Full(cause) | Storage::Failing(cause) => format!("the ledger cannot record now: {cause}"),
            Storage::Damaged => {
                "what is recorded about this cannot be read: the ledger's storage is damaged; the daemon's \
                                 log and /readyz say where"
                    .into()
            }
            Storage::Internal => RequestError::Internal.to_string(),
        }
    }
}

/// The message for the peer: no path of this machine, and no details of a bug.
fn message(error: &RequestError) -> String {
    match error {
        RequestError::Commit(error)
        | RequestError::Issue(IssueError::Commit(error))
        | RequestError::Proof(ProofError::Commit(error))
        | RequestError::Batch(BatchError::Commit(error)) => match error {
            CommitError::Refused(refusal) => refusal.to_string(),
            CommitError::Storage(error) => Storage::from_error(error).message(),
            CommitError::Closed => RequestError::Draining.to_string(),
            CommitError::Unexpected | CommitError::OtherSerialNumber { .. } => RequestError::Internal.to_string(),
        },
        RequestError::Storage(error) | RequestError::Batch(BatchError::Storage(error)) => {
            Storage::from_error(error).message()
        }
        RequestError::Enroll(error) => match &**error {
            EnrollError::Hsm(_) | EnrollError::Certificate(_) => {
                "the station CA cannot be used now; the daemon's log says why".into()
            }
            error => error.to_string(),
        },
        error => error.to_string(),
    }
}

/// A refusal for ports that speak something else than gRPC.
pub(crate) struct RefusedRequest {
    pub(crate) code: Code,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

/// What such a port says of a request that is not fulfilled. Counts it.
pub(crate) fn refused_request(error: &RequestError) -> RefusedRequest {
    let Cause { code, reason, retry_after } = Cause::for_request(error);
    metrics::refusal(reason);
    RefusedRequest { code, reason, message: shortened(message(error)), retry_after }
}

/// What concerns an order, a profile or a station whatever the device, beside all that begins with `ORDER_`.
const NOT_THE_DEVICE: [&str; 5] =
    ["ISSUER_EXPIRING", "PROFILE_REFUSED", "PROFILE_UNKNOWN", "REQUEST_INVALID", "STATION_REFUSED"];

/// The reason of a refused request for a certificate as the journal has it, and whom it concerns; none if the daemon only
/// shuts down.
pub(super) fn recorded(error: &RequestError) -> Option<(&'static str, RefusalScope)> {
    let Cause { code, reason, .. } = Cause::for_request(error);
    let scope = match code {
        _ if reason == "DRAINING" => return None,
        Code::Unavailable | Code::Internal | Code::DataLoss => RefusalScope::Daemon,
        _ if reason.starts_with("ORDER_") || NOT_THE_DEVICE.contains(&reason) => RefusalScope::Order,
        _ => RefusalScope::Device,
    };
    Some((reason, scope))
}

/// A refused item, as its reply carries it: the status, and beside it what is in the status' details.
pub(super) struct RefusedItem {
    pub(super) status: pb::Status,
    pub(super) reason: &'static str,
    pub(super) retry_after: Option<prost_types::Duration>,
}

/// What the reply says of a refused item. Counts it.
pub(super) fn refused_item(error: &RequestError) -> RefusedItem {
    let cause = Cause::for_request(error);
    metrics::refusal(cause.reason);
    let (reason, retry_after) = (cause.reason, cause.retry_after.and_then(|after| after.try_into().ok()));
    let status = cause.status(message(error));
    // tonic keeps the encoded google.rpc.Status in the details.
    let status = pb::Status::decode(status.details()).unwrap_or_else(|_| pb::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    });
    RefusedItem { status, reason, retry_after }
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
    /// Connections.
    #[error(transparent)]
    Connections(#[from] Full),
    /// Streams of records of all peers.
    #[error("all peers together have {0} streams of records, which is the most; try again later")]
    AllStreams(usize),
}

/// The status of a call that would be one too many. Counts it.
pub(super) fn too_many(excess: &Excess) -> Status {
    let reason = match excess {
        Excess::Requests(_) => "TOO_MANY_REQUESTS",
        Excess::Connections(_) => "TOO_MANY_CONNECTIONS",
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

/// The status of a request that gRPC's own layer could not read, in place of `status`, which that layer gave. Counts
/// it.
///
/// What it calls INTERNAL (no protobuf, a wrong compression flag, a message cut short) is the peer's doing, as is a
/// message over the limit. Whatever has details is our own answer and stays.
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
pub(super) fn failed_call(error: &RequestError) -> Status {
    Cause::for_request(error).status(message(error))
}

/// The status of a failed look-up; the log has what happened.
pub(super) fn storage(error: LedgerError) -> Status {
    tracing::error!(%error, "the ledger could not be read");
    failed_call(&RequestError::Storage(Arc::new(error)))
}

/// The status for a record that does not exist.
pub(super) fn record_unknown(message: String) -> Status {
    Cause { code: Code::NotFound, reason: "RECORD_UNKNOWN", retry_after: None }.status(message)
}

/// The status for a signer that does not exist.
pub(super) fn signer_unknown(message: String) -> Status {
    Cause { code: Code::NotFound, reason: "SIGNER_UNKNOWN", retry_after: None }.status(message)
}

/// The status of a call that needs the agreement of a second operator.
pub(super) fn approval_required(number: u64, what: &str) -> Status {
    let message = format!(
        "this needs a second operator: {what}; another one grants it with \"birthmark approval grant {number}\", then make \
         this call again"
    );
    Cause { code: Code::FailedPrecondition, reason: "APPROVAL_REQUIRED", retry_after: None }.status(message)
}

/// The status for a configuration that is not taken.
pub(super) fn configuration_refused(message: String) -> Status {
    Cause { code: Code::FailedPrecondition, reason: "CONFIGURATION_REFUSED", retry_after: None }.status(message)
}

/// The status for a checkpoint that cannot be made, as there is no audit key.
pub(super) fn audit_key_missing() -> Status {
    let message = "the daemon has no audit key, so that it makes no checkpoints; see [audit] in its configuration";
    Cause { code: Code::FailedPrecondition, reason: "AUDIT_KEY_MISSING", retry_after: None }.status(message.into())
}

/// The status for a checkpoint that the HSM does not sign now.
pub(super) fn audit_key_unavailable(message: String) -> Status {
    Cause { code: Code::Unavailable, reason: "HSM_UNAVAILABLE", retry_after: Some(RETRY_AFTER) }.status(message)
}

/// The status for a peer without a role.
pub(super) fn unauthenticated(message: String) -> Status {
    Cause { code: Code::Unauthenticated, reason: "ROLE_REQUIRED", retry_after: None }.status(message)
}

/// The status for a peer whose certificate is not taken any more.
pub(super) fn no_access(refused: &Refused) -> Status {
    let reason = match refused {
        Refused::Expired(_) => "CERTIFICATE_EXPIRED",
        Refused::Revoked { .. } | Refused::Listed => "CERTIFICATE_REVOKED",
    };
    metrics::refusal(reason);
    Cause { code: Code::Unauthenticated, reason, retry_after: None }.status(refused.to_string())
}

/// The status for a peer with another role.
pub(super) fn role_required(message: String) -> Status {
    Cause { code: Code::PermissionDenied, reason: "ROLE_REQUIRED", retry_after: None }.status(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A station's author reads the protocol, not this file.
    #[test]
    fn reason_on_the_wire_is_in_the_protocol() {
        const PROTOCOL: &str = concat!(
            include_str!("../../proto/birthmark/v1/issuance.proto"),
            include_str!("../../proto/birthmark/v1/admin.proto"),
            include_str!("../../proto/birthmark/v1/stations.proto"),
            include_str!("../../proto/birthmark/v1/approvals.proto"),
            include_str!("../../proto/birthmark/v1/vending.proto")
        );
        let code = include_str!("status.rs").split("mod tests").next().unwrap();
        let words = code.split('"').skip(1).step_by(2);
        let reasons: Vec<_> = words
            // What ends so is the beginning of several.
            .filter(|word| {
                word.contains('_')
                    && !word.ends_with('_')
                    && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            })
            .collect();
        assert!(reasons.len() > 30, "{reasons:?}");
        let documented: std::collections::BTreeSet<_> =
            PROTOCOL.split(|c: char| !c.is_ascii_uppercase() && c != '_').collect();
        for reason in reasons {
            assert!(documented.contains(reason), "{reason}");
        }
    }

    /// An operator who reads STORAGE_LOW looks for space, and only then.
    #[test]
    fn storage_error_is_low_for_space_alone() {
        use std::io::ErrorKind;
        let failed = |error| {
            let status = failed_call(&CommitError::Storage(Arc::new(error)).into());
            (status.code(), status.get_details_error_info().unwrap().reason, status.get_details_retry_info().is_some())
        };
        let write = |kind: ErrorKind| failed(LedgerError::NotWritten(std::io::Error::from(kind).into()));
        let unavailable = |reason: &str| (Code::Unavailable, reason.to_owned(), true);
        assert_eq!(write(ErrorKind::StorageFull), unavailable("STORAGE_LOW"));
        assert_eq!(write(ErrorKind::QuotaExceeded), unavailable("STORAGE_LOW"));
        assert_eq!(failed(LedgerError::Full { free: 0, needed: 1 }), unavailable("STORAGE_LOW"));
        assert_eq!(write(ErrorKind::Other), unavailable("STORAGE_UNAVAILABLE"));
        assert_eq!(write(ErrorKind::ReadOnlyFilesystem), unavailable("STORAGE_UNAVAILABLE"));
        let index = LedgerError::Unavailable { notice: "x", cause: "y".into() };
        assert_eq!(failed(index), unavailable("STORAGE_UNAVAILABLE"));
    }

    /// A retry cures no bug, and what a bug was is for the log alone.
    #[test]
    fn bug_is_internal_without_details() {
        let errors = [CommitError::Unexpected, CommitError::Storage(Arc::new(LedgerError::Panicked))];
        for error in errors {
            let status = failed_call(&error.into());
            assert_eq!(
                (status.code(), status.message()),
                (Code::Internal, "internal error; the daemon's log says more")
            );
            assert!(status.get_details_retry_info().is_none());
        }
        let closed = failed_call(&CommitError::Closed.into());
        assert_eq!((closed.code(), closed.message()), (Code::Unavailable, "the daemon is shutting down"));
    }
}
