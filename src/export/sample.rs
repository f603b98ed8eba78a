//! A certificate for tests.

use std::{collections::BTreeMap, error::Error};

use rcgen::{CertificateParams, DnType, KeyPair, SignatureAlgorithm};

use super::certificate::{Certificate, Issuer};
use crate::hash::sha256;

/// A device's certificate, which is its own issuer.
pub(super) struct Sample {
    device: String,
    der: Vec<u8>,
    id: String,
    issuer: Issuer,
    pub(super) attributes: BTreeMap<String, String>,
}

impl Sample {
    pub(super) fn new(device: &str) -> Result<Sample, Box<dyn Error>> {
        Sample::of(device, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(super) fn of(device: &str, algorithm: &'static SignatureAlgorithm) -> Result<Sample, Box<dyn Error>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, device);
        let der = params.self_signed(&KeyPair::generate_for(algorithm)?)?.der().to_vec();
        Ok(Sample {
            device: device.to_owned(),
            id: hex::encode(sha256(&der)),
            issuer: Issuer::new("main", &[&der])?,
            der,
            attributes: BTreeMap::new(),
        })
    }

    pub(super) fn certificate(&self) -> Certificate<'_> {
        Certificate {
            serial_number: &[0x0a; 20],
            der: &self.der,
            certificate_id: &self.id,
            device_id: &self.device,
            order: "lot:42",
            profile: "device",
            station: "line1/t1",
            issuer: &self.issuer,
            key_sha256: &[1; 32],
            issued_at: "2026-01-01T00:00:00.0005Z".parse().unwrap_or_default(),
            confirmed_at: None,
            replaces: Some(&[0x0b; 20]),
            order_attributes: &self.attributes,
        }
    }
}
