//! Proofs of possession: who gets one, what is in it, that it stays the same, and that no device is given one.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use birthmark::{
    ledger::{
        Action, Actor, IssuerTerms, Ledger, Operation, Outcome, ProofId, ProofTerms, Records, Refusal,
        embedded::{EmbeddedLedger, Settings},
    },
    proto::{ProvePossessionReply, ProvePossessionRequest, admin_client::AdminClient},
    serial::SerialNumber,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tonic::{Code, transport::Channel};
use x509_cert::{Certificate, der::Decode};

use crate::support::{
    faults::Faults,
    site::{Answer, Site, csr, request, wait_until},
    token::{Token, refused, succeeded, text},
};

/// As AWS IoT's GetRegistrationCode gives it.
const AWS: &str = "94a6ae2d4d1e4d36ba08ae2d3ed1bf2cb9d4e8e3f5a8a6f4d9f5ad3cf4a1b2c3";
/// As Azure's DPS gives it.
const AZURE: &str = "106A5SD242AF512B3498BD6098C4941E66R34H268";
/// As Huawei Cloud gives it.
const HUAWEI: &str = "123e4567-e89b-12d3-a456-426614174000";

fn ask(code: &str, issuer: &str) -> ProvePossessionRequest {
    ProvePossessionRequest { code: code.to_owned(), issuer: issuer.to_owned() }
}

async fn prove(admin: &mut AdminClient<Channel>, code: &str) -> ProvePossessionReply {
    admin.prove_possession(ask(code, "main")).await.unwrap().into_inner()
}

/// `ca prove` into this file, with its JSON.
fn prove_into(site: &Site, code: &str, file: &str) -> Value {
    let out = site.path(file);
    let arguments = ["ca", "prove", code, "--issuer", "main", "--json", "--out", out.to_str().unwrap()];
    serde_json::from_str(&succeeded(&site.operator(&arguments))).unwrap()
}

fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let run = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(run.status.success(), "openssl {arguments:?}: {}", text(&run.stderr));
    text(&run.stdout)
}

fn verify_journal(site: &Site) -> Value {
    serde_json::from_str(&succeeded(&site.token.birthmark(&["journal", "verify", "data", "--json"]))).unwrap()
}

/// What RegisterCACertificate and its kin look at: issued by the CA, by name and signature; the code alone as its name; no
/// CA; valid now. And it is good for nothing else.
#[test]
fn proof_is_what_platforms_demand_and_no_more() {
    let site = Site::new();
    let daemon = site.start();
    let said = prove_into(&site, AWS, "proof.pem");
    assert_eq!((said["replay"].as_bool(), said["issuer"].as_str()), (Some(false), Some("main")), "{said}");
    assert!(said["shape"].as_str().unwrap().contains("AWS IoT"), "{said}");

    let folder = site.path("");
    openssl(&folder, &["verify", "-x509_strict", "-partial_chain", "-CAfile", "ca/issuer.pem", "proof.pem"]);
    let shown = openssl(&folder, &["x509", "-in", "proof.pem", "-noout", "-subject", "-nameopt", "RFC2253"]);
    assert_eq!(shown.trim(), format!("subject=CN={AWS}"));
    let all = openssl(&folder, &["x509", "-in", "proof.pem", "-noout", "-text"]);
    for part in ["CA:FALSE", "X509v3 Key Usage: critical", "X509v3 Authority Key Identifier", "NIST CURVE: P-256"] {
        assert!(all.contains(part), "{part:?} is not in: {all}");
    }
    let usage = all.lines().skip_while(|line| !line.contains("Key Usage: critical")).nth(1).unwrap_or_default();
    assert_eq!(usage.trim(), "Digital Signature", "{all}");
    assert!(!all.contains("Extended Key Usage") && !all.contains("Alternative Name"), "{all}");

    let read = |file: &str| {
        let pem = fs::read(site.path(file)).unwrap();
        Certificate::from_der(&pem::parse(pem).unwrap().into_contents()).unwrap()
    };
    let (proof, ca) = (read("proof.pem"), read("ca/issuer.pem"));
    let (proof, ca) = (proof.tbs_certificate(), ca.tbs_certificate());
    assert_eq!(proof.issuer(), ca.subject());
    let validity = proof.validity();
    let [begin, end] = [validity.not_before, validity.not_after].map(|time| time.to_unix_duration().as_secs() as i64);
    let now = Timestamp::now().as_second();
    assert_eq!(end - begin, 25 * 3600);
    assert!((0..60).contains(&(now + 24 * 3600 - end)), "{now}, {end}");
    assert_eq!(proof.extensions().unwrap().len(), 4);

    // The file is not replaced by another proof; the same may be asked for again.
    assert_eq!(prove_into(&site, AWS, "proof.pem")["replay"], true);
    let out = site.path("proof.pem");
    let other = ["ca", "prove", AZURE, "--issuer", "main", "--out", out.to_str().unwrap()];
    refused(&site.operator(&other), &["proof.pem exists and is another certificate"]);

    assert!(daemon.metric("birthmark_possession_proofs_total", &["issuer=\"main\"", "replay=\"false\""]) == 2.0);
    assert!(daemon.metric("birthmark_possession_proofs_total", &["issuer=\"main\"", "replay=\"true\""]) == 1.0);
    daemon.end();
    let log = site.log();
    let line = log.lines().find(|line| line.contains("proved possession")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("operator:") && line.contains("issuer=\"main\"") && line.contains("AWS IoT"), "{line}");
}

/// The key of a proof is in no file of the daemon's, and nothing but the journal learns of a proof.
#[test]
fn proof_leaves_no_key_and_no_record_of_a_device() {
    let site = Site::new();
    site.configure(|usual| usual + "\n[destinations.cloud]\nformat = \"jsonl\"\n");
    let daemon = site.start();
    site.create_order("o1", 5);
    let before = files(&site.path(""));
    let proof = prove_into(&site, HUAWEI, "proof.pem");
    let new: Vec<_> = files(&site.path("")).difference(&before).cloned().collect();
    assert_eq!(new.iter().filter(|(_, key)| *key).collect::<Vec<_>>(), Vec::<&(String, bool)>::new());
    assert!(new.iter().all(|(name, _)| name == "proof.pem" || name.starts_with("data/")), "{new:?}");

    let order = site.order("o1");
    assert_eq!((order["issued"].as_u64(), order["left"].as_u64()), (Some(0), Some(5)), "{order}");
    let serial = proof["serial_number"].as_str().unwrap();
    for arguments in [
        vec!["record", "show", serial],
        vec!["record", "revoke", serial],
        vec!["record", "scrap", serial, "--reason", "test"],
    ] {
        refused(&site.operator(&arguments), &["no record of the serial number", serial]);
    }
    refused(&site.operator(&["record", "show", HUAWEI, "--device"]), &["no record of the device"]);
    assert!(!succeeded(&site.operator(&["record", "list", "--order", "o1"])).contains(serial));
    let said = succeeded(&site.operator(&["export", "create", "cloud"]));
    assert!(said.contains("nothing new for cloud"), "{said}");
    daemon.end();
    let verified = verify_journal(&site);
    assert_eq!((&verified["counts"]["proofs"], &verified["counts"]["issued"]), (&1.into(), &0.into()), "{verified}");
    let dump = succeeded(&site.token.birthmark(&["journal", "dump", "data"]));
    assert!(
        dump.contains("\"proof_reserved\"") && dump.contains("\"proof_issued\"") && dump.contains(HUAWEI),
        "{dump}"
    );
}

/// The files below a folder, and whether each holds a private key.
fn files(folder: &Path) -> BTreeSet<(String, bool)> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeSet<(String, bool)>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                walk(root, &path, found);
            } else {
                let content = fs::read(&path).unwrap_or_default();
                let key = content.windows(11).any(|octets| octets == b"PRIVATE KEY");
                found.insert((path.strip_prefix(root).unwrap().display().to_string(), key));
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(folder, folder, &mut found);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn proof_for_others_than_operators_is_refused() {
    let site = Site::new();
    let daemon = site.start();
    for (role, name) in [("auditor", "eve"), ("station", "line1/t1")] {
        let mut admin = AdminClient::new(site.connect(&daemon, role, name).await);
        let status = admin.prove_possession(ask(AWS, "main")).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{role}: {status}");
    }
    let mut admin = AdminClient::new(site.connect(&daemon, "operator", "olga").await);
    for (code, issuer, expected, reason) in [
        ("short", "main", Code::InvalidArgument, "REQUEST_INVALID"),
        ("0123456789abcdef_", "main", Code::InvalidArgument, "REQUEST_INVALID"),
        (&"a".repeat(65), "main", Code::InvalidArgument, "REQUEST_INVALID"),
        (AWS, "none", Code::NotFound, "ISSUER_UNKNOWN"),
    ] {
        let status = admin.prove_possession(ask(code, issuer)).await.unwrap_err();
        Answer::of_call(&status).must_be(expected, reason);
    }
    let proof = prove(&mut admin, AZURE).await;
    assert!(!proof.replay && proof.shape.is_empty(), "{}", proof.shape);
    daemon.end();
    // The command says what a code is before it asks anybody.
    let run = site.operator(&["ca", "prove", "short", "--issuer", "main", "--out", "x.pem"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(text(&run.stderr).contains("16 to 64 characters of A-Z a-z 0-9 -"), "{}", text(&run.stderr));
}

/// Invariant 4, across whatever happens to the daemon and the index.
#[tokio::test(flavor = "multi_thread")]
async fn proof_asked_again_is_the_same_after_a_kill() {
    let site = Site::new();
    let mut daemon = site.start();
    let mut admin = daemon.admin().await;
    let first = prove(&mut admin, AWS).await;
    assert!(!first.replay);
    let same = |again: &ProvePossessionReply| {
        assert!(again.replay);
        assert_eq!((&again.certificate, &again.serial_number), (&first.certificate, &first.serial_number));
        assert_eq!(again.not_after, first.not_after);
    };
    same(&prove(&mut admin, AWS).await);
    daemon.kill();
    daemon.wait();
    let daemon = site.start();
    same(&prove(&mut daemon.admin().await, AWS).await);
    daemon.end();
    succeeded(&site.token.birthmark(&["journal", "reindex", "data"]));
    let daemon = site.start();
    let mut admin = daemon.admin().await;
    same(&prove(&mut admin, AWS).await);
    // Another code is another proof.
    let other = prove(&mut admin, HUAWEI).await;
    assert!(!other.replay && other.serial_number != first.serial_number);
    daemon.end();
    assert_eq!(verify_journal(&site)["counts"]["proofs"], 2);
}

/// A daemon that is killed while the HSM signs leaves a reservation and no proof: its serial number is abandoned, and whoever
/// asks again gets one proof, the only one.
#[tokio::test(flavor = "multi_thread")]
async fn proof_killed_while_it_is_signed_is_made_anew() {
    let site = Site::new();
    let faults = Faults::between(&site, "");
    let mut daemon = site.start();
    faults.set("hang C_Sign 600s");
    let mut admin = daemon.admin().await;
    let asked = tokio::spawn(async move { admin.prove_possession(ask(AWS, "main")).await });
    let reserved = || {
        let journal = fs::read(site.path("data/journal/00000001.journal")).unwrap();
        journal.windows(AWS.len()).any(|octets| octets == AWS.as_bytes())
    };
    wait_until("the serial number is reserved", reserved);
    assert!(!asked.is_finished());
    daemon.kill();
    daemon.wait();
    assert!(asked.await.unwrap().is_err());
    faults.set_before_start("");
    let daemon = site.start();
    let mut admin = daemon.admin().await;
    let proof = prove(&mut admin, AWS).await;
    assert!(!proof.replay);
    assert_eq!(prove(&mut admin, AWS).await.certificate, proof.certificate);
    daemon.end();
    let verified = verify_journal(&site);
    assert_eq!((&verified["counts"]["proofs"], &verified["counts"]["reserved"]), (&1.into(), &0.into()), "{verified}");
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_asked_for_at_the_same_moment_are_one() {
    let site = Site::new();
    let daemon = site.start();
    let admin = daemon.admin().await;
    let asked: Vec<_> = (0..16)
        .map(|_| {
            let mut admin = admin.clone();
            tokio::spawn(async move { prove(&mut admin, AWS).await })
        })
        .collect();
    let mut replies = Vec::new();
    for one in asked {
        replies.push(one.await.unwrap());
    }
    assert_eq!(replies.iter().filter(|reply| !reply.replay).count(), 1);
    assert!(replies.iter().all(|reply| reply.certificate == replies[0].certificate));
    daemon.end();
    assert_eq!(verify_journal(&site)["counts"]["proofs"], 1);
}

/// No station may make a certificate that a platform takes as a proof; a device that has one gets it again.
#[tokio::test(flavor = "multi_thread")]
async fn device_id_like_a_code_is_refused_unless_allowed() {
    let dps = "0123456789ABCDEF0123".repeat(2);
    let allow = |usual: String| usual + "allow_code_like_ids = true\n";
    let site = Site::new();
    site.configure(allow);
    let daemon = site.start();
    site.create_order("o1", 10);
    let ask = request(AWS, "o1", csr("x"));
    let first = site.stream(&daemon, "line1/t1").await.ask(ask.clone()).await.issued();
    daemon.end();

    site.configure(|usual| usual + "\n[profiles.prefixed]\nissuer = \"main\"\nsubject = [\"CN=ab{device_id}\"]\norder_requirement = \"optional\"\n");
    let daemon = site.start();
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let again = stream.ask(ask.clone()).await.issued();
    assert_eq!(again.certificate, first.certificate);
    let refusal = |answer: Answer| answer.must_be(Code::PermissionDenied, "DEVICE_ID_LIKE_CODE");
    for id in [&AWS.replace('9', "8"), &dps, &"0123456789ABCDEF".repeat(3)] {
        refusal(stream.ask(request(id, "o1", csr("x"))).await);
    }
    // Upper-case AWS codes, others' ids and UUIDs are none of these.
    for id in [&AWS.to_uppercase(), HUAWEI, &AWS[1..]] {
        stream.ask(request(id, "o1", csr("x"))).await.issued();
    }
    // What the name becomes counts, not the id alone.
    let mut ask = request(&AWS[2..], "", csr("x"));
    ask.profile = "prefixed".into();
    refusal(stream.ask(ask).await);
    assert_eq!(site.order("o1")["issued"], 4);
    daemon.end();
}

#[test]
fn profile_with_free_ids_as_names_is_warned_about() {
    let site = Site::new();
    let check = |more: &str, device: &str| {
        site.configure(|usual| usual + more);
        site.token.birthmark(&["profile", "check", "--config", "birthmark.toml", "device", "--device", device])
    };
    let said = succeeded(&check("", "d1"));
    assert!(said.contains("warning: device_id: ") && said.contains("Huawei"), "{said}");
    let said = succeeded(&check("allow_code_like_ids = true\n", "d1"));
    assert!(said.contains("warning: device_id: ") && said.contains("AWS IoT"), "{said}");
    let said = succeeded(&check("device_id = \"SN[0-9]{8}\"\n", "SN00000001"));
    assert!(said.contains("nothing is wrong with it"), "{said}");
    // An id of a code's form is refused here as it is by the daemon.
    let run = check("", AWS);
    assert!(!run.status.success() && text(&run.stdout).contains("allow_code_like_ids"), "{}", text(&run.stdout));
}

fn terms(code: &str, not_after: Timestamp) -> ProofTerms {
    ProofTerms { id: ProofId { issuer_id: 1, code: code.into() }, key_hash: [7; 32], not_after }
}

fn commit(ledger: &mut EmbeddedLedger, now: Timestamp, action: Action) -> Outcome {
    let actor = Actor("operator:olga".into());
    ledger.commit(now, &[Operation { actor, action }]).unwrap().remove(0)
}

#[track_caller]
fn reserved(outcome: Outcome) -> SerialNumber {
    match outcome {
        Outcome::Reserved(serial_number) => serial_number,
        other => panic!("{other:?}"),
    }
}

/// A proof lives as long as its certificate; one that a crash left unfinished is abandoned.
#[test]
fn proof_that_has_expired_or_is_unfinished_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    // Each flush goes into the index at once.
    let settings = Settings { flush_at: 1, ..Settings::default() };
    let begin = Timestamp::now();
    let [later, end] = [1, 24].map(|hours| begin + SignedDuration::from_hours(hours));
    let (mut ledger, _) = EmbeddedLedger::open(folder.path(), begin, &settings).unwrap();
    let issuer = IssuerTerms { name: "main".into(), chain: vec!["chain".into()], crl_shards: 0 };
    assert!(matches!(commit(&mut ledger, begin, Action::AddIssuer(issuer)), Outcome::Issuer { .. }));
    let ask = || Action::ReserveProof(terms(AWS, end));
    let unfinished = reserved(commit(&mut ledger, begin, ask()));
    assert!(matches!(commit(&mut ledger, begin, ask()), Outcome::InProgress(serial) if serial == unfinished));
    // Others pass by, so that the index moves on.
    for number in 0..5 {
        reserved(commit(&mut ledger, begin, Action::ReserveProof(terms(&format!("other-{number:012}"), end))));
    }
    drop(ledger);
    let (mut ledger, _) = EmbeddedLedger::open(folder.path(), later, &settings).unwrap();
    let record = |serial_number| Action::RecordProof { serial_number, certificate: "certificate".into() };
    let outcome = commit(&mut ledger, later, record(unfinished));
    assert!(matches!(outcome, Outcome::Refused(Refusal::NotReserved(_))), "{outcome:?}");

    let serial_number = reserved(commit(&mut ledger, later, ask()));
    assert!(serial_number > unfinished);
    assert!(matches!(commit(&mut ledger, later, record(serial_number)), Outcome::Recorded));
    for closed in [false, true] {
        let outcome = commit(&mut ledger, later, ask());
        assert!(matches!(&outcome, Outcome::Proof(found) if found.serial_number == serial_number), "{outcome:?}");
        match closed {
            true => ledger.close().unwrap(),
            false => drop(ledger),
        }
        let records;
        (ledger, records) = EmbeddedLedger::open(folder.path(), later, &settings).unwrap();
        assert_eq!(records.by_serial_number(&serial_number).unwrap(), None);
    }
    // To the last second it is the same; then a new one.
    let outcome = commit(&mut ledger, end, ask());
    assert!(matches!(&outcome, Outcome::Proof(found) if found.certificate == "certificate"), "{outcome:?}");
    let after = end + SignedDuration::from_secs(1);
    let next = commit(&mut ledger, after, Action::ReserveProof(terms(AWS, after + SignedDuration::from_hours(24))));
    assert!(reserved(next) > serial_number);
    drop(ledger);
    EmbeddedLedger::reindex(folder.path(), &settings).unwrap();
    let run =
        Command::new(env!("CARGO_BIN_EXE_birthmark")).args(["journal", "verify", "--json"]).arg(folder.path()).output();
    let verified: Value = serde_json::from_str(&succeeded(&run.unwrap())).unwrap();
    assert_eq!((&verified["counts"]["proofs"], &verified["counts"]["reserved"]), (&1.into(), &1.into()), "{verified}");
}

const CEREMONY: &str = r#"
[[step]]
do = "root"
key = "root"
key_type = "p384"
subject = ["C=DE", "O=Acme", "CN=Acme Root"]
days = 3650
certificate = "ca/root.pem"
"#;

/// For a CA whose key is only at the ceremony: in the ceremony that makes it, and in a later one.
#[test]
fn proof_at_a_ceremony_is_of_the_ca_it_names() {
    let token = Token::new();
    let step = |number: u8, code: &str| {
        format!(
            "[[step]]\ndo = \"prove\"\nkey = \"root\"\nca = \"ca/root.pem\"\ncode = \"{code}\"\n\
             certificate = \"proof{number}.pem\"\n"
        )
    };
    let ceremony = |steps: &str, arguments: &[&str]| {
        token.write("ceremony.toml", &(token.ceremony_head() + steps));
        token.birthmark(&[&["ceremony", "ceremony.toml"], arguments].concat())
    };
    let steps = CEREMONY.to_owned() + &step(1, AWS);
    let dry = ceremony(&steps, &["--dry-run"]);
    succeeded(&dry);
    let plan = text(&dry.stdout);
    assert!(plan.contains(&format!("the code {AWS}, AWS IoT")), "{plan}");
    succeeded(&ceremony(&steps, &["--yes"]));
    fs::rename(token.path("ca/record.json"), token.path("first.json")).unwrap();
    succeeded(&ceremony(&step(2, HUAWEI), &["--yes"]));
    for (file, code) in [("proof1.pem", AWS), ("proof2.pem", HUAWEI)] {
        token.openssl(&["verify", "-x509_strict", "-CAfile", "ca/root.pem", file]);
        let shown = openssl(&token.path(""), &["x509", "-in", file, "-noout", "-subject", "-nameopt", "RFC2253"]);
        assert_eq!(shown.trim(), format!("subject=CN={code}"));
        let all = openssl(&token.path(""), &["x509", "-in", file, "-noout", "-text"]);
        assert!(all.contains("CA:FALSE") && all.contains("Digital Signature"), "{all}");
        assert!(!all.contains("Extended Key Usage") && !all.contains("Certificate Sign"), "{all}");
    }
    refused(&ceremony(&step(3, "short"), &["--yes"]), &["step.code: the code \"short\" must have 16 to 64 characters"]);
    let days = step(3, AWS) + "days = 3\n";
    refused(&ceremony(&days, &["--yes"]), &["step.days: has no meaning"]);
}
