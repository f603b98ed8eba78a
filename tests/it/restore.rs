//! Backups, and the way back: a ledger that was restored gives no device a second certificate.
//!
//! `BIRTHMARK_DRILL_DEVICES` sets how many devices the drill has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Instant,
};

use birthmark::ledger::{
    Action, Actor, Filter, Holder, Ledger, Moment, Outcome, RecordState, Records, Recovery, Refusal,
    backup::{back_up, restore},
    embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
    entry::Event,
    journal::Scan,
    verify::{VerifyOptions, verify},
};
use birthmark::serial::SerialNumber;
use jiff::Timestamp;
use tonic::Code;

use crate::support::{
    ledger::{holder, operation, terms},
    site::{Site, csr, json_line, request},
    token::{refused, succeeded, text},
};

const SETTINGS: Settings = Settings { segment_size: 4000, flush_at: 40, min_free: 0, mirror: None, boot_id: None };

fn open(folder: &Path) -> (EmbeddedLedger, EmbeddedRecords) {
    EmbeddedLedger::open(folder, Timestamp::now(), &SETTINGS).unwrap()
}

fn one(ledger: &mut EmbeddedLedger, action: Action) -> Outcome {
    ledger.commit(Timestamp::now(), &[operation(action)]).unwrap().remove(0)
}

fn device(number: u32) -> Holder {
    let mut key_hash = [0; 32];
    key_hash[..4].copy_from_slice(&number.to_be_bytes());
    holder(&format!("d{number}"), key_hash)
}

/// Issues to a device, and gives what could be recovered.
fn issue_to(ledger: &mut EmbeddedLedger, action: Action, holder: Holder) -> Recovery {
    let outcome = one(ledger, action);
    let Outcome::Reserved(serial_number) = outcome else { panic!("{}: {outcome:?}", holder.device) };
    let certificate: Vec<u8> = [holder.device.as_bytes(), &[7; 200]].concat();
    let certificate = bytes::Bytes::from(certificate);
    let record = Action::Record { serial_number, certificate: certificate.clone() };
    assert!(matches!(one(ledger, record), Outcome::Recorded));
    Recovery { serial_number, certificate, holder, replaces: None, source: "a test".into() }
}

fn issue(ledger: &mut EmbeddedLedger, numbers: std::ops::Range<u32>) -> Vec<Recovery> {
    let issued = numbers.map(|number| issue_to(ledger, Action::Reserve(device(number)), device(number)));
    issued.collect()
}

fn accept(folder: &Path) -> Result<String, String> {
    let (actor, reason) = (Actor("operator:anna".into()), "the disk is gone".to_owned());
    EmbeddedLedger::accept_loss(folder, Timestamp::now(), &SETTINGS, actor, reason).map_err(|error| error.to_string())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// Whether the ledger issues, also to those that it knows.
fn issues(folder: &Path) -> bool {
    let (mut ledger, records) = open(folder);
    let (new, known) = (one(&mut ledger, Action::Reserve(device(900))), one(&mut ledger, Action::Reserve(device(0))));
    let held = |outcome: &Outcome| matches!(outcome, Outcome::Refused(Refusal::MayLackEntries(_)));
    assert_eq!(held(&new), held(&known), "{new:?} {known:?}");
    assert_eq!(records.healthy().is_err(), held(&new));
    if let Outcome::Reserved(serial_number) = new {
        one(&mut ledger, Action::Abandon { serial_number, reason: "a test".into() });
        return true;
    }
    false
}

/// What is copied, moved or rolled back under the daemon's feet does not issue before somebody has said that it may; what is
/// where the daemon left it does.
#[test]
fn ledger_that_is_a_copy_issues_nothing_until_accepted() {
    type Change = fn(&Path, &Path);
    let changes: [(&str, bool, Change); 8] = [
        ("nothing", true, |_, _| {}),
        ("a new index", true, |data, _| fs::remove_dir_all(data.join("index")).unwrap()),
        ("the journal alone copied back", false, |data, older| {
            fs::remove_dir_all(data).unwrap();
            copy(&older.join("journal"), &data.join("journal"));
        }),
        ("the journal copied back to its place", false, |data, older| {
            fs::remove_dir_all(data.join("journal")).unwrap();
            fs::remove_dir_all(data.join("index")).unwrap();
            copy(&older.join("journal"), &data.join("journal"));
        }),
        ("all of it copied back", false, |data, older| {
            fs::remove_dir_all(data).unwrap();
            copy(older, data);
        }),
        ("files overwritten in place", false, |data, older| {
            fs::remove_dir_all(data.join("index")).unwrap();
            for entry in fs::read_dir(data.join("journal")).unwrap() {
                let path = entry.unwrap().path();
                let older = older.join("journal").join(path.file_name().unwrap());
                match older.exists() {
                    true => fs::write(path, fs::read(older).unwrap()).unwrap(),
                    false => fs::remove_file(path).unwrap(),
                }
            }
        }),
        ("the newest file replaced by an older one", false, |data, _| {
            fs::remove_dir_all(data.join("index")).unwrap();
            let newest = fs::read_dir(data.join("journal")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
            let content = fs::read(&newest).unwrap();
            fs::remove_file(&newest).unwrap();
            fs::write(newest, content).unwrap();
        }),
        ("moved", false, |data, _| {
            let elsewhere = data.with_extension("elsewhere");
            copy(data, &elsewhere);
            fs::remove_dir_all(data).unwrap();
            copy(&elsewhere, data);
        }),
    ];
    for (what, own, change) in changes {
        let folder = tempfile::tempdir().unwrap();
        let (data, older) = (folder.path().join("data"), folder.path().join("older"));
        let (mut ledger, records) = open(&data);
        one(&mut ledger, Action::CreateOrder(terms("o")));
        issue(&mut ledger, 0..10);
        copy(&data, &older);
        issue(&mut ledger, 10..40);
        drop(records);
        ledger.close().unwrap();
        change(&data, &older);
        assert_eq!(issues(&data), own, "{what}");
        // A start does not change that.
        assert_eq!(issues(&data), own, "{what}, again");
        match own {
            true => assert!(accept(&data).unwrap_err().contains("nothing to accept"), "{what}"),
            false => assert!(accept(&data).unwrap().contains("restored, copied or moved"), "{what}"),
        }
        assert!(issues(&data) && issues(&data), "{what}, accepted");
        let verified = verify(Scan::open(&data).unwrap(), &VerifyOptions::default(), &mut |_| {}).unwrap();
        assert_eq!(verified.remarks.len(), usize::from(!own), "{what}: {:?}", verified.remarks);
    }
}

/// A data folder of a version that knew no places goes on without a question.
#[test]
fn ledger_of_before_there_were_places_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = open(folder.path());
    one(&mut ledger, Action::CreateOrder(terms("o")));
    issue(&mut ledger, 0..5);
    drop(records);
    ledger.close().unwrap();
    fs::remove_file(folder.path().join("place")).unwrap();
    assert!(issues(folder.path()));
    assert!(folder.path().join("place").exists());
}

/// What was lost is there again, in its order and for retries, however it is read afterwards.
#[test]
#[expect(clippy::too_many_lines, reason = "one story")]
fn recovered_certificates_are_those_of_before_in_every_view() {
    let folder = tempfile::tempdir().unwrap();
    let (data, older) = (folder.path().join("data"), folder.path().join("older"));
    let (mut ledger, records) = open(&data);
    one(&mut ledger, Action::CreateOrder(terms("o")));
    let before = issue(&mut ledger, 0..60);
    // Reserved when the backup is made, and issued after it.
    let Outcome::Reserved(reserved) = one(&mut ledger, Action::Reserve(device(60))) else { panic!() };
    back_up(&data, &older).unwrap();
    let certificate = bytes::Bytes::from_static(b"late");
    assert!(matches!(
        one(&mut ledger, Action::Record { serial_number: reserved, certificate: certificate.clone() }),
        Outcome::Recorded
    ));
    let late =
        Recovery { serial_number: reserved, certificate, holder: device(60), replaces: None, source: "s".into() };
    let mut lost = vec![late];
    lost.extend(issue(&mut ledger, 100..200));
    // Scrapped and issued again, after the backup: the backup has the first one as live.
    let first = &before[7];
    let scrap = Action::Scrap { serial_number: first.serial_number, reason: "cracked".into() };
    assert!(matches!(one(&mut ledger, scrap), Outcome::Changed { retry: false }));
    let mut again = device(7);
    again.key_hash[5] = 1;
    let second = issue_to(&mut ledger, Action::Reissue(again.clone()), again);
    lost.push(second.clone());
    drop((ledger, records));

    fs::remove_dir_all(&data).unwrap();
    assert!(restore(&older, &data).unwrap().entries > 120);
    assert!(restore(&older, &data).unwrap_err().to_string().contains("may hold what the backup does not"));
    let (mut ledger, records) = open(&data);
    for (round, retry) in [(0, false), (1, true)] {
        for recovery in &lost {
            let outcome = one(&mut ledger, Action::Recover(recovery.clone()));
            assert!(matches!(outcome, Outcome::Changed { retry: found } if found == retry), "{round}: {outcome:?}");
        }
    }
    // What contradicts the ledger is not taken.
    let stranger = |change: &dyn Fn(&mut Recovery)| {
        let mut recovery = lost[20].clone();
        change(&mut recovery);
        recovery
    };
    let mut unused = *lost[20].serial_number.as_bytes();
    unused[19] ^= 1;
    let unused = SerialNumber::try_from(&unused[..]).unwrap();
    for (recovery, says) in [
        (stranger(&|recovery| recovery.certificate = "another".into()), "another certificate with this serial"),
        (stranger(&|recovery| recovery.serial_number = unused), "its key is that of the certificate"),
        (
            stranger(&|recovery| {
                recovery.serial_number = unused;
                recovery.holder.device = "d130".into();
                recovery.holder.key_hash = [9; 32];
            }),
            "it may have either",
        ),
        (
            stranger(&|recovery| {
                recovery.serial_number = unused;
                recovery.holder = Holder { order: "unknown".into(), key_hash: [9; 32], ..device(901) };
            }),
            "there is no order",
        ),
    ] {
        let outcome = one(&mut ledger, Action::Recover(recovery));
        assert!(matches!(&outcome, Outcome::Refused(refusal) if refusal.to_string().contains(says)), "{outcome:?}");
    }
    drop(records);
    ledger.close().unwrap();
    accept(&data).unwrap();
    for view in ["as it was", "reindexed", "killed"] {
        if view == "reindexed" {
            EmbeddedLedger::reindex(&data, &SETTINGS).unwrap();
        }
        let (mut ledger, records) = open(&data);
        for recovery in before.iter().filter(|recovery| recovery.holder.device != "d7").chain(&lost) {
            let ask = match recovery.holder.device.as_str() {
                "d7" => Action::Reserve(second.holder.clone()),
                _ => Action::Reserve(recovery.holder.clone()),
            };
            let again = one(&mut ledger, ask);
            let same = matches!(&again, Outcome::Replay { serial_number, certificate, .. }
                if (serial_number, certificate) == (&recovery.serial_number, &recovery.certificate));
            assert!(same, "{view}: {}: {again:?}", recovery.holder.device);
            let record = records.by_serial_number(&recovery.serial_number).unwrap().unwrap();
            assert_eq!((record.state, &record.holder), (RecordState::Issued, &recovery.holder), "{view}");
        }
        let first = records.by_serial_number(&first.serial_number).unwrap().unwrap();
        assert_eq!(first.state, RecordState::Scrapped, "{view}");
        let order = records.order("o").unwrap().unwrap();
        assert_eq!((order.issued, order.scrapped, order.reserved), (161, 1, 0), "{view}");
        let listed: Vec<_> = records.issued_under("o").unwrap().map(Result::unwrap).collect();
        assert_eq!(listed.len(), 162, "{view}");
        match view {
            "reindexed" => drop((ledger, records)),
            _ => {
                drop(records);
                ledger.close().unwrap();
            }
        }
    }
    let verified = verify(Scan::open(&data).unwrap(), &VerifyOptions::default(), &mut |_| {}).unwrap();
    assert_eq!((verified.counts.issued, verified.counts.recovered), (162, 102));
    // They are in the next batch of a destination, and serial numbers go on after all of them.
    let (mut ledger, records) = open(&data);
    let all = Filter { profiles: Vec::new(), orders: Vec::new(), moment: Moment::Issued };
    let mut content = records.next_batch("cloud", &all).unwrap().content;
    let pages = std::iter::from_fn(|| content.page().unwrap());
    let in_batch: BTreeSet<_> = pages.flatten().map(|member| member.record.serial_number).collect();
    assert_eq!(in_batch.len(), 161);
    let next = issue(&mut ledger, 950..951).remove(0).serial_number;
    assert!(lost.iter().all(|recovery| recovery.serial_number < next));
}

/// A backup takes what is new, beside a writer, and gives up nothing that it has.
#[test]
fn backup_is_incremental_and_never_loses_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
    assert!(back_up(&data, &backup).unwrap_err().to_string().contains("no journal"));
    let (mut ledger, records) = open(&data);
    one(&mut ledger, Action::CreateOrder(terms("o")));
    let entries = |folder: &Path| verify(Scan::open(folder).unwrap(), &VerifyOptions::default(), &mut |_| {}).unwrap();
    let mut had = 0;
    for round in 0..20 {
        issue(&mut ledger, round * 3..round * 3 + 3);
        let copied = back_up(&data, &backup).unwrap();
        let head = records.head();
        assert_eq!((copied.entries, copied.new_entries), (head.sequence, head.sequence - had), "{round}");
        assert_eq!(entries(&backup).chain, head.chain);
        let again = back_up(&data, &backup).unwrap();
        assert_eq!((again.entries, again.new_entries, again.bytes), (head.sequence, 0, 0), "{round}");
        had = head.sequence;
    }
    assert!(records.head().part > 3);
    // While it is written.
    let writer = std::thread::spawn(move || {
        issue(&mut ledger, 1000..1400);
        ledger
    });
    while !writer.is_finished() {
        let copied = back_up(&data, &backup).unwrap();
        assert!(copied.entries >= had);
        had = copied.entries;
        assert_eq!(entries(&backup).entries, had);
    }
    let ledger = writer.join().unwrap();
    assert_eq!(back_up(&data, &backup).unwrap().entries, records.head().sequence);
    drop((ledger, records));
    // Cut within an entry, as a crash of the copying leaves it.
    let newest = |folder: &Path| {
        let files = fs::read_dir(folder.join("journal")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some()).max().unwrap()
    };
    let whole = fs::read(newest(&backup)).unwrap();
    fs::write(newest(&backup), &whole[..whole.len() - 10]).unwrap();
    back_up(&data, &backup).unwrap();
    assert_eq!(fs::read(newest(&backup)).unwrap(), whole);
    // Damage is no news.
    let second = data.join("journal/00000002.journal");
    let good = fs::read(&second).unwrap();
    let mut bad = good.clone();
    bad[1000] ^= 4;
    fs::write(&second, &bad).unwrap();
    let fresh = folder.path().join("fresh");
    assert!(back_up(&data, &fresh).unwrap_err().to_string().contains("00000002.journal is damaged"));
    fs::write(&second, good).unwrap();
    // A journal that went back, and on in another way, leaves the backup as it is.
    let kept = fs::read(newest(&backup)).unwrap();
    let stale = folder.path().join("stale");
    fs::create_dir_all(stale.join("journal")).unwrap();
    fs::copy(data.join("journal/00000001.journal"), stale.join("journal/00000001.journal")).unwrap();
    assert!(back_up(&stale, &backup).unwrap_err().to_string().contains("nothing was overwritten"));
    accept(&stale).unwrap();
    assert!(back_up(&stale, &backup).unwrap_err().to_string().contains("nothing was overwritten"));
    assert_eq!(fs::read(newest(&backup)).unwrap(), kept);
    assert!(back_up(&data, &data).is_err());
}

/// A folder in the data folder, on whatever path it is named, would be lost with it: it is refused, and nothing is made.
#[test]
fn backup_into_the_data_folder_is_refused_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    let data = at("data");
    let (mut ledger, records) = open(&data);
    one(&mut ledger, Action::CreateOrder(terms("o")));
    std::os::unix::fs::symlink(&data, at("link")).unwrap();
    for place in ["data", "data/b", "data/new/b", "data/journal", "link", "link/new", "new/../data/b", "data/../link/b"]
    {
        let error = back_up(&data, &at(place)).unwrap_err().to_string();
        let named = [at(place), data.clone()].iter().all(|path| error.contains(&path.display().to_string()));
        assert!(error.contains("lies in it") && named, "{place}: {error}");
        let error = back_up(&at("link"), &at(place)).unwrap_err().to_string();
        assert!(error.contains("lies in it"), "{place}: {error}");
    }
    assert!(!at("new").exists() && !data.join("b").exists() && !data.join("new").exists());
    // A folder beside it, whose name begins with the same letters.
    assert_eq!(back_up(&data, &at("data-backup")).unwrap().entries, records.head().sequence);
}

/// It is the backup's folder that is named, not the data folder.
#[test]
fn backup_folder_that_cannot_be_used_is_called_that() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (mut ledger, _records) = open(&data);
    one(&mut ledger, Action::CreateOrder(terms("o")));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = back_up(&data, &file.join("backup")).unwrap_err().to_string();
    let begins = format!("the backup's folder {} cannot be used: ", file.join("backup").display());
    assert!(error.starts_with(&begins) && error.contains("may write"), "{error}");
}

fn devices(site: &Site, number: usize) -> (PathBuf, PathBuf) {
    let lines: Vec<_> =
        (0..number).map(|number| json_line(&format!("dev-{number}"), &csr(&format!("dev-{number}")))).collect();
    site.token.write("half.jsonl", &lines[..number / 2].concat());
    site.token.write("all.jsonl", &lines.concat());
    (site.path("half.jsonl"), site.path("all.jsonl"))
}

pub(crate) fn sign(site: &Site, input: &Path, out: &str) -> Output {
    site.sign("line1/t1", "lot", input.to_str().unwrap(), out).output().unwrap()
}

pub(crate) fn certificates(folder: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The drill of docs/restore.md: killed, restored from a backup that lacks half of the devices, reconciled, and asked again by
/// all of them.
#[tokio::test(flavor = "multi_thread")]
async fn restored_ledger_gives_no_device_a_second_certificate() {
    let number = std::env::var("BIRTHMARK_DRILL_DEVICES").ok().and_then(|number| number.parse().ok()).unwrap_or(300);
    let site = Site::new();
    let (half, all) = devices(&site, number);
    let mut daemon = site.start();
    site.create_order("lot", number as u64);
    succeeded(&sign(&site, &half, "out"));
    succeeded(&site.operator(&["journal", "checkpoint"]));
    let backed_up = succeeded(&site.token.birthmark(&["backup", "kept", "--config", "birthmark.toml"]));
    assert!(backed_up.contains("checkpoint  of "), "{backed_up}");
    succeeded(&sign(&site, &all, "out"));
    let newest = succeeded(&site.operator(&["journal", "checkpoint"]));
    site.token.write("newest-checkpoint", &newest);
    daemon.kill();
    daemon.wait();
    let issued = certificates(&site.path("out"));
    assert_eq!(issued.len(), number);

    // The disk is gone.
    fs::remove_dir_all(site.path("data")).unwrap();
    let told = succeeded(&site.token.birthmark(&["restore", "kept", "--config", "birthmark.toml"]));
    assert!(told.contains("accept-loss"), "{told}");
    // Whoever kept a newer checkpoint is told what is missing.
    let serve = ["serve", "--config", "birthmark.toml", "--expect-checkpoint", "newest-checkpoint"];
    refused(&site.token.birthmark(&serve), &["newest-checkpoint", "entries"]);
    // It starts, and issues nothing.
    let daemon = site.start();
    let (code, why) = daemon.get("/readyz");
    assert!(code == 503 && why.contains("accept-loss"), "{why}");
    let mut stream = site.stream(&daemon, "line1/t1").await;
    for device in ["dev-0", "another"] {
        stream.ask(request(device, "lot", csr(device))).await.must_be(Code::Unavailable, "LEDGER_RESTORED");
    }
    drop(stream);
    daemon.end();

    let began = Instant::now();
    let reconcile = ["journal", "reconcile", "data", "--json", "--certificates", "out"];
    let without_order = site.token.birthmark(&reconcile);
    assert_eq!(without_order.status.code(), Some(3));
    assert!(text(&without_order.stdout).contains("give --order"));
    let reconcile = [&reconcile[..], &["--order", "lot"]].concat();
    let told: serde_json::Value = serde_json::from_str(&succeeded(&site.token.birthmark(&reconcile))).unwrap();
    println!("reconciled in {:?}: {told}", began.elapsed());
    assert_eq!(
        (told["recovered"].as_u64(), told["known"].as_u64()),
        (Some((number - number / 2) as u64), Some((number / 2) as u64))
    );
    // A folder of another site brings nothing in.
    let other = site.token.birthmark(&["journal", "reconcile", "data", "--certificates", "ca", "--order", "lot"]);
    assert_eq!(other.status.code(), Some(3), "{}", text(&other.stderr));
    let accept = ["journal", "accept-loss", "data", "--reason", "the disk is gone; all stations were read"];
    succeeded(&site.token.birthmark(&accept));

    let daemon = site.start();
    assert_eq!(daemon.get("/readyz").0, 200, "{}", daemon.get("/readyz").1);
    succeeded(&sign(&site, &all, "again"));
    assert!(certificates(&site.path("again")) == issued, "some devices have two certificates");
    let order = site.order("lot");
    assert_eq!(order["issued"].as_u64(), Some(number as u64), "{order}");
    daemon.end();
    let verified = site.token.birthmark(&["journal", "verify", "data", "--json", "--trusted-key", "ca/audit.pem"]);
    let verified: serde_json::Value = serde_json::from_str(&succeeded(&verified)).unwrap();
    assert_eq!(verified["counts"]["recovered"].as_u64(), Some((number - number / 2) as u64));
    // The journal tells its own story.
    let mut runs = Vec::new();
    for frame in Scan::open(&site.path("data")).unwrap() {
        match frame.unwrap().entry.event {
            Event::Started { version, .. } => runs.push(format!("started {version}")),
            Event::Stopped { reason } => runs.push(format!("stopped {reason}")),
            Event::ConfigurationLoaded { text, .. } => {
                assert!(text.contains("[profiles.device]"));
                runs.push("configured".into());
            }
            Event::LossAccepted { .. } => runs.push("accepted".into()),
            _ => {}
        }
    }
    let version = format!("started {}", env!("CARGO_PKG_VERSION"));
    // The daemon that was killed left no end.
    let story = ["configured", &version, &version, "stopped SIGTERM", "accepted", &version, "stopped SIGTERM"];
    assert_eq!(runs, story);
}
