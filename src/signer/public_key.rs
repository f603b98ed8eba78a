//! Public keys as X.509 carries them.

use std::fmt;

use aws_lc_rs::signature::UnparsedPublicKey;
use const_oid::{ObjectIdentifier, db};
use der::{Decode, Encode};

use super::{algorithm::SignatureAlgorithm, key_kind::KeyKind, oid::name_of};
use crate::{
    asn1::{BIT_STRING, DerError, OBJECT_IDENTIFIER, Reader, SEQUENCE, Value},
    hash::sha256,
    x509::Certificate,
};

/// Why a `SubjectPublicKeyInfo` is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpkiError {
    /// The encoding is wrong.
    #[error("{0}")]
    Malformed(String),
    /// The algorithm is not known.
    #[error("{0}")]
    Unsupported(String),
}

impl From<SpkiError> for String {
    fn from(error: SpkiError) -> String {
        error.to_string()
    }
}

/// A public key as X.509 carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// What kind of key it is.
    pub kind: KeyKind,
    /// The DER `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7).
    pub spki: Vec<u8>,
    /// The content of its `subjectPublicKey` BIT STRING: an EC point, an Ed25519 key or a DER `RSAPublicKey`.
    pub bits: Vec<u8>,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} key {}", self.kind, hex::encode(self.hash()))
    }
}

impl PublicKey {
    /// The key of a certificate.
    ///
    /// # Errors
    /// If it is of a kind that nothing here can use.
    pub(crate) fn of(certificate: &Certificate) -> Result<Self, SpkiError> {
        PublicKey::from_spki(&certificate.spki)
    }

    /// Reads a DER `SubjectPublicKeyInfo`. It says what the key is, not whether it is a good one.
    ///
    /// # Errors
    /// What is wrong with the encoding, or that the algorithm is not known.
    pub fn from_spki(spki: &[u8]) -> Result<Self, SpkiError> {
        let (algorithm, parameters, bits) = read_spki(spki)
            .map_err(|error| SpkiError::Malformed(format!("the SubjectPublicKeyInfo is not valid DER: {error}")))?;
        let unsupported = |what: String| Err(SpkiError::Unsupported(what));
        let is = |known: ObjectIdentifier| algorithm == known.as_bytes();
        let kind = if is(db::rfc5912::ID_EC_PUBLIC_KEY) {
            let Some(curve) = parameters.filter(|value| value.tag == OBJECT_IDENTIFIER) else {
                return unsupported("an elliptic curve without a name; use P-256, P-384 or P-521".into());
            };
            let known = [
                (db::rfc5912::SECP_256_R_1, KeyKind::P256),
                (db::rfc5912::SECP_384_R_1, KeyKind::P384),
                (db::rfc5912::SECP_521_R_1, KeyKind::P521),
            ];
            match known.iter().find(|(oid, _)| curve.content == oid.as_bytes()) {
                Some((_, kind)) => *kind,
                None => {
                    let curve = name_of(curve.content);
                    return unsupported(format!("the elliptic curve {curve}; use P-256, P-384 or P-521"));
                }
            }
        } else if is(db::rfc8410::ID_ED_25519) {
            KeyKind::Ed25519
        } else if is(db::rfc5912::RSA_ENCRYPTION) {
            let key = RsaPublicKey::from_der(bits);
            let key =
                key.map_err(|error| SpkiError::Malformed(format!("the RSAPublicKey is not valid DER: {error}")))?;
            KeyKind::Rsa { bits: key.bits() }
        } else {
            let algorithm = name_of(algorithm);
            return unsupported(format!("the key algorithm {algorithm}; use P-256, P-384, P-521, Ed25519 or RSA"));
        };
        Ok(PublicKey { kind, spki: spki.to_vec(), bits: bits.to_vec() })
    }

    /// SHA-256 of the DER `SubjectPublicKeyInfo`: how the ledger knows a key.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.spki)
    }

    /// The key identifier that certificates carry: the first 160 bits of SHA-256 of the key bits (RFC 7093 section 2,
    /// method 1).
    pub fn identifier(&self) -> [u8; 20] {
        let mut identifier = [0; 20];
        identifier.copy_from_slice(&sha256(&self.bits)[..20]);
        identifier
    }

    /// Whether `signature` (as a certificate's signatureValue carries it) is this key's over `message`.
    pub fn verifies(&self, algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(algorithm.verification(), &self.bits).verify(message, signature).is_ok()
    }
}

/// The algorithm's OID, its parameters, and the octets of the key.
type Spki<'a> = (&'a [u8], Option<Value<'a>>, &'a [u8]);

fn read_spki(spki: &[u8]) -> Result<Spki<'_>, DerError> {
    let mut reader = Reader::new(Value::only(spki)?.of(SEQUENCE)?);
    let mut algorithm = Reader::new(reader.expect(SEQUENCE)?);
    let bits = match reader.expect(BIT_STRING)?.split_first() {
        Some((0, bits)) => bits,
        _ => return Err(DerError::Content("BIT STRING: a key has whole octets")),
    };
    reader.finish()?;
    let oid = algorithm.expect(OBJECT_IDENTIFIER)?;
    let parameters = if algorithm.is_empty() { None } else { Some(algorithm.value()?) };
    algorithm.finish()?;
    Ok((oid, parameters, bits))
}

/// `RSAPublicKey` of RFC 8017 appendix A.1.1.
#[derive(der::Sequence)]
pub(crate) struct RsaPublicKey<'a> {
    /// n, big-endian.
    pub(crate) modulus: der::asn1::UintRef<'a>,
    /// e, big-endian.
    pub(crate) public_exponent: der::asn1::UintRef<'a>,
}

impl RsaPublicKey<'_> {
    /// The modulus' length in bits.
    pub(crate) fn bits(&self) -> u32 {
        let bytes = self.modulus.as_bytes();
        let leading = bytes.first().map_or(0, |byte| byte.leading_zeros());
        (bytes.len() as u32 * 8).saturating_sub(leading)
    }
}

/// Builds the DER `SubjectPublicKeyInfo` of an EC key from its curve and uncompressed point.
///
/// # Errors
/// If `point` is too long for DER.
pub(crate) fn ec_spki(curve: ObjectIdentifier, point: &[u8]) -> der::Result<Vec<u8>> {
    spki::SubjectPublicKeyInfo {
        algorithm: spki::AlgorithmIdentifier { oid: db::rfc5912::ID_EC_PUBLIC_KEY, parameters: Some(curve) },
        subject_public_key: der::asn1::BitStringRef::from_bytes(point)?,
    }
    .to_der()
}

/// Builds the DER `SubjectPublicKeyInfo` of an RSA key from its big-endian modulus and public exponent.
///
/// # Errors
/// If a number is empty or too long for DER.
pub(crate) fn rsa_spki(modulus: &[u8], public_exponent: &[u8]) -> der::Result<Vec<u8>> {
    let key = RsaPublicKey {
        modulus: der::asn1::UintRef::new(modulus)?,
        public_exponent: der::asn1::UintRef::new(public_exponent)?,
    }
    .to_der()?;
    spki::SubjectPublicKeyInfo {
        algorithm: spki::AlgorithmIdentifier { oid: db::rfc5912::RSA_ENCRYPTION, parameters: Some(der::asn1::Null) },
        subject_public_key: der::asn1::BitStringRef::from_bytes(&key)?,
    }
    .to_der()
}

/// The DER `SubjectPublicKeyInfo` of an Ed25519 key (RFC 8410 section 4).
pub(crate) fn ed25519_spki(key: &[u8]) -> Vec<u8> {
    [&[0x30, 42, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 33, 0], key].concat()
}
