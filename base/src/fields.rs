//! The few fields of CSRs and certificates that a station looks at.
//!
//! On purpose it looks at nothing else: whether a CSR is a good one is the daemon's judgement alone.

use crate::{
    asn1::{DerError, Reader, SEQUENCE, Value},
    x509::Certificate,
};

/// Octets that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// This number of octets that are no CSR.
    #[error("{0} bytes that are no PKCS#10 CSR, neither PEM nor DER")]
    NotCsr(usize),
    /// They are no certificate.
    #[error("not a certificate: {0}")]
    NotCertificate(#[from] DerError),
}

/// The DER `SubjectPublicKeyInfo` of a DER `CertificationRequest` (RFC 2986 section 4).
///
/// # Errors
/// [`FieldsError::NotCsr`].
pub fn csr_key(csr: &[u8]) -> Result<&[u8], FieldsError> {
    // version, subject, subjectPKInfo, attributes
    field(csr, 2).map(|key| key.whole).map_err(|_| FieldsError::NotCsr(csr.len()))
}

/// The DER `SubjectPublicKeyInfo` of a DER `Certificate` (RFC 5280 section 4.1).
///
/// # Errors
/// [`FieldsError::NotCertificate`].
pub fn certificate_key(certificate: &[u8]) -> Result<&[u8], FieldsError> {
    // version, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, extensions
    Ok(field(certificate, 6)?.whole)
}

/// The content octets of the serial number of a DER `Certificate`.
///
/// # Errors
/// [`FieldsError::NotCertificate`].
pub fn serial_number(certificate: &[u8]) -> Result<&[u8], FieldsError> {
    Ok(field(certificate, 1)?.content)
}

/// Whether a DER `Certificate` names itself as its issuer, as a root does.
pub fn is_self_issued(certificate: &[u8]) -> bool {
    match (field(certificate, 3), field(certificate, 5)) {
        (Ok(issuer), Ok(subject)) => issuer == subject,
        _ => false,
    }
}

/// Whether a DER `Certificate` says of itself that it is a CA's (RFC 5280 section 4.2.1.9).
pub fn is_ca(certificate: &[u8]) -> bool {
    let constraints = Certificate::from_der(certificate).and_then(|certificate| certificate.basic_constraints());
    constraints.is_ok_and(|constraints| constraints.is_some_and(|constraints| constraints.ca))
}

/// A field of the signed inner SEQUENCE of a CSR or certificate.
fn field(signed: &[u8], index: usize) -> Result<Value<'_>, DerError> {
    let mut outer = Reader::new(Value::only(signed)?.of(SEQUENCE)?);
    let mut reader = Reader::new(outer.expect(SEQUENCE)?);
    for _ in 0..index {
        reader.value()?;
    }
    reader.value()
}
