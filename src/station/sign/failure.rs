//! What a failure means for the run: wait, skip the device, or end.

use std::time::Duration;

use tonic::Code;

use super::job::End;
use crate::client::Failure;

/// Upper bound on the retry delay that the daemon asks for: recovery is not announced.
pub(super) const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What keeps the daemon from signing for now.
pub(super) struct Outage {
    pub(super) message: String,
    pub(super) retry_after: Duration,
    /// The next try may tell the cause better: a daemon that refuses a certificate ends the connection first.
    pub(super) vague: bool,
}

/// Why an exchange stops: for now, or for good.
pub(super) enum Break {
    Outage(Outage),
    End(End),
}

impl From<End> for Break {
    fn from(end: End) -> Self {
        Break::End(end)
    }
}

/// Whether a failed call or stream is worth another try.
pub(super) fn stream_failure(failure: Failure) -> Break {
    if failure.certificate_refused {
        return End::Failed(failure.to_string()).into();
    }
    match failure.code {
        // It may have been renewed meanwhile: the next connection is made with what is there now.
        Code::Unauthenticated if failure.reason.as_deref() == Some("CERTIFICATE_EXPIRED") => {
            passing(failure.to_string())
        }
        Code::PermissionDenied | Code::Unauthenticated => {
            let hint = "signing needs the identity of a station (see \"birthmark station enroll\")";
            End::Failed(format!("the daemon does not let this peer sign: {failure}; {hint}")).into()
        }
        Code::Unimplemented => End::Failed(format!("this is not a Birthmark daemon: {failure}")).into(),
        Code::Unavailable
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal
        | Code::Aborted
        | Code::DeadlineExceeded => Break::Outage(Outage {
            retry_after: failure.retry_after.unwrap_or_default().min(LONGEST_RETRY),
            vague: failure.reason.is_none(),
            message: failure.to_string(),
        }),
        // Too many streams of this station, for example.
        _ if failure.retry_after.is_some() => Break::Outage(Outage {
            retry_after: failure.retry_after.unwrap_or_default().min(LONGEST_RETRY),
            vague: false,
            message: format!("the daemon opens no stream now: {failure}"),
        }),
        _ => End::Failed(format!("the daemon refuses the stream: {failure}")).into(),
    }
}

pub(super) fn passing(message: String) -> Break {
    Break::Outage(Outage { message, retry_after: Duration::ZERO, vague: false })
}

/// Whether the refusal is about the order or what else all devices of it have in common. It may pass.
pub(super) fn concerns_order(failure: &Failure) -> bool {
    let reasons = ["ORDER_EXHAUSTED", "ORDER_CLOSED", "ORDER_PAUSED", "ORDER_OUTSIDE_WINDOW"];
    let issuer = ["ISSUER_ENDING", "ISSUER_EXPIRING", "ISSUER_EXPIRED"];
    let is_one = |reason: &str| reasons.contains(&reason) || issuer.contains(&reason);
    concerns_all(failure) || failure.reason.as_deref().is_some_and(is_one)
}

/// Whether the refusal of one device is about what this run was started with: the next device would meet the same.
pub(super) fn concerns_all(failure: &Failure) -> bool {
    let reasons = ["ORDER_UNKNOWN", "PROFILE_UNKNOWN", "PROFILE_REFUSED", "STATION_REFUSED", "ROLE_REQUIRED"];
    failure.reason.as_deref().is_some_and(|reason| reasons.contains(&reason))
}
