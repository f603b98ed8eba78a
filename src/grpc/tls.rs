//! The TLS settings: what is read from the files of `[server]`, and what may be wrong with them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::CertificateDer,
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{access::Access, client_verifier::Judged};
use crate::{
    pem::{self, ReadError},
    private_key::{self, KeyError},
};

/// Why there are no TLS settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The daemon's own certificate and its chain.
    #[error("{}: cannot read the certificates: {error}", path.display())]
    Certificate { path: PathBuf, error: ReadError },
    /// The daemon's private key.
    #[error("{}: {error}", path.display())]
    Key { path: PathBuf, error: KeyError },
    /// The CA certificates of clients.
    #[error("{}: {error}", path.display())]
    ClientCa { path: PathBuf, error: ClientCaError },
    /// The TLS library cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// What is wrong with the CA certificates of clients.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientCaError {
    #[error("cannot read the certificates: {0}")]
    Unreadable(ReadError),
    #[error("not a CA certificate: {0}")]
    NotACa(rustls::Error),
    #[error("{0}")]
    Unusable(VerifierBuilderError),
}

/// Reads the TLS settings: TLS 1.3 and 1.2, and only clients with a certificate from `client_ca` that `access` lets in.
///
/// # Errors
/// Which file is wrong, and how.
pub(crate) fn configure(
    [certificate, key, client_ca]: [&Path; 3],
    access: &Arc<Access>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let of_key = |error| TlsError::Key { path: key.to_owned(), error };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = client_verifier(client_ca, access, &provider)?;
    let chain = pem::read_certificates(certificate)
        .map_err(|error| TlsError::Certificate { path: certificate.to_owned(), error })?;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let private_key = private_key::read(key).map_err(of_key)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private_key)
        .map_err(|error| {
            let certificate = certificate.to_owned();
            of_key(match error {
                rustls::Error::InconsistentKeys(_) => KeyError::NotOfCertificate { certificate },
                error => KeyError::NotTaken { certificate, error },
            })
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Verifies that a client certificate comes from `client_ca`, and that `access` lets its holder in.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn client_verifier(
    client_ca: &Path,
    access: &Arc<Access>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let of_client_ca = |error| TlsError::ClientCa { path: client_ca.to_owned(), error };
    let mut roots = RootCertStore::empty();
    for root in pem::read_certificates(client_ca).map_err(|error| of_client_ca(ClientCaError::Unreadable(error)))? {
        roots.add(CertificateDer::from(root)).map_err(|error| of_client_ca(ClientCaError::NotACa(error)))?;
    }
    let path = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| of_client_ca(ClientCaError::Unusable(error)))?;
    Ok(Arc::new(Judged { path, judge: Arc::clone(access) }))
}
