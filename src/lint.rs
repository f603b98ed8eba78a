//! Looks at the certificates that a profile gives, before any device gets one.
//!
//! A sample certificate is made with a throw-away key and the profile's own code, parsed by another encoder's parser,
//! and held against the rules of its preset. The daemon refuses to start with a profile whose sample breaks one.

mod rules;

use std::fmt;

use const_oid::db;
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DnType, DnValue, KeyPair, RsaKeySize};

use crate::{
    ca::IssuingCa,
    cert,
    config::{self, CsrSubject, KeyType, OrderRequirement},
    csr::{self, RefusedKeys},
    profile::{Applicant, Profile, ProfileError, Values},
    serial::SerialNumber,
};

/// What a profile cannot do so far ahead is told today: half a year, in which a ceremony can be held.
const SOON: SignedDuration = SignedDuration::from_hours(180 * 24);

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The profile could only give invalid certificates.
    Error,
    /// Somebody may be surprised.
    Warning,
}

/// Something that is wrong with a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The key of the profile that decides about it.
    pub key: &'static str,
    /// The rule, by its place in the standard.
    pub rule: &'static str,
    /// The value, and what would be right.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.rule)
    }
}

/// A certificate as a profile would give it, but for its signature: that is a row of zeros as long as a signature can be.
#[derive(Debug)]
pub struct Sample {
    /// DER.
    pub certificate: Vec<u8>,
    /// For which device.
    pub device: String,
    /// By whom.
    pub issuer: std::sync::Arc<IssuingCa>,
}

/// Lints a profile: once for its issuer of this moment, and once for each that takes over later.
pub fn profile(profile: &Profile, settings: &config::Profile, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    let moments = profile.issuers().filter_map(|(from, _)| from).filter(|from| *from > now);
    for moment in std::iter::once(now).chain(moments) {
        match sample(profile, None, moment) {
            Ok(sample) => findings.extend(rules::check(profile, settings, &sample)),
            Err(error) => findings.push(refused(&error, settings)),
        }
    }
    findings.dedup();
    if let Err(error @ ProfileError::IssuerEnding(_)) = sample(profile, None, now + SOON)
        && findings.iter().all(|finding| finding.severity == Severity::Warning)
    {
        let message = format!("soon every request will be refused: {error}");
        findings.push(Finding { severity: Severity::Warning, message, ..refused(&error, settings) });
    }
    findings
}

fn refused(error: &ProfileError, settings: &config::Profile) -> Finding {
    let (key, rule) = match error {
        ProfileError::IssuerEnding(_) => (settings.validity_key(), "no certificate outlives its issuer"),
        _ => ("subject", "RFC 5280 appendix A.1"),
    };
    Finding { severity: Severity::Error, key, rule, message: error.to_string() }
}

/// Makes a sample certificate, for this device or for one with as short an id as the profile allows.
///
/// # Errors
/// Why the profile would refuse the device.
pub fn sample(profile: &Profile, device: Option<&str>, moment: Timestamp) -> Result<Sample, ProfileError> {
    let (usual, station, attributes) = profile.sample();
    let device = device.map_or(usual, str::to_owned);
    let failed = |what: &str| ProfileError::SubjectRefused(format!("no sample can be made: {what}"));
    let csr = throw_away_csr(profile, &device).map_err(|error| failed(&error.to_string()))?;
    let csr = csr::verify(&csr, &RefusedKeys::default()).map_err(|error| failed(&error.to_string()))?;
    let order = if profile.order_requirement() == OrderRequirement::Required { "sample-order" } else { "" };
    let values = Values { device: &device, order, station: &station, attributes: &attributes };
    let approved = profile.approve(csr, &Applicant { values, now: moment })?;
    let serial_number = SerialNumber::sample();
    let to_be_signed = cert::to_be_signed(&serial_number, &approved);
    let issuer = std::sync::Arc::clone(approved.issuer());
    let signature = vec![0; issuer.algorithm().longest_signature(issuer.public_key())];
    let certificate = cert::join(&to_be_signed, issuer.algorithm(), &signature);
    Ok(Sample { certificate, device, issuer })
}

/// A CSR of a new key of a type that the profile takes, with the subject that it demands.
fn throw_away_csr(profile: &Profile, device: &str) -> Result<Vec<u8>, rcgen::Error> {
    // The quickest to make that the profile takes.
    let quick = [KeyType::P256, KeyType::P384, KeyType::P521, KeyType::Ed25519, KeyType::Rsa2048, KeyType::Rsa3072];
    let key = match quick.into_iter().find(|key| profile.keys().contains(key)) {
        Some(KeyType::P256) => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        Some(KeyType::P384) => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        Some(KeyType::P521) => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
        Some(KeyType::Ed25519) => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        Some(KeyType::Rsa2048) => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        Some(KeyType::Rsa3072) => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        Some(KeyType::Rsa4096) | None => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
    }?;
    let mut parameters = CertificateParams::default();
    let value = DnValue::Utf8String(device.to_owned());
    match profile.csr_subject() {
        CsrSubject::Ignore => {}
        CsrSubject::CnIsDeviceId => parameters.distinguished_name.push(DnType::CommonName, value),
        CsrSubject::SerialNumberIsDeviceId => {
            let serial_number = db::rfc4519::SERIAL_NUMBER.arcs().map(u64::from).collect();
            parameters.distinguished_name.push(DnType::CustomDnType(serial_number), value);
        }
    }
    Ok(parameters.serialize_request(&key)?.der().to_vec())
}
