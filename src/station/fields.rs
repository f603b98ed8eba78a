//! The few fields of CSRs and certificates that a station looks at.
//!
//! On purpose it looks at nothing else: whether a CSR is a good one is the daemon's judgement alone.

use der::{Decode, Reader, SliceReader, Tagged, asn1::AnyRef};

/// Octets that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FieldsError {
    /// This number of octets that are no CSR.
    #[error("{0} bytes that are no PKCS#10 CSR, neither PEM nor DER")]
    NotCsr(usize),
    /// They are no certificate.
    #[error("not a certificate: {0}")]
    NotCertificate(#[from] der::Error),
}

/// The DER `SubjectPublicKeyInfo` of a DER `CertificationRequest` (RFC 2986 section 4).
pub(super) fn csr_key(csr: &[u8]) -> Result<&[u8], FieldsError> {
    // version, subject, subjectPKInfo, attributes
    Fields::read(csr).and_then(|fields| fields.get(2)).map_err(|_| FieldsError::NotCsr(csr.len()))
}

/// The DER `SubjectPublicKeyInfo` of a DER `Certificate` (RFC 5280 section 4.1).
pub(super) fn certificate_key(certificate: &[u8]) -> Result<&[u8], FieldsError> {
    // version, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, extensions
    Ok(Fields::read(certificate)?.get(6)?)
}

/// The content octets of the serial number of a DER `Certificate`.
pub(super) fn serial_number(certificate: &[u8]) -> Result<&[u8], FieldsError> {
    Ok(AnyRef::from_der(Fields::read(certificate)?.get(1)?)?.value())
}

/// Whether a DER `Certificate` names itself as its issuer, as a root does.
pub(super) fn is_self_issued(certificate: &[u8]) -> bool {
    let names = Fields::read(certificate).and_then(|fields| Ok((fields.get(3)?, fields.get(5)?)));
    names.is_ok_and(|(issuer, subject)| issuer == subject)
}

/// Whether a DER `Certificate` says of itself that it is a CA's (RFC 5280 section 4.2.1.9).
pub(super) fn is_ca(certificate: &[u8]) -> bool {
    use x509_cert::ext::pkix::BasicConstraints;
    let certificate = x509_cert::Certificate::from_der(certificate);
    let constraints = certificate.and_then(|certificate| {
        certificate.tbs_certificate().get_extension::<BasicConstraints>().map(|found| found.map(|(_, value)| value))
    });
    constraints.is_ok_and(|constraints| constraints.is_some_and(|constraints| constraints.ca))
}

/// The fields of the signed inner SEQUENCE of a CSR or certificate, each with tag and length.
struct Fields<'a>(Vec<&'a [u8]>);

impl<'a> Fields<'a> {
    fn read(signed: &'a [u8]) -> der::Result<Self> {
        let outer = AnyRef::from_der(signed)?;
        outer.tag().assert_eq(der::Tag::Sequence)?;
        let inner: AnyRef<'a> = SliceReader::new(outer.value())?.decode()?;
        inner.tag().assert_eq(der::Tag::Sequence)?;
        let mut reader = SliceReader::new(inner.value())?;
        let mut fields = Vec::with_capacity(8);
        while !reader.is_finished() {
            fields.push(reader.tlv_bytes()?);
        }
        Ok(Fields(fields))
    }

    fn get(&self, index: usize) -> der::Result<&'a [u8]> {
        let field = self.0.get(index).copied();
        field.ok_or_else(|| {
            der::ErrorKind::Incomplete { expected_len: der::Length::ONE, actual_len: der::Length::ZERO }.into()
        })
    }
}
