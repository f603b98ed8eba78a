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
    #[error(
        "the daemon does not let this peer sign: {0}; signing needs the identity of a station (see \"birthmark station \
         enroll\")"
    )]
    NotAllowed(Failure),
    /// Something else listens there.
    #[error("this is not a Birthmark daemon: {0}")]
    NotBirthmark(Failure),
    /// The station may not use the profile; the sentence says which it may use.
    #[error("{0}")]
    Profile(String),
    /// The daemon refuses the call as a whole, or one side the other's TLS certificate.
    #[error("{}{}", if .0.certificate_refused { "" } else { "the daemon refuses: " }, .0)]
    Refused(Failure),
    /// The daemon was away, or could not sign, or did not answer, for as long as the caller wanted to wait. What is
    /// unanswered may be asked for again: a retry is free.
    #[error("gave up: the daemon could not sign for {after:?}")]
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
