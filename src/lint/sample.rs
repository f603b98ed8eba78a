//! A sample certificate: made with a throw-away key and the profile's own code.

use std::sync::Arc;

use const_oid::db;
use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, DnValue, KeyPair, RsaKeySize};

use crate::{
    ca::IssuingCa,
    cert,
    config::{CsrSubject, KeyType, OrderPolicy},
    csr::{self, RefusedKeys},
    profile::{Applicant, Profile, ProfileError, Values},
    serial::SerialNumber,
};

/// A certificate as a profile would give it, but for its signature: that is a row of zeros as long as a signature can be.
#[derive(Debug)]
pub struct Sample {
    /// DER.
    pub certificate: Vec<u8>,
    /// For which device.
    pub device: String,
    /// By whom.
    pub(crate) issuer: Arc<IssuingCa>,
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
    let order = if profile.order_policy() == OrderPolicy::Required { "sample-order" } else { "" };
    let values = Values { device: &device, order, station: &station, attributes: &attributes };
    let approved = profile.approve(csr, &Applicant { values, now: moment })?;
    let serial_number = SerialNumber::sample();
    let to_be_signed = cert::to_be_signed(&serial_number, &approved);
    let issuer = Arc::clone(approved.issuer());
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
