//! The ledger's storage: one daemon owns it, nobody else reads it, its damage is found, and what it lost is not passed
//! over.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use birthmark::{
    ledger::{
        Action, Actor, Holder, Ledger, OrderTerms, Outcome, Records, Refusal,
        embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
        scrub::Scrub,
    },
    pattern::Pattern,
    proto::{CreateOrderRequest, OrderTerms as WireTerms},
};
use jiff::Timestamp;
use tonic::Code;

use crate::support::{
    ledger::{self, operation, terms},
    site::{Answer, Site, csr, must_refuse, request, wait_until},
    token::{refused, succeeded, text},
};

/// Small, so that there are several files soon.
const SETTINGS: Settings = Settings { segment_size: 3000, flush_at: 40, min_free: 0, mirror: None, boot_id: None };

fn open(folder: &Path) -> (EmbeddedLedger, EmbeddedRecords) {
    EmbeddedLedger::open(folder, Timestamp::now(), &SETTINGS).unwrap()
}

fn holder(number: u8) -> Holder {
    ledger::holder(&format!("d{number}"), [number; 32])
}

/// Issues to these devices, each with a certificate of 500 bytes.
fn issue(ledger: &mut EmbeddedLedger, devices: std::ops::Range<u8>) {
    for device in devices {
        let reserved = ledger.commit(Timestamp::now(), &[operation(Action::Reserve(holder(device)))]).unwrap();
        let [Outcome::Reserved(serial_number)] = reserved[..] else { panic!("{reserved:?}") };
        let record = Action::Record { serial_number, certificate: vec![device; 500].into() };
        ledger.commit(Timestamp::now(), &[operation(record)]).unwrap();
    }
}

fn ledger_with(folder: &Path, devices: u8) -> (EmbeddedLedger, EmbeddedRecords) {
    let (mut ledger, records) = open(folder);
    ledger.commit(Timestamp::now(), &[operation(Action::CreateOrder(terms("o")))]).unwrap();
    issue(&mut ledger, 0..devices);
    (ledger, records)
}

fn journal_file(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("journal/{number:08}.journal"))
}

/// Flips a bit of a byte in place, as a disk does.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn accept_loss(folder: &Path) -> Result<String, String> {
    let (actor, reason) = (Actor("operator:anna".into()), "the disk is gone".to_owned());
    EmbeddedLedger::accept_loss(folder, Timestamp::now(), &SETTINGS, actor, reason).map_err(|error| error.to_string())
}

fn refuses(folder: &Path, says: &[&str]) {
    let said = EmbeddedLedger::open(folder, Timestamp::now(), &SETTINGS).map(drop).unwrap_err().to_string();
    assert!(says.iter().all(|says| said.contains(says)), "{said}");
}

#[test]
fn scrub_finds_damage_in_an_older_file_and_its_repair() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, records) = ledger_with(folder.path(), 20);
    let scrub = Scrub::start(records.clone(), Duration::from_millis(20)).unwrap();
    assert_eq!(records.intact(), Ok(()));
    let second = journal_file(folder.path(), 2);
    flip(&second, 300);
    wait_until("the scrub finds it", || records.intact().is_err());
    let said = records.intact().unwrap_err();
    assert!(said.contains("00000002.journal is damaged at byte "), "{said}");
    // It is in the way of nothing new.
    assert_eq!(records.healthy(), Ok(()));
    flip(&second, 300);
    wait_until("the scrub finds it repaired", || records.intact().is_ok());
    fs::remove_file(&second).unwrap();
    wait_until("the scrub finds it missing", || records.intact().is_err());
    drop((scrub, records));
    ledger.close().unwrap();
    refuses(folder.path(), &["00000002.journal is missing"]);
}

#[test]
fn read_of_damaged_storage_is_no_bug_and_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = ledger_with(folder.path(), 20);
    let content = fs::read(journal_file(folder.path(), 2)).unwrap();
    let at = content.windows(100).position(|window| window.iter().all(|byte| *byte == window[0] && *byte > 0)).unwrap();
    let device = content[at];
    flip(&journal_file(folder.path(), 2), at as u64);
    let error = records.by_device(&format!("d{device}")).unwrap_err();
    assert!(error.is_damage(), "{error}");
    let batch = [operation(Action::Reserve(holder(device))), operation(Action::Reserve(holder(99)))];
    let outcomes = ledger.commit(Timestamp::now(), &batch).unwrap();
    let [Outcome::Failed(error), Outcome::Reserved(_)] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert!(error.is_damage(), "{error}");
    assert!(records.intact().unwrap_err().contains("00000002.journal is damaged at byte "));
}

#[test]
fn index_that_knows_more_than_the_journal_refuses_the_start() {
    type Harm = fn(&Path, &Path);
    let harms: [(&str, Harm); 4] = [
        ("an older copy", |folder, older| {
            fs::remove_dir_all(folder.join("journal")).unwrap();
            copy(older, &folder.join("journal"));
        }),
        ("without the newest file", |folder, _| {
            let newest =
                fs::read_dir(folder.join("journal")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
            fs::remove_file(newest).unwrap();
        }),
        ("empty", |folder, _| {
            fs::remove_dir_all(folder.join("journal")).unwrap();
        }),
        ("an older copy that went on", |folder, older| {
            let elsewhere = tempfile::tempdir().unwrap();
            copy(older, &elsewhere.path().join("journal"));
            accept_loss(elsewhere.path()).unwrap();
            let (mut ledger, _) = open(elsewhere.path());
            issue(&mut ledger, 50..90);
            drop(ledger);
            fs::remove_dir_all(folder.join("journal")).unwrap();
            copy(&elsewhere.path().join("journal"), &folder.join("journal"));
        }),
    ];
    for (what, harm) in harms {
        let (folder, older) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut ledger, records) = ledger_with(folder.path(), 10);
        copy(&folder.path().join("journal"), older.path());
        issue(&mut ledger, 10..30);
        drop(records);
        ledger.close().unwrap();
        assert!(accept_loss(folder.path()).unwrap_err().contains("nothing to accept"), "{what}");
        harm(folder.path(), older.path());
        for _ in 0..2 {
            refuses(folder.path(), &["has lost entries", "the index", "accept-loss"]);
        }
        accept_loss(folder.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let verified = Command::new(env!("CARGO_BIN_EXE_birthmark"))
            .args(["journal", "verify"])
            .arg(folder.path())
            .output()
            .unwrap();
        let said = succeeded(&verified);
        assert!(said.contains("loss accepted (the disk is gone)") && said.contains("operator:anna"), "{what}: {said}");
        drop(open(folder.path()));
    }
}

#[test]
fn operation_too_large_to_record_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = ledger_with(folder.path(), 1);
    let large = OrderTerms { stations: vec![Pattern::new("x".repeat(1 << 20))], ..terms("large") };
    let batch = [
        operation(Action::Reserve(holder(10))),
        operation(Action::CreateOrder(large)),
        operation(Action::Reserve(holder(11))),
        operation(Action::CreateOrder(terms("small"))),
    ];
    let outcomes = ledger.commit(Timestamp::now(), &batch).unwrap();
    assert!(
        matches!(
            &outcomes[..],
            [Outcome::Reserved(_), Outcome::Refused(Refusal::TooLarge { .. }), Outcome::Reserved(_), Outcome::Order(_)]
        ),
        "{outcomes:?}"
    );
    assert_eq!(records.order("large").unwrap(), None);
    assert!(records.by_device("d11").unwrap().is_some() && records.order("small").unwrap().is_some());
    assert_eq!(records.healthy(), Ok(()));
}

/// What in the folder others may read or open, with it.
fn open_to_others(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if fs::symlink_metadata(folder).unwrap().permissions().mode() & 0o077 != 0 {
        found.push(folder.to_owned());
    }
    if folder.is_dir() {
        for entry in fs::read_dir(folder).unwrap() {
            found.extend(open_to_others(&entry.unwrap().path()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn second_daemon_is_refused_though_the_lock_file_is_gone() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 10);
    site.stream(&daemon, "line1/t1").await.ask(request("d1", "o1", csr("d1"))).await.issued();
    fs::remove_file(site.path("data/lock")).unwrap();
    site.configure(|usual| usual.replace(&daemon.grpc.to_string(), "127.0.0.1:0").replace("run/admin", "run/other"));
    let process = format!("(process {})", daemon.pid());
    must_refuse(&site, &["another birthmark daemon uses the data folder", &process, "ledger.path"]);
    // The same journal on another path.
    fs::create_dir(site.path("other")).unwrap();
    fs::create_dir(site.path("other/journal")).unwrap();
    let file = "journal/00000001.journal";
    fs::hard_link(site.path("data").join(file), site.path("other").join(file)).unwrap();
    let other_port = |usual: String| usual.replace(&daemon.grpc.to_string(), "127.0.0.1:0");
    site.configure(|usual| other_port(usual).replace("\"data\"", "\"other\"").replace("run/admin", "run/other"));
    must_refuse(&site, &["another birthmark daemon uses the data folder", "ledger.path"]);
    // Verification needs no lock.
    succeeded(&site.token.birthmark(&["journal", "verify", "data"]));
    succeeded(&site.token.birthmark(&["journal", "dump", "data"]));
    daemon.end();
    assert_eq!(open_to_others(&site.path("data/journal")), Vec::<PathBuf>::new());
}

#[test]
fn data_folder_of_an_older_version_is_closed_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (ledger, records) = ledger_with(&data, 20);
    drop(records);
    ledger.close().unwrap();
    fs::write(data.join("checkpoint.old"), "kept").unwrap();
    let set = |path: &Path| {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for path in [&data, &data.join("journal"), &data.join("index"), &data.join("lock"), &journal_file(&data, 1)] {
        set(path);
    }
    drop(open(&data));
    // The index's own files come and go; nobody else gets into their folder.
    let mut found = open_to_others(&data);
    found.retain(|path| path.parent() != Some(&data.join("index")));
    assert_eq!(found, Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_whose_journal_is_taken_away_ends() {
    let site = Site::new();
    let mut daemon = site.start();
    site.create_order("o1", 10);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();
    // Nothing is written by itself for an hour after the first checkpoint.
    wait_until("there is a checkpoint", || site.path("data/checkpoint").exists());
    // As a restore under a running daemon does.
    let journal = site.path("data/journal/00000001.journal");
    let content = fs::read(&journal).unwrap();
    fs::write(site.path("restored"), &content).unwrap();
    fs::rename(site.path("restored"), &journal).unwrap();
    stream.send(request("d2", "o1", csr("d2"))).await;
    assert!(!daemon.wait().success());
    assert!(site.log().contains("was changed by another process: another file has its name"), "{}", site.log());
    assert_eq!(fs::read(&journal).unwrap(), content);
    // Nothing was written, and the next start goes on when somebody has said that nothing is missing.
    let daemon = site.start();
    site.stream(&daemon, "line1/t1")
        .await
        .ask(request("d2", "o1", csr("d2")))
        .await
        .must_be(Code::Unavailable, "LEDGER_RESTORED");
    daemon.end();
    succeeded(&site.token.birthmark(&["journal", "accept-loss", "data", "--reason", "it is the same file"]));
    let daemon = site.start();
    site.stream(&daemon, "line1/t1").await.ask(request("d2", "o1", csr("d2"))).await.issued();
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_storage_has_a_reason_of_its_own_and_degrades() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 10);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let first = request("d1", "o1", csr("d1"));
    stream.ask(first.clone()).await.issued();
    assert_eq!(daemon.get("/readyz"), (200, "ready\n".to_owned()));
    let dump = succeeded(&site.token.birthmark(&["journal", "dump", "data"]));
    let issued = dump.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let place = issued.filter(|entry| entry["event"] == "issued").map(|entry| entry["offset"].as_u64().unwrap()).next();
    flip(&site.path("data/journal/00000001.journal"), place.unwrap() + 200);

    stream.ask(first).await.must_be(Code::DataLoss, "STORAGE_DAMAGED");
    stream.ask(request("d2", "o1", csr("d2"))).await.issued();
    let (status, said) = daemon.get("/readyz");
    let exactly = format!("00000001.journal is damaged at byte {}", place.unwrap());
    assert!(status == 200 && said.contains("degraded: ledger: ") && said.contains(&exactly), "{said}");
    assert!(daemon.metric("birthmark_journal_damage", &[]) == 1.0);
    assert!(site.log().contains(&exactly));
    refused(&site.operator(&["record", "show", "d1"]), &["storage is damaged"]);
    daemon.end();
    must_refuse(&site, &[&exactly]);
}

#[tokio::test(flavor = "multi_thread")]
async fn order_too_large_is_refused_at_the_edge() {
    let site = Site::new();
    let daemon = site.start();
    let mut admin = daemon.admin().await;
    let wire = |stations: Vec<String>| {
        let terms =
            WireTerms { id: "o1".into(), profile: "device".into(), quantity: 1, stations, ..WireTerms::default() };
        CreateOrderRequest { terms: Some(terms) }
    };
    for stations in [vec!["x".repeat(900_000)], vec!["line1/t1".to_owned(); 2000], vec![String::new()]] {
        let error = admin.create_order(wire(stations)).await.unwrap_err();
        Answer::of_call(&error).must_be(Code::InvalidArgument, "REQUEST_INVALID");
        assert!(error.message().len() < 200, "{}", error.message());
    }
    admin.create_order(wire(vec!["line1/*".to_owned(); 1000])).await.unwrap();
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoint_by_no_audit_key_refuses_the_start() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 10);
    daemon.end();
    let checkpoint = site.path("data/checkpoint");
    let good = fs::read_to_string(&checkpoint).unwrap();
    let signature = good.trim_end().rsplit(' ').next().unwrap();
    let mut octets = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, signature).unwrap();
    for at in [0, 20] {
        octets[at] ^= 1;
        let forged = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &octets);
        fs::write(&checkpoint, good.replace(signature, &forged)).unwrap();
        must_refuse(&site, &["data/checkpoint is not to be trusted", "previous_keys"]);
    }
    fs::write(&checkpoint, "no checkpoint\n").unwrap();
    must_refuse(&site, &["data/checkpoint is not to be trusted", "it is no checkpoint"]);
    fs::write(&checkpoint, &good).unwrap();

    // Another audit key: the checkpoints of the one before are trusted when it is named.
    site.configure(|usual| usual.replacen("object=audit", "object=station-ca", 1));
    must_refuse(&site, &["signed by a key that is not trusted"]);
    let previous = |files: &str| format!("[audit]\nprevious_keys = [{files}]\n");
    let rotated = |files: &str| {
        site.configure(|usual| {
            usual.replacen("object=audit", "object=station-ca", 1).replacen("[audit]\n", &previous(files), 1)
        });
    };
    rotated("\"ca/issuer.pem\"");
    must_refuse(&site, &["audit.previous_keys", "not one PUBLIC KEY"]);
    rotated("\"ca/audit.pem\"");
    let daemon = site.start();
    site.create_order("o2", 10);
    daemon.end();
    assert_ne!(fs::read_to_string(&checkpoint).unwrap(), good);
}

/// Checkpoints that are gone begin again, and `journal verify` says so.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_that_are_gone_begin_again_and_verify_says_so() {
    let site = Site::new();
    let verify = || succeeded(&site.token.birthmark(&["journal", "verify", "data", "--trusted-key", "ca/audit.pem"]));
    let run = |order: &str| {
        let daemon = site.start();
        site.create_order(order, 10);
        daemon.end();
    };
    run("o1");
    run("o2");
    assert!(!verify().contains("earlier checkpoints are lost"));
    fs::remove_file(site.path("data/checkpoint")).unwrap();
    run("o3");
    run("o4");
    let said = verify();
    assert_eq!(said.matches("earlier checkpoints are lost").count(), 1, "{said}");
    // Without a journal the checkpoint is no longer passed over.
    fs::rename(site.path("data/journal"), site.path("data/journal-before")).unwrap();
    must_refuse(&site, &["there is no journal file", "accept-loss"]);
    let accept = ["journal", "accept-loss", "data", "--reason", "the disk is gone"];
    assert!(succeeded(&site.token.birthmark(&accept)).contains("accepted and recorded"));
    let kept = fs::read_dir(site.path("data")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(kept.into_iter().any(|name| name.starts_with("checkpoint.lost-")));
    run("o5");
    let said = verify();
    assert!(
        said.contains("loss accepted (the disk is gone)") && said.contains("earlier checkpoints are lost"),
        "{said}"
    );
}

/// The library that `faketime` (Debian: faketime) loads.
pub(crate) fn faketime() -> io::Result<String> {
    let run = Command::new("faketime").args(["-f", "+0", "env"]).output()?;
    let said = text(&run.stdout);
    let library = said.lines().find_map(|line| line.strip_prefix("LD_PRELOAD="));
    library.map(str::to_owned).ok_or_else(|| io::Error::other(text(&run.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_with_a_wrong_clock_writes_nothing_and_says_so() {
    let site = Site::new();
    let library = faketime().expect("faketime (Debian: faketime) must be installed");
    let at = |time: &str| {
        let (time, library) = (format!("@{time}"), library.clone());
        move |mut command: Command| {
            command.env("LD_PRELOAD", &library).env("FAKETIME", &time).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command
        }
    };
    // After the end of the server's certificate, and before anything that keeps a daemon from starting.
    let ahead = |days: i32| {
        let time = Timestamp::now() + jiff::SignedDuration::from_hours(24) * days;
        time.strftime("%Y-%m-%d %H:%M:%S").to_string()
    };
    let daemon = site.start_as(at(&ahead(900)));
    let created = site.operator(&["order", "create", "o1", "--profile", "device", "--quantity", "1"]);
    refused(&created, &["is implausible", "server.certificate", "clock is wrong", "certificate has expired"]);
    let (status, said) = daemon.get("/readyz");
    assert!(status == 503 && said.contains("ledger: the clock (") && said.contains("server.certificate"), "{said}");
    daemon.end();
    // Nothing of that is in the way of a daemon whose clock is right.
    let daemon = site.start();
    assert_eq!(daemon.get("/readyz"), (200, "ready\n".to_owned()));
    site.create_order("o1", 10);
    site.stream(&daemon, "line1/t1").await.ask(request("d1", "o1", csr("d1"))).await.issued();
    daemon.end();

    // Ahead by less than can be known: the way out is an operator's word.
    let daemon = site.start_as(at(&ahead(20)));
    site.create_order("o2", 10);
    daemon.end();
    let daemon = site.start();
    let (status, said) = daemon.get("/readyz");
    assert!(status == 503 && said.contains("accept-clock"), "{said}");
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d2", "o1", csr("d2"))).await.must_be(Code::Unavailable, "CLOCK_BACKWARDS");
    let accept = ["journal", "accept-clock", "data", "--reason", "the battery was empty"];
    refused(&site.token.birthmark(&accept), &["another birthmark daemon"]);
    daemon.end();
    let said = succeeded(&site.token.birthmark(&accept));
    assert!(said.contains("accepted and recorded"), "{said}");
    refused(&site.token.birthmark(&accept), &["nothing to accept"]);
    let daemon = site.start();
    assert_eq!(daemon.get("/readyz").0, 200);
    site.stream(&daemon, "line1/t1").await.ask(request("d2", "o1", csr("d2"))).await.issued();
    daemon.end();
    let verify = ["journal", "verify", "data", "--trusted-key", "ca/audit.pem"];
    assert!(succeeded(&site.token.birthmark(&verify)).contains("clock accepted (the battery was empty)"));
}
