//! Profiles below CAs that limit what their certificates may say: names, policies.

use std::{collections::BTreeMap, fs, path::Path};

use birthmark::{
    config::Config,
    configure,
    csr::{self, RefusedKeys},
    id::{DeviceId, OrderId},
    lint::{self, Severity},
    profile::{Profile, ProfileError, RequestContext, SubjectError, Values},
};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints,
};

use crate::support::fixtures::fixture;

/// A root with these name constraints and an issuing CA "O=Acme, CN=Issuer" with these extensions, and a configuration
/// with one profile.
fn site(constraints: Option<NameConstraints>, extensions: Vec<CustomExtension>, profile: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.use_authority_key_identifier_extension = true;
        params
    };
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut root = authority("Root");
    root.name_constraints = constraints;
    let root_certificate = root.self_signed(&root_key).unwrap();
    let mut issuing = authority("Issuer");
    issuing.custom_extensions = extensions;
    let issuing = issuing.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    fs::write(folder.path().join("chain.pem"), issuing.pem() + &root_certificate.pem()).unwrap();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ncertificate = \"unused\"\nkey = \"unused\"\nclient_ca = \"unused\"\n\
         [ledger]\npath = \"unused\"\n\
         [issuers.main]\nchain = [\"chain.pem\"]\nkey_uri = \"pkcs11:token=unused;object=unused\"\n\
         [profiles.device]\nissuer = \"main\"\nvalidity_days = 30\n{profile}\n"
    );
    fs::write(folder.path().join("birthmark.toml"), config).unwrap();
    folder
}

fn profile(folder: &Path) -> (Config, Profile) {
    let config = Config::load(&folder.join("birthmark.toml")).unwrap();
    let issuers = configure::issuers_without_keys(&config, Timestamp::now()).unwrap();
    let profile = Profile::new(&config, "device", &config.profiles["device"], &issuers).unwrap();
    (config, profile)
}

/// What the daemon refuses at its start, as key and message.
fn error(folder: &Path) -> Option<(String, String)> {
    let (config, profile) = profile(folder);
    let findings = lint::profile(&profile, &config.profiles["device"], Timestamp::now());
    let error = findings.into_iter().find(|finding| finding.severity == Severity::Error);
    error.map(|finding| (finding.key.to_owned(), finding.to_string()))
}

fn permitted(name: GeneralSubtree) -> Option<NameConstraints> {
    Some(NameConstraints { permitted_subtrees: vec![name], excluded_subtrees: Vec::new() })
}

fn acme() -> GeneralSubtree {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::OrganizationName, "Acme");
    GeneralSubtree::DirectoryName(name)
}

/// RFC 5280 section 4.2.1.10: device ids and orders' attributes decide whether a certificate is valid below a CA that
/// constrains names, so that each request is held against it, not the sample of the start alone.
#[test]
fn names_of_devices_and_orders_obey_name_constraints() {
    let dns = permitted(GeneralSubtree::DnsName("example.com".into()));
    for (constraints, settings, device, maker, says) in [
        (dns.clone(), "subject_alt_names = [\"dns:{device_id}\"]", "a.example.com", "Acme", ""),
        (
            dns.clone(),
            "subject_alt_names = [\"dns:{device_id}\"]",
            "a.example.org",
            "Acme",
            "the DNS name \"a.example.org\", which is not permitted (only the DNS name \"example.com\")",
        ),
        (dns.clone(), "subject_alt_names = [\"dns:d.{order.maker}\"]", "a", "example.com", ""),
        (dns, "subject_alt_names = [\"dns:d.{order.maker}\"]", "a", "example.net", "\"d.example.net\", which is not"),
        (permitted(acme()), "subject = [\"O={order.maker}\", \"CN={device_id}\"]", "a", "Acme", ""),
        (
            permitted(acme()),
            "subject = [\"O={order.maker}\", \"CN={device_id}\"]",
            "a",
            "Other",
            "the name \"O=Other, CN=a\", which is not permitted",
        ),
    ] {
        let folder = site(constraints, Vec::new(), settings);
        let (_, profile) = profile(folder.path());
        let csr = fs::read(fixture("csr/openssl-p256.pem")).unwrap();
        let csr = csr::verify(&csr, &RefusedKeys::default()).unwrap();
        let attributes = BTreeMap::from([("maker".to_owned(), maker.to_owned())]);
        let (device, order) = (device.parse::<DeviceId>().unwrap(), "o1".parse::<OrderId>().unwrap());
        let values = Values { device: &device, order: Some(&order), station: "line1/t1", attributes: &attributes };
        let approved = profile.approve(csr, &RequestContext { values, now: Timestamp::now() });
        match approved {
            Ok(_) => assert_eq!("", says),
            Err(error @ ProfileError::SubjectRefused(SubjectError::InvalidBelowIssuer(_))) => {
                let error = error.to_string();
                assert!(!says.is_empty() && error.contains(says), "{says}: {error}");
                assert!(error.contains("certificate 2, \"O=Acme, CN=Root\": its name constraints"), "{error}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// The key that an operator has to change is the one that the error names.
#[test]
fn profile_invalid_below_its_issuer_names_the_key() {
    let dns = || permitted(GeneralSubtree::DnsName("example.com".into()));
    let extension = |last: u64, value: &[u8]| CustomExtension::from_oid_content(&[2, 5, 29, last], value.to_vec());
    // certificatePolicies 1.2.3, and policyConstraints { requireExplicitPolicy 0 }
    let demand = || vec![extension(32, &[0x30, 6, 0x30, 4, 6, 2, 0x2a, 3]), extension(36, &[0x30, 3, 0x80, 1, 0])];
    let server_auth = || vec![extension(37, &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1])];
    for (constraints, extensions, settings, key, says) in [
        (
            dns(),
            Vec::new(),
            "subject_alt_names = [\"dns:device.example.org\"]",
            "subject_alt_names",
            "the DNS name \"device.example.org\", which is not permitted",
        ),
        (dns(), Vec::new(), "subject_alt_names = [\"dns:device.example.com\"]", "", ""),
        (permitted(acme()), Vec::new(), "subject = [\"O=Other\", \"CN={device_id}\"]", "subject", "\"O=Other, CN=0\""),
        (None, server_auth(), "", "extended_key_usage", "allows none of the purposes"),
        (
            None,
            demand(),
            "certificate_policies = [\"1.2.4\"]",
            "certificate_policies",
            "the certificate has 1.2.4, and its issuers allow 1.2.3",
        ),
        (None, demand(), "", "certificate_policies", "the certificate has no certificatePolicies"),
        (None, demand(), "certificate_policies = [\"1.2.3\"]", "", ""),
    ] {
        let folder = site(constraints, extensions, settings);
        match error(folder.path()) {
            None => assert_eq!("", key, "{settings}"),
            Some((found, message)) => {
                assert_eq!(found, key, "{settings}: {message}");
                assert!(message.contains(says) && message.contains("below its issuer"), "{settings}: {message}");
            }
        }
    }
}
