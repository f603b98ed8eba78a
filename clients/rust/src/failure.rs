//! An error that the daemon, or the connection to it, gave, as people and programs read it.

use std::{error::Error as StdError, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::{RpcStatusExt, StatusExt, pb};

use self::cause::{certificate_refusal, innermost};

pub(crate) mod cause;

/// An error that the daemon (or the connection to it) gave, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The gRPC status code.
    pub code: Code,
    /// The daemon's reason such as `ORDER_EXHAUSTED`, from `google.rpc.ErrorInfo`.
    pub reason: Option<String>,
    /// One sentence.
    pub message: String,
    /// When the daemon suggests to try again, from `google.rpc.RetryInfo`.
    pub retry_after: Option<Duration>,
    /// One side refused the other's TLS certificate; trying again cannot help.
    pub certificate_refused: bool,
}

impl Failure {
    /// The reason for programs: the daemon's own, or the name of the status code.
    pub fn reason(&self) -> String {
        self.reason.clone().unwrap_or_else(|| code_name(self.code).to_owned())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let refusal = status.source().and_then(certificate_refusal);
        let certificate_refused = refusal.is_some();
        let message = match (refusal, status.source()) {
            (Some(refusal), _) => refusal,
            // From the transport, whose outermost message says next to nothing.
            (None, Some(source)) => format!("the connection failed: {}", innermost(source)),
            // As tonic says of what is no gRPC.
            (None, None) if status.message().contains("while receiving response with status") => format!(
                "what answers is not the daemon's gRPC port ([server] listen), but perhaps its EST port: {}",
                status.message()
            ),
            (None, None) => status.message().to_owned(),
        };
        Failure {
            code: status.code(),
            reason: status.get_details_error_info().map(|info| info.reason),
            message,
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            certificate_refused,
        }
    }
}

impl From<&pb::Status> for Failure {
    fn from(status: &pb::Status) -> Self {
        Failure {
            code: Code::from_i32(status.code),
            reason: status.get_details_error_info().map(|info| info.reason),
            message: status.message.clone(),
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            certificate_refused: false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.reason, self.message.as_str()) {
            (Some(reason), "") => f.write_str(reason),
            (Some(reason), message) => write!(f, "{message} ({reason})"),
            (None, "") => f.write_str(self.code.description()),
            (None, message) => f.write_str(message),
        }
    }
}

impl StdError for Failure {}

/// The status code as the gRPC documentation writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
