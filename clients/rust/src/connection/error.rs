//! Why there is no connection.

use std::path::PathBuf;

use birthmark_base::{quote::quoted, text_file::TextError};

/// Settings of the connection that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The environment names two daemons.
    #[error("BIRTHMARK_SERVER and BIRTHMARK_SOCKET are both set; unset one, or say --server or --socket")]
    TwoDaemons,
    /// A server without an identity.
    #[error("{0} needs --identity DIR, the folder that \"birthmark station enroll\" made")]
    NoIdentity(String),
    /// An identity without a server.
    #[error("--identity needs --server https://HOST:PORT")]
    NoServer,
    /// The address is none.
    #[error("{} is not an address of the form https://HOST:PORT", quoted(.0))]
    Address(String),
    /// The socket's path is none.
    #[error("the socket's path {} cannot be used", .0.display())]
    Socket(PathBuf),
    /// A file of the identity cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: TextError,
    },
    /// A file of the identity holds no certificate.
    #[error("{} holds no PEM certificate", .0.display())]
    NoCertificate(PathBuf),
    /// Others may have read the private key.
    #[error(
        "the private key {0} can be used by others (mode {mode:04o}); run chmod 600 {0}, and enroll again if somebody may \
         have read it", path.display()
    )]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// TLS does not take the identity.
    #[error("the identity in {} cannot be used: {cause}", folder.display())]
    Identity {
        /// Its folder.
        folder: PathBuf,
        /// Why not.
        cause: String,
    },
}

/// Why there is no connection, as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address or the identity cannot be used; nothing was sent.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Something else listens there.
    #[error(
        "{0} does not speak TLS: it is not the address of the daemon's gRPC port ([server] listen), but perhaps of its HTTP \
         port"
    )]
    NotTls(String),
    /// The daemon did not answer, or one side refused the other's certificate.
    #[error("cannot connect to the daemon at {address}: {cause}")]
    Connect {
        /// The URL or the socket's path.
        address: String,
        /// What went wrong.
        cause: String,
        /// Trying again cannot help: certificates have to be put right first.
        lasting: bool,
    },
}
