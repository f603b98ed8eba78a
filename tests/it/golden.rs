//! What each preset gives, field by field, held against files that people have read: tests/golden.
//!
//! `UPDATE_GOLDEN=1 cargo test --test it golden` writes them again.

use std::{collections::BTreeMap, fs, path::PathBuf};

use birthmark::{
    config::Config,
    configure,
    csr::{self, RefusedKeys},
    describe_certificate,
    lint::{self, Severity},
    profile::{Approved, Profile, ProfileError, RequestContext, Values},
    serial::SerialNumber,
    testing::{join, to_be_signed},
};
use jiff::Timestamp;
use proptest::prelude::*;

use crate::support::fixtures::fixture;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn config() -> Config {
    Config::load(&golden("birthmark.toml")).unwrap()
}

fn profiles() -> Vec<Profile> {
    let config = config();
    let issuers = configure::issuers_without_keys(&config, now()).unwrap();
    config.profiles.iter().map(|(name, settings)| Profile::new(&config, name, settings, &issuers).unwrap()).collect()
}

fn now() -> Timestamp {
    "2026-03-01T06:00:00Z".parse().unwrap()
}

fn approve(profile: &Profile, csr: &[u8]) -> Result<Approved, ProfileError> {
    let attributes = BTreeMap::from([("pid", "8000"), ("batch", "A7")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    let (device, order) = ("dev-0001".parse().unwrap(), "order-7".parse().unwrap());
    let values = Values { device: &device, order: Some(&order), station: "line1/t1", attributes: &attributes };
    let csr = csr::verify(csr, &RefusedKeys::default()).unwrap();
    profile.approve(csr, &RequestContext { values, now: now() })
}

fn read(name: &str) -> Vec<u8> {
    fs::read(fixture("csr").join(name)).unwrap()
}

/// Every preset gives what its golden file says.
#[test]
fn preset_of_every_kind_gives_its_golden_file() {
    for profile in profiles() {
        let name = profile.name();
        let csr = if name == "everything" { read("openssl-rsa2048.pem") } else { read("openssl-p256.pem") };
        let approved = approve(&profile, &csr).unwrap();
        let to_be_signed = to_be_signed(&SerialNumber::sample(), &approved);
        let certificate = join(&to_be_signed, approved.issuer().algorithm(), &[0; 64]);
        let fields = describe_certificate::fields(&certificate).unwrap();
        let mut dump: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        dump.push_str(&format!("to be signed: {}\n", hex::encode(&to_be_signed)));
        let path = golden(&format!("{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &dump).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), dump, "{}", path.display());
    }
}

/// No golden profile breaks a rule.
#[test]
fn preset_of_every_kind_breaks_no_rule() {
    let config = config();
    for profile in profiles() {
        for finding in lint::profile(&profile, &config.profiles[profile.name()], now()) {
            assert_eq!(finding.severity, Severity::Warning, "{}: {finding}", profile.name());
        }
    }
}

/// A CSR of this key with this subject (DER Name) and these attributes (DER, the content of the `[0]`).
fn csr_with(key: &rcgen::KeyPair, subject: &[u8], attributes: &[u8]) -> Vec<u8> {
    use rcgen::{PublicKeyData, SigningKey};
    let tlv = |tag: u8, content: &[u8]| {
        let length = content.len();
        let header = match length {
            0..128 => vec![tag, length as u8],
            128..256 => vec![tag, 0x81, length as u8],
            _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        };
        [&header[..], content].concat()
    };
    let spki = key.subject_public_key_info();
    let info = tlv(0x30, &[&[2, 1, 0], subject, &spki, &tlv(0xa0, attributes)].concat());
    let signature = key.sign(&info).unwrap();
    let algorithm = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    tlv(0x30, &[&info[..], &algorithm, &tlv(3, &[&[0], &signature[..]].concat())].concat())
}

/// An attribute that asks for anything: extensionRequest with any extensions, or anything else.
fn wish() -> impl Strategy<Value = Vec<u8>> {
    let short = |tag: u8, content: Vec<u8>| [vec![tag, content.len() as u8], content].concat();
    let oid = prop_oneof![
        Just(vec![0x55, 0x1d, 0x13]), // basicConstraints
        Just(vec![0x55, 0x1d, 0x0f]), // keyUsage
        Just(vec![0x55, 0x1d, 0x25]), // extKeyUsage
        Just(vec![0x55, 0x1d, 0x11]), // subjectAltName
        Just(vec![0x55, 0x1d, 0x0e]), // subjectKeyIdentifier
        Just(vec![0x55, 0x1d, 0x1e]), // nameConstraints
    ];
    let value = prop_oneof![
        Just(vec![0x30, 3, 1, 1, 0xff]), // CA:TRUE
        Just(vec![3, 2, 1, 0x06]),       // keyCertSign, cRLSign
        proptest::collection::vec(any::<u8>(), 0..24),
    ];
    (oid, value, any::<bool>()).prop_map(move |(oid, value, critical)| {
        let critical = if critical { vec![1, 1, 0xff] } else { Vec::new() };
        let extension = short(0x30, [short(6, oid), critical, short(4, value)].concat());
        let request = [0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 9, 14].to_vec(); // extensionRequest
        short(0x30, [short(6, request), short(0x31, short(0x30, extension))].concat())
    })
}

/// A Name of any text.
fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let short = |tag: u8, content: Vec<u8>| [vec![tag, content.len() as u8], content].concat();
    let attribute =
        ("[ -~]{0,20}", prop_oneof![Just(3_u8), Just(5), Just(6), Just(10), Just(11)]).prop_map(move |(text, arc)| {
            short(0x31, short(0x30, [short(6, vec![0x55, 4, arc]), short(12, text.into_bytes())].concat()))
        });
    proptest::collection::vec(attribute, 0..3).prop_map(move |attributes| short(0x30, attributes.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Invariant 8: a device gets what its profile says, not what its CSR asks.
    #[test]
    fn csr_of_any_content_changes_only_the_public_key(
        subject in any_name(),
        wishes in proptest::collection::vec(wish(), 0..4),
    ) {
        let key = rcgen::KeyPair::generate().unwrap();
        let plain = csr_with(&key, &[0x30, 0], &[]);
        let wishing = csr_with(&key, &subject, &wishes.concat());
        for profile in profiles().iter().filter(|profile| profile.name() != "everything") {
            let [plain, wishing] = [&plain, &wishing].map(|csr| {
                to_be_signed(&SerialNumber::sample(), &approve(profile, csr).unwrap())
            });
            prop_assert_eq!(plain, wishing);
        }
    }

    /// With another key, only the key and its identifier differ.
    #[test]
    fn key_of_another_device_changes_key_and_identifier_only(_round in 0..8) {
        let keys = [rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap()];
        for profile in profiles().iter().filter(|profile| profile.name() != "everything") {
            let [one, two] = keys.each_ref().map(|key| {
                let csr = csr_with(key, &[0x30, 0], &[]);
                let verified = csr::verify(&csr, &RefusedKeys::default()).unwrap();
                let (spki, id) = (verified.public_key().spki.clone(), verified.public_key().identifier());
                let der = to_be_signed(&SerialNumber::sample(), &approve(profile, &csr).unwrap());
                hex::encode(der).replace(&hex::encode(spki), "KEY").replace(&hex::encode(id), "ID")
            });
            prop_assert_eq!(one, two);
        }
    }
}
