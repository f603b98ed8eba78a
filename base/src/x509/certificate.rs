//! A certificate, taken apart, with all that is needed of it (RFC 5280 section 4.1).

use const_oid::ObjectIdentifier;

use super::name::Name;
use crate::{
    asn1::{DerError, INTEGER, Oid, RawExtension, Reader, SEQUENCE, Value, explicit},
    x509_time::Time,
};

/// A certificate, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    /// Where TBSCertificate lies in the DER.
    tbs: std::ops::Range<usize>,
    /// 0 is version 1, 2 is version 3.
    pub version: u8,
    /// The octets of the INTEGER.
    pub serial_number: Vec<u8>,
    /// The DER AlgorithmIdentifier in the signed part, and the one beside the signature.
    pub algorithms: [Vec<u8>; 2],
    /// Who issued it.
    pub issuer: Name,
    /// The first moment at which it is valid.
    pub not_before: Time,
    /// The last valid second.
    pub not_after: Time,
    /// The tags of both.
    pub time_types: [u8; 2],
    /// Whom it is for.
    pub subject: Name,
    /// The DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// In the order of the certificate.
    pub extensions: Vec<Extension>,
    /// The octets of the signature.
    pub signature: Vec<u8>,
}

/// An extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its type.
    pub oid: Oid,
    /// Whether whoever does not know it must refuse the certificate.
    pub critical: bool,
    /// DER.
    pub value: Vec<u8>,
}

impl Certificate {
    /// Takes a DER certificate apart.
    ///
    /// # Errors
    /// If it is not one.
    pub fn from_der(der: &[u8]) -> Result<Certificate, DerError> {
        let mut outer = Reader::new(Value::only(der)?.of(SEQUENCE)?);
        let tbs = outer.value()?;
        let algorithm = outer.value()?;
        algorithm.of(SEQUENCE)?;
        let signature = outer.bit_string()?;
        outer.finish()?;

        let mut reader = Reader::new(tbs.of(SEQUENCE)?);
        let version = match reader.optional(explicit(0))? {
            None => 0,
            Some(version) => match Value::only(version)?.of(INTEGER)? {
                [version @ 0..=2] => *version,
                _ => return Err(DerError::Content("version")),
            },
        };
        let serial_number = reader.expect(INTEGER)?;
        let signed_algorithm = reader.value()?;
        signed_algorithm.of(SEQUENCE)?;
        let issuer = Name::from_der(reader.value()?.whole)?;
        let mut validity = Reader::new(reader.expect(SEQUENCE)?);
        let times = [validity.value()?, validity.value()?];
        let [not_before, not_after] = [Time::read(times[0])?, Time::read(times[1])?];
        validity.finish()?;
        let subject = Name::from_der(reader.value()?.whole)?;
        let spki = reader.value()?;
        spki.of(SEQUENCE)?;
        // issuerUniqueID and subjectUniqueID.
        for number in [1, 2] {
            reader.optional(crate::asn1::implicit(number))?;
        }
        let extensions = match reader.optional(explicit(3))? {
            None => Vec::new(),
            Some(extensions) => read_extensions(Value::only(extensions)?.of(SEQUENCE)?)?,
        };
        reader.finish()?;
        let start = tbs.whole.as_ptr() as usize - der.as_ptr() as usize;
        Ok(Certificate {
            tbs: start..start + tbs.whole.len(),
            der: der.to_vec(),
            version,
            serial_number: serial_number.to_vec(),
            algorithms: [signed_algorithm.whole.to_vec(), algorithm.whole.to_vec()],
            issuer,
            not_before,
            not_after,
            time_types: times.map(|time| time.tag),
            subject,
            spki: spki.whole.to_vec(),
            extensions,
            signature: signature.to_vec(),
        })
    }

    /// The whole certificate.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// What is signed.
    pub fn tbs(&self) -> &[u8] {
        self.der.get(self.tbs.clone()).unwrap_or_default()
    }

    /// The first moment at which it is valid.
    pub fn not_before(&self) -> Time {
        self.not_before
    }

    /// Its end, the last valid second.
    pub fn not_after(&self) -> Time {
        self.not_after
    }

    /// Its subject.
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// The first extension of this type.
    pub fn extension(&self, oid: ObjectIdentifier) -> Option<&Extension> {
        self.extensions.iter().find(|extension| extension.oid == oid)
    }

    /// Whether issuer and subject are the same (RFC 5280 section 3.2).
    pub fn is_self_issued(&self) -> bool {
        self.issuer.as_der() == self.subject.as_der()
    }
}

fn read_extensions(octets: &[u8]) -> Result<Vec<Extension>, DerError> {
    let mut reader = Reader::new(octets);
    let mut extensions = Vec::new();
    while !reader.is_empty() {
        let RawExtension { oid, critical, value } = reader.extension()?;
        extensions.push(Extension { oid, critical, value: value.to_vec() });
    }
    Ok(extensions)
}
