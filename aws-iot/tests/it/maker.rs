//! A factory of the tests: CA, devices and signed bundles, made by the library that the daemon uses, without an HSM.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use birthmark::{
    export::{
        bundle::{Bundle, Header},
        certificate::{Certificate, Issuer as ListedIssuer, Replacement, Withdrawn},
        jws,
        manifest::Filter,
        settings::Settings,
        sink::FolderSink,
    },
    hash::sha256,
    pem,
    signer::PublicKey,
};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
    SigningKey,
};

/// A CA that signs devices, and the audit key.
pub(crate) struct Maker {
    pub(crate) folder: PathBuf,
    issuing: Issuer<'static, KeyPair>,
    chain: Vec<Vec<u8>>,
    audit: KeyPair,
}

/// A device with its key and certificate, in files: `ID.key`, `ID.pem`, `ID.chain.pem`.
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) certificate_id: String,
    serial: Vec<u8>,
    der: Vec<u8>,
}

/// What a bundle withdraws.
pub(crate) struct Gone<'a> {
    pub(crate) device: &'a Device,
    pub(crate) reason: &'a str,
    pub(crate) replaced_by: Option<&'a Device>,
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Maker {
    pub(crate) fn new(folder: &Path) -> Maker {
        let [root_key, issuing_key, audit] = [0; 3].map(|_| KeyPair::generate().unwrap());
        let root = ca("Test Root").self_signed(&root_key).unwrap();
        let above = Issuer::new(ca("Test Root"), root_key);
        let issuing = ca("Test Issuing CA").signed_by(&issuing_key, &above).unwrap();
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("root.pem"), root.pem()).unwrap();
        fs::write(folder.join("issuer.pem"), issuing.pem()).unwrap();
        fs::write(folder.join("audit.pem"), pem::encode("PUBLIC KEY", &audit.subject_public_key_info())).unwrap();
        Maker {
            folder: folder.to_owned(),
            issuing: Issuer::new(ca("Test Issuing CA"), issuing_key),
            chain: vec![issuing.der().to_vec(), root.der().to_vec()],
            audit,
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// A new certificate of a new key; `file` is the beginning of its files' names.
    pub(crate) fn device_in(&self, id: &str, file: &str) -> Device {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, id);
        let serial = sha256(&key.subject_public_key_info()).get(..16).unwrap().to_vec();
        let serial = [vec![0x10], serial].concat();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuing).unwrap();
        let der = certificate.der().to_vec();
        let chain = format!("{}{}", certificate.pem(), pem::certificate_pem(&self.chain[0]));
        fs::write(self.folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
        fs::write(self.folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(self.folder.join(format!("{file}.chain.pem")), chain).unwrap();
        Device { id: id.to_owned(), certificate_id: hex::encode(sha256(&der)), serial, der }
    }

    pub(crate) fn device(&self, id: &str) -> Device {
        self.device_in(id, id)
    }

    /// Devices whose keys nobody needs.
    pub(crate) fn devices(&self, count: usize) -> Vec<Device> {
        (1..=count).map(|number| self.device(&format!("dev-{number:04}"))).collect()
    }

    /// The proof of possession for a registration code, as `birthmark ca prove` makes it.
    pub(crate) fn verification(&self, code: &str) -> PathBuf {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, code);
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), &self.issuing).unwrap();
        let path = self.folder.join("verification.pem");
        fs::write(&path, certificate.pem()).unwrap();
        path
    }

    /// A signed bundle of the batch `NAME.NUMBER`, in `folder`.
    pub(crate) fn bundle_in(
        &self,
        folder: &Path,
        batch: (&str, u32),
        devices: &[&Device],
        gone: &[Gone<'_>],
        keys: &str,
    ) -> PathBuf {
        let (name, number) = batch;
        let section: toml::Table = format!("format = \"aws-bulk\"\n{keys}").parse().unwrap();
        let settings = Settings::parse(&section).unwrap_or_else(|errors| panic!("{errors:?}"));
        let header = Header {
            destination: name.to_owned(),
            number,
            first: 0,
            end: 100,
            chain_hash: [7; 32],
            created_at: Timestamp::UNIX_EPOCH,
            created_by: "test".to_owned(),
            unfit: Vec::new(),
            certificates: devices.len() as u64,
            withdrawn: gone.len() as u64,
            filter: Filter { profiles: Vec::new(), orders: Vec::new(), only: "issued".to_owned() },
            settings: settings.to_json(),
        };
        let path = folder.join(format!("{name}.{number:04}"));
        let mut bundle = Bundle::new(header, FolderSink::create(&path).unwrap()).unwrap();
        let issuer = ListedIssuer::new("device", &self.chain).unwrap();
        let attributes = BTreeMap::from([("model".to_owned(), "M1".to_owned())]);
        for device in devices {
            bundle
                .certificate(&Certificate {
                    serial_number: &device.serial,
                    der: &device.der,
                    certificate_id: &device.certificate_id,
                    device_id: &device.id,
                    order: "lot-42",
                    profile: "device",
                    station: "line1/t1",
                    issuer: &issuer,
                    key_sha256: &[1; 32],
                    issued_at: Timestamp::UNIX_EPOCH,
                    confirmed_at: None,
                    replaces: None,
                    order_attributes: &attributes,
                })
                .unwrap();
        }
        for gone in gone {
            bundle
                .withdrawn(&Withdrawn {
                    serial_number: &gone.device.serial,
                    certificate_id: &gone.device.certificate_id,
                    device_id: &gone.device.id,
                    reason: gone.reason,
                    code: "",
                    text: "",
                    at: Timestamp::UNIX_EPOCH,
                    batch: &format!("{name}.0001"),
                    replaced_by: gone
                        .replaced_by
                        .map(|by| Replacement { certificate_id: &by.certificate_id, serial_number: &by.serial }),
                })
                .unwrap();
        }
        let unsealed = bundle.finish().unwrap();
        let key = PublicKey::from_spki(&self.audit.subject_public_key_info()).unwrap();
        let input = jws::signing_input(&key, unsealed.manifest()).unwrap();
        let signature = self.audit.sign(input.as_bytes()).unwrap();
        let jws = jws::compact(&key, input, &signature).unwrap();
        unsealed.seal(&jws).unwrap().finish().unwrap()
    }

    pub(crate) fn bundle(&self, batch: (&str, u32), devices: &[&Device], gone: &[Gone<'_>]) -> PathBuf {
        self.bundle_in(&self.folder, batch, devices, gone, "")
    }

    /// Publishes as a device does, by stock mosquitto; the exit code tells whether the broker took it. `with` is the file's
    /// ending: `chain.pem` or `pem`.
    pub(crate) fn publish(&self, device: &str, with: &str, client: &str, topic: &str) -> ExitStatus {
        self.publish_to("localhost", device, with, client, topic)
    }

    /// Whether the broker takes it within some seconds: a connection that it closes is opened again and again until then.
    pub(crate) fn may_publish(&self, device: &str, client: &str, topic: &str) -> bool {
        self.publish_within("5", "localhost", [device, "chain.pem", client, topic]).success()
    }

    /// The same to this host, whose name the client sends as SNI.
    pub(crate) fn publish_to(&self, host: &str, device: &str, with: &str, client: &str, topic: &str) -> ExitStatus {
        self.publish_within("30", host, [device, with, client, topic])
    }

    fn publish_within(&self, seconds: &str, host: &str, [device, with, client, topic]: [&str; 4]) -> ExitStatus {
        let mut command = Command::new("timeout");
        command.args([seconds, "mosquitto_pub", "-h", host, "-p", "8883", "--cafile", "broker.pem"]);
        command.args(["--cert", &format!("{device}.{with}"), "--key", &format!("{device}.key")]);
        command.args(["-i", client, "-t", topic, "-m", "hello", "-q", "1"]);
        command.current_dir(&self.folder).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
    }

    /// Whether the device can connect and publish as itself.
    pub(crate) fn works(&self, device: &str) -> bool {
        self.publish(device, "chain.pem", device, &format!("devices/{device}/up")).success()
    }
}
