//! What a signature is, apart from who makes it: algorithms, public keys, verification, and the trait that the HSM
//! pool implements.

mod algorithm;
mod fixed_key;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use aws_lc_rs::signature::{ParsedPublicKey, UnparsedPublicKey};
use const_oid::{ObjectIdentifier, db};
use der::{Decode, Encode};
use spki::SubjectPublicKeyInfoRef;

pub use self::algorithm::{Sha2, SignatureAlgorithm, verification_algorithm};
use self::fixed_key::FixedKey;

/// The kind of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on NIST P-256 (secp256r1).
    P256,
    /// ECDSA on NIST P-384 (secp384r1).
    P384,
    /// ECDSA on NIST P-521 (secp521r1).
    P521,
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// RSA with a modulus of so many bits.
    Rsa {
        /// The modulus' length in bits.
        bits: u32,
    },
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyKind::P256 => f.write_str("P-256"),
            KeyKind::P384 => f.write_str("P-384"),
            KeyKind::P521 => f.write_str("P-521"),
            KeyKind::Ed25519 => f.write_str("Ed25519"),
            KeyKind::Rsa { bits } => write!(f, "RSA-{bits}"),
        }
    }
}

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
    /// Reads a DER `SubjectPublicKeyInfo`. It says what the key is, not whether it is a good one.
    ///
    /// # Errors
    /// What is wrong with the encoding, or that the algorithm is not known.
    pub fn from_spki(spki: &[u8]) -> Result<Self, SpkiError> {
        let malformed =
            |what: &str, error: der::Error| SpkiError::Malformed(format!("the {what} is not valid DER: {error}"));
        let parsed =
            SubjectPublicKeyInfoRef::from_der(spki).map_err(|error| malformed("SubjectPublicKeyInfo", error))?;
        let bits = parsed.subject_public_key.as_bytes();
        let bits = bits.ok_or_else(|| SpkiError::Malformed("the public key's BIT STRING has unused bits".into()))?;
        let unsupported = |what: String| Err(SpkiError::Unsupported(what));
        let kind = match parsed.algorithm.oid {
            db::rfc5912::ID_EC_PUBLIC_KEY => match parsed.algorithm.parameters_oid() {
                Ok(db::rfc5912::SECP_256_R_1) => KeyKind::P256,
                Ok(db::rfc5912::SECP_384_R_1) => KeyKind::P384,
                Ok(db::rfc5912::SECP_521_R_1) => KeyKind::P521,
                Ok(other) => return unsupported(format!("the elliptic curve {other}; use P-256, P-384 or P-521")),
                Err(_) => return unsupported("an elliptic curve without a name; use P-256, P-384 or P-521".into()),
            },
            db::rfc8410::ID_ED_25519 => KeyKind::Ed25519,
            db::rfc5912::RSA_ENCRYPTION => {
                let key = RsaPublicKey::from_der(bits).map_err(|error| malformed("RSAPublicKey", error))?;
                KeyKind::Rsa { bits: key.bits() }
            }
            other => {
                return unsupported(format!("the key algorithm {other}; use P-256, P-384, P-521, Ed25519 or RSA"));
            }
        };
        Ok(PublicKey { kind, spki: spki.to_vec(), bits: bits.to_vec() })
    }

    /// Reads the PEM file of one.
    ///
    /// # Errors
    /// What is wrong with it, without the file's name.
    pub fn read(path: &std::path::Path) -> Result<Self, String> {
        let text = crate::text_file::read(path, crate::text_file::LONGEST).map_err(|error| error.to_string())?;
        let pem = pem::parse(text).map_err(|error| error.to_string())?;
        if pem.tag() != "PUBLIC KEY" {
            return Err(format!("it is a {}, not a PUBLIC KEY", pem.tag()));
        }
        PublicKey::from_spki(pem.contents()).map_err(|error| error.to_string())
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

/// A public key that is ready to verify signatures of one algorithm, for whoever has many of them.
#[derive(Debug)]
pub struct Verifier {
    usual: ParsedPublicKey,
    /// For ECDSA on P-256: three times as fast.
    fixed: Option<FixedKey>,
}

impl Verifier {
    /// Prepares for `key`'s signatures, which takes some milliseconds. `None` if the key is not a valid one of the
    /// algorithm.
    pub fn new(key: &PublicKey, algorithm: SignatureAlgorithm) -> Option<Self> {
        let usual = ParsedPublicKey::new(algorithm.verification(), &key.bits).ok()?;
        let fixed = match algorithm {
            SignatureAlgorithm::EcdsaP256Sha256 => FixedKey::new(&key.bits),
            _ => None,
        };
        Some(Verifier { usual, fixed })
    }

    /// What the fast way refuses is judged again by the usual one, which has the last word.
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.fixed.as_ref().is_some_and(|key| key.verifies(message, signature))
            || self.usual.verify_sig(message, signature).is_ok()
    }
}

/// SHA-256.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// `RSAPublicKey` of RFC 8017 appendix A.1.1.
#[derive(der::Sequence)]
pub struct RsaPublicKey<'a> {
    /// n, big-endian.
    pub modulus: der::asn1::UintRef<'a>,
    /// e, big-endian.
    pub public_exponent: der::asn1::UintRef<'a>,
}

impl RsaPublicKey<'_> {
    /// The modulus' length in bits.
    pub fn bits(&self) -> u32 {
        let bytes = self.modulus.as_bytes();
        let leading = bytes.first().map_or(0, |byte| byte.leading_zeros());
        (bytes.len() as u32 * 8).saturating_sub(leading)
    }
}

/// Builds the DER `SubjectPublicKeyInfo` of an EC key from its curve and uncompressed point.
///
/// # Errors
/// If `point` is too long for DER.
pub fn ec_spki(curve: ObjectIdentifier, point: &[u8]) -> der::Result<Vec<u8>> {
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
pub fn rsa_spki(modulus: &[u8], public_exponent: &[u8]) -> der::Result<Vec<u8>> {
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
pub fn ed25519_spki(key: &[u8]) -> Vec<u8> {
    [&[0x30, 42, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 33, 0], key].concat()
}

/// A signature that was checked with the public key of whom it is said to be by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature(Vec<u8>);

impl Signature {
    /// Checks `octets`, as a certificate's signatureValue carries them. `None` if they are not the key's signature.
    pub fn check(key: &Verifier, message: &[u8], octets: Vec<u8>) -> Option<Self> {
        key.verifies(message, &octets).then_some(Signature(octets))
    }

    /// As a certificate's signatureValue carries it: a DER `Ecdsa-Sig-Value` (RFC 3279 section 2.2.3) or the RSA
    /// signature's octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same octets.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Why a message could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The HSM cannot sign now; the same request may succeed later.
    #[error("the HSM is not available: {reason}")]
    Unavailable {
        /// What the HSM said, for the log.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
}

/// A signer without a key: for those who only look at what would be signed.
#[derive(Debug)]
pub struct Absent(pub SignatureAlgorithm);

impl Signer for Absent {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.0
    }

    fn sign(&self, _: Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Signature, SignError>> + Send + '_>> {
        let reason = "there is no key here".into();
        Box::pin(std::future::ready(Err(SignError::Unavailable { reason, retry_after: Duration::ZERO })))
    }
}

/// Something that signs with one private key and never shows it.
pub trait Signer: Send + Sync + 'static {
    /// The algorithm of its signatures.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// Signs `message`, and checks the signature: the signer is the one who can do something about a wrong one. Waits
    /// while the signer's bounded queue is full.
    fn sign(&self, message: Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Signature, SignError>> + Send + '_>>;
}
