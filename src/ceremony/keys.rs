//! The tokens of a ceremony, and the keys that sign at it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rcgen::{CertificateParams, Issuer, PublicKeyData, SigningKey};

use super::{
    certificate::{Certificate, CertificateError},
    file::{CeremonyFile, IssuerKey, IssuerRef, KeyRef},
};
use crate::{
    hsm::{self, AskPin, Key, KeyQuery, RcgenKey, Token, read_secret},
    signer::PublicKey,
};

/// The tokens of a ceremony, logged in to, by the names that its file has for them.
#[derive(Debug)]
pub(super) struct Tokens(BTreeMap<String, Arc<Token>>);

impl Tokens {
    /// Logs in to all of them. A PIN that no file has is the environment's, if one token alone lacks a file, or a person is
    /// asked for it.
    pub(super) fn open(file: &CeremonyFile, ask: Option<AskPin<'_>>) -> Result<Tokens, hsm::Error> {
        let alone = file.tokens.values().filter(|uri| uri.pin_source.is_none()).count() <= 1;
        let open =
            |(name, uri): (&String, _)| Ok((name.clone(), Token::open_asking(uri, file.source.folder(), alone, ask)?));
        file.tokens.iter().map(open).collect::<Result<_, hsm::Error>>().map(Tokens)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Token>)> {
        self.0.iter().map(|(name, token)| (name.as_str(), token))
    }

    pub(super) fn token(&self, name: &str) -> Result<&Arc<Token>, hsm::Error> {
        let known = || self.0.keys().cloned().collect();
        self.0.get(name).ok_or_else(|| hsm::Error::TokenMissing { wanted: format!("name \"{name}\""), known: known() })
    }

    /// Opens a key.
    pub(super) fn key(&self, key: &KeyRef) -> Result<Key, hsm::Error> {
        let query = KeyQuery { label: Some(key.label.get_ref().clone()), id: None, algorithm: None };
        Key::open(self.token(&key.token)?, &query)
    }
}

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

/// Reads an issuer's certificate and opens its key.
pub(super) fn open_issuer(
    tokens: &Tokens,
    issuer: &IssuerRef,
    now: SystemTime,
) -> Result<(Certificate, CaKey), IssuerError> {
    let certificate = Certificate::read(&issuer.certificate.path)?;
    let unsuitable = |reason| IssuerError::Unsuitable { file: issuer.certificate.written.clone(), reason };
    certificate.check_ca(now).map_err(unsuitable)?;
    certificate.check_kept_as_issuer().map_err(unsuitable)?;
    let key = match &issuer.key {
        IssuerKey::Token(key) => {
            let key = tokens.key(key)?;
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
