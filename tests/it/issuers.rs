//! Issuers that keep their identity: what was issued stands for the chain that issued it, whatever the configuration says
//! later.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use birthmark::{
    ledger::{
        Action, Actor, Holder, Ledger, Operation, OrderTerms, Outcome,
        embedded::{EmbeddedLedger, Settings},
        journal::Scan,
        verify::{VerifyOptions, verify},
    },
    signer::PublicKey,
};
use bytes::Bytes;
use der::{Decode, Encode};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyPair, KeyUsagePurpose,
    SubjectPublicKeyInfo,
    string::{BmpString, TeletexString},
};

use crate::support::{
    batch::bundle_files,
    site::{Site, certificate, csr, json_line, judge_under, key_of},
    token::{succeeded, text},
};

/// Signs the devices of `NAME.jsonl` into `out`, chain files too.
#[track_caller]
fn sign(site: &Site, name: &str, out: &str) {
    let run = site.sign("line1/t1", "lot", &format!("{name}.jsonl"), out).arg("--chain").output().unwrap();
    succeeded(&run);
}

fn devices(site: &Site, name: &str, ids: &[&str]) {
    let lines: String = ids.iter().map(|id| json_line(id, &csr(id))).collect();
    site.token.write(&format!("{name}.jsonl"), &lines);
}

fn chain_file(site: &Site, out: &str, device: &str) -> String {
    fs::read_to_string(site.path(&format!("{out}/{device}.chain.pem"))).unwrap()
}

/// Every certificate of a PEM file, DER.
fn certificates(text: &str) -> Vec<Vec<u8>> {
    pem::parse_many(text).unwrap().into_iter().map(pem::Pem::into_contents).collect()
}

/// The files of two batches, by name.
#[track_caller]
fn exported(site: &Site, out: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for batch in ["cloud.0001", "aws.0001"] {
        succeeded(&site.operator(&["export", "get", batch, "--out", out]));
        files.extend(bundle_files(&site.path(out).join(batch)));
    }
    files
}

const DESTINATIONS: &str = "\n[destinations.cloud]\nformat = \"jsonl\"\n\n\
                            [destinations.aws]\nformat = \"aws-bulk\"\npolicy = \"device\"\n";

fn json(site: &Site, arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&succeeded(&site.operator(&[arguments, &["--json"]].concat()))).unwrap()
}

/// Name, generation and whether it is in use, of all that is recorded.
fn listed(site: &Site) -> Vec<(String, u64, bool)> {
    let list = json(site, &["issuer", "list"]);
    let one = |issuer: &serde_json::Value| {
        let name = issuer["issuer"].as_str().unwrap().to_owned();
        (name, issuer["generation"].as_u64().unwrap(), issuer["in_use"].as_bool().unwrap())
    };
    list.as_array().unwrap().iter().map(one).collect()
}

/// Has the ceremony make another issuing CA below the site's root.
fn second_ca(site: &Site) {
    let step = "[[step]]\ndo = \"intermediate\"\nissuer = { certificate = \"ca/root.pem\", key = \"root\" }\n\
                key = \"second\"\nkey_type = \"p256\"\nsubject = [\"O=Acme\", \"CN=Acme Issuing CA\"]\n\
                days = 8000\ncertificate = \"ca/second.pem\"\n";
    site.token.write("second.toml", &(site.token.ceremony_head() + step));
    succeeded(&site.token.birthmark(&["ceremony", "second.toml", "--yes"]));
}

/// Certifies the site's issuing key once more, below another root, in `FOLDER/ca`.
fn certify_again(site: &Site, folder: &str, subject: DistinguishedName) {
    let authority = |name: DistinguishedName| {
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        params.not_after = rcgen::date_time_ymd(2060, 1, 1);
        params
    };
    let mut root_name = DistinguishedName::new();
    root_name.push(DnType::CommonName, "Another Root");
    let (root_key, root) = (KeyPair::generate().unwrap(), authority(root_name));
    let root_certificate = root.self_signed(&root_key).unwrap();
    let key = SubjectPublicKeyInfo::from_der(&key_of(&certificate(&site.path("ca/issuer.pem")))).unwrap();
    let issuing = authority(subject).signed_by(&key, &rcgen::Issuer::new(root, root_key)).unwrap();
    site.token.write(&format!("{folder}/ca/root.pem"), &root_certificate.pem());
    site.token.write(&format!("{folder}/ca/issuer.pem"), &issuing.pem());
}

/// Renewed under its name with a new key, then with the same key, then renamed, then all of it after a reindex: what was
/// issued before has the chain of then, byte for byte, and what is issued has that of now.
#[test]
fn issuer_renewed_renamed_and_removed_keeps_its_chain() {
    let site = Site::new();
    site.configure(|usual| usual + DESTINATIONS);
    devices(&site, "old", &["old-1", "old-2"]);
    let daemon = site.start();
    site.create_order("lot", 100);
    sign(&site, "old", "first");
    for name in ["cloud", "aws"] {
        succeeded(&site.operator(&["export", "create", name]));
    }
    let (files, chain) = (exported(&site, "export-0"), chain_file(&site, "first", "old-1"));
    assert_eq!(certificates(&chain)[1], certificate(&site.path("ca/issuer.pem")));
    assert_eq!(listed(&site), [("main".into(), 1, true)]);
    daemon.end();

    second_ca(&site);
    let mut same_subject = DistinguishedName::new();
    same_subject.push(DnType::OrganizationName, "Acme");
    same_subject.push(DnType::CommonName, "Acme Issuing CA");
    certify_again(&site, "again", same_subject);
    let usual = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    let second_key =
        |text: &str| text.replace("object=issuing", "object=second").replace("ca/issuer.pem", "ca/second.pem");
    let same_key = |text: &str| {
        text.replace("\"ca/issuer.pem\", \"ca/root.pem\"", "\"again/ca/issuer.pem\", \"again/ca/root.pem\"")
    };
    let renamed = |text: &str| {
        text.replace("[issuers.main]", "[issuers.other]").replace("issuer = \"main\"", "issuer = \"other\"")
    };
    let mut seen: Vec<(String, String, u64)> = vec![("old-1".into(), "main".into(), 1)];
    for (round, (configuration, name, generation, ca)) in [
        (second_key(&usual), "main", 2, "ca/second.pem"),
        (same_key(&usual), "main", 3, "again/ca/issuer.pem"),
        (renamed(&usual), "other", 1, "ca/issuer.pem"),
        // Back to what was: no new generation.
        (usual.clone(), "main", 1, "ca/issuer.pem"),
        (renamed(&usual), "other", 1, "ca/issuer.pem"),
    ]
    .into_iter()
    .enumerate()
    {
        site.token.write("birthmark.toml", &configuration);
        if round == 4 {
            succeeded(&site.token.birthmark(&["journal", "reindex", "data"]));
        }
        let daemon = site.start();
        assert_eq!(exported(&site, &format!("export-{}", round + 1)), files, "round {round}");
        let (again, new) = (format!("again-{round}"), format!("new-{round}"));
        sign(&site, "old", &again);
        assert_eq!(chain_file(&site, &again, "old-1"), chain, "round {round}");
        devices(&site, &new, &[&new]);
        sign(&site, &new, &new);
        let found = certificates(&chain_file(&site, &new, &new));
        assert_eq!(found[1], certificate(&site.path(ca)), "round {round}");
        seen.push((new, name.to_owned(), generation));
        for (device, name, generation) in &seen {
            let record = json(&site, &["record", "show", device]);
            assert_eq!(
                (&record["issuer"], &record["issuer_generation"]),
                (&name[..].into(), &(*generation).into()),
                "{device}"
            );
        }
        daemon.end();
    }
    let daemon = site.start();
    let expected = [("main", 1, false), ("main", 2, false), ("main", 3, false), ("other", 1, true)];
    assert_eq!(listed(&site), expected.map(|(name, generation, used)| (name.to_owned(), generation, used)));
    let shown = succeeded(&site.operator(&["issuer", "show", "main", "--generation", "2", "--pem"]));
    assert_eq!(certificates(&shown)[0], certificate(&site.path("ca/second.pem")));
    let unknown = site.operator(&["issuer", "show", "main", "--generation", "9"]);
    assert!(text(&unknown.stderr).contains("there is no issuer \"main\" of generation 9"), "{unknown:?}");
    daemon.end();
    let log = site.log();
    assert_eq!(log.matches("issuer recorded").count(), 4, "{log}");
    let verified = verify(Scan::open(&site.path("data")).unwrap(), &VerifyOptions::default(), &mut |_| {}).unwrap();
    assert_eq!((verified.counts.issuers, verified.counts.issued), (4, 7));
}

/// A journal from before issuers were recorded: `certificates` of these devices and keys under the issuer "main".
fn journal_without_issuers(folder: &Path, certificates: &[(&str, Vec<u8>)]) {
    let settings = Settings { min_free: 0, ..Settings::default() };
    let (mut ledger, records) = EmbeddedLedger::open(folder, Timestamp::now(), &settings).unwrap();
    let mut one = |action| {
        let operation = Operation { actor: Actor("station:line1/t1".into()), action };
        ledger.commit(Timestamp::now(), &[operation]).unwrap().remove(0)
    };
    one(Action::CreateOrder(OrderTerms::new("lot", "device", 100)));
    for (device, certificate) in certificates {
        let holder = Holder {
            device: (*device).to_owned(),
            key_hash: PublicKey::from_spki(&key_of(certificate)).unwrap().hash(),
            order: "lot".into(),
            profile: "device".into(),
            issuer: "main".into(),
            issuer_id: 0,
        };
        let Outcome::Reserved(serial_number) = one(Action::Reserve(holder)) else { panic!("{device} is not reserved") };
        one(Action::Record { serial_number, certificate: Bytes::from(certificate.clone()) });
    }
    drop(records);
    ledger.close().unwrap();
}

/// The first start records the issuers of a journal that has none, once, whenever it is killed; its records stand for the
/// first generation that fits them, and what fits none is shown with no chain.
#[test]
fn journal_without_issuers_gets_them_at_the_first_start() {
    let site = Site::new();
    devices(&site, "old", &["old-1"]);
    let daemon = site.start();
    site.create_order("lot", 100);
    sign(&site, "old", "first");
    daemon.end();
    let known = certificate(&site.path("first/old-1.pem"));
    // One of another CA, as a configuration that was changed by hand in those days could leave it.
    let stray_key = KeyPair::generate().unwrap();
    let stray = CertificateParams::default().self_signed(&stray_key).unwrap().der().to_vec();
    journal_without_issuers(&site.path("earlier"), &[("old-1", known), ("stray", stray)]);
    let usual = fs::read_to_string(site.path("birthmark.toml")).unwrap() + DESTINATIONS;
    site.token.write("birthmark.toml", &usual.replace("path = \"data\"", "path = \"earlier\""));
    for milliseconds in [40, 80, 120, 160, 200, 300] {
        site.start_and_kill(Duration::from_millis(milliseconds));
    }
    let daemon = site.start();
    assert_eq!(listed(&site), [("main".into(), 1, true)]);
    assert_eq!(json(&site, &["record", "show", "old-1"])["issuer_generation"], 1);
    daemon.end();
    second_ca(&site);
    let text_now = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    let renewed = text_now.replace("object=issuing", "object=second").replace("ca/issuer.pem", "ca/second.pem");
    site.token.write("birthmark.toml", &renewed);
    let daemon = site.start();
    assert_eq!(listed(&site), [("main".into(), 1, false), ("main".into(), 2, true)]);
    sign(&site, "old", "replayed");
    assert_eq!(chain_file(&site, "replayed", "old-1"), chain_file(&site, "first", "old-1"));

    let says = "is of the issuer \"main\", and none of the 2 recorded generations of that name fits it";
    let refused = site.operator(&["record", "show", "stray"]);
    assert!(text(&refused.stderr).contains(says), "{refused:?}");
    for command in ["plan", "create"] {
        let refused = site.operator(&["export", command, "cloud"]);
        assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains(says), "{refused:?}");
    }
    let csr = {
        let params = CertificateParams::default();
        params.serialize_request(&stray_key).unwrap().der().to_vec()
    };
    site.token.write("stray.jsonl", &json_line("stray", &csr));
    let refused = site.sign("line1/t1", "lot", "stray.jsonl", "no").output().unwrap();
    assert!(text(&refused.stderr).contains(says), "{refused:?}");
    let said = fs::read_to_string(site.path("no/stray.error.json")).unwrap();
    assert!(said.contains("ISSUER_MISMATCH"), "{said}");
    daemon.end();
}

/// A CA whose subject an encoder would write differently (BMPString, TeletexString) issues with the octets that it has, and
/// is kept byte for byte.
#[test]
fn ca_subject_in_other_string_types_is_kept_octet_for_octet() {
    let site = Site::new();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, DnValue::TeletexString(TeletexString::try_from("Issuing CA").unwrap()));
    subject.push(DnType::OrganizationName, DnValue::BmpString(BmpString::try_from("Acme").unwrap()));
    certify_again(&site, "odd", subject);
    let usual = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    let odd = usual.replace("\"ca/issuer.pem\", \"ca/root.pem\"", "\"odd/ca/issuer.pem\", \"odd/ca/root.pem\"");
    site.token.write("birthmark.toml", &odd);
    devices(&site, "some", &["a", "b"]);
    let daemon = site.start();
    site.create_order("lot", 10);
    sign(&site, "some", "certs");
    let ca = certificate(&site.path("odd/ca/issuer.pem"));
    let kept = certificates(&succeeded(&site.operator(&["issuer", "show", "main", "--pem"])));
    assert_eq!(kept, [ca.clone(), certificate(&site.path("odd/ca/root.pem"))]);
    let leaves = ["a", "b"].map(|device| site.path(&format!("certs/{device}.pem")));
    let ca = x509_cert::Certificate::from_der(&ca).unwrap();
    for leaf in &leaves {
        let leaf = x509_cert::Certificate::from_der(&certificate(leaf)).unwrap();
        let issuer = leaf.tbs_certificate().issuer().to_der().unwrap();
        assert_eq!(issuer, ca.tbs_certificate().subject().to_der().unwrap());
        // [1e]: BMPString; [14]: TeletexString.
        assert!(issuer.contains(&0x1e) && issuer.contains(&0x14), "{}", hex::encode(issuer));
    }
    for judge in ["openssl", "go"] {
        judge_under(&site.path("odd"), judge, "ca/issuer.pem", &leaves);
    }
    daemon.end();
}
