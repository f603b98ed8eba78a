//! Reads a list, of whoever made it, as the octets that came.

use std::ops::Range;

use const_oid::{
    ObjectIdentifier,
    db::rfc5280::{ID_CE_CRL_NUMBER, ID_CE_CRL_REASONS},
};

use crate::{
    asn1::{
        DerError, ENUMERATED, GENERALIZED_TIME, INTEGER, RawExtension, Reader, SEQUENCE, UTC_TIME, Value, explicit,
    },
    signer::{self, PublicKey, VerifyError},
    x509::Name,
    x509_time::Time,
};

/// A CertificateList (section 5.1), taken apart.
#[derive(Clone, Debug)]
pub struct RevocationList {
    der: Vec<u8>,
    /// Where TBSCertList and the content of revokedCertificates lie in `der`.
    tbs: Range<usize>,
    revoked: Range<usize>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
    issuer: Name,
    this_update: Time,
    next_update: Option<Time>,
    number: Option<u64>,
    entries: usize,
}

/// A certificate on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedEntry {
    /// The content octets of the serial number's INTEGER.
    pub serial_number: Vec<u8>,
    /// From when on it is not to be trusted.
    pub at: Time,
    /// CRLReason (section 5.3.1), if it says one.
    pub reason: Option<u8>,
}

impl RevocationList {
    /// Takes a DER list apart, every entry of it.
    ///
    /// # Errors
    /// If it is not one.
    pub fn from_der(der: Vec<u8>) -> Result<RevocationList, DerError> {
        let place = |part: &[u8]| {
            let start = part.as_ptr() as usize - der.as_ptr() as usize;
            start..start + part.len()
        };
        let mut outer = Reader::new(Value::only(&der)?.of(SEQUENCE)?);
        let tbs = outer.value()?;
        let algorithm = outer.value()?;
        algorithm.of(SEQUENCE)?;
        let signature = outer.bit_string()?.to_vec();
        outer.finish()?;

        let mut reader = Reader::new(tbs.of(SEQUENCE)?);
        if !matches!(reader.optional(INTEGER)?, None | Some([0 | 1])) {
            return Err(DerError::Content("version"));
        }
        let signed_algorithm = reader.value()?;
        signed_algorithm.of(SEQUENCE)?;
        if signed_algorithm.whole != algorithm.whole {
            return Err(DerError::Content("signature algorithm: the signed one is not the one beside the signature"));
        }
        let issuer = Name::from_der(reader.value()?.whole)?;
        let this_update = Time::read(reader.value()?)?;
        let next_update = match optional_any(&mut reader, &[UTC_TIME, GENERALIZED_TIME])? {
            Some(value) => Some(Time::read(value)?),
            None => None,
        };
        let revoked = reader.optional(SEQUENCE)?.unwrap_or_default();
        let extensions = match reader.optional(explicit(0))? {
            Some(extensions) => Value::only(extensions)?.of(SEQUENCE)?,
            None => &[],
        };
        reader.finish()?;
        let number = match find_extension(extensions, ID_CE_CRL_NUMBER)? {
            Some(value) => Some(number(Value::only(value)?.of(INTEGER)?)?),
            None => None,
        };
        let mut entries = 0;
        let mut list = Reader::new(revoked);
        while !list.is_empty() {
            entry(&mut list)?;
            entries += 1;
        }
        let (tbs, revoked) = (place(tbs.whole), if revoked.is_empty() { 0..0 } else { place(revoked) });
        let algorithm = algorithm.whole.to_vec();
        Ok(RevocationList {
            tbs,
            revoked,
            algorithm,
            signature,
            issuer,
            this_update,
            next_update,
            number,
            entries,
            der,
        })
    }

    /// Verifies its signature, over the octets that came.
    ///
    /// # Errors
    /// Why it is not this key's.
    pub(crate) fn verify(&self, key: &PublicKey) -> Result<(), VerifyError> {
        let tbs = self.der.get(self.tbs.clone()).unwrap_or_default();
        signer::verify(key, &self.algorithm, tbs, &self.signature)
    }

    /// The whole list.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Who issued it, for people.
    pub fn issuer(&self) -> String {
        self.issuer.to_string()
    }

    /// When it was made.
    pub fn this_update(&self) -> Time {
        self.this_update
    }

    /// Until when a newer one is published, if it says so.
    pub fn next_update(&self) -> Option<Time> {
        self.next_update
    }

    /// CRLNumber (section 5.2.3), if it has one.
    pub fn number(&self) -> Option<u64> {
        self.number
    }

    /// How many certificates are on it.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether no certificate is on it.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The certificates on it, in its order.
    pub fn entries(&self) -> impl Iterator<Item = RevokedEntry> {
        let mut reader = Reader::new(self.der.get(self.revoked.clone()).unwrap_or_default());
        // Each was read once before.
        std::iter::from_fn(move || if reader.is_empty() { None } else { entry(&mut reader).ok() })
    }
}

fn entry(list: &mut Reader<'_>) -> Result<RevokedEntry, DerError> {
    let mut reader = Reader::new(list.expect(SEQUENCE)?);
    let serial_number = reader.expect(INTEGER)?.to_vec();
    let at = Time::read(reader.value()?)?;
    let extensions = reader.optional(SEQUENCE)?.unwrap_or_default();
    reader.finish()?;
    let reason = match find_extension(extensions, ID_CE_CRL_REASONS)? {
        None => None,
        Some(value) => match Value::only(value)?.of(ENUMERATED)? {
            [reason] => Some(*reason),
            _ => return Err(DerError::Content("CRLReason")),
        },
    };
    Ok(RevokedEntry { serial_number, at, reason })
}

/// The value of the first extension of this type among the Extensions in `octets`.
fn find_extension(octets: &[u8], wanted: ObjectIdentifier) -> Result<Option<&[u8]>, DerError> {
    let mut reader = Reader::new(octets);
    while !reader.is_empty() {
        let RawExtension { oid, value, .. } = reader.extension()?;
        if oid == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// The next value, if it has one of these tags.
fn optional_any<'a>(reader: &mut Reader<'a>, tags: &[u8]) -> Result<Option<Value<'a>>, DerError> {
    let mut ahead = *reader;
    match ahead.value() {
        Ok(value) if tags.contains(&value.tag) => {
            *reader = ahead;
            Ok(Some(value))
        }
        _ => Ok(None),
    }
}

/// An INTEGER that is not negative and fits.
fn number(content: &[u8]) -> Result<u64, DerError> {
    let wrong = DerError::Content("CRL number: negative, or of more than 64 bits");
    match content {
        [] => Err(wrong),
        [first, ..] if *first >= 0x80 => Err(wrong),
        content => {
            let significant = content.strip_prefix(&[0]).unwrap_or(content);
            if significant.len() > 8 {
                return Err(wrong);
            }
            Ok(significant.iter().fold(0, |number, octet| number << 8 | u64::from(*octet)))
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
        RevocationReason, RevokedCertParams, SerialNumber, date_time_ymd,
    };

    use super::*;
    use crate::x509::Certificate;

    /// A list by another implementation, and the CA that made it.
    fn foreign(revoked: u64) -> (Certificate, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = ca.self_signed(&key).unwrap();
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 2),
            next_update: date_time_ymd(2051, 1, 2),
            crl_number: SerialNumber::from(vec![0x80, 0]),
            issuing_distribution_point: None,
            revoked_certs: (0..revoked)
                .map(|number| RevokedCertParams {
                    serial_number: SerialNumber::from(number + 1),
                    revocation_time: date_time_ymd(2025, 3, 4),
                    reason_code: (number % 2 == 0).then_some(RevocationReason::KeyCompromise),
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&Issuer::new(ca, key)).unwrap();
        (Certificate::from_der(certificate.der()).unwrap(), list.der().to_vec())
    }

    /// What another implementation wrote is read, and its signature is verified over its octets.
    #[test]
    fn crl_of_another_implementation_is_read_and_verified() {
        let (ca, der) = foreign(3);
        let list = RevocationList::from_der(der).unwrap();
        list.verify(&PublicKey::of(&ca).unwrap()).unwrap();
        assert_eq!((list.number(), list.len(), list.is_empty()), (Some(0x8000), 3, false));
        assert_eq!(list.this_update().to_string(), "2026-01-02T00:00:00Z");
        assert_eq!(list.next_update().map(|time| time.to_string()).as_deref(), Some("2051-01-02T00:00:00Z"));
        assert_eq!(list.issuer.as_der(), ca.subject().as_der());
        let reasons: Vec<_> = list.entries().map(|entry| (entry.serial_number, entry.reason)).collect();
        assert_eq!(reasons, [(vec![1], Some(1)), (vec![2], None), (vec![3], Some(1))]);
        let (other, _) = foreign(0);
        assert!(list.verify(&PublicKey::of(&other).unwrap()).is_err());
    }

    /// A list that was changed or cut anywhere is refused or does not verify, and nothing panics.
    #[test]
    fn crl_with_a_changed_octet_never_verifies() {
        let (ca, der) = foreign(2);
        let key = PublicKey::of(&ca).unwrap();
        for position in 0..der.len() {
            let mut changed = der.clone();
            changed[position] ^= 0x11;
            if let Ok(list) = RevocationList::from_der(changed) {
                assert!(list.verify(&key).is_err(), "octet {position}");
            }
            assert!(RevocationList::from_der(der[..position].to_vec()).is_err(), "cut at {position}");
        }
        assert!(RevocationList::from_der(foreign(0).1).unwrap().is_empty());
    }
}
