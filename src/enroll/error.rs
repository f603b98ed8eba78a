//! Why nobody was enrolled.

use crate::{ceremony::CertificateError, csr::CsrError, hsm, name::AttributeError};

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The token or the key cannot be used, or the key is not the certificate's.
    #[error(transparent)]
    Hsm(#[from] hsm::Error),
    /// The station CA's certificate cannot be used.
    #[error("the station CA's certificate cannot be used: {0}")]
    Certificate(CertificateError),
    /// The certificate would outlive the station CA.
    #[error(
        "the certificate would expire on {not_after}, after its station CA, which expires on {ca_not_after}; ask for fewer \
         days"
    )]
    OutlivesCa {
        /// The day on which it would expire.
        not_after: String,
        /// The day on which the CA expires.
        ca_not_after: String,
    },
    /// The certificate that would be made is none that lives longer.
    #[error("there is nothing to renew: the station CA expires on {ca_not_after}, and so would the new certificate")]
    NothingGained {
        /// The day on which the CA expires.
        ca_not_after: String,
    },
    /// Certificates count whole seconds, and this one was made within the same.
    #[error("there is nothing to renew: the certificate was made just now")]
    JustMade,
    /// The name is one of a user of the Unix socket.
    #[error("\"{0}\" is the name of a user of the daemon's Unix socket; take one that does not begin with local-")]
    LocalName(String),
    /// The daemon has no station CA.
    #[error(
        "the daemon's configuration has no [station_ca]; enroll where the station CA's key is, and import the list that \
         \"birthmark station enroll\" writes"
    )]
    NotConfigured,
    /// The CSR cannot be used.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// A TLS client is to have names of a server.
    #[error("only a server has DNS names and addresses")]
    NamesOfServer,
    /// A TLS server is to have no name.
    #[error("a server needs the names that stations connect to; add --dns NAME or --ip ADDRESS")]
    NoNames,
    /// A server's DNS name is none.
    #[error("\"{0}\" is not a DNS name")]
    DnsName(String),
    /// The name cannot be a CN.
    #[error(transparent)]
    CommonName(#[from] AttributeError),
    /// Key or certificate cannot be made.
    #[error("{0}")]
    Generate(#[from] rcgen::Error),
    /// The certificate cannot be issued.
    #[error("{0}")]
    Issue(String),
}
