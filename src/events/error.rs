//! Why nothing can be published.

use std::{io, path::PathBuf};

use crate::{client::ClientError, quote::quoted};

/// Why nothing can be published, and trying again does not help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// The address is none.
    #[error("{} is not an address of the form mqtts://HOST[:PORT]", quoted(.0))]
    Address(String),
    /// A broker elsewhere, without TLS.
    #[error("{} is another machine; say mqtts://, as without TLS everybody on the way could read and change what is published", quoted(.0))]
    Plain(String),
    /// Something that TLS needs is not said.
    #[error("an address with mqtts:// needs --ca FILE, --cert FILE and --key FILE")]
    NoCredentials,
    /// A file cannot be read.
    #[error("{} cannot be used: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: String,
    },
    /// TLS does not take certificate and key.
    #[error("certificate and key cannot be used with TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The CA's certificate is none.
    #[error("{} holds no CA certificate that TLS can use", .0.display())]
    NoCa(PathBuf),
    /// The cursor's file says nothing.
    #[error("{} is no cursor of this command; name another file, or move it away and say --after", .0.display())]
    Cursor(PathBuf),
    /// The cursor cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    NotWritten {
        /// The cursor.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the cursor.
    #[error("another process publishes from the cursor {}", .0.display())]
    InUse(PathBuf),
    /// The broker does not let us in, ever.
    #[error("the broker refuses the connection: {0}")]
    Refused(&'static str),
    /// The daemon does not answer this peer.
    #[error(transparent)]
    Daemon(#[from] ClientError),
    /// The daemon refuses the call.
    #[error("the daemon refuses: {0}")]
    Watch(String),
}
