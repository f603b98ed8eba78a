//! Lets rcgen sign with a key in the HSM.

use std::cell::RefCell;

use rcgen::{PublicKeyData, SignatureAlgorithm as RcgenAlgorithm, SigningKey};

use super::{error::Error, key::Key};
use crate::signer::{Sha2, SignatureAlgorithm};

/// A [`Key`] as rcgen wants it.
///
/// rcgen's own error has no room for what the HSM said; [`RcgenKey::explain`] brings both together.
#[derive(Debug)]
pub(crate) struct RcgenKey<'a> {
    key: &'a Key,
    algorithm: &'static RcgenAlgorithm,
    failure: RefCell<Option<Error>>,
}

impl<'a> RcgenKey<'a> {
    /// Wraps a key.
    ///
    /// # Errors
    /// If it signs with RSA-PSS, which rcgen does not have; the key of a ceremony signs in the usual way of its kind.
    pub(crate) fn new(key: &'a Key) -> Result<Self, Error> {
        let algorithm = rcgen_algorithm(key.algorithm()).ok_or_else(|| Error::KeyUnsupported {
            label: key.label().to_owned(),
            reason: format!("CA certificates and requests cannot be signed with {}", key.algorithm()),
        })?;
        Ok(RcgenKey { key, algorithm, failure: RefCell::new(None) })
    }

    /// What really went wrong when rcgen, signing with this key, gave `error`.
    pub(crate) fn explain(&self, error: rcgen::Error) -> Error {
        self.failure.take().unwrap_or_else(|| Error::Certificate(error.to_string()))
    }
}

impl PublicKeyData for RcgenKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.key.public_key().bits
    }

    fn algorithm(&self) -> &'static RcgenAlgorithm {
        self.algorithm
    }
}

fn rcgen_algorithm(algorithm: SignatureAlgorithm) -> Option<&'static RcgenAlgorithm> {
    match algorithm {
        SignatureAlgorithm::EcdsaP256Sha256 => Some(&rcgen::PKCS_ECDSA_P256_SHA256),
        SignatureAlgorithm::EcdsaP384Sha384 => Some(&rcgen::PKCS_ECDSA_P384_SHA384),
        SignatureAlgorithm::EcdsaP521Sha512 => Some(&rcgen::PKCS_ECDSA_P521_SHA512),
        SignatureAlgorithm::RsaPkcs1(Sha2::Sha256) => Some(&rcgen::PKCS_RSA_SHA256),
        SignatureAlgorithm::RsaPkcs1(Sha2::Sha384) => Some(&rcgen::PKCS_RSA_SHA384),
        SignatureAlgorithm::RsaPkcs1(Sha2::Sha512) => Some(&rcgen::PKCS_RSA_SHA512),
        SignatureAlgorithm::RsaPss(_) => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate never says PKCS#1 v1.5 over a signature of RSA-PSS.
    #[test]
    fn rsa_pss_key_is_no_key_for_rcgen() {
        for hash in [Sha2::Sha256, Sha2::Sha384, Sha2::Sha512] {
            assert!(rcgen_algorithm(SignatureAlgorithm::RsaPss(hash)).is_none());
            assert!(rcgen_algorithm(SignatureAlgorithm::RsaPkcs1(hash)).is_some());
        }
    }
}
