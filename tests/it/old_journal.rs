//! A ledger that birthmark 0.1 wrote is opened, verified and answered from, to the byte.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use birthmark::{
    ledger::{
        Action, Actor, Holder, Ledger, Operation, Outcome, Record, RecordState, Records,
        checkpoint::SignedCheckpoint,
        embedded::{Claim, EmbeddedLedger, EmbeddedRecords, Guards, Settings},
        journal::Scan,
        verify::{VerifyOptions, verify},
    },
    signer::PublicKey,
};
use jiff::{SignedDuration, Timestamp};

use crate::support::token::{succeeded, text};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal-0.1")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn audit_key() -> PublicKey {
    PublicKey::from_spki(&birthmark::pem::read_public_key(&fixture().join("ca/audit.pem")).unwrap()).unwrap()
}

/// An hour after its last entry.
fn now() -> Timestamp {
    "2026-11-25T19:02:57Z".parse().unwrap()
}

fn open(folder: &Path) -> (EmbeddedLedger, EmbeddedRecords) {
    let guards = Guards { audit_keys: vec![audit_key()], ..Guards::default() };
    EmbeddedLedger::open_guarded(
        folder,
        now(),
        &Settings { min_free: 0, ..Settings::default() },
        &guards,
        Claim::default(),
    )
    .unwrap()
}

/// The certificates that `journal dump` of that version shows, by serial number, with their devices.
fn issued_then() -> BTreeMap<String, (String, Vec<u8>)> {
    let (mut devices, mut issued) = (BTreeMap::new(), BTreeMap::new());
    for line in fs::read_to_string(fixture().join("dump.jsonl")).unwrap().lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        match entry["event"].as_str().unwrap() {
            "reserved" => drop(devices.insert(field("serial_number"), field("device_id"))),
            "issued" => {
                let certificate = pem::parse(field("certificate_pem")).unwrap().into_contents();
                let device = devices[&field("serial_number")].clone();
                issued.insert(field("serial_number"), (device, certificate));
            }
            _ => {}
        }
    }
    issued
}

fn answers_as_then(ledger: &mut EmbeddedLedger, records: &EmbeddedRecords) {
    let then = issued_then();
    assert_eq!(then.len(), 14);
    let mut states = BTreeMap::<String, usize>::new();
    for (serial_number, (device, certificate)) in &then {
        let record = records.by_serial_number(&serial_number.parse().unwrap()).unwrap().unwrap();
        assert_eq!((&record.holder.device, &record.issued.unwrap().certificate[..]), (device, &certificate[..]));
        *states.entry(record.state.to_string()).or_default() += 1;
        if !record.state.is_live() {
            continue;
        }
        // The same request again gives the same certificate. The reissued one is asked for as such.
        let action = |holder: Holder| match record.replaces {
            Some(_) => Action::Reissue(holder),
            None => Action::Reserve(holder),
        };
        let operation =
            Operation { actor: Actor("station:line1/tester1".into()), action: action(record.holder.clone()) };
        let outcome = ledger.commit(now(), &[operation]).unwrap().remove(0);
        assert!(matches!(&outcome, Outcome::Replay { certificate: again, .. } if again == certificate), "{outcome:?}");
    }
    let states: Vec<_> = states.iter().map(|(state, number)| (state.as_str(), *number)).collect();
    assert_eq!(states, [("confirmed", 2), ("issued", 10), ("revoked", 1), ("scrapped", 1)]);
    let second = records.order("second").unwrap().unwrap();
    assert!(second.closed && second.terms.attributes["batch"] == "B7" && second.terms.not_after.is_some());
    for (order, acknowledged) in [("first", true), ("second", false)] {
        let exports = records.exports(order).unwrap();
        let [export] = &exports[..] else { panic!("{order}") };
        assert_eq!(export.acknowledged.is_some(), acknowledged);
        let exported: Vec<Record> = records.exported(&export.id).unwrap().map(Result::unwrap).collect();
        let written = fs::read_to_string(fixture().join(format!("export/{}.jsonl", export.id))).unwrap();
        assert_eq!(exported.len() as u64, export.certificates);
        for (record, line) in exported.iter().zip(written.lines()) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["serial_number"], record.serial_number.to_string());
            let certificate = pem::parse(line["certificate_pem"].as_str().unwrap()).unwrap().into_contents();
            assert_eq!(certificate[..], record.issued.as_ref().unwrap().certificate[..]);
        }
    }
}

#[test]
fn journal_of_version_0_1_gives_the_same_answers() {
    for data in ["data", "several-files"] {
        let folder = tempfile::tempdir().unwrap();
        copy(&fixture().join(data), folder.path());
        if !folder.path().join("index").exists() {
            // A copy of the journal alone may lack what came after it.
            let (actor, reason) = (Actor("operator:anna".into()), "a test".to_owned());
            EmbeddedLedger::accept_loss(folder.path(), now(), &Settings::default(), actor, reason).unwrap();
        }
        let (mut ledger, records) = open(folder.path());
        answers_as_then(&mut ledger, &records);
        // It goes on, in files of this version.
        let taken = records.by_device("a-5").unwrap().unwrap().serial_number;
        let scrap = Action::Scrap { serial_number: taken, reason: "a test".into() };
        let operation = Operation { actor: Actor("operator:anna".into()), action: scrap };
        assert!(matches!(ledger.commit(now(), &[operation]).unwrap()[..], [Outcome::Changed { retry: false }]));
        drop(records);
        ledger.close().unwrap();
        let (_ledger, records) = open(folder.path());
        assert_eq!(records.by_device("a-5").unwrap().unwrap().state, RecordState::Scrapped);
    }
}

#[test]
fn journal_of_version_0_1_verifies() {
    for data in ["data", "several-files"] {
        let folder = fixture().join(data);
        let reference = SignedCheckpoint::read(&folder.join("checkpoint")).unwrap().unwrap();
        let trust =
            VerifyOptions { keys: vec![audit_key()], reference: Some(("it".into(), reference)), chain_only: false };
        let verified = verify(Scan::open(&folder).unwrap(), &trust, &mut |_| {}).unwrap();
        assert_eq!((verified.entries, verified.counts.issued, verified.counts.checkpoints), (42, 14, 3));
        assert!(verified.remarks.is_empty() && verified.torn.is_none());
    }
    let dump = std::process::Command::new(env!("CARGO_BIN_EXE_birthmark"))
        .args(["journal", "dump"])
        .arg(fixture().join("several-files"))
        .output()
        .unwrap();
    let dump = succeeded(&dump);
    assert_eq!(dump.lines().count(), 42, "{dump}");
    let entries: Vec<serde_json::Value> = dump.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // All that an entry says, and hashes in hexadecimal digits as `journal verify` gives them.
    let second = entries.iter().find(|entry| entry["event"] == "order_created" && entry["order"] == "second").unwrap();
    assert_eq!(second["attributes"]["batch"], "B7", "{second}");
    let (verified, _) = verify_by_command(&["--json"]);
    let verified: serde_json::Value = serde_json::from_str(&verified).unwrap();
    assert_eq!(entries[41]["chain_hash"], verified["chain_hash"], "{verified}");
}

/// What `journal verify` prints for the fixture, and for people.
fn verify_by_command(arguments: &[&str]) -> (String, String) {
    let verify = std::process::Command::new(env!("CARGO_BIN_EXE_birthmark"))
        .args(["journal", "verify"])
        .arg(fixture().join("several-files"))
        .args(arguments)
        .output()
        .unwrap();
    (succeeded(&verify), text(&verify.stderr))
}

/// A checkpoint whose signature nobody verified proves nothing: whoever cut the journal can have written it.
#[test]
fn journal_verify_without_a_key_says_that_it_is_unverified() {
    let key = fixture().join("ca/audit.pem");
    let trusted = ["--trusted-key", key.to_str().unwrap()];
    let (unverified, _) = verify_by_command(&[]);
    assert!(unverified.contains("not verified: it has all") && !unverified.contains("no: it has"), "{unverified}");
    let (verified, _) = verify_by_command(&trusted);
    assert!(verified.contains("no: it has all") && !verified.contains("not verified"), "{verified}");
    for (arguments, expected) in [(vec!["--json"], false), ([&trusted[..], &["--json"]].concat(), true)] {
        let (printed, _) = verify_by_command(&arguments);
        let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(printed["reference"]["signature_verified"], expected, "{printed}");
    }
}

/// The clock of an entry that was written ahead, and the way on.
#[test]
fn clock_that_was_ahead_is_accepted_and_the_ledger_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture().join("data"), folder.path());
    let settings = Settings { min_free: 0, ..Settings::default() };
    let reserve = |ledger: &mut EmbeddedLedger, device: &str, at: Timestamp| {
        let text = |text: &str| text.to_owned();
        let mut key_hash = [7; 32];
        key_hash[..device.len()].copy_from_slice(device.as_bytes());
        let holder = Holder {
            device: text(device),
            key_hash,
            order: text("first"),
            profile: text("device"),
            issuer: text("device"),
            issuer_id: 0,
        };
        let operation = Operation { actor: Actor("station:line1/t".into()), action: Action::Reserve(holder) };
        ledger.commit(at, &[operation]).unwrap().remove(0)
    };
    let (mut ledger, records) = open(folder.path());
    drop(records);
    // A month ahead can be true; years cannot.
    let ahead = now() + SignedDuration::from_hours(30 * 24);
    let years = now() + SignedDuration::from_hours(13 * 365 * 24);
    let refused = reserve(&mut ledger, "years", years);
    assert!(
        matches!(&refused, Outcome::Refused(refusal) if refusal.to_string().contains("accept-clock")),
        "{refused:?}"
    );
    assert!(matches!(reserve(&mut ledger, "ahead", ahead), Outcome::Reserved(_)));
    let refused = reserve(&mut ledger, "now", now());
    assert!(
        matches!(&refused, Outcome::Refused(refusal) if refusal.to_string().contains("accept-clock")),
        "{refused:?}"
    );
    ledger.close().unwrap();

    let accept = |at| {
        let (actor, reason) = (Actor("operator:anna".into()), "the battery was empty".to_owned());
        EmbeddedLedger::accept_clock(folder.path(), at, &settings, actor, reason)
    };
    assert_eq!(accept(now()).unwrap(), ahead);
    assert!(accept(now()).unwrap_err().to_string().contains("nothing to accept"));
    let later = now() + SignedDuration::from_secs(60);
    for round in 0..2 {
        let (mut ledger, records) = EmbeddedLedger::open(folder.path(), later, &settings).unwrap();
        let device = format!("now-{round}");
        assert!(matches!(reserve(&mut ledger, &device, later), Outcome::Reserved(_)));
        assert_eq!(records.by_device(&device).unwrap().unwrap().reserved_at, later);
        drop(records);
        if round == 0 {
            ledger.close().unwrap();
            // Also when all of it is read again.
            fs::remove_dir_all(folder.path().join("index")).unwrap();
        }
    }
    let trust = VerifyOptions { keys: vec![audit_key()], ..VerifyOptions::default() };
    let verified = verify(Scan::open(folder.path()).unwrap(), &trust, &mut |_| {}).unwrap();
    let [remark] = &verified.remarks[..] else { panic!("{:?}", verified.remarks) };
    assert!(remark.what.contains("the battery was empty") && remark.time == now(), "{remark:?}");
    assert_eq!(&*remark.actor.0, "operator:anna");
}
