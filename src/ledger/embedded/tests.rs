//! What becomes of an index that fails: it is rebuilt, and no answer is wrong meanwhile.
#![expect(clippy::disallowed_methods, reason = "a test may leave half a file")]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::{
    hash::sha256,
    ledger::{
        Action, Actor, Enrolment, EnrolmentMethod, Holder, IssuerTerms, Ledger, LedgerError, Operation, OrderTerms,
        Outcome, Records, Refusal,
        checkpoint::Checkpoint,
        index,
        journal::Scan,
        verify::{VerifyOptions, verify},
    },
    serial::SerialNumber,
    signer::PublicKey,
};

fn settings() -> Settings {
    Settings { segment_size: 64 << 10, flush_at: 20, min_free: 0, mirror: None, boot_id: Some("this boot".into()) }
}

fn open(folder: &Path) -> (EmbeddedLedger, EmbeddedRecords) {
    EmbeddedLedger::open(folder, Timestamp::now(), &settings()).unwrap()
}

fn device(number: u32) -> String {
    format!("d{number}")
}

fn holder(number: u32, key: &str) -> Holder {
    let key_hash = sha256(format!("{key}{number}").as_bytes());
    Holder {
        device: device(number),
        key_hash,
        order: "o".into(),
        profile: "p".into(),
        issuer: "i".into(),
        issuer_id: 0,
    }
}

fn try_one(ledger: &mut EmbeddedLedger, action: Action) -> Result<Outcome, LedgerError> {
    let operation = Operation { actor: Actor("station:line1/t1".into()), action };
    ledger.commit(Timestamp::now(), &[operation]).map(|mut outcomes| outcomes.remove(0))
}

/// As [`try_one`], again while the index is not there. Gives also how often it was not.
fn one(ledger: &mut EmbeddedLedger, action: &Action) -> (Outcome, u32) {
    for refused in 0..60_000 {
        match try_one(ledger, action.clone()) {
            Err(LedgerError::Unavailable { .. }) => {}
            Ok(Outcome::Failed(error)) if matches!(*error, LedgerError::Unavailable { .. }) => {}
            Ok(outcome) => return (outcome, refused),
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the index does not come back");
}

fn create_order(ledger: &mut EmbeddedLedger) {
    let terms = OrderTerms::new("o", "p", 1_000_000);
    assert!(matches!(try_one(ledger, Action::CreateOrder(terms)).unwrap(), Outcome::Order(_)));
}

/// Issues to these devices. Gives how often the index was not there.
fn issue(ledger: &mut EmbeddedLedger, numbers: std::ops::Range<u32>) -> u32 {
    let mut refused = 0;
    for number in numbers {
        let (reserved, times) = one(ledger, &Action::Reserve(holder(number, "k")));
        let Outcome::Reserved(serial_number) = reserved else { panic!("{number}: {reserved:?}") };
        let record = Action::Record { serial_number, certificate: device(number).into_bytes().into() };
        let (recorded, again) = one(ledger, &record);
        assert!(matches!(recorded, Outcome::Recorded), "{recorded:?}");
        refused += times + again;
    }
    refused
}

/// Each of these devices has its certificate, and gets no second one for another key.
fn each_has_one(ledger: &mut EmbeddedLedger, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let (again, _) = one(ledger, &Action::Reserve(holder(number, "k")));
        assert!(matches!(&again, Outcome::Replay { certificate, .. } if *certificate == device(number)), "{again:?}");
        let (second, _) = one(ledger, &Action::Reserve(holder(number, "another")));
        assert!(matches!(second, Outcome::Refused(Refusal::DeviceHasCertificate { .. })), "{number}: {second:?}");
    }
}

fn add_issuer(ledger: &mut EmbeddedLedger, name: &str, chain: &[&'static [u8]]) -> (u32, u32, bool) {
    let chain = chain.iter().map(|certificate| Bytes::from_static(certificate)).collect();
    let action = Action::AddIssuer(IssuerTerms { name: name.into(), chain, crl_shards: 0 });
    match try_one(ledger, action).unwrap() {
        Outcome::Issuer { issuer, retry } => (issuer.id, issuer.generation, retry),
        outcome => panic!("{outcome:?}"),
    }
}

/// A name with another chain is its next generation, one with a chain that it had is the one that it was; all of it
/// survives a kill, a flush, a closing and a reindex.
#[test]
fn issuers_keep_their_ids_whatever_becomes_of_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = open(folder.path());
    assert_eq!(add_issuer(&mut ledger, "a", &[b"x", b"root"]), (1, 1, false));
    assert_eq!(add_issuer(&mut ledger, "b", &[b"x", b"root"]), (2, 1, false));
    assert_eq!(add_issuer(&mut ledger, "a", &[b"y", b"root"]), (3, 2, false));
    assert_eq!(add_issuer(&mut ledger, "a", &[b"x", b"root"]), (1, 1, true));
    assert_eq!(add_issuer(&mut ledger, "a", &[b"x"]), (4, 3, false));
    let recorded = records.issuers();
    assert_eq!(recorded[2].chain, [Bytes::from_static(b"y"), Bytes::from_static(b"root")]);
    assert_eq!(records.issuer(3).as_ref(), Some(&recorded[2]));
    assert_eq!((records.issuer(0), records.issuer(5)), (None, None));
    // As a kill leaves it, with all of it in the journal's tail.
    drop((ledger, records));
    let (mut ledger, records) = open(folder.path());
    assert_eq!(records.issuers(), recorded);
    create_order(&mut ledger);
    issue(&mut ledger, 0..100);
    assert_eq!(records.issuers(), recorded);
    drop(records);
    ledger.close().unwrap();
    let (mut ledger, records) = open(folder.path());
    assert_eq!(records.issuers(), recorded);
    assert_eq!(add_issuer(&mut ledger, "c", &[b"z"]), (5, 1, false));
    drop(records);
    ledger.close().unwrap();
    EmbeddedLedger::reindex(folder.path(), &settings()).unwrap();
    let (mut ledger, records) = open(folder.path());
    assert_eq!(records.issuers()[..4], recorded);
    assert_eq!(records.issuers()[4].name, "c");
    assert_eq!(add_issuer(&mut ledger, "a", &[b"y", b"root"]), (3, 2, true));
    let verified = verify(Scan::open(folder.path()).unwrap(), &VerifyOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(verified.counts.issuers, 5);
}

fn enrolment(peer: &str, certificate: &str, key: u8) -> Enrolment {
    let hour = SignedDuration::from_hours(1);
    // Certificates know whole seconds.
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    Enrolment {
        peer: Actor(peer.into()),
        certificate: certificate.to_owned().into(),
        serial_number: vec![key],
        key_hash: [key; 32],
        not_before: now - hour,
        not_after: now + hour,
        method: EnrolmentMethod::Csr,
        listed: None,
    }
}

/// Enrolled, revoked, enrolled again: after a kill, a good end, and from the journal alone.
#[test]
fn peers_stay_as_they_are_whatever_becomes_of_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = open(folder.path());
    let peer = |outcome| match outcome {
        Outcome::Peer(peer) => peer,
        other => panic!("{other:?}"),
    };
    let enroll = |ledger: &mut EmbeddedLedger, peer: &str, certificate: &str, key| {
        try_one(ledger, Action::Enroll(enrolment(peer, certificate, key))).unwrap()
    };
    let revoke = |ledger: &mut EmbeddedLedger, peer: &str| {
        try_one(ledger, Action::RevokePeer { peer: Actor(peer.into()), reason: "stolen".into(), keep: None }).unwrap()
    };
    assert_eq!(peer(enroll(&mut ledger, "station:l/1", "a", 1)).number, 1);
    assert_eq!(peer(enroll(&mut ledger, "operator:anna", "b", 2)).number, 2);
    // A retry changes nothing.
    assert_eq!(peer(enroll(&mut ledger, "station:l/1", "a", 1)).certificates.len(), 1);
    assert!(peer(revoke(&mut ledger, "station:l/1")).is_revoked());
    let first = peer(revoke(&mut ledger, "station:l/1")).revoked.clone();
    let blocked = enroll(&mut ledger, "station:l/1", "c", 1);
    assert!(matches!(&blocked, Outcome::Refused(Refusal::PeerKeyRevoked { .. })), "{blocked:?}");
    let again = peer(enroll(&mut ledger, "station:l/1", "d", 3));
    assert!(!again.is_revoked() && again.revoked == first && again.admitted().count() == 1, "{again:?}");
    // What a list says of a time before the revocation is revoked with it.
    let mut listed = enrolment("station:l/1", "e", 4);
    listed.listed = Some((Timestamp::UNIX_EPOCH, Actor("operator:otto".into())));
    let listed = peer(try_one(&mut ledger, Action::Enroll(listed)).unwrap());
    assert_eq!((listed.certificates.len(), listed.admitted().count()), (3, 1));
    assert_eq!(&*listed.certificates[2].enrolled_by.0, "operator:otto");
    assert!(peer(revoke(&mut ledger, "auditor:unknown")).is_revoked());

    let recorded = records.peers();
    assert_eq!(
        recorded.iter().map(|peer| &*peer.name.0).collect::<Vec<_>>(),
        ["auditor:unknown", "operator:anna", "station:l/1"]
    );
    // As a kill leaves it, with all of it in the journal's tail.
    drop((ledger, records));
    let (mut ledger, records) = open(folder.path());
    assert_eq!(records.peers(), recorded);
    create_order(&mut ledger);
    issue(&mut ledger, 0..100);
    assert_eq!(records.peers(), recorded);
    drop(records);
    ledger.close().unwrap();
    let (mut ledger, records) = open(folder.path());
    assert_eq!(records.peers(), recorded);
    assert_eq!(peer(enroll(&mut ledger, "station:l/2", "f", 5)).number, 4);
    let recorded = records.peers();
    drop(records);
    ledger.close().unwrap();
    EmbeddedLedger::reindex(folder.path(), &settings()).unwrap();
    let (_ledger, records) = open(folder.path());
    assert_eq!(records.peers(), recorded);
    let verified = verify(Scan::open(folder.path()).unwrap(), &VerifyOptions::default(), &mut |_| {}).unwrap();
    assert_eq!((verified.counts.enrolments, verified.counts.stations_revoked), (5, 2));
}

fn index_files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.join("index")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn was_set_aside(folder: &Path) -> bool {
    folder.join("index.unusable").exists()
}

#[test]
fn index_whose_database_panics_while_running_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = open(folder.path());
    create_order(&mut ledger);
    assert_eq!(issue(&mut ledger, 0..300), 0);
    ledger.copy.writer.common.memory().index.database_panics();
    let refused = issue(&mut ledger, 300..600);
    println!("{refused} times");
    assert!(was_set_aside(folder.path()));
    each_has_one(&mut ledger, 0..600);
    assert_eq!(records.healthy(), Ok(()));
    assert_eq!(records.order("o").unwrap().unwrap().issued, 600);
    drop(records);
    ledger.close().unwrap();
    fs::remove_dir_all(folder.path().join("index.unusable")).unwrap();
    // What was rebuilt is as good as any.
    let (mut ledger, _records) = open(folder.path());
    assert!(!was_set_aside(folder.path()));
    each_has_one(&mut ledger, 0..600);
}

#[test]
fn index_run_damaged_while_running_gives_no_second_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = open(folder.path());
    create_order(&mut ledger);
    issue(&mut ledger, 0..400);
    let runs = index_files(folder.path(), "names");
    assert!(!runs.is_empty());
    for run in &runs {
        let file = File::options().read(true).write(true).open(run).unwrap();
        // Everything after the header and the filter, which is in memory.
        let zeros = vec![0; file.metadata().unwrap().len() as usize - 8192];
        file.write_all_at(&zeros, 8192).unwrap();
    }
    each_has_one(&mut ledger, 0..400);
    assert!(was_set_aside(folder.path()));
    assert_eq!(records.healthy(), Ok(()));
}

#[test]
fn index_that_contradicts_the_journal_is_rebuilt_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index");
    let (mut ledger, records) = open(folder.path());
    create_order(&mut ledger);
    issue(&mut ledger, 0..200);
    drop(records);
    ledger.close().unwrap();
    let older = tempfile::tempdir().unwrap();
    let older = older.path().join("index");
    copy(&index, &older);
    let (mut ledger, records) = open(folder.path());
    issue(&mut ledger, 200..300);
    drop(records);
    ledger.close().unwrap();

    // Older than the journal, and without its order: what comes after it contradicts it.
    fs::remove_dir_all(&index).unwrap();
    copy(&older, &index);
    index::tests::lose_orders(&index);
    let (mut ledger, records) = open(folder.path());
    assert!(was_set_aside(folder.path()));
    assert_eq!(records.order("o").unwrap().unwrap().issued, 300);
    each_has_one(&mut ledger, 0..300);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// What the mark says decides whether an index is opened at all.
#[test]
fn index_open_in_another_boot_is_rebuilt() {
    for (boot, rebuilt) in [("this boot", false), ("another boot", true)] {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, records) = open(folder.path());
        create_order(&mut ledger);
        issue(&mut ledger, 0..200);
        // As a kill leaves it.
        drop((ledger, records));
        let settings = Settings { boot_id: Some(boot.into()), ..settings() };
        let (mut ledger, records) = EmbeddedLedger::open(folder.path(), Timestamp::now(), &settings).unwrap();
        assert_eq!(was_set_aside(folder.path()), rebuilt, "{boot}");
        each_has_one(&mut ledger, 0..200);
        drop(records);
        ledger.close().unwrap();
        let _ = fs::remove_dir_all(folder.path().join("index.unusable"));
        // Closed in order: any boot may use it.
        let settings = Settings { boot_id: Some("a third boot".into()), ..settings };
        let (mut ledger, _records) = EmbeddedLedger::open(folder.path(), Timestamp::now(), &settings).unwrap();
        assert!(!was_set_aside(folder.path()), "{boot}");
        each_has_one(&mut ledger, 0..200);
    }
}

/// An opening that ended the process is not tried again, and reindexing opens nothing.
#[test]
fn index_that_cannot_be_opened_lets_the_ledger_open() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = open(folder.path());
    create_order(&mut ledger);
    issue(&mut ledger, 0..100);
    drop(records);
    ledger.close().unwrap();
    let index = folder.path().join("index");
    let mark = fs::read_to_string(index.join("mark")).unwrap();
    let marked = |state: &str| {
        let body: Vec<_> = mark.lines().filter(|line| !line.starts_with("crc32c")).collect();
        let body = body.join("\n").replace("state closed", state);
        format!("{body}\ncrc32c {:08x}\n", crc32c::crc32c(body.as_bytes()))
    };
    for text in [marked("state opening this boot"), marked("state failed"), "nonsense".into(), String::new()] {
        fs::write(index.join("mark"), text).unwrap();
        let (mut ledger, records) = open(folder.path());
        assert!(was_set_aside(folder.path()));
        each_has_one(&mut ledger, 0..100);
        drop(records);
        ledger.close().unwrap();
        fs::remove_dir_all(folder.path().join("index.unusable")).unwrap();
    }
    fs::write(index.join("database/db"), [0xff; 100_000]).unwrap();
    fs::write(index.join("mark"), marked("state open this boot")).unwrap();
    let entries = EmbeddedLedger::reindex(folder.path(), &settings()).unwrap();
    assert_eq!(entries, 201);
    fs::remove_dir_all(&index).unwrap();
    fs::write(&index, "a file").unwrap();
    assert_eq!(EmbeddedLedger::reindex(folder.path(), &settings()).unwrap(), 201);
}

/// A serial number that was never given costs what one costs that was: the journal is read from the sample before it,
/// and not beyond what the index holds, however much has been written since.
#[test]
fn lookup_of_a_serial_never_given_reads_one_sample_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = open(folder.path());
    create_order(&mut ledger);
    issue(&mut ledger, 0..1000);
    let indexed = records.by_device("d999").unwrap().unwrap().serial_number;
    drop(records);
    ledger.close().unwrap();
    // None of what follows reaches the index.
    let settings = Settings { flush_at: 1_000_000, ..settings() };
    let (mut ledger, records) = EmbeddedLedger::open(folder.path(), Timestamp::now(), &settings).unwrap();
    issue(&mut ledger, 1000..3000);
    let after = |serial: SerialNumber| {
        let mut octets = *serial.as_bytes();
        // The last octet of the time, so that it lies between two that were given.
        octets[SerialNumber::LENGTH - 1] ^= 1;
        SerialNumber::try_from(&octets[..]).unwrap()
    };
    let newest = records.by_device("d2999").unwrap().unwrap().serial_number;
    let mut greatest = [0xff; SerialNumber::LENGTH];
    greatest[0] = 0x7f;
    let greatest = SerialNumber::try_from(&greatest[..]).unwrap();
    // Two entries of some 100 bytes for each certificate.
    let most = u64::from(index::SAMPLE) / 100;
    for (what, serial) in [("in the index", after(indexed)), ("in memory", after(newest)), ("above all", greatest)] {
        records.journal().take_frames_read();
        assert_eq!(records.by_serial_number(&serial).unwrap(), None, "{what}");
        let read = records.journal().take_frames_read();
        assert!(read <= most, "{what}: {read} entries were read, and at most {most} are in a sample");
    }
    records.journal().take_frames_read();
    assert!(records.by_serial_number(&indexed).unwrap().is_some());
    assert!(records.journal().take_frames_read() > 0, "the journal was not read");
}

/// The index has the place of a device's certificate, so that nothing between reservation and certificate is read; by the
/// serial number the same is found.
#[test]
fn lookup_by_device_reads_no_other_entries() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = open(folder.path());
    create_order(&mut ledger);
    issue(&mut ledger, 0..300);
    drop(records);
    ledger.close().unwrap();
    let (ledger, records) = EmbeddedLedger::open(folder.path(), Timestamp::now(), &settings()).unwrap();
    for number in [0, 1, 150, 299] {
        records.journal().take_frames_read();
        let record = records.by_device(&device(number)).unwrap().unwrap();
        assert_eq!(records.journal().take_frames_read(), 0, "{number}");
        assert_eq!(record.issued.as_ref().unwrap().certificate, device(number).into_bytes());
        assert_eq!(records.by_serial_number(&record.serial_number).unwrap(), Some(record));
        assert!(records.journal().take_frames_read() > 0, "the journal was not read");
    }
    ledger.close().unwrap();
}

/// sled panics where a power cut left its files half written; that costs a rebuild and no more.
#[test]
fn index_whose_database_panics_at_open_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = open(folder.path());
    create_order(&mut ledger);
    issue(&mut ledger, 0..100);
    drop(records);
    ledger.close().unwrap();
    fs::write(folder.path().join("index/database").join(index::PANIC_AT_OPEN), "").unwrap();
    let (mut ledger, records) = open(folder.path());
    assert!(was_set_aside(folder.path()));
    each_has_one(&mut ledger, 0..100);
    assert_eq!(records.healthy(), Ok(()));
}

/// A journal whose only file was cut within its header is damaged, and is not taken for one that was never begun, when
/// index or checkpoint know it.
#[test]
fn journal_cut_within_its_header_is_damaged_and_kept() {
    type Witness = fn(&Path);
    let without_checkpoint: Witness = |folder| fs::remove_file(checkpoint_file(folder)).unwrap();
    let without_index: Witness = |folder| fs::remove_dir_all(folder.join("index")).unwrap();
    for (witness, leave) in [("index", without_checkpoint), ("checkpoint", without_index)] {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, records) = open(folder.path());
        create_order(&mut ledger);
        issue(&mut ledger, 0..10);
        let audit_key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal-0.1/ca/audit.pem");
        let audit_key = PublicKey::from_spki(&crate::pem::read_public_key(&audit_key).unwrap()).unwrap();
        let checkpoint = Checkpoint::new(&records.head(), Timestamp::now()).signed(&audit_key, vec![1; 64]);
        fs::write(checkpoint_file(folder.path()), checkpoint.to_string()).unwrap();
        drop(records);
        ledger.close().unwrap();
        leave(folder.path());
        let file = folder.path().join("journal/00000001.journal");
        let whole = fs::read(&file).unwrap();
        for length in [0, 50, 71] {
            fs::write(&file, &whole[..length]).unwrap();
            let refused = EmbeddedLedger::open(folder.path(), Timestamp::now(), &settings());
            let said = refused.map(drop).unwrap_err().to_string();
            assert!(said.contains("ends within its header") && said.contains("restore this file"), "{witness}: {said}");
            assert_eq!(fs::read(&file).unwrap(), &whole[..length], "{witness}");
        }
        fs::write(&file, &whole).unwrap();
        let (mut ledger, _records) = open(folder.path());
        each_has_one(&mut ledger, 0..10);
    }
}
