//! Bundles without a daemon: a CA and an audit key in memory, certificates by the thousand, and their files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use birthmark::{
    export::{
        bundle::{Bundle, Header},
        certificate::{Certificate, Issuer, Replacement, Withdrawn},
        jws,
        manifest::Filter,
        settings::Settings,
        sink::{FolderSink, Sink, TarSink},
    },
    hash::sha256,
    pem,
    signer::PublicKey,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer as Signer,
    KeyPair, KeyUsagePurpose, SerialNumber,
};

/// A root and an issuing CA below it.
pub(crate) struct TestCa {
    pub(crate) issuer: Issuer,
    signer: Signer<'static, KeyPair>,
}

impl TestCa {
    pub(crate) fn new(name: &str) -> TestCa {
        let (root_params, root_key) = (ca(&format!("{name} Root")), KeyPair::generate().unwrap());
        let root = root_params.self_signed(&root_key).unwrap().der().to_vec();
        let (params, key) = (ca(name), KeyPair::generate().unwrap());
        let der = params.signed_by(&key, &Signer::new(root_params, root_key)).unwrap().der().to_vec();
        TestCa { issuer: Issuer::new(name, &[der, root]).unwrap(), signer: Signer::new(params, key) }
    }

    /// A device's certificate with this subject.
    pub(crate) fn issue(&self, subject: DistinguishedName, serial_number: [u8; 20]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.serial_number = Some(SerialNumber::from_slice(&serial_number));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&KeyPair::generate().unwrap(), &self.signer).unwrap().der().to_vec()
    }
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// The key that signs manifests.
pub(crate) enum AuditKey {
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl AuditKey {
    pub(crate) fn new() -> AuditKey {
        AuditKey::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    pub(crate) fn rsa() -> AuditKey {
        AuditKey::Rsa(RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap())
    }

    pub(crate) fn public(&self) -> PublicKey {
        use aws_lc_rs::encoding::AsDer;
        let spki = match self {
            AuditKey::P256(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
            AuditKey::Rsa(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
        };
        PublicKey::from_spki(&spki).unwrap()
    }

    /// `manifest.jws`.
    pub(crate) fn sign(&self, manifest: &[u8]) -> String {
        let input = jws::signing_input(&self.public(), manifest).unwrap();
        let signature = match self {
            AuditKey::P256(key) => key.sign(&SystemRandom::new(), input.as_bytes()).unwrap().as_ref().to_vec(),
            AuditKey::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        jws::compact(&self.public(), input, &signature).unwrap()
    }

    /// Writes its public half, as the ceremony does.
    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, pem::encode("PUBLIC KEY", &self.public().spki)).unwrap();
    }
}

/// What the ledger would know of a device.
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) serial_number: [u8; 20],
    pub(crate) der: Vec<u8>,
    pub(crate) certificate_id: String,
    pub(crate) replaces: Option<[u8; 20]>,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Device {
    /// Whose certificate has its id as the CN.
    pub(crate) fn new(ca: &TestCa, id: &str) -> Device {
        Device::of(ca, id, common_name(id))
    }

    pub(crate) fn of(ca: &TestCa, id: &str, subject: DistinguishedName) -> Device {
        let mut serial_number: [u8; 20] = sha256(id.as_bytes())[..20].try_into().unwrap();
        serial_number[0] = 0x17;
        let der = ca.issue(subject, serial_number);
        let attributes = BTreeMap::from([("hw".to_owned(), "rev-C".to_owned())]);
        let certificate_id = hex::encode(sha256(&der));
        Device { id: id.to_owned(), serial_number, der, certificate_id, replaces: None, attributes }
    }

    pub(crate) fn certificate<'d>(&'d self, ca: &'d TestCa) -> Certificate<'d> {
        Certificate {
            serial_number: &self.serial_number,
            der: &self.der,
            certificate_id: &self.certificate_id,
            device_id: &self.id,
            order: "lot:42",
            profile: "device",
            station: "line1/t1",
            issuer: &ca.issuer,
            key_sha256: &[7; 32],
            issued_at: "2026-11-26T01:02:03.456789Z".parse().unwrap(),
            confirmed_at: None,
            replaces: self.replaces.as_ref().map(<[u8; 20]>::as_slice),
            order_attributes: &self.attributes,
        }
    }
}

/// A batch of `certificates` and `withdrawn` under these settings, TOML.
pub(crate) fn header(settings: &str, certificates: usize, withdrawn: usize) -> Header {
    let settings = Settings::parse(&settings.parse().unwrap()).unwrap();
    Header {
        destination: "cloud".into(),
        number: 3,
        first: 100,
        end: 250,
        chain_hash: [9; 32],
        created_at: "2026-11-26T02:00:00Z".parse().unwrap(),
        created_by: "operator:anna".into(),
        unfit: Vec::new(),
        certificates: certificates as u64,
        withdrawn: withdrawn as u64,
        filter: Filter { profiles: vec!["device*".into()], orders: Vec::new(), only: "issued".into() },
        settings: settings.to_json(),
    }
}

/// Renders a batch of these devices, of which the last one replaces one that was withdrawn.
pub(crate) fn render<S: Sink>(settings: &str, sink: S, key: &AuditKey, devices: &[(&TestCa, &Device)]) -> S {
    let (ca, last) = devices.last().unwrap();
    let mut bundle = Bundle::new(header(settings, devices.len(), 1), sink).unwrap();
    for (ca, device) in devices {
        bundle.certificate(&device.certificate(ca)).unwrap();
    }
    let certificate = last.certificate(ca);
    let withdrawn = Withdrawn {
        serial_number: &[0x16; 20],
        certificate_id: &hex::encode([0x16; 32]),
        device_id: &last.id,
        reason: "scrapped",
        code: "",
        text: "housing \"cracked\"",
        at: "2026-11-25T12:00:00Z".parse().unwrap(),
        batch: "cloud.0001",
        replaced_by: Some(Replacement {
            certificate_id: certificate.certificate_id,
            serial_number: certificate.serial_number,
        }),
    };
    bundle.withdrawn(&withdrawn).unwrap();
    let unsealed = bundle.finish().unwrap();
    let jws = key.sign(unsealed.manifest());
    unsealed.seal(&jws).unwrap()
}

/// The same as a folder `cloud.0003` in `folder`.
pub(crate) fn write(settings: &str, folder: &Path, key: &AuditKey, devices: &[(&TestCa, &Device)]) -> PathBuf {
    let sink = FolderSink::create(&folder.join("cloud.0003")).unwrap();
    render(settings, sink, key, devices).finish().unwrap()
}

/// The same as a tar.
pub(crate) fn write_tar(settings: &str, folder: &Path, key: &AuditKey, devices: &[(&TestCa, &Device)]) -> PathBuf {
    let sink = TarSink::create(&folder.join("cloud.0003.tar"), "cloud.0003").unwrap();
    render(settings, sink, key, devices).finish().unwrap()
}

/// Every file below a folder, by its path in it.
pub(crate) fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}
