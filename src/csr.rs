//! PKCS#10 certificate signing requests (RFC 2986): parsing, proof of possession, key quality.
//!
//! Of a CSR only the public key, the proof that its sender has the private key, and the subject's CN and serialNumber
//! are taken (invariant 8). The attributes, where extensions are requested, are checked for their form and ignored.

mod error;
mod key_quality;
mod refused_keys;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wycheproof;

use std::borrow::Cow;

use const_oid::{ObjectIdentifier, db};

pub use self::{
    error::{CsrError, NoText},
    refused_keys::{BlockListError, RefusedKeys},
};
pub use birthmark_base::csr::MAX_LENGTH;

use birthmark_base::csr::from_pem;

use crate::{
    asn1::{DerError, INTEGER, OBJECT_IDENTIFIER, Reader, SEQUENCE, SET, Value, explicit},
    pem::is_der,
    signer::{self, PublicKey, SpkiError, VerifyError},
    x509::{Name, text_of},
};

/// A CSR whose sender has the private key, and whose key is good.
#[derive(Clone, Debug)]
pub struct VerifiedCsr {
    public_key: PublicKey,
    /// The DER Name, unchecked: a profile that does not compare it must not refuse it.
    subject: Vec<u8>,
}

impl VerifiedCsr {
    /// The public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The public key alone.
    pub(crate) fn into_public_key(self) -> PublicKey {
        self.public_key
    }

    /// The subject.
    ///
    /// # Errors
    /// If it is not a Name.
    pub(crate) fn subject(&self) -> Result<Name, DerError> {
        Name::from_der(&self.subject)
    }

    /// The subject's CN.
    ///
    /// # Errors
    /// Why there is none to compare.
    pub fn common_name(&self) -> Result<Cow<'_, str>, NoText> {
        only(&self.subject, db::rfc4519::CN)
    }

    /// The subject's serialNumber.
    ///
    /// # Errors
    /// Why there is none to compare.
    pub fn serial_number(&self) -> Result<Cow<'_, str>, NoText> {
        only(&self.subject, db::rfc4519::SERIAL_NUMBER)
    }
}

/// Checked before a CSR waits for its turn, so that nothing too long is kept.
///
/// # Errors
/// If it is longer than [`MAX_LENGTH`].
pub(crate) fn check_size(csr: &[u8]) -> Result<(), CsrError> {
    if csr.len() > MAX_LENGTH {
        return Err(CsrError::Malformed(format!("it has {} bytes; at most {MAX_LENGTH} are allowed", csr.len())));
    }
    Ok(())
}

/// Parses a CSR, DER or PEM, and verifies everything that it can prove by itself, and that its key is none of
/// `refused`.
///
/// # Errors
/// The first rule that it breaks.
pub fn verify(csr: &[u8], refused: &RefusedKeys) -> Result<VerifiedCsr, CsrError> {
    check_size(csr)?;
    let unarmoured;
    let der = if is_der(csr) {
        csr
    } else {
        unarmoured = from_pem(csr)?;
        &unarmoured
    };
    let request = Request::parse(der).map_err(|error| CsrError::Malformed(format!("it is not valid DER: {error}")))?;
    if request.version != [0] {
        let version = hex::encode(request.version.get(..8).unwrap_or(request.version));
        return Err(CsrError::Malformed(format!("it has the version 0x{version}; PKCS#10 knows only 0, version 1")));
    }
    let public_key = PublicKey::from_spki(request.public_key).map_err(|error| match error {
        SpkiError::Malformed(what) => CsrError::Malformed(what),
        SpkiError::Unsupported(what) => CsrError::KeyUnsupported(what),
    })?;
    key_quality::check(&public_key)?;
    refused.check(&public_key)?;
    prove_possession(&public_key, request.algorithm, request.info, request.signature)?;
    Ok(VerifiedCsr { public_key, subject: request.subject.to_vec() })
}

/// Verifies that `signature` over `message` was made by the private half of `key`. `algorithm` is a DER
/// AlgorithmIdentifier.
fn prove_possession(key: &PublicKey, algorithm: &[u8], message: &[u8], signature: &[u8]) -> Result<(), CsrError> {
    signer::verify(key, algorithm, message, signature).map_err(|error| match error {
        VerifyError::Unsupported(what) => CsrError::SignatureUnsupported(what),
        VerifyError::Key(_) => CsrError::KeyWeak(error.to_string()),
        VerifyError::Encoding(what) => CsrError::SignatureEncoding(what),
        VerifyError::Wrong => CsrError::ProofOfPossession,
    })
}

/// The parts of a CertificationRequest (RFC 2986 section 4), as they stand in the DER.
struct Request<'a> {
    /// The whole CertificationRequestInfo: what is signed.
    info: &'a [u8],
    /// The octets of the INTEGER.
    version: &'a [u8],
    /// The whole Name.
    subject: &'a [u8],
    public_key: &'a [u8],
    /// The whole AlgorithmIdentifier.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Request<'a> {
    fn parse(der: &'a [u8]) -> Result<Self, DerError> {
        let mut request = Reader::new(Value::only(der)?.of(SEQUENCE)?);
        let info = request.value()?;
        let algorithm = request.value()?.whole;
        let signature = request.bit_string()?;
        request.finish()?;
        let mut reader = Reader::new(info.of(SEQUENCE)?);
        let version = reader.expect(INTEGER)?;
        let subject = reader.value()?;
        subject.of(SEQUENCE)?;
        let public_key = reader.value()?.whole;
        // Some programs leave an empty set of attributes out.
        if let Some(attributes) = reader.optional(explicit(0))? {
            check_attributes(attributes)?;
        }
        reader.finish()?;
        Ok(Request { info: info.whole, version, subject: subject.whole, public_key, algorithm, signature })
    }
}

/// Checks that attributes are attributes, whatever they ask for: SEQUENCE { type, SET OF value }.
fn check_attributes(attributes: &[u8]) -> Result<(), DerError> {
    let mut reader = Reader::new(attributes);
    while !reader.is_empty() {
        let mut attribute = Reader::new(reader.expect(SEQUENCE)?);
        attribute.expect(OBJECT_IDENTIFIER)?;
        let mut values = Reader::new(attribute.expect(SET)?);
        while !values.is_empty() {
            values.value()?;
        }
        attribute.finish()?;
    }
    Ok(())
}

/// The text of the only attribute of a type in a DER Name.
fn only(subject: &[u8], oid: ObjectIdentifier) -> Result<Cow<'_, str>, NoText> {
    let mut found = None;
    let mut rdns = Reader::new(Value::only(subject).and_then(|name| name.of(SEQUENCE)).map_err(NoText::Malformed)?);
    while !rdns.is_empty() {
        let mut rdn = Reader::new(rdns.expect(SET).map_err(NoText::Malformed)?);
        while !rdn.is_empty() {
            let mut attribute = Reader::new(rdn.expect(SEQUENCE).map_err(NoText::Malformed)?);
            let this = attribute.expect(OBJECT_IDENTIFIER).map_err(NoText::Malformed)? == oid.as_bytes();
            let value = attribute.value().map_err(NoText::Malformed)?;
            if this && found.replace(value).is_some() {
                return Err(NoText::Several);
            }
        }
    }
    let value = found.ok_or(NoText::Absent)?;
    text_of(value.tag, value.content).ok_or(NoText::NotText(value.tag))
}
