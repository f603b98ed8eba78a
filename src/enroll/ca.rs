//! The station CA, and the certificates that it makes.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use jiff::Timestamp;
use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SubjectPublicKeyInfo};

use super::{
    error::EnrollError,
    subject::{Request, Subject},
};
use crate::{
    ceremony::{BACKDATE, CaKey, Certificate, Validity, date, parameters},
    csr::{self, RefusedKeys},
    hsm::{Key, KeyUri, Token},
    identity::Identity,
    ledger::{Actor, Enrolment, EnrolmentMethod},
    name::{Attribute, is_dns_name},
};

/// The site's station CA: its certificate, and its key in the HSM.
pub struct StationCa {
    certificate: Certificate,
    key: CaKey,
}

impl fmt::Debug for StationCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StationCa \"{}\"", self.certificate.subject())
    }
}

/// Where the station CA is.
#[derive(Clone, Debug)]
pub struct StationCaPlace {
    /// Its certificate, PEM.
    pub certificate: PathBuf,
    /// Its key.
    pub key: KeyUri,
    /// Where relative paths of the key's URI start.
    pub base_dir: PathBuf,
}

impl StationCaPlace {
    /// Opens it.
    ///
    /// # Errors
    /// As [`StationCa::open`].
    pub fn open(&self) -> Result<StationCa, EnrollError> {
        StationCa::open(&self.certificate, &self.key, &self.base_dir)
    }
}

/// A certificate that the station CA has made.
#[derive(Clone, Debug)]
pub struct Certified {
    certificate: Certificate,
    ca: Vec<u8>,
}

impl Certified {
    /// DER.
    pub fn der(&self) -> &[u8] {
        self.certificate.der()
    }

    /// The CA's certificate, DER.
    pub fn ca(&self) -> &[u8] {
        &self.ca
    }

    /// The content octets of the serial number.
    pub fn serial_number(&self) -> &[u8] {
        &self.certificate.parsed().serial_number
    }

    /// The day on which it expires (UTC).
    pub fn not_after(&self) -> String {
        date(self.certificate.not_after)
    }

    /// The last second in which it is valid.
    pub fn end(&self) -> Timestamp {
        moment(self.certificate.not_after)
    }

    /// As the ledger records it.
    pub fn enrolment(&self, identity: &Identity, method: EnrolmentMethod) -> Enrolment {
        enrolment(&self.certificate, identity, method)
    }
}

fn moment(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

pub(super) fn enrolment(certificate: &Certificate, identity: &Identity, method: EnrolmentMethod) -> Enrolment {
    Enrolment {
        peer: Actor(identity.actor().into()),
        certificate: Bytes::copy_from_slice(certificate.der()),
        serial_number: certificate.parsed().serial_number.clone(),
        key_hash: certificate.key.hash(),
        not_before: moment(certificate.not_before),
        not_after: moment(certificate.not_after),
        method,
        listed: None,
    }
}

/// For how long a certificate is renewed: without what it was back-dated by, which would make each renewal live longer.
///
/// One that begins with its CA was back-dated by less, and nobody knows by how much: it loses the whole, once. One that is
/// older than the CA was not made with it, nor back-dated.
fn renewed_life((not_before, not_after): (Timestamp, Timestamp), ca_not_before: Timestamp) -> Duration {
    let life = Duration::try_from(not_after.duration_since(not_before)).unwrap_or_default();
    if not_before < ca_not_before { life } else { life.saturating_sub(BACKDATE) }
}

/// For how long a certificate is wanted.
#[derive(Clone, Copy, Debug)]
enum Life {
    /// Exactly.
    Days(u32),
    /// This long, or as long as the CA lives.
    AtMost(Duration),
}

impl StationCa {
    /// Reads the certificate (PEM) and opens its key. Relative paths of `key` start at `base_dir`.
    ///
    /// # Errors
    /// If the certificate is not a CA's, or the key is not there or another.
    pub fn open(certificate: &Path, key: &KeyUri, base_dir: &Path) -> Result<Self, EnrollError> {
        let certificate = Certificate::read(certificate).map_err(EnrollError::Certificate)?;
        certificate.check_ca(SystemTime::now()).map_err(EnrollError::Certificate)?;
        certificate.check_kept_as_issuer().map_err(EnrollError::Certificate)?;
        let key = Key::open(&Token::open(&key.token, base_dir)?, &key.key)?;
        key.check_matches(&certificate.key)?;
        Ok(StationCa { certificate, key: CaKey::Hsm(key) })
    }

    /// Certifies the key of a CSR (DER or PEM), of which nothing else is used.
    ///
    /// # Errors
    /// If the request cannot be fulfilled.
    pub fn certify(&self, request: &Request, csr: &[u8]) -> Result<Certified, EnrollError> {
        self.issue(request, Life::Days(request.days), csr)
    }

    /// Certifies the key of a CSR for a peer that has a certificate, for as long as that was, but not beyond the CA's end.
    ///
    /// # Errors
    /// If the request cannot be fulfilled, or the new certificate would not live longer than the old one.
    pub fn renew(
        &self,
        identity: Identity,
        (not_before, not_after): (Timestamp, Timestamp),
        csr: &[u8],
    ) -> Result<Certified, EnrollError> {
        let life = renewed_life((not_before, not_after), moment(self.certificate.not_before));
        let (dns, ip) = (Vec::new(), Vec::new());
        let request = Request { subject: Subject::Peer(identity), days: 0, dns, ip };
        let certified = self.issue(&request, Life::AtMost(life), csr)?;
        if certified.end() > not_after {
            return Ok(certified);
        }
        match not_after < moment(self.certificate.not_after) {
            true => Err(EnrollError::JustMade),
            false => Err(EnrollError::NothingGained { ca_not_after: date(self.certificate.not_after) }),
        }
    }

    /// Signs `message`, which is no certificate.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, EnrollError> {
        Ok(self.key.sign(message)?)
    }

    fn issue(&self, request: &Request, life: Life, csr: &[u8]) -> Result<Certified, EnrollError> {
        let public = csr::verify(csr, &RefusedKeys::default())?.into_public_key();
        let now = SystemTime::now();
        let validity = match life {
            Life::Days(days) => Validity::days(now, days),
            Life::AtMost(life) => Validity::until(now, (now + life).min(self.certificate.not_after)),
        };
        let validity = validity.within(&self.certificate);
        if validity.not_after > self.certificate.not_after {
            let (not_after, ca_not_after) = (date(validity.not_after), date(self.certificate.not_after));
            return Err(EnrollError::OutlivesCa { not_after, ca_not_after });
        }
        // The URI in the certificate says who it is; the CN is for people, and has room for 64 characters only.
        let name: String = request.subject.name().chars().take(64).collect();
        let name = Attribute::parse(&format!("CN={name}"))?;
        let mut parameters =
            parameters(&[name], &public, validity).map_err(|error| EnrollError::Issue(error.to_string()))?;
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![match request.subject {
            Subject::Server(_) => ExtendedKeyUsagePurpose::ServerAuth,
            Subject::Peer(_) => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        parameters.subject_alt_names = alternative_names(request)?;
        let key = SubjectPublicKeyInfo::from_der(&public.spki)?;
        let issued = self.key.issue(&self.certificate, &parameters, &key);
        let certificate = issued.map_err(|error| EnrollError::Issue(error.to_string()))?;
        Ok(Certified { certificate, ca: self.certificate.der().to_vec() })
    }
}

fn alternative_names(request: &Request) -> Result<Vec<SanType>, EnrollError> {
    if let Some(urn) = request.subject.urn() {
        if !request.dns.is_empty() || !request.ip.is_empty() {
            return Err(EnrollError::NamesOfServer);
        }
        return Ok(vec![SanType::URI(urn.try_into()?)]);
    }
    let mut names = Vec::new();
    for dns in &request.dns {
        if dns.len() > 253 || !is_dns_name(dns.strip_prefix("*.").unwrap_or(dns)) {
            return Err(EnrollError::DnsName(dns.clone()));
        }
        names.push(SanType::DnsName(dns.as_str().try_into()?));
    }
    names.extend(request.ip.iter().map(|address| SanType::IpAddress(*address)));
    if names.is_empty() {
        return Err(EnrollError::NoNames);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also in the second in which the CA was made.
    #[test]
    fn renewal_lives_no_longer_than_what_it_renews() {
        let hours = |hours: i64| Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(1000 + hours);
        let day = Duration::from_hours(24);
        for (begins, lives) in
            [(-5, day + Duration::from_hours(5)), (0, day - BACKDATE), (3, day - BACKDATE - 3 * BACKDATE)]
        {
            assert_eq!(renewed_life((hours(begins), hours(24)), hours(0)), lives, "from {begins} h on");
        }
        assert_eq!(renewed_life((hours(0), hours(0)), hours(0)), Duration::ZERO);
    }
}
