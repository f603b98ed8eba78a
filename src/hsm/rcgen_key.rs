//! Lets rcgen sign with a key in the HSM.

use std::cell::RefCell;

use rcgen::{PublicKeyData, SignatureAlgorithm as RcgenAlgorithm, SigningKey};

use super::{Error, Key};
use crate::signer::{Sha2, SignatureAlgorithm};

/// A [`Key`] as rcgen wants it.
///
/// rcgen's own error has no room for what the HSM said; [`RcgenKey::explain`] brings both together.
#[derive(Debug)]
pub struct RcgenKey<'a> {
    key: &'a Key,
    failure: RefCell<Option<Error>>,
}

impl<'a> RcgenKey<'a> {
    /// Wraps a key.
    pub fn new(key: &'a Key) -> Self {
        RcgenKey { key, failure: RefCell::new(None) }
    }

    /// What really went wrong when rcgen, signing with this key, gave `error`.
    pub fn explain(&self, error: rcgen::Error) -> Error {
        self.failure.take().unwrap_or_else(|| Error::Certificate(error.to_string()))
    }
}

impl PublicKeyData for RcgenKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.key.public_key().bits
    }

    fn algorithm(&self) -> &'static RcgenAlgorithm {
        match self.key.algorithm() {
            SignatureAlgorithm::EcdsaP256Sha256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            SignatureAlgorithm::EcdsaP384Sha384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            SignatureAlgorithm::EcdsaP521Sha512 => &rcgen::PKCS_ECDSA_P521_SHA512,
            SignatureAlgorithm::RsaPkcs1(Sha2::Sha256) => &rcgen::PKCS_RSA_SHA256,
            SignatureAlgorithm::RsaPkcs1(Sha2::Sha384) => &rcgen::PKCS_RSA_SHA384,
            // rcgen has no PSS; the key of a ceremony signs in the usual way of its kind.
            SignatureAlgorithm::RsaPkcs1(Sha2::Sha512) | SignatureAlgorithm::RsaPss(_) => &rcgen::PKCS_RSA_SHA512,
        }
    }
}

impl SigningKey for RcgenKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message).map_err(|error| {
            self.failure.replace(Some(error));
            rcgen::Error::RemoteKeyError
        })
    }
}
