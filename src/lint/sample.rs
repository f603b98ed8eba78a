//! A sample certificate: made with a throw-away key and the profile's own code.

use std::sync::Arc;

use const_oid::db;
use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, DnValue, KeyPair, RsaKeySize};

use crate::{
    ca::IssuingCa,
    cert,
    config::{CsrSubject, KeyType, OrderRequirement},
    csr::{self, CsrError, RefusedKeys},
    id::{DeviceId, OrderId},
    profile::{Profile, ProfileError, RequestContext, Values},
    serial::SerialNumber,
};

/// Why there is no sample of a profile's certificates.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The profile refuses the device.
    #[error(transparent)]
    Refused(#[from] ProfileError),
    /// No CSR can be made.
    #[error("no sample can be made: {0}")]
    Csr(#[from] rcgen::Error),
    /// The CSR that was made is not good.
    #[error("no sample can be made: {0}")]
    CsrRefused(#[from] CsrError),
}

/// A certificate as a profile would give it, but for its signature: that is a row of zeros as long as a signature can be.
#[derive(Debug)]
pub struct Sample {
    /// DER.
    pub certificate: Vec<u8>,
    /// For which device.
    pub device: DeviceId,
    /// By whom.
    pub(crate) issuer: Arc<IssuingCa>,
}

/// Makes a sample certificate, for this device or for one with as short an id as the profile allows.
///
/// # Errors
/// Why the profile would refuse the device.
pub fn sample(profile: &Profile, device: Option<&DeviceId>, moment: Timestamp) -> Result<Sample, SampleError> {
    let (usual, station, attributes) = profile.sample();
    let device = device.cloned().unwrap_or(usual);
    let csr = throw_away_csr(profile, device.as_str())?;
    let csr = csr::verify(&csr, &RefusedKeys::default())?;
    let order = OrderId::sample();
    let order = (profile.order_requirement() == OrderRequirement::Required).then_some(&order);
    let values = Values { device: &device, order, station: &station, attributes: &attributes };
    let approved = profile.approve(csr, &RequestContext { values, now: moment })?;
    approved.check_new(&device)?;
    let serial_number = SerialNumber::sample();
    let to_be_signed = cert::to_be_signed(&serial_number, &approved);
    let issuer = Arc::clone(approved.issuer());
    let signature = vec![0; issuer.algorithm().longest_signature(issuer.public_key().kind)];
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
