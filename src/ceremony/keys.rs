//! The keys that sign at a ceremony.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rcgen::{CertificateParams, Issuer, PublicKeyData, SigningKey};

use super::{
    certificate::{Certificate, CertificateError},
    file::{IssuerKey, IssuerRef},
};
use crate::{
    hsm::{self, Key, KeyQuery, RcgenKey, Token, read_secret},
    signer::PublicKey,
};

/// Why a CA cannot issue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerError {
    /// Its certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Its certificate is not one of a CA that may issue.
    #[error("{} cannot be the issuer: {reason}", file.display())]
    Unsuitable {
        /// The certificate's file, as the ceremony file names it.
        file: PathBuf,
        /// Why not.
        reason: CertificateError,
    },
    /// Its key cannot be used.
    #[error(transparent)]
    Key(#[from] hsm::Error),
    /// The key's file holds something else.
    #[error(
        "{} is not an unencrypted PKCS#8 private key in PEM; convert it with openssl pkcs8 -topk8 -nocrypt", .0.display()
    )]
    KeyFile(PathBuf),
    /// The key in the file is not the certificate's.
    #[error("the key in {} does not belong to the issuer's certificate", .0.display())]
    KeyMismatch(PathBuf),
}

/// A key that signs certificates: in the HSM, or of an offline CA in a file.
#[derive(Debug)]
pub(crate) enum CaKey {
    Hsm(Key),
    File(Box<rcgen::KeyPair>),
}

impl CaKey {
    /// Signs something that is no certificate.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, hsm::Error> {
        match self {
            CaKey::Hsm(key) => key.sign(message),
            CaKey::File(key) => {
                SigningKey::sign(key.as_ref(), message).map_err(|error| hsm::Error::Certificate(error.to_string()))
            }
        }
    }

    /// Issues a certificate over `subject_key` and checks what came out.
    pub(crate) fn issue(
        &self,
        issuer: &Certificate,
        parameters: &CertificateParams,
        subject_key: &impl PublicKeyData,
    ) -> Result<Certificate, CertificateError> {
        let ca = issuer.der().into();
        let made = match self {
            CaKey::Hsm(key) => {
                let key = RcgenKey::new(key)?;
                Issuer::from_ca_cert_der(&ca, &key)
                    .and_then(|ca| parameters.signed_by(subject_key, &ca))
                    .map_err(|error| key.explain(error))?
            }
            CaKey::File(key) => {
                Issuer::from_ca_cert_der(&ca, key.as_ref()).and_then(|ca| parameters.signed_by(subject_key, &ca))?
            }
        };
        let made = Certificate::from_der(made.der())?;
        issuer.check_issued(&made)?;
        Ok(made)
    }
}

/// Makes a certificate that `key` signs for itself, and checks what came out.
pub(super) fn self_sign(key: &Key, parameters: &CertificateParams) -> Result<Certificate, CertificateError> {
    let rcgen_key = RcgenKey::new(key)?;
    let made = parameters.self_signed(&rcgen_key).map_err(|error| rcgen_key.explain(error))?;
    let made = Certificate::from_der(made.der())?;
    made.check_issued(&made)?;
    Ok(made)
}

/// Opens a key of the token.
pub(super) fn open(token: &Arc<Token>, label: &str) -> Result<Key, hsm::Error> {
    Key::open(token, &KeyQuery { label: Some(label.to_owned()), id: None, algorithm: None })
}

/// Reads an issuer's certificate and opens its key.
pub(super) fn open_issuer(
    token: &Arc<Token>,
    issuer: &IssuerRef,
    now: SystemTime,
) -> Result<(Certificate, CaKey), IssuerError> {
    let certificate = Certificate::read(&issuer.certificate.path)?;
    let unsuitable = |reason| IssuerError::Unsuitable { file: issuer.certificate.written.clone(), reason };
    certificate.check_ca(now).map_err(unsuitable)?;
    certificate.check_kept_as_issuer().map_err(unsuitable)?;
    let key = match &issuer.key {
        IssuerKey::Label(label) => {
            let key = open(token, label.get_ref())?;
            key.check_matches(&certificate.key)?;
            CaKey::Hsm(key)
        }
        IssuerKey::File(file) => CaKey::File(Box::new(read_key_file(&file.path, &certificate.key)?)),
    };
    Ok((certificate, key))
}

/// Reads an offline CA's private key.
fn read_key_file(path: &Path, expected: &PublicKey) -> Result<rcgen::KeyPair, IssuerError> {
    let text = read_secret(path)?;
    let key = rcgen::KeyPair::from_pem(&text).map_err(|_| IssuerError::KeyFile(path.to_owned()))?;
    if key.subject_public_key_info() != expected.spki {
        return Err(IssuerError::KeyMismatch(path.to_owned()));
    }
    Ok(key)
}
