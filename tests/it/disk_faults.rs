//! The disk refuses: writes that find it full, broken or read-only, syncs that fail, and what the daemon makes of it.
//!
//! strace makes the system calls fail, on one file, from a given call on and for a given number of calls.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use birthmark::{
    hash::sha256,
    ledger::{
        Action, Holder, Ledger, LedgerError, Outcome, Records,
        embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
        journal::Scan,
        verify::{VerifyOptions, verify},
    },
    proto::{IssueRequest, IssuedCertificate},
};
use jiff::Timestamp;
use rustix::process::{Resource, Rlimit};
use tonic::Code;

use crate::support::{
    ledger::{self, operation, terms},
    site::{Answer, Daemon, IssueStream, Site, csr, request, wait_until},
    token::{refused, succeeded, text},
};

/// The same command, with calls on this file that fail as strace's option `inject` says, for each of these. The tracer
/// is no parent of the process, which stays the caller's own.
pub(crate) fn failing(command: &Command, file: &Path, injects: &[&str]) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "signal=none", "-P"]).arg(file);
    let calls: Vec<_> = injects.iter().filter_map(|inject| inject.split(':').next()).collect();
    traced.args(["-e", &format!("trace={}", calls.join(","))]);
    for inject in injects {
        traced.args(["-e", &format!("inject={inject}")]);
    }
    traced.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        traced.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    traced.stdin(std::process::Stdio::null());
    traced
}

/// A site that has issued to `d0`, whose daemon has ended; with that certificate and its request.
async fn site_with_certificate() -> (Site, IssueRequest, IssuedCertificate) {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 100);
    let request = request("d0", "o1", csr("d0"));
    let issued = site.stream(&daemon, "line1/t1").await.ask(request.clone()).await.issued();
    // An enrolment is an entry of the journal: none is left for the time of the faults.
    (2..6).for_each(|station| drop(site.identity("station", &format!("line1/t{station}"))));
    daemon.end();
    (site, request, issued)
}

/// Starts a daemon under these faults. It has then written its start and the checkpoint after it: two writes and two syncs of the
/// committer's.
fn start_failing(site: &Site, injects: &[&str]) -> Daemon {
    let checkpoints = || site.log().matches(" checkpoint entries=").count();
    let before = checkpoints();
    let daemon = site.start_as(|command| failing(&command, &journal(site), injects));
    wait_until("the checkpoint of the start", || checkpoints() > before);
    daemon
}

fn journal(site: &Site) -> PathBuf {
    site.path("data/journal/00000001.journal")
}

/// How often each event is in the journal, which must be whole.
fn events(site: &Site) -> BTreeMap<String, usize> {
    succeeded(&site.token.birthmark(&["journal", "verify", "data", "--trusted-key", "ca/audit.pem"]));
    let dump = succeeded(&site.token.birthmark(&["journal", "dump", "data"]));
    let mut events = BTreeMap::new();
    for line in dump.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        *events.entry(entry["event"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    events
}

/// Asks until there is a certificate, as a station does. Gives how often it was told to come again.
pub(crate) async fn insist(stream: &mut IssueStream, request: &IssueRequest) -> (IssuedCertificate, usize) {
    for refusals in 0.. {
        match stream.ask(request.clone()).await {
            Answer::Issued(issued) => return (issued, refusals),
            Answer::Refused { code: Code::Unavailable, reason, retry: true, .. }
                if matches!(&*reason, "STORAGE_LOW" | "STORAGE_UNAVAILABLE") =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => panic!("{}: {other:?}", request.request_id),
        }
    }
    unreachable!()
}

/// A disk that refuses writes for a while costs time and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn disk_that_refuses_writes_for_a_while_costs_time_only() {
    for (error, says, first_failing) in [
        // The record of d1 is refused: its reservation is durable, its signature made.
        ("ENOSPC", "No space left on device", 6),
        ("EIO", "Input/output error", 6),
        // Already its reservation.
        ("EROFS", "Read-only file system", 5),
    ] {
        let (site, first_request, first) = site_with_certificate().await;
        // The committer's writes: two at the start, two each for d0's twin and d1; then, until it lasts, what it tries again.
        let inject = format!("pwrite64:error={error}:when={first_failing}..{}", first_failing + 25);
        let daemon = start_failing(&site, &[&inject]);
        let mut stream = site.stream(&daemon, "line1/t1").await;
        stream.ask(request("twin", "o1", csr("twin"))).await.issued();
        let hit = request("d1", "o1", csr("d1"));
        let answer = stream.ask(hit.clone()).await;
        let reason = if error == "ENOSPC" { "STORAGE_LOW" } else { "STORAGE_UNAVAILABLE" };
        answer.must_be(Code::Unavailable, reason);
        assert!(
            matches!(&answer, Answer::Refused { message, retry: true, .. } if message.contains(says)),
            "{answer:?}"
        );
        let (status, why) = daemon.get("/readyz");
        assert!(status == 503 && why.contains("ledger: ") && why.contains(says), "{status} {why}");

        // Others come meanwhile, and all get theirs when the disk writes again.
        let mut stations = Vec::new();
        for station in 2..6 {
            let mut stream = site.stream(&daemon, &format!("line1/t{station}")).await;
            stations.push(tokio::spawn(async move {
                for number in 0..5 {
                    let device = format!("s{station}-{number}");
                    insist(&mut stream, &request(&device, "o1", csr(&device))).await;
                }
            }));
        }
        let (issued, _) = insist(&mut stream, &hit).await;
        for station in stations {
            station.await.unwrap();
        }
        let again = stream.ask(hit).await.issued();
        assert!(again.replay && again.certificate == issued.certificate);
        assert_eq!(stream.ask(first_request).await.issued().certificate, first.certificate);
        assert_eq!(daemon.get("/readyz").0, 200, "{error}");
        let order = site.order("o1");
        assert_eq!([&order["issued"], &order["reserved"], &order["left"]], [23, 0, 77], "{error}: {order}");
        daemon.end();
        let events = events(&site);
        assert_eq!(events["issued"], 23, "{error}: {events:?}");
        assert_eq!(events["reserved"], 23 + events.get("abandoned").unwrap_or(&0), "{error}: {events:?}");
    }
}

/// A station whose request waits for the same request before it gets its certificate too when that one's record failed.
#[tokio::test(flavor = "multi_thread")]
async fn request_after_a_failed_record_gets_its_certificate() {
    let (site, ..) = site_with_certificate().await;
    // Every sync takes a tenth of a second, so that the second request comes between reservation and record.
    let injects = ["pwrite64:error=ENOSPC:when=4..14", "fdatasync:delay_exit=100000"];
    let daemon = start_failing(&site, &injects);
    let hit = request("d1", "o1", csr("d1"));
    let streams = [site.stream(&daemon, "line1/t1").await, site.stream(&daemon, "line1/t2").await];
    let both = streams.map(|mut stream| {
        let hit = hit.clone();
        tokio::spawn(async move { insist(&mut stream, &hit).await })
    });
    let (mut certificates, mut refusals) = (Vec::new(), 0);
    for asked in both {
        let (issued, refused) = asked.await.unwrap();
        certificates.push(issued.certificate);
        refusals += refused;
    }
    assert!(refusals > 0, "no record failed");
    assert_eq!(certificates[0], certificates[1]);
    assert_eq!(site.order("o1")["issued"], 2);
    daemon.end();
    assert_eq!(events(&site)["issued"], 2);
}

/// A sync that fails ends the daemon, and nothing is answered from it.
#[tokio::test(flavor = "multi_thread")]
async fn sync_that_fails_ends_the_daemon_without_an_answer() {
    // The sync of d1's reservation, and that of its record.
    for failing_sync in [5, 6] {
        let (site, first_request, first) = site_with_certificate().await;
        let inject = format!("fdatasync:error=EIO:when={failing_sync}");
        let mut daemon = start_failing(&site, &[&inject]);
        let mut stream = site.stream(&daemon, "line1/t1").await;
        let twin_request = request("twin", "o1", csr("twin"));
        let twin = stream.ask(twin_request.clone()).await.issued();
        let hit = request("d1", "o1", csr("d1"));
        stream.send(hit.clone()).await;
        let asked = Instant::now();
        // At most that the daemon is gone.
        if let Ok(Some(reply)) = stream.receive().await {
            Answer::of(reply).must_be(Code::Unavailable, "DRAINING");
        }
        let status = daemon.wait();
        assert!(asked.elapsed() < Duration::from_secs(10), "it went on for {:?}", asked.elapsed());
        assert_eq!(status.code(), Some(1), "{}", site.log());
        assert!(site.log().contains("the journal could not be made durable (Input/output error"), "{}", site.log());

        let daemon = site.start();
        let mut stream = site.stream(&daemon, "line1/t1").await;
        for (request, held) in [(first_request, first), (twin_request, twin)] {
            let again = stream.ask(request).await.issued();
            assert!(again.replay && again.certificate == held.certificate);
        }
        let issued = stream.ask(hit.clone()).await.issued();
        assert_eq!(stream.ask(hit).await.issued().certificate, issued.certificate);
        let order = site.order("o1");
        assert_eq!([&order["issued"], &order["reserved"]], [3, 0], "{order}");
        daemon.end();
        assert_eq!(events(&site)["issued"], 3);
    }
}

/// A data folder that cannot be written and a newer journal are refused at the start.
#[tokio::test(flavor = "multi_thread")]
async fn data_folder_read_only_or_newer_refuses_the_start() {
    let (site, ..) = site_with_certificate().await;
    let serve = || site.token.command(&["serve", "--config", "birthmark.toml"]);
    let lock = site.path("data/lock");
    for (file, error, says) in [
        (&lock, "EROFS", "data cannot be used: Read-only file system; it must be a folder that this user may"),
        (&lock, "EACCES", "data cannot be used: Permission denied; it must be a folder that this user may"),
        (&journal(&site), "EROFS", "00000001.journal cannot be used: Read-only file system"),
    ] {
        let run = failing(&serve(), file, &[&format!("openat:error={error}:when=1+")]).output().unwrap();
        refused(&run, &["birthmark.toml:", "ledger.path", says]);
        assert!(!text(&run.stderr).contains("panicked"), "{}", text(&run.stderr));
    }

    let mut bytes = fs::read(journal(&site)).unwrap();
    bytes[8] = 3;
    fs::write(journal(&site), bytes).unwrap();
    let newer = "has version 3, this daemon knows version 2; use a newer daemon";
    let said = site.refuse_to_start();
    assert!(said.contains(newer) && said.contains("00000001.journal"), "{said}");
    for command in ["verify", "dump", "reindex"] {
        refused(&site.token.birthmark(&["journal", command, "data"]), &[newer]);
    }
}

/// Small, so that files are begun and the index is written often.
const SETTINGS: Settings = Settings { segment_size: 3000, flush_at: 40, min_free: 0, mirror: None, boot_id: None };
const FOLDER: &str = "BIRTHMARK_DISK_FOLDER";
/// Set if no file may grow beyond [`LIMIT`], from soon after the start until that has failed some times.
const LIMITED: &str = "BIRTHMARK_DISK_LIMITED";
/// Enough for a file of the journal, and too little for the index.
const LIMIT: u64 = 3600;
const DEVICES: u32 = 350;

fn open(folder: &Path) -> (EmbeddedLedger, EmbeddedRecords) {
    EmbeddedLedger::open(folder, Timestamp::now(), &SETTINGS).unwrap()
}

fn commit(ledger: &mut EmbeddedLedger, action: Action) -> Result<Outcome, LedgerError> {
    ledger.commit(Timestamp::now(), &[operation(action)]).map(|mut outcomes| outcomes.remove(0))
}

fn holder(number: u32) -> Holder {
    let device = format!("d{number}");
    ledger::holder(&device, sha256(device.as_bytes()))
}

fn certificate(number: u32) -> Vec<u8> {
    format!("certificate of {number}").into_bytes()
}

/// As [`commit`], again and again while that may help.
fn insist_on(ledger: &mut EmbeddedLedger, records: &EmbeddedRecords, action: &Action) -> Outcome {
    for attempt in 1..100 {
        match commit(ledger, action.clone()) {
            Ok(outcome) => {
                assert_eq!(records.healthy(), Ok(()));
                return outcome;
            }
            Err(error) => {
                println!("failed: {error}");
                assert_eq!(records.healthy(), Err(error.to_string()));
                if error.is_fatal() {
                    std::process::exit(3);
                }
                if attempt == 5 {
                    limit_files(None);
                }
            }
        }
    }
    panic!("it helps no more");
}

/// What a file may grow to, in bytes.
fn limit_files(limit: Option<u64>) {
    rustix::process::setrlimit(Resource::Fsize, Rlimit { current: limit, maximum: None }).unwrap();
}

#[test]
#[ignore = "runs under strace, in the processes that the tests below start"]
fn workload() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let (mut ledger, records) = open(&folder);
    for number in 0..DEVICES {
        if std::env::var_os(LIMITED).is_some() && number == 49 {
            limit_files(Some(LIMIT));
        }
        let Outcome::Reserved(serial_number) = insist_on(&mut ledger, &records, &Action::Reserve(holder(number)))
        else {
            panic!()
        };
        let record = Action::Record { serial_number, certificate: certificate(number).into() };
        assert!(matches!(insist_on(&mut ledger, &records, &record), Outcome::Recorded));
        println!("issued: {number}");
    }
    ledger.close().unwrap();
}

/// Runs [`workload`] on a ledger with an order, after this change of the command, which is told the folder. All that it
/// issued must be found afterwards, and the rest can be issued. Gives also what failed.
fn work(change: impl FnOnce(Command, &Path) -> Command) -> (Output, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, _) = open(folder.path());
    commit(&mut ledger, Action::CreateOrder(terms("o"))).unwrap();
    ledger.close().unwrap();

    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "disk_faults::workload", "--ignored", "--nocapture"]).env(FOLDER, folder.path());
    let run = change(command, folder.path()).output().unwrap();
    let said = text(&run.stdout);
    let failed: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("failed: ")).map(str::to_owned).collect();
    let issued = said.lines().filter(|line| line.starts_with("issued: ")).count() as u32;
    println!("{}, {issued} issued, {failed:?}", run.status);

    let (mut ledger, records) = open(folder.path());
    for number in 0..DEVICES {
        match commit(&mut ledger, Action::Reserve(holder(number))).unwrap() {
            Outcome::Replay { certificate: found, .. } => assert_eq!(found, certificate(number)),
            // What a failed sync leaves is whole or not there.
            Outcome::Reserved(serial_number) if number >= issued => {
                let record = Action::Record { serial_number, certificate: certificate(number).into() };
                assert!(matches!(commit(&mut ledger, record).unwrap(), Outcome::Recorded));
            }
            other => panic!("{number}: {other:?}"),
        }
    }
    assert_eq!(records.order("o").unwrap().unwrap().issued, u64::from(DEVICES));
    drop(records);
    ledger.close().unwrap();
    let trust = VerifyOptions { chain_only: true, ..VerifyOptions::default() };
    verify(Scan::open(&folder.path().join("journal")).unwrap(), &trust, &mut |_| {}).unwrap();
    (run, failed)
}

/// A new journal file that cannot be begun is begun later.
#[test]
fn journal_file_that_cannot_be_begun_is_begun_later() {
    for inject in ["openat:error=ENOSPC:when=1..5", "pwrite64:error=EIO:when=1..5"] {
        let (run, failed) =
            work(|command, folder| failing(&command, &folder.join("journal/00000003.journal"), &[inject]));
        assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
        assert_eq!(failed.len(), 5);
        assert!(failed.iter().all(|error| error.contains("the journal could not be written")), "{failed:?}");
    }
}

/// A new journal file that cannot be synced ends the process.
#[test]
fn journal_file_that_cannot_be_synced_ends_the_process() {
    let inject = "fsync:error=EIO:when=1";
    let (run, failed) = work(|command, folder| failing(&command, &folder.join("journal/00000003.journal"), &[inject]));
    assert_eq!(run.status.code(), Some(3), "{}", text(&run.stdout));
    assert!(failed.len() == 1 && failed[0].contains("could not be made durable (Input/output error"), "{failed:?}");
}

/// An index that takes nothing refuses once memory is full, and goes on when it can.
#[test]
fn index_that_takes_nothing_refuses_once_memory_is_full() {
    let (run, failed) = work(|command, _| {
        // A write beyond the limit is to fail, not to kill.
        let mut limited = Command::new("sh");
        limited.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
        limited.env(LIMITED, "1").envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        limited
    });
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
    assert!(
        failed.len() == 5 && failed.iter().all(|error| error.contains("the index cannot be written")),
        "{failed:?}"
    );
}
