//! Why a connection ended.

use std::{io, time::Duration};

/// Why a connection ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MqttError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the broker did not answer within {0:?}")]
    Late(Duration),
    #[error("the broker's answer is no MQTT: {0}")]
    Malformed(&'static str),
    #[error("{} is no name that a certificate can have", crate::quote::quoted(.0))]
    Name(String),
    #[error("the broker refuses the connection: {reason}")]
    Refused {
        reason: &'static str,
        /// Trying again does not help.
        lasting: bool,
    },
}
