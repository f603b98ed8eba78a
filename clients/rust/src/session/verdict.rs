//! What the failure of a call or stream means: wait, or end.

use std::time::Duration;

use tonic::{Code, transport::Channel};

use crate::{ClientError, Daemon, Error, Failure};

/// Upper bound on the retry delay that the daemon asks for: recovery is not announced.
pub(crate) const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What keeps the daemon from signing for now.
pub(crate) struct Outage {
    pub(crate) message: String,
    pub(crate) retry_after: Duration,
    /// The next try may tell the cause better: a daemon that refuses a certificate ends the connection first.
    pub(crate) vague: bool,
}

/// Why a call or an exchange stops: for now, or for good.
pub(crate) enum Break {
    Outage(Outage),
    End(Error),
}

/// Whether a failed call or stream is worth another try.
pub(crate) fn stream_failure(failure: Failure) -> Break {
    if failure.certificate_refused {
        return Break::End(Error::Refused(failure));
    }
    match failure.code {
        // It may have been renewed meanwhile: the next connection is made with what is there now.
        Code::Unauthenticated if failure.reason.as_deref() == Some("CERTIFICATE_EXPIRED") => {
            passing(failure.to_string())
        }
        Code::PermissionDenied | Code::Unauthenticated => Break::End(Error::NotAllowed(failure)),
        Code::Unimplemented => Break::End(Error::NotBirthmark(failure)),
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
        _ => Break::End(Error::Refused(failure)),
    }
}

pub(crate) fn passing(message: String) -> Break {
    Break::Outage(Outage { message, retry_after: Duration::ZERO, vague: false })
}

/// Connects once.
pub(crate) async fn connect(daemon: &Daemon) -> Result<Channel, Break> {
    daemon.connect().await.map_err(|error| match error {
        ClientError::Connect { lasting: false, .. } => passing(error.to_string()),
        error => Break::End(error.into()),
    })
}
