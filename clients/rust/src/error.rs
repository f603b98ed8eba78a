//! Why a call or a session ended.

use std::time::Duration;

use crate::{ClientError, Failure};

/// What ends a call or a session. A device that is refused ends none: its answer is a [`Failure`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no connection, and trying again cannot help.
    #[error(transparent)]
    Connect(#[from] ClientError),
    /// The daemon lets this peer not do that at all.
    #[error("the daemon does not let this peer do that: {0}")]
    NotAllowed(Failure),
    /// Something else listens there.
    #[error("this is not a Birthmark daemon: {0}")]
    NotBirthmark(Failure),
    /// The station may not use the profile, or not like this; the sentence says which it may use, or how.
    #[error("{0}")]
    Profile(String),
    /// The daemon refuses the call as a whole, or one side the other's TLS certificate.
    #[error("{}{}", if .0.certificate_refused { "" } else { "the daemon refuses: " }, .0)]
    Refused(Failure),
    /// The daemon was away, or could not sign, or did not answer, for as long as the caller wanted to wait. What is
    /// unanswered may be asked for again: a retry is free.
    #[error("{}", gave_up(*after, cause.as_deref()))]
    GaveUp {
        /// The caller's bound.
        after: Duration,
        /// The last thing that was in the way, if that is known.
        cause: Option<String>,
    },
    /// The connection broke, and the session was to make no other one.
    #[error("the connection to the daemon was lost")]
    Disconnected,
}

fn gave_up(after: Duration, cause: Option<&str>) -> String {
    match cause {
        // It was tried once.
        Some(cause) if after.is_zero() => cause.to_owned(),
        Some(cause) => format!("gave up after {after:?}: {cause}"),
        None => format!("gave up: the daemon has answered nothing for {after:?}"),
    }
}
