//! Mutual TLS with the broker.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use zeroize::Zeroizing;

use super::error::EventsError;
use crate::{pem, private_key, secret_file};

/// The longest file of a password, in bytes.
const PASSWORD: usize = 4096;

/// What the broker is shown and believed by; files, so that nothing of it is on a command line.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The certificates of the CAs that the broker's may be of, PEM.
    pub ca: Option<PathBuf>,
    /// The client's certificate with its chain, PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// A name for the broker, with a password or without.
    pub username: Option<String>,
    /// A file with the password.
    pub password: Option<PathBuf>,
}

impl Credentials {
    /// The settings of TLS; read anew for each connection, as certificates are renewed.
    pub(super) fn tls(&self) -> Result<Arc<ClientConfig>, EventsError> {
        let (Some(ca), Some(certificate), Some(key)) = (&self.ca, &self.certificate, &self.key) else {
            return Err(EventsError::NoCredentials);
        };
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates(ca)?);
        if added == 0 {
            return Err(EventsError::NoCa(ca.clone()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let private = private_key::read(key)
            .map_err(|error| EventsError::File { path: key.clone(), cause: error.to_string() })?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(certificate)?, private)?;
        Ok(Arc::new(config))
    }

    /// Name and password for CONNECT.
    pub(super) fn login(&self) -> Result<Option<(String, Zeroizing<String>)>, EventsError> {
        let Some(name) = self.username.clone() else { return Ok(None) };
        let read = |path: &PathBuf| {
            secret_file::read_text(path, PASSWORD)
                .map_err(|error| EventsError::File { path: path.clone(), cause: error.to_string() })
        };
        let password = self.password.as_ref().map(read).transpose()?.unwrap_or_default();
        Ok(Some((name, password)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EventsError> {
    let found = pem::read_certificates(path)
        .map_err(|error| EventsError::File { path: path.to_owned(), cause: error.to_string() })?;
    Ok(found.into_iter().map(CertificateDer::from).collect())
}
