//! What the HSM gets to sign, and what becomes of the signature that it gives.

use cryptoki::object::ObjectHandle;
use cryptoki_sys::{
    CKG_MGF1_SHA256, CKG_MGF1_SHA384, CKG_MGF1_SHA512, CKM_ECDSA, CKM_RSA_PKCS, CKM_SHA256, CKM_SHA384, CKM_SHA512,
};

use super::{call::SignMechanism, error::Error, session::TokenSession};
use crate::signer::{Sha2, SignatureAlgorithm, ecdsa};

/// What `C_Sign` gets for a message. The hash is made here, so that 32 or 48 bytes go to a network HSM, and because
/// older modules cannot hash.
#[derive(Clone)]
pub(super) struct SigningInput {
    mechanism: SignMechanism,
    octets: [u8; LONGEST_INPUT],
    length: usize,
}

/// A DigestInfo of SHA-512.
const LONGEST_INPUT: usize = 83;

impl SigningInput {
    pub(super) fn new(algorithm: SignatureAlgorithm, message: &[u8]) -> Self {
        let mut input = SigningInput { mechanism: mechanism(algorithm), octets: [0; LONGEST_INPUT], length: 0 };
        let hash = match algorithm {
            SignatureAlgorithm::EcdsaP256Sha256 => Sha2::Sha256,
            SignatureAlgorithm::EcdsaP384Sha384 => Sha2::Sha384,
            SignatureAlgorithm::EcdsaP521Sha512 => Sha2::Sha512,
            SignatureAlgorithm::RsaPss(hash) => hash,
            SignatureAlgorithm::RsaPkcs1(hash) => {
                input.append(&digest_info_head(hash));
                hash
            }
        };
        input.append(hash.digest(message).as_ref());
        input
    }

    /// `C_SignInit` and `C_Sign` with this key.
    pub(super) fn sign(&self, session: &TokenSession, key: ObjectHandle) -> Result<Vec<u8>, Error> {
        session.sign(key, self.mechanism, &self.octets[..self.length])
    }

    fn append(&mut self, octets: &[u8]) {
        self.octets[self.length..self.length + octets.len()].copy_from_slice(octets);
        self.length += octets.len();
    }
}

/// The head of the DER `DigestInfo` of a hash (RFC 8017 section 9.2), which CKM_RSA_PKCS pads and signs.
fn digest_info_head(hash: Sha2) -> [u8; 19] {
    let length = hash.length();
    [0x30, 17 + length, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, hash.arc(), 5, 0, 4, length]
}

/// The mechanism that a key of this algorithm signs with.
fn mechanism(algorithm: SignatureAlgorithm) -> SignMechanism {
    match algorithm {
        SignatureAlgorithm::EcdsaP256Sha256
        | SignatureAlgorithm::EcdsaP384Sha384
        | SignatureAlgorithm::EcdsaP521Sha512 => SignMechanism::plain(CKM_ECDSA),
        SignatureAlgorithm::RsaPkcs1(_) => SignMechanism::plain(CKM_RSA_PKCS),
        // One hash throughout and a salt of its length (RFC 4055 section 3.1).
        SignatureAlgorithm::RsaPss(hash) => {
            let (hash_mechanism, mask) = match hash {
                Sha2::Sha256 => (CKM_SHA256, CKG_MGF1_SHA256),
                Sha2::Sha384 => (CKM_SHA384, CKG_MGF1_SHA384),
                Sha2::Sha512 => (CKM_SHA512, CKG_MGF1_SHA512),
            };
            SignMechanism::pss(hash_mechanism, mask, hash.length())
        }
    }
}

/// Turns what `C_Sign` gave into what a certificate carries. `None` if it cannot be a signature.
pub(super) fn certificate_signature(algorithm: SignatureAlgorithm, signature: Vec<u8>) -> Option<Vec<u8>> {
    match algorithm {
        SignatureAlgorithm::EcdsaP256Sha256 => ecdsa::from_fixed_width(&signature, 32),
        SignatureAlgorithm::EcdsaP384Sha384 => ecdsa::from_fixed_width(&signature, 48),
        SignatureAlgorithm::EcdsaP521Sha512 => ecdsa::from_fixed_width(&signature, 66),
        SignatureAlgorithm::RsaPkcs1(_) | SignatureAlgorithm::RsaPss(_) => Some(signature),
    }
}

#[cfg(test)]
mod tests {
    use const_oid::{ObjectIdentifier, db};
    use der::Decode;

    use super::*;

    /// A digest info names its hash.
    #[test]
    fn digest_info_names_its_hash() {
        use db::rfc5912::{ID_SHA_256, ID_SHA_384, ID_SHA_512};
        for (hash, oid) in [(Sha2::Sha256, ID_SHA_256), (Sha2::Sha384, ID_SHA_384), (Sha2::Sha512, ID_SHA_512)] {
            let input = SigningInput::new(SignatureAlgorithm::RsaPkcs1(hash), b"message");
            let info = &input.octets[..input.length];
            assert_eq!(info.len(), 2 + usize::from(info[1]));
            assert_eq!(ObjectIdentifier::from_der(&info[4..15]).unwrap(), oid);
            assert_eq!(&info[19..], hash.digest(b"message").as_ref());
        }
    }
}
