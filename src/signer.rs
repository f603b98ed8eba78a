//! What a signature is, apart from who makes it: algorithms, public keys, verification, and the trait that the HSM
//! pool implements.

mod algorithm;
mod fixed_key;
mod verification;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::signature::{ParsedPublicKey, UnparsedPublicKey};
use const_oid::{ObjectIdentifier, db};
use der::{Decode, Encode};

pub use self::algorithm::{Sha2, SignatureAlgorithm};
use self::fixed_key::FixedKey;
pub(crate) use self::verification::{VerifyError, verify};
use crate::asn1::{BIT_STRING, DerError, OBJECT_IDENTIFIER, Reader, SEQUENCE, Value};

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
                    let curve = verification::name_of(curve.content);
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
            let algorithm = verification::name_of(algorithm);
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

/// A public key that is ready to verify many signatures of one algorithm.
#[derive(Debug)]
pub struct Verifier {
    usual: ParsedPublicKey,
    /// For ECDSA on P-256: three times as fast.
    fixed: Option<FixedKey>,
    /// Signatures that `fixed` accepted; wraps around.
    accepted: AtomicU32,
}

/// One acceptance by [`FixedKey`] in this many, the first included, is verified again by aws-lc.
const CROSS_CHECK_EVERY: u32 = 1024;

impl Verifier {
    /// Prepares for `key`'s signatures, which takes some milliseconds. `None` if the key is not a valid one of the
    /// algorithm.
    pub fn new(key: &PublicKey, algorithm: SignatureAlgorithm) -> Option<Self> {
        let usual = ParsedPublicKey::new(algorithm.verification(), &key.bits).ok()?;
        let fixed = match algorithm {
            SignatureAlgorithm::EcdsaP256Sha256 => FixedKey::new(&key.bits),
            _ => None,
        };
        Some(Verifier { usual, fixed, accepted: AtomicU32::new(0) })
    }

    /// What [`FixedKey`] refuses, and one in [`CROSS_CHECK_EVERY`] of what it accepts, is verified by aws-lc, whose
    /// verdict counts.
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let accepted = self.fixed.as_ref().is_some_and(|key| key.verifies(message, signature));
        if accepted && !self.accepted.fetch_add(1, Ordering::Relaxed).is_multiple_of(CROSS_CHECK_EVERY) {
            return true;
        }
        let valid = self.usual.verify_sig(message, signature).is_ok();
        if accepted && !valid {
            end_after_wrong_acceptance(signature);
        }
        valid
    }
}

/// A verification that accepts what is not valid must not let another certificate out, and cannot tell which of those
/// since the last cross-check were valid: the process ends at once, and the log says what to do.
fn end_after_wrong_acceptance(signature: &[u8]) -> ! {
    tracing::error!(
        signature = hex::encode(signature),
        "the fast ECDSA verification accepted a signature that aws-lc refuses: memory or program is faulty; the daemon \
         ends. Verify the newest {CROSS_CHECK_EVERY} certificates with another program before they are used"
    );
    std::process::abort()
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

/// A signature that was verified with the claimed signer's public key.
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

impl Absent {
    fn unavailable() -> SignError {
        SignError::Unavailable { reason: "there is no key here".into(), retry_after: Duration::ZERO }
    }
}

impl Signer for Absent {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.0
    }

    fn sign(&self, _: Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Signature, SignError>> + Send + '_>> {
        Box::pin(std::future::ready(Err(Absent::unavailable())))
    }

    fn can_sign(&self) -> bool {
        false
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = Result<(), SignError>> + Send + '_>> {
        Box::pin(std::future::ready(Err(Absent::unavailable())))
    }
}

/// Something that signs with one private key and never shows it.
pub trait Signer: Send + Sync + 'static {
    /// The algorithm of its signatures.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// How many messages it signs at once.
    fn sessions(&self) -> usize {
        1
    }

    /// Signs `message`, and checks the signature: the signer is the one who can do something about a wrong one. Waits
    /// while the signer's bounded queue is full.
    fn sign(&self, message: Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Signature, SignError>> + Send + '_>>;

    /// Whether it signs now, as far as is known without asking it: whoever reserves something for a signature looks
    /// before.
    fn can_sign(&self) -> bool;

    /// Waits for the end of an outage, for as long as [`Signer::sign`] would.
    ///
    /// # Errors
    /// Why there is no signature to be had now.
    fn ready(&self) -> Pin<Box<dyn Future<Output = Result<(), SignError>> + Send + '_>>;
}

/// A token of an HSM, as its operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenState {
    /// Whose key it signs with: an issuer's name, or `audit`.
    pub signer: String,
    /// What the configuration calls it.
    pub token: String,
    /// How many sessions sign.
    pub sessions: usize,
    /// Why it does not sign; empty if it does.
    pub reason: String,
}

/// A signer that may be out until a person has seen to it, and has to be told when that was done.
pub trait Recoverable: Send + Sync + 'static {
    /// Tries every token that is out once more, now, those too whose login was refused: the PIN is read again. Gives
    /// what came of it, for every token. `same_pin` says that a PIN which was refused is right now.
    fn retry(self: Arc<Self>, same_pin: bool) -> Pin<Box<dyn Future<Output = Vec<TokenState>> + Send>>;
}
