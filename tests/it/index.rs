//! The index may be lost, old or broken: the ledger gives the same answers, since the journal is the truth.

use std::{fs, path::Path};

use birthmark::ledger::{
    Action, Actor, Holder, Ledger, LedgerError, Outcome, Record, RecordState, Records, Refusal, RevocationReason,
    embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
    journal::Scan,
    verify::{VerifyOptions, verify},
};
use jiff::Timestamp;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::support::ledger::{Content, batches, cut, holder, operation, terms};

/// Small enough that runs are written and merged many times.
fn settings() -> Settings {
    Settings { segment_size: 64 << 10, flush_at: 40, min_free: 0, mirror: None, boot_id: None }
}

fn open(folder: &Path) -> (EmbeddedLedger, EmbeddedRecords) {
    EmbeddedLedger::open(folder, Timestamp::now(), &settings()).unwrap()
}

fn device(number: u32) -> Holder {
    let key_hash = {
        let mut hash = [0x5a; 32];
        // Spread over the whole range of names, as hashes are.
        hash[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
        hash[4..8].copy_from_slice(&number.to_be_bytes());
        hash
    };
    holder(&format!("d{number}"), key_hash)
}

fn one(ledger: &mut EmbeddedLedger, action: Action) -> Outcome {
    ledger.commit(Timestamp::now(), &[operation(action)]).unwrap().remove(0)
}

fn create_order(ledger: &mut EmbeddedLedger) {
    assert!(matches!(one(ledger, Action::CreateOrder(terms("o"))), Outcome::Order(_)));
}

/// Issues to these devices; every tenth reservation is abandoned and made again.
fn issue(ledger: &mut EmbeddedLedger, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let Outcome::Reserved(mut serial_number) = one(ledger, Action::Reserve(device(number))) else { panic!() };
        if number.is_multiple_of(10) {
            one(ledger, Action::Abandon { serial_number, reason: "a test".into() });
            let Outcome::Reserved(second) = one(ledger, Action::Reserve(device(number))) else { panic!() };
            serial_number = second;
        }
        let certificate = format!("certificate of {number}").into_bytes().into();
        assert!(matches!(one(ledger, Action::Record { serial_number, certificate }), Outcome::Recorded));
    }
}

/// How long after its issue something becomes of a certificate: long enough for it to have sunk into the index.
const LATER: u32 = 100;

/// What becomes of a device's certificate.
fn fate(number: u32) -> RecordState {
    match number % 20 {
        3 => RecordState::Scrapped,
        8 => RecordState::Revoked,
        13 => RecordState::Issued,
        _ => RecordState::Confirmed,
    }
}

/// As [`issue`], and lets the fates of earlier devices come true; an export now and then.
fn live(ledger: &mut EmbeddedLedger, records: &EmbeddedRecords, numbers: std::ops::Range<u32>) {
    for number in numbers {
        issue(ledger, number..number + 1);
        let Some(number) = number.checked_sub(LATER) else { continue };
        let serial_number = records.by_device(&format!("d{number}")).unwrap().unwrap().serial_number;
        // By its device, or without.
        let device = number.is_multiple_of(2).then(|| format!("d{number}"));
        let confirm = Action::Confirm { serial_number, device, profiles: None };
        let actions = match fate(number) {
            // Some are confirmed before.
            RecordState::Scrapped if number.is_multiple_of(3) => {
                vec![confirm, Action::Scrap { serial_number, reason: "a test".into() }]
            }
            RecordState::Scrapped => vec![Action::Scrap { serial_number, reason: "a test".into() }],
            RecordState::Revoked => {
                vec![Action::Revoke { serial_number, reason: RevocationReason::KeyCompromise }]
            }
            RecordState::Confirmed => vec![confirm],
            _ => vec![],
        };
        for action in actions {
            assert!(matches!(one(ledger, action), Outcome::Changed { retry: false }));
        }
        if number.is_multiple_of(150) {
            let terms = cut(records, if number.is_multiple_of(300) { "a" } else { "b" });
            assert!(matches!(one(ledger, Action::CreateBatch(terms)), Outcome::Batch(_)));
        }
    }
}

/// All that can be asked about these devices.
#[derive(Debug, PartialEq)]
struct Answers {
    records: Vec<Record>,
    orders: Vec<birthmark::ledger::Order>,
    issued: Vec<Record>,
    batches: Vec<Content>,
}

fn answers(records: &EmbeddedRecords, devices: u32) -> Answers {
    let found: Vec<_> = (0..devices).map(|number| records.by_device(&format!("d{number}")).unwrap().unwrap()).collect();
    for record in &found {
        assert_eq!(records.by_serial_number(&record.serial_number).unwrap().as_ref(), Some(record));
    }
    assert_eq!(records.by_device("nobody").unwrap(), None);
    let issued = records.issued_under("o").unwrap().collect::<Result<_, _>>().unwrap();
    let batches = batches(records).unwrap();
    Answers { records: found, orders: records.orders().unwrap(), issued, batches }
}

/// The rules hold as well: retries are answered, keys and devices are bound.
fn rules_hold(ledger: &mut EmbeddedLedger, devices: u32) {
    for number in (0..devices).step_by(7) {
        let thief = Holder { device: "thief".into(), ..device(number) };
        assert!(matches!(one(ledger, Action::Reserve(thief)), Outcome::Refused(Refusal::KeyReused { .. })));
        let second_key = Holder { key_hash: [1; 32], ..device(number) };
        let (again, second) = (one(ledger, Action::Reserve(device(number))), one(ledger, Action::Reserve(second_key)));
        match again {
            Outcome::Replay { certificate, .. } => {
                assert_eq!(certificate, format!("certificate of {number}").as_bytes());
                assert!(matches!(second, Outcome::Refused(Refusal::DeviceHasCertificate { .. })), "{second:?}");
            }
            Outcome::Refused(Refusal::KeyBlocked { state, .. }) => {
                assert_eq!(state, fate(number));
                assert!(matches!(second, Outcome::Refused(Refusal::ReissueRequired { .. })), "{second:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Puts another index in the place of the one that is there.
fn restore(index: &Path, from: &Path) {
    let _ = fs::remove_dir_all(index);
    copy(from, index);
}

fn noise(path: &Path, seed: u8) {
    let length = fs::metadata(path).unwrap().len() as usize;
    let bytes: Vec<u8> = (0..length.max(100)).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect();
    fs::write(path, bytes).unwrap();
}

type Harm<'a> = (&'a str, Box<dyn Fn() + 'a>);

/// What may become of an index; `old` is one of half the records.
fn harms<'a>(index: &'a Path, old: &'a Path) -> Vec<Harm<'a>> {
    vec![
        ("untouched", Box::new(move || {})),
        ("deleted", Box::new(move || fs::remove_dir_all(index).unwrap())),
        ("no database", Box::new(move || fs::remove_dir_all(index.join("database")).unwrap())),
        ("no mark", Box::new(move || fs::remove_file(index.join("mark")).unwrap())),
        (
            "the form of an older version",
            Box::new(move || {
                fs::remove_dir_all(index).unwrap();
                fs::rename(index.with_extension("of-old"), index).unwrap();
            }),
        ),
        ("an older copy", Box::new(move || restore(index, old))),
        (
            "an empty folder",
            Box::new(move || {
                fs::remove_dir_all(index).unwrap();
                fs::create_dir(index).unwrap();
            }),
        ),
        (
            "a file in its place",
            Box::new(move || {
                fs::remove_dir_all(index).unwrap();
                fs::write(index, "noise").unwrap();
            }),
        ),
        ("noise in every file", Box::new(move || files(index).iter().for_each(|file| noise(file, 7)))),
        ("noise in the database", Box::new(move || noise(&index.join("database/db"), 9))),
        (
            "half of the database",
            Box::new(move || {
                let file = fs::File::options().write(true).open(index.join("database/db")).unwrap();
                file.set_len(file.metadata().unwrap().len() / 2).unwrap();
            }),
        ),
        (
            "an unfinished snapshot of sled",
            Box::new(move || {
                fs::write(index.join("database/snap.0000000000000001.generating"), "half").unwrap();
            }),
        ),
    ]
}

/// A lost, old or broken index changes no answer (invariant 6).
#[test]
fn index_lost_old_or_broken_changes_no_answer() {
    const DEVICES: u32 = 1500;
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index");
    let (mut ledger, records) = open(folder.path());
    create_order(&mut ledger);
    live(&mut ledger, &records, 0..DEVICES / 2);
    drop(records);
    ledger.close().unwrap();
    let old = tempfile::tempdir().unwrap();
    copy(&index, old.path());

    let (mut ledger, records) = open(folder.path());
    live(&mut ledger, &records, DEVICES / 2..DEVICES);
    let expected = answers(&records, DEVICES);
    let fates = |state| (0..DEVICES - LATER).filter(|number| fate(*number) == state).count() as u64;
    let order = &expected.orders[0];
    assert_eq!(order.scrapped, fates(RecordState::Scrapped));
    assert_eq!((order.issued, order.revoked), (u64::from(DEVICES) - order.scrapped, fates(RecordState::Revoked)));
    assert_eq!(order.confirmed, fates(RecordState::Confirmed));
    assert_eq!(expected.issued.len(), DEVICES as usize);
    assert_eq!(expected.issued, expected.records);
    assert_eq!(expected.batches.len(), 10);
    assert!(expected.batches.iter().any(|(_, _, withdrawn)| !withdrawn.is_empty()));
    drop(records);
    ledger.close().unwrap();
    let good = tempfile::tempdir().unwrap();
    copy(&index, good.path());

    for (what, harm) in harms(&index, old.path()) {
        restore(&index, good.path());
        // Versions before had sled's files in the folder itself.
        copy(&good.path().join("database"), &index.with_extension("of-old"));
        harm();
        let (mut ledger, records) = open(folder.path());
        let found = answers(&records, DEVICES);
        assert!(found == expected, "{what}: other answers");
        rules_hold(&mut ledger, DEVICES);
        drop(records);
        ledger.close().unwrap();
    }
}

#[test]
fn index_of_another_ledger_refuses_the_start_until_accepted() {
    let (one_folder, other_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (folder, devices) in [(&one_folder, 0..200), (&other_folder, 1000..1300)] {
        let (mut ledger, _) = open(folder.path());
        create_order(&mut ledger);
        issue(&mut ledger, devices);
        ledger.close().unwrap();
    }
    let index = one_folder.path().join("index");
    fs::remove_dir_all(&index).unwrap();
    copy(&other_folder.path().join("index"), &index);
    let refused = EmbeddedLedger::open(one_folder.path(), Timestamp::now(), &settings());
    let said = refused.map(drop).unwrap_err().to_string();
    assert!(said.contains("the index is that of the journal") && said.contains("accept-loss"), "{said}");
    let (actor, reason) = (Actor("operator:anna".into()), "the folders were mixed up".to_owned());
    EmbeddedLedger::accept_loss(one_folder.path(), Timestamp::now(), &settings(), actor, reason).unwrap();
    let (mut ledger, records) = open(one_folder.path());
    assert_eq!(answers(&records, 200).orders[0].issued, 200);
    assert_eq!(records.by_device("d1000").unwrap(), None);
    rules_hold(&mut ledger, 200);
}

/// A journal alone is a full backup.
#[test]
fn journal_alone_is_a_full_backup() {
    let (folder, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut ledger, records) = open(folder.path());
    create_order(&mut ledger);
    issue(&mut ledger, 0..500);
    let expected = answers(&records, 500);
    // While the ledger is open: what is durable is in the journal.
    copy(&folder.path().join("journal"), &backup.path().join("journal"));
    let (restored, records) = open(backup.path());
    assert_eq!(answers(&records, 500), expected);
    assert!(records.healthy().unwrap_err().contains("accept-loss"));
    drop((restored, records));
    // It may lack what came after it, so somebody must say that it does not.
    let (actor, reason) = (Actor("operator:anna".into()), "nothing was issued since".to_owned());
    EmbeddedLedger::accept_loss(backup.path(), Timestamp::now(), &settings(), actor, reason).unwrap();
    let (mut restored, records) = open(backup.path());
    assert_eq!(answers(&records, 500), expected);
    rules_hold(&mut restored, 500);
}

/// A crash costs reservations only, and their serial numbers are never used again.
#[test]
fn crash_costs_reservations_only_and_reuses_no_serial_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = std::collections::HashSet::new();
    for round in 0..30u32 {
        let (mut ledger, records) = open(folder.path());
        if round == 0 {
            create_order(&mut ledger);
        }
        let first = round * 20;
        issue(&mut ledger, first..first + 10);
        let hanging: Vec<_> = (first + 10..first + 20)
            .map(|number| match one(&mut ledger, Action::Reserve(device(number))) {
                Outcome::Reserved(serial_number) => serial_number,
                other => panic!("{other:?}"),
            })
            .collect();
        for serial_number in hanging {
            assert!(seen.insert(serial_number), "{serial_number} twice");
        }
        assert_eq!(records.order("o").unwrap().unwrap().reserved, 10);
        // Without close: as a kill leaves it. The next start gives the reservations up, and the devices may ask again.
        drop((ledger, records));
        let (mut ledger, records) = open(folder.path());
        let order = records.order("o").unwrap().unwrap();
        assert_eq!((order.reserved, order.issued), (0, u64::from(round) * 20 + 10));
        issue(&mut ledger, first + 10..first + 20);
        for number in first..first + 20 {
            let record = records.by_device(&format!("d{number}")).unwrap().unwrap();
            assert!(seen.insert(record.serial_number), "{} twice", record.serial_number);
        }
    }
}

/// A nearly full disk stops reservations; what is reserved is recorded.
#[test]
fn disk_nearly_full_stops_reservations_and_records_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = open(folder.path());
    create_order(&mut ledger);
    drop((ledger, records));
    let greedy = Settings { min_free: u64::MAX, ..settings() };
    let (mut ledger, records) = EmbeddedLedger::open(folder.path(), Timestamp::now(), &greedy).unwrap();
    assert!(matches!(one(&mut ledger, Action::Reserve(device(1))), Outcome::Refused(Refusal::StorageLow { .. })));
    assert!(records.healthy().unwrap_err().contains("make room"));
    drop((ledger, records));
    let (mut ledger, records) = open(folder.path());
    issue(&mut ledger, 1..2);
    assert_eq!(records.healthy(), Ok(()));
}

/// A clock that went back stops reservations.
#[test]
fn clock_that_went_back_stops_reservations() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, _records) = open(folder.path());
    create_order(&mut ledger);
    let now = Timestamp::now();
    let reserve = |ledger: &mut EmbeddedLedger, at, number| {
        ledger.commit(at, &[operation(Action::Reserve(device(number)))]).unwrap().remove(0)
    };
    let back = now - jiff::SignedDuration::from_secs(60);
    let refused = reserve(&mut ledger, back, 1);
    assert!(matches!(refused, Outcome::Refused(Refusal::ClockBackwards { .. })), "{refused:?}");
    // Within the tolerance, and again when the clock is right.
    let little = now - jiff::SignedDuration::from_secs(2);
    assert!(matches!(reserve(&mut ledger, little, 1), Outcome::Reserved(_)));
    assert!(matches!(reserve(&mut ledger, now, 2), Outcome::Reserved(_)));
}

/// Waits while the ledger says that its index is being rebuilt; everything else is for `f`'s caller.
fn patiently<T>(mut f: impl FnMut() -> Result<T, LedgerError>) -> T {
    let begun = std::time::Instant::now();
    loop {
        match f() {
            Ok(found) => return found,
            Err(error @ LedgerError::Unavailable { .. }) => {
                assert!(begun.elapsed().as_secs() < 120, "it does not come back: {error}");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn one_patiently(ledger: &mut EmbeddedLedger, action: &Action) -> Outcome {
    patiently(|| {
        let mut outcomes = ledger.commit(Timestamp::now(), &[operation(action.clone())])?;
        match outcomes.remove(0) {
            // What else there is to fail is not expected here.
            Outcome::Failed(error) if matches!(*error, LedgerError::Unavailable { .. }) => {
                Err(LedgerError::Unavailable { notice: "", cause: error.to_string().into() })
            }
            outcome => Ok(outcome),
        }
    })
}

/// All that is known about these devices, asked until it is answered, and what each may have.
fn answers_patiently(ledger: &mut EmbeddedLedger, records: &EmbeddedRecords, devices: u32) -> Answers {
    for number in 0..devices {
        let again = one_patiently(ledger, &Action::Reserve(device(number)));
        let second_key = Holder { key_hash: [number as u8 | 1; 32], ..device(number) };
        let second = one_patiently(ledger, &Action::Reserve(second_key));
        let right = match &again {
            Outcome::Replay { certificate, .. } => {
                *certificate == format!("certificate of {number}")
                    && matches!(second, Outcome::Refused(Refusal::DeviceHasCertificate { .. }))
            }
            Outcome::Refused(Refusal::KeyBlocked { .. }) => {
                matches!(second, Outcome::Refused(Refusal::ReissueRequired { .. }))
            }
            _ => false,
        };
        assert!(right, "{number}: {again:?}, {second:?}");
    }
    let found = (0..devices).map(|number| {
        let record = patiently(|| records.by_device(&format!("d{number}"))).unwrap();
        assert_eq!(patiently(|| records.by_serial_number(&record.serial_number)).as_ref(), Some(&record));
        record
    });
    let found = found.collect();
    assert_eq!(patiently(|| records.by_device("nobody")), None);
    assert_eq!(patiently(|| records.order("nothing")), None);
    let all = |what: &dyn Fn() -> Result<birthmark::ledger::IssuedRecords, LedgerError>| {
        patiently(|| what()?.collect::<Result<Vec<_>, _>>())
    };
    let issued = all(&|| records.issued_under("o"));
    let batches = patiently(|| batches(records));
    Answers { records: found, orders: patiently(|| records.orders()), issued, batches }
}

/// Damages a file at random. Gives what was done.
fn rot(random: &mut StdRng, path: &Path) -> String {
    let mut bytes = fs::read(path).unwrap();
    let kind = random.random_range(0..10);
    if bytes.is_empty() || kind == 0 {
        fs::remove_file(path).unwrap();
        return "deleted".into();
    }
    let at = random.random_range(0..bytes.len());
    let done = match kind {
        1 => {
            bytes.truncate(at);
            format!("cut off at byte {at}")
        }
        2 | 3 => {
            let sector = at / 512 * 512;
            let end = bytes.len().min(sector + 512);
            bytes[sector..end].fill(0);
            format!("sector at byte {sector} zeroed")
        }
        4 => {
            let end = bytes.len().min(at + 64);
            random.fill(&mut bytes[at..end]);
            format!("random octets from byte {at} on")
        }
        _ => {
            bytes[at] ^= 1 << random.random_range(0..8);
            format!("a bit of byte {at} flipped")
        }
    };
    fs::write(path, bytes).unwrap();
    done
}

#[test]
fn index_with_bit_rot_gives_right_answers_or_is_rebuilt() {
    const DEVICES: u32 = 300;
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("BIRTHMARK_ROT_ROUNDS").unwrap_or(100);
    let seed = number("BIRTHMARK_SEED").unwrap_or_else(rand::random);
    println!("BIRTHMARK_ROT_ROUNDS={rounds} BIRTHMARK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);

    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index");
    let (mut ledger, records) = open(folder.path());
    create_order(&mut ledger);
    live(&mut ledger, &records, 0..DEVICES);
    // One index as a kill leaves it, one that was closed in order.
    drop((ledger, records));
    let (killed, closed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(&index, killed.path());
    let (ledger, records) = open(folder.path());
    let expected = answers(&records, DEVICES);
    drop(records);
    ledger.close().unwrap();
    copy(&index, closed.path());

    let mut rebuilt = 0;
    for round in 0..rounds {
        let from = if random.random_ratio(1, 3) { &killed } else { &closed };
        for path in [&index, &index.with_extension("unusable")] {
            let _ = fs::remove_dir_all(path);
        }
        copy(from.path(), &index);
        let mut files = files(&index);
        files.sort();
        // Some files are large, and some matter more: by number and by size.
        let largest = files.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
        let file = if random.random_ratio(1, 3) { largest } else { &files[random.random_range(0..files.len())] };
        let done = rot(&mut random, file);
        let about = format!("round {round}: {} {done}", file.strip_prefix(&index).unwrap().display());
        let opened = EmbeddedLedger::open(folder.path(), Timestamp::now(), &settings());
        let (mut ledger, records) = opened.unwrap_or_else(|error| panic!("{about}: {error}"));
        let found = answers_patiently(&mut ledger, &records, DEVICES);
        assert!(found == expected, "{about}: other answers");
        drop(records);
        ledger.close().unwrap();
        rebuilt += u32::from(index.with_extension("unusable").exists());
    }
    println!("{rebuilt} of {rounds} were rebuilt, the others gave right answers as they were");
    assert!(u64::from(rebuilt) > rounds / 4, "{rebuilt}");
    let verified = verify(Scan::open(folder.path()).unwrap(), &VerifyOptions::default(), &mut |_| {});
    verified.unwrap();
}
