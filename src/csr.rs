//! PKCS#10 certificate signing requests (RFC 2986): parsing, proof of possession, key quality.
//!
//! Of a CSR only the public key, the proof that its sender has the private key, and the subject's CN and serialNumber
//! are taken. What it asks for in its attributes is not even read.

mod key_quality;
mod refused_keys;
#[cfg(test)]
mod wycheproof;

use aws_lc_rs::signature::ParsedPublicKey;
use const_oid::{ObjectIdentifier, db};
use der::{
    AnyRef, Decode, Reader, SliceReader, Tag, TagNumber,
    asn1::{BitStringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef},
};
use spki::AlgorithmIdentifierRef;
use x509_cert::name::Name;

pub use self::refused_keys::RefusedKeys;
use crate::signer::{PublicKey, SpkiError, verification_algorithm};

/// The largest CSR, in bytes, DER or PEM.
pub const MAX_LENGTH: usize = 16 * 1024;

/// A CSR whose sender has the private key, and whose key is good.
#[derive(Debug)]
pub struct VerifiedCsr {
    public_key: PublicKey,
    common_name: Option<String>,
    serial_number: Option<String>,
}

impl VerifiedCsr {
    /// The public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The public key, for the certificate.
    pub fn into_public_key(self) -> PublicKey {
        self.public_key
    }

    /// The subject's CN, if it has exactly one.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// The subject's serialNumber, if it has exactly one.
    pub fn serial_number(&self) -> Option<&str> {
        self.serial_number.as_deref()
    }
}

/// Why a CSR is refused. Each message names the rule and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It is not a PKCS#10 request.
    #[error("the CSR is malformed: {0}")]
    Malformed(String),
    /// Its signature is not by its own key.
    #[error(
        "the CSR's signature does not verify with the public key that it contains: the sender does not have the private key, or the CSR was changed"
    )]
    ProofOfPossession,
    /// Its key is weak.
    #[error("the CSR's key is refused: {0}")]
    KeyWeak(String),
    /// Its key or signature algorithm is not supported.
    #[error("the CSR is not supported: {0}")]
    KeyUnsupported(String),
}

/// What is too long is not even kept until it is looked at.
///
/// # Errors
/// If it is longer than [`MAX_LENGTH`].
pub(crate) fn check_size(csr: &[u8]) -> Result<(), CsrError> {
    if csr.len() > MAX_LENGTH {
        return Err(CsrError::Malformed(format!("it has {} bytes; at most {MAX_LENGTH} are allowed", csr.len())));
    }
    Ok(())
}

/// Parses a CSR, DER or PEM, and verifies everything that it can prove by itself, and that its key is none of `refused`.
///
/// # Errors
/// The first rule that it breaks.
pub fn verify(csr: &[u8], refused: &RefusedKeys) -> Result<VerifiedCsr, CsrError> {
    check_size(csr)?;
    let unarmoured;
    let der = match csr.first() {
        None => return Err(CsrError::Malformed("it is empty".into())),
        // The tag of a SEQUENCE; no PEM begins with the digit 0.
        Some(0x30) => csr,
        Some(_) => {
            unarmoured = from_pem(csr)?;
            &unarmoured
        }
    };
    let request = Request::parse(der).map_err(|error| CsrError::Malformed(format!("it is not valid DER: {error}")))?;
    if request.version != 0 {
        let version = u32::from(request.version) + 1;
        return Err(CsrError::Malformed(format!("it has version {version}; PKCS#10 knows version 1 only")));
    }
    let public_key = PublicKey::from_spki(request.public_key).map_err(|error| match error {
        SpkiError::Malformed(what) => CsrError::Malformed(what),
        SpkiError::Unsupported(what) => CsrError::KeyUnsupported(what),
    })?;
    key_quality::check(&public_key)?;
    refused.check(&public_key)?;
    prove_possession(&public_key, &request.algorithm, request.info, request.signature)?;
    let subject = Name::from_der(request.subject)
        .map_err(|error| CsrError::Malformed(format!("its subject is not valid DER: {error}")))?;
    let common_name = only(&subject, db::rfc4519::CN);
    let serial_number = only(&subject, db::rfc4519::SERIAL_NUMBER);
    Ok(VerifiedCsr { public_key, common_name, serial_number })
}

/// Verifies that `signature` over `message` was made by the private half of `key`.
fn prove_possession(
    key: &PublicKey,
    algorithm: &AlgorithmIdentifierRef<'_>,
    message: &[u8],
    signature: &[u8],
) -> Result<(), CsrError> {
    let algorithm = verification_algorithm(key.kind, algorithm).map_err(CsrError::KeyUnsupported)?;
    // Refuses, among others, EC points that are not on their curve or at infinity.
    let parsed = ParsedPublicKey::new(algorithm, &key.bits)
        .map_err(|_| CsrError::KeyWeak(format!("it is not a valid {} key", key.kind)))?;
    parsed.verify_sig(message, signature).map_err(|_| CsrError::ProofOfPossession)
}

fn from_pem(text: &[u8]) -> Result<Vec<u8>, CsrError> {
    let malformed = |what: String| CsrError::Malformed(what);
    // PEM may have text around it, but it is text.
    if text.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace()) {
        return Err(malformed("it is neither DER (which begins with the byte 0x30) nor text".into()));
    }
    let blocks = pem::parse_many(text).map_err(|error| malformed(format!("it is neither DER nor PEM: {error}")))?;
    let [block] = blocks.as_slice() else {
        return Err(malformed(match blocks.len() {
            0 => "it is neither DER (which begins with the byte 0x30) nor PEM".into(),
            several => format!("it holds {several} PEM blocks; send one CSR a request"),
        }));
    };
    match block.tag() {
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Ok(block.contents().to_vec()),
        other => Err(malformed(format!("it is a PEM block of \"{other}\", not of \"CERTIFICATE REQUEST\""))),
    }
}

/// The parts of a CertificationRequest, as they stand in the DER.
struct Request<'a> {
    /// The whole CertificationRequestInfo: what is signed.
    info: &'a [u8],
    version: u8,
    subject: &'a [u8],
    public_key: &'a [u8],
    algorithm: AlgorithmIdentifierRef<'a>,
    signature: &'a [u8],
}

impl<'a> Request<'a> {
    fn parse(der: &'a [u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(der)?;
        let request = reader.sequence(|request| -> der::Result<Self> {
            let info = request.tlv_bytes()?;
            let algorithm = AlgorithmIdentifierRef::decode(request)?;
            let signature = BitStringRef::decode(request)?;
            let signature = signature.as_bytes().ok_or_else(|| Tag::BitString.value_error())?;
            let mut reader = SliceReader::new(info)?;
            let (version, subject, public_key) = reader.sequence(|info| -> der::Result<_> {
                let version = u8::decode(info)?;
                let subject = info.tlv_bytes()?;
                let public_key = info.tlv_bytes()?;
                // The attributes must be there and whole, whatever they ask for. Some programs leave an empty set out.
                if !info.is_finished() {
                    let attributes = AnyRef::decode(info)?;
                    let expected = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };
                    der::Tagged::tag(&attributes).assert_eq(expected)?;
                }
                Ok((version, subject, public_key))
            })?;
            reader.finish()?;
            Ok(Request { info, version, subject, public_key, algorithm, signature })
        })?;
        reader.finish()?;
        Ok(request)
    }
}

/// The value of an attribute, if there is exactly one of its type and it is text.
fn only(name: &Name, oid: ObjectIdentifier) -> Option<String> {
    let mut found = name.iter().filter(|attribute| attribute.oid == oid);
    let (Some(attribute), None) = (found.next(), found.next()) else { return None };
    let value = AnyRef::from(&attribute.value);
    match der::Tagged::tag(&value) {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str().to_owned()),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok().map(|text| text.as_str().to_owned()),
        Tag::TeletexString => value.decode_as::<TeletexStringRef<'_>>().ok().map(|text| text.as_str().to_owned()),
        _ => None,
    }
}
