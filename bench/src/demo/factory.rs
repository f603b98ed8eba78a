//! What a demo works with: a site, its devices with their keys, and whether each has its certificate.
#![expect(clippy::disallowed_methods, reason = "the files of a demo need not survive a crash")]

use std::{
    collections::HashSet,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use birthmark::csr::{self, RefusedKeys};
use birthmark_bench::site::Site;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};

use crate::trial::{self, station_folder};

/// The order that the devices are under.
pub(super) const ORDER: &str = "demo-order";

/// What the demo works with.
pub(super) struct Demo {
    pub(super) site: Site,
    pub(super) stations: u32,
    pub(super) started: Instant,
}

/// A device's id and the PEM of its CSR.
pub(super) struct Device {
    pub(super) id: String,
    csr: String,
}

/// What was verified.
pub(super) struct Verified {
    pub(super) certificates: usize,
    pub(super) elapsed: Duration,
}

impl Demo {
    /// Token, CA keys and certificates, identities, configuration.
    pub(super) fn set_up(folder: PathBuf, stations: u32) -> anyhow::Result<Demo> {
        let started = Instant::now();
        let site = trial::set_up(folder, "p256")?;
        (1..=stations).try_for_each(|station| trial::enroll(&site, station))?;
        Ok(Demo { site, stations, started })
    }

    pub(super) fn make_csrs(&self, devices: u32) -> anyhow::Result<Vec<Device>> {
        let folder = self.site.folder.join("csrs");
        fs::create_dir_all(&folder)?;
        let width = devices.to_string().len().max(4);
        let devices = (1..=devices)
            .map(|number| {
                let id = format!("demo-{number:0width$}");
                let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
                let mut params = CertificateParams::default();
                params.distinguished_name.push(DnType::CommonName, id.as_str());
                let csr = params.serialize_request(&key)?.pem()?;
                fs::write(folder.join(format!("{id}.pem")), &csr)?;
                Ok(Device { id, csr })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        for station in 1..=self.stations {
            let lines = devices
                .iter()
                .skip(station as usize - 1)
                .step_by(self.stations as usize)
                .map(|device| serde_json::json!({ "device_id": device.id, "csr": device.csr }).to_string() + "\n");
            self.site.write(&format!("{}/devices.jsonl", station_folder(station)), &lines.collect::<String>())?;
        }
        Ok(devices)
    }

    /// Verifies each certificate as a TLS server would, and that it has the key of its CSR and a serial of its own.
    pub(super) fn verify(&self, devices: &[Device]) -> anyhow::Result<Verified> {
        let started = Instant::now();
        let read = |path: PathBuf| {
            CertificateDer::from_pem_file(&path).with_context(|| format!("no certificate in {}", path.display()))
        };
        let mut roots = RootCertStore::empty();
        roots.add(read(self.site.folder.join("ca/root.pem"))?)?;
        let issuer = read(self.site.folder.join("ca/issuer.pem"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        let mut serials = HashSet::new();
        for device in devices {
            let certificate = read(self.site.folder.join("certs").join(format!("{}.pem", device.id)))?;
            verifier
                .verify_client_cert(&certificate, std::slice::from_ref(&issuer), UnixTime::now())
                .with_context(|| format!("the certificate of {} does not verify", device.id))?;
            let parsed = <x509_cert::Certificate as der::Decode>::from_der(&certificate)?;
            let tbs = parsed.tbs_certificate();
            let key = der::Encode::to_der(tbs.subject_public_key_info())?;
            let csr = csr::verify(device.csr.as_bytes(), &RefusedKeys::default())?;
            ensure!(key == csr.public_key().spki, "the certificate of {} has another key than its CSR", device.id);
            ensure!(serials.insert(tbs.serial_number().as_bytes().to_vec()), "a serial number was used twice");
        }
        Ok(Verified { certificates: serials.len(), elapsed: started.elapsed() })
    }
}
