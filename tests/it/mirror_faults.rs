//! One of the two disks fails while the daemon works, on either side and in every way: what was answered is on the other one,
//! and the one that failed is brought up by itself.
//!
//! `BIRTHMARK_KILL_ROUNDS` sets how often the ledger is killed, `BIRTHMARK_SEED` repeats the plan.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use birthmark::ledger::{
    Action, Actor, Ledger, LedgerError, Outcome,
    embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
};
use jiff::Timestamp;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    disk_faults::failing,
    mirror::{Disks, device, files, issue, knows, one},
    support::{
        ledger::{operation, terms},
        site::wait_until,
    },
};

const DATA: &str = "BIRTHMARK_MIRRORED_DATA";
const MIRROR: &str = "BIRTHMARK_MIRRORED_MIRROR";
const FROM: &str = "BIRTHMARK_MIRRORED_FROM";
/// How many devices there are; none: until it is killed.
const DEVICES: &str = "BIRTHMARK_MIRRORED_DEVICES";

fn certificate(number: u32) -> Vec<u8> {
    vec![number as u8; 300]
}

fn insist(ledger: &mut EmbeddedLedger, action: &Action) -> Outcome {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match ledger.commit(Timestamp::now(), &[operation(action.clone())]).map(|mut outcomes| outcomes.remove(0)) {
            Ok(Outcome::Failed(error)) if Instant::now() < until && !error.is_fatal() => {}
            Ok(outcome) => return outcome,
            Err(error) if Instant::now() < until && !error.is_fatal() => println!("tried again: {error}"),
            Err(error) => panic!("{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "runs in the processes that the tests below start"]
fn workload() {
    let number = |name: &str| std::env::var(name).ok().map(|number| number.parse::<u32>().unwrap());
    let folder = |name: &str| PathBuf::from(std::env::var_os(name).unwrap());
    let settings =
        Settings { segment_size: 4000, flush_at: 40, min_free: 0, mirror: Some(folder(MIRROR)), boot_id: None };
    let (mut ledger, records) = EmbeddedLedger::open(&folder(DATA), Timestamp::now(), &settings).unwrap();
    insist(&mut ledger, &Action::CreateOrder(terms("o")));
    let say = |text: String| std::io::stdout().lock().write_all(text.as_bytes()).unwrap();
    say("open\n".into());
    let mut failed = false;
    let mut devices = number(FROM).unwrap()..number(DEVICES).unwrap_or(u32::MAX);
    let until = Instant::now() + Duration::from_secs(40);
    loop {
        if records.mirrored().is_err() != failed {
            failed = !failed;
            say(format!("{}\n", if failed { "failed" } else { "recovered" }));
        }
        let Some(number) = devices.next() else {
            // A disk that comes back is brought up although nobody asks for anything.
            if !failed || Instant::now() > until {
                break;
            }
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let serial_number = match insist(&mut ledger, &Action::Reserve(device(number))) {
            Outcome::Reserved(serial_number) => serial_number,
            // Answered before the kill, or not.
            Outcome::Replay { .. } => continue,
            other => panic!("{number}: {other:?}"),
        };
        let record = Action::Record { serial_number, certificate: certificate(number).into() };
        assert!(matches!(insist(&mut ledger, &record), Outcome::Recorded));
        say(format!("issued {number}\n"));
    }
    drop(records);
    // As a kill leaves it.
    std::process::exit(0);
}

fn workload_command(disks: &Disks, from: u32, devices: Option<u32>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "mirror_faults::workload", "--ignored", "--nocapture"]);
    command.env(DATA, &disks.data).env(MIRROR, &disks.mirror).env(FROM, from.to_string());
    devices.map(|devices| command.env(DEVICES, devices.to_string()));
    command
}

fn open_alone(folder: &Path) -> Result<(EmbeddedLedger, EmbeddedRecords), LedgerError> {
    let settings = Settings { segment_size: 4000, flush_at: 40, min_free: 0, mirror: None, boot_id: None };
    EmbeddedLedger::open(folder, Timestamp::now(), &settings)
}

/// Either disk refuses, each system call in its own way: the daemon goes on with the other one, which has all that was
/// answered, and brings the one that failed up by itself if it is back.
#[test]
fn disk_that_fails_on_either_side_stops_nothing() {
    const DEVICES: u32 = 60;
    let faults = [
        ("00000002.journal", "pwrite64:error=EIO:when=4..5", true),
        ("00000002.journal", "pwrite64:error=ENOSPC:when=1+", false),
        ("00000002.journal", "fdatasync:error=EIO:when=3", true),
        ("00000003.journal", "openat:error=ENOSPC:when=1..2", true),
        ("00000003.journal", "fsync:error=EIO:when=1", true),
        ("00000003.journal", "pwrite64:error=EROFS:when=1+", false),
    ];
    let cases: Vec<_> = [false, true].into_iter().flat_map(|mirror| faults.map(|fault| (mirror, fault))).collect();
    thread::scope(|scope| {
        for (of_mirror, (file, inject, comes_back)) in cases {
            scope.spawn(move || {
                let disks = Disks::new();
                let (failing_side, other) = match of_mirror {
                    true => (&disks.mirror, &disks.data),
                    false => (&disks.data, &disks.mirror),
                };
                let command = workload_command(&disks, 0, Some(DEVICES));
                let file = failing_side.join("journal").join(file);
                let mut child = Working::start(failing(&command, &file, &[inject]));
                let (mut issued, mut failed, mut recovered) = (0, false, false);
                while let Some(line) = child.line(Duration::from_secs(60)) {
                    match &*line {
                        "failed" => failed = true,
                        "recovered" => recovered = true,
                        line => issued += u32::from(line.starts_with("issued ")),
                    }
                    if issued == DEVICES && failed && !comes_back {
                        break;
                    }
                }
                child.kill();
                let what = format!("{inject} on {}", file.display());
                assert_eq!((issued, failed, recovered), (DEVICES, true, comes_back), "{what}");
                if comes_back {
                    assert_eq!(files(&disks.data), files(&disks.mirror), "{what}");
                    // Either may be gone for good now; an operator says so.
                    accept(other);
                    accept(failing_side);
                } else {
                    // The one that failed may not go on alone; the other one may.
                    let refused = open_alone_without(failing_side, other);
                    assert!(refused.contains("is not to be had"), "{what}: {refused}");
                }
                let (mut ledger, _records) = open_alone(other).unwrap();
                knows(&mut ledger, 0..DEVICES);
                if comes_back {
                    let (mut ledger, _records) = open_alone(failing_side).unwrap();
                    knows(&mut ledger, 0..DEVICES);
                }
            });
        }
    });
}

/// Opens one of the two while the other one is elsewhere.
fn open_alone_without(folder: &Path, other: &Path) -> String {
    let away = other.with_extension("away");
    fs::rename(other, &away).unwrap();
    let refused = open_alone(folder).map(drop).unwrap_err().to_string();
    fs::rename(&away, other).unwrap();
    refused
}

/// An operator says that the other one is lost. What he finds is what the folder has alone.
fn accept(folder: &Path) {
    let noted = fs::read_to_string(folder.join("mirrored")).unwrap();
    if !noted.contains("both /") {
        return; // It was alone, and the other one brought up, but not written yet.
    }
    fs::write(folder.join("mirrored"), noted.replace("both /", "both /gone/")).unwrap();
    let settings = Settings { segment_size: 4000, flush_at: 40, min_free: 0, mirror: None, boot_id: None };
    let (actor, reason) = (Actor("operator:test".into()), "the other disk is lost".to_owned());
    let what = EmbeddedLedger::accept_loss(folder, Timestamp::now(), &settings, actor, reason).unwrap();
    assert!(what.contains("mirror"), "{what}");
}

/// A process that works, and what it says.
struct Working {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Working {
    fn start(mut command: Command) -> Working {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (say, lines) = mpsc::channel();
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        Working { child, lines }
    }

    fn line(&self, within: Duration) -> Option<String> {
        self.lines.recv_timeout(within).ok()
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The journal's folder, or the whole data folder with the index, is removed while the daemon works.
#[test]
fn journal_or_data_folder_removed_stops_nothing() {
    let disks = Disks::new();
    let (mut ledger, records) = disks.open();
    one(&mut ledger, Action::CreateOrder(terms("o")));
    issue(&mut ledger, 0..30);
    fs::remove_dir_all(disks.data.join("journal")).unwrap();
    issue(&mut ledger, 30..60);
    let said = records.mirrored().unwrap_err();
    assert!(said.contains(disks.data.to_str().unwrap()) && said.contains("was removed"), "{said}");
    assert_eq!(records.healthy(), Ok(()));
    // Its lock is there, so it is no disk that is away.
    wait_until("the journal is brought up", || records.mirrored().is_ok());
    issue(&mut ledger, 60..80);
    disks.same();
    knows(&mut ledger, 0..80);

    // The mirror's folder is the journal's now. With the rest of the data folder goes the index.
    fs::remove_dir_all(disks.mirror.join("journal")).unwrap();
    issue(&mut ledger, 80..82);
    wait_until("the mirror is brought up", || records.mirrored().is_ok());
    issue(&mut ledger, 82..90);
    disks.same();
    fs::remove_dir_all(&disks.data).unwrap();
    for number in 90..250 {
        let serial_number = match insist(&mut ledger, &Action::Reserve(device(number))) {
            Outcome::Reserved(serial_number) => serial_number,
            other => panic!("{number}: {other:?}"),
        };
        let record = Action::Record { serial_number, certificate: certificate(number).into() };
        assert!(matches!(insist(&mut ledger, &record), Outcome::Recorded));
    }
    assert!(records.mirrored().is_err());
    for number in 0..250 {
        let outcome = insist(&mut ledger, &Action::Reserve(device(number)));
        assert!(matches!(outcome, Outcome::Replay { .. }), "{number}: {outcome:?}");
    }
    drop((ledger, records));
    // Nothing is left of the first disk: the mirror knows that it was alone.
    let (mut ledger, records) = disks.open();
    knows(&mut ledger, 0..250);
    assert_eq!(records.mirrored(), Ok(()));
    disks.same();
}

/// After a kill, one disk alone does not know whether the other one went on without it: an operator has to say so, and if
/// that was wrong, the two are refused together.
#[test]
fn start_with_one_disk_after_a_kill_needs_an_operator() {
    let disks = Disks::new();
    let (mut ledger, records) = disks.open();
    one(&mut ledger, Action::CreateOrder(terms("o")));
    issue(&mut ledger, 0..10);
    let away = disks.data.with_extension("away");
    // The first disk fails, the mirror goes on, the process is killed, and only the first disk is there.
    fs::rename(disks.data.join("journal"), &away).unwrap();
    issue(&mut ledger, 10..12);
    drop((ledger, records));
    let _ = fs::remove_dir_all(disks.data.join("journal"));
    fs::rename(&away, disks.data.join("journal")).unwrap();
    let gone = disks.mirror.with_extension("gone");
    fs::rename(&disks.mirror, &gone).unwrap();
    let said = disks.try_open().map(drop).unwrap_err();
    for part in ["may lack entries", disks.data.to_str().unwrap(), disks.mirror.to_str().unwrap(), "accept-loss"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // A start that is refused changes nothing: with both all is there.
    fs::rename(&gone, &disks.mirror).unwrap();
    let (mut ledger, records) = disks.open();
    knows(&mut ledger, 0..12);
    drop((ledger, records));

    fs::rename(&disks.mirror, &gone).unwrap();
    let settings = Settings { segment_size: 4000, flush_at: 40, min_free: 0, mirror: None, boot_id: None };
    let (actor, reason) = (Actor("operator:test".into()), "it is lost".to_owned());
    EmbeddedLedger::accept_loss(&disks.data, Timestamp::now(), &settings, actor, reason).unwrap();
    let (mut ledger, records) = disks.open();
    knows(&mut ledger, 0..12);
    issue(&mut ledger, 12..14);
    drop((ledger, records));
    // It went on without the mirror, and knows that: it may start again.
    drop(disks.open());

    // The mirror alone went on too.
    accept(&gone);
    fs::rename(&gone, &disks.mirror).unwrap();
    let said = disks.try_open().map(drop).unwrap_err();
    for part in ["gone different ways", disks.data.to_str().unwrap(), disks.mirror.to_str().unwrap()] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// Killed at random moments, while disks go and come back and are brought up: all that was answered is found, and both
/// journals have the same bytes at last.
#[test]
fn random_kills_while_disks_come_and_go_lose_nothing() {
    let rounds = std::env::var("BIRTHMARK_KILL_ROUNDS").map_or(8, |rounds| rounds.parse().unwrap());
    let seed = std::env::var("BIRTHMARK_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("BIRTHMARK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let disks = Disks::new();
    let mut issued = BTreeSet::new();
    let (mut from, mut failures, mut recoveries) = (0, 0, 0);
    for round in 0..rounds {
        let mut child = Working::start(workload_command(&disks, from, None));
        let until = Instant::now() + Duration::from_millis(random.random_range(100..4000));
        let mut away: Option<(PathBuf, PathBuf)> = None;
        let mut next = Instant::now() + Duration::from_millis(random.random_range(50..500));
        let mut opened = false;
        while Instant::now() < until || !opened {
            assert!(
                opened || Instant::now() < until + birthmark_bench::process::PATIENCE,
                "seed {seed}, round {round}: it does not open"
            );
            match child.line(Duration::from_millis(5)).as_deref() {
                Some("open") => opened = true,
                Some("failed") => failures += 1,
                Some("recovered") => recoveries += 1,
                Some(line) => {
                    if let Some(number) = line.strip_prefix("issued ") {
                        issued.insert(number.parse::<u32>().unwrap());
                    }
                }
                None => {}
            }
            if opened && Instant::now() > next {
                next = Instant::now() + Duration::from_millis(random.random_range(100..1600));
                match away.take() {
                    Some((here, there)) => bring_back(&here, &there),
                    None => {
                        let side = if random.random_ratio(1, 2) { &disks.data } else { &disks.mirror };
                        let (here, there) = (side.join("journal"), side.join("away"));
                        fs::rename(&here, &there).unwrap();
                        away = Some((here, there));
                    }
                }
            }
        }
        child.kill();
        while let Some(line) = child.line(Duration::from_millis(50)) {
            issued.extend(line.strip_prefix("issued ").map(|number| number.parse::<u32>().unwrap()));
        }
        if let Some((here, there)) = away {
            bring_back(&here, &there);
        }
        let (mut ledger, records) =
            disks.try_open().unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
        for number in &issued {
            let outcome = one(&mut ledger, Action::Reserve(device(*number)));
            assert!(
                matches!(&outcome, Outcome::Replay { certificate: found, .. } if *found == certificate(*number)),
                "seed {seed}, round {round}, {number}: {outcome:?}"
            );
        }
        assert_eq!(records.mirrored(), Ok(()));
        drop((ledger, records));
        disks.same();
        from = issued.last().map_or(0, |last| last + 1);
    }
    println!("{} issued, {failures} failures, {recoveries} recoveries in {rounds} rounds", issued.len());
}

/// The disk is there again, with what it had. If the daemon has begun anew in its place, that is what there is.
fn bring_back(here: &Path, there: &Path) {
    match here.exists() {
        true => fs::remove_dir_all(there).unwrap(),
        false => fs::rename(there, here).unwrap(),
    }
}
