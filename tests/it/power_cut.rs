//! The power fails: every disk that a power cut could leave is one that the ledger recovers from.
//!
//! A real ledger works in a process of its own under strace, which records what it writes and syncs ([`trace`]). From
//! that record the disk is rebuilt as it could be after a cut at any of these system calls ([`disk`]): what was not
//! synced is there, or not, or torn at sectors, in whatever order. Each such disk is opened with the real code. All
//! that the ledger had acknowledged before the cut must be found, byte by byte, and nothing else may be made up.
//!
//! The index is not durable and not rebuilt like this: the disks have none, noise, or an older one.
//!
//! `BIRTHMARK_POWER_STATES` sets how many different disks are tried, `BIRTHMARK_SEED` repeats a run.

mod disk;
mod trace;

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, mpsc},
    thread,
    time::Instant,
};

use birthmark::{
    hash::sha256,
    ledger::{
        Action, Holder, Ledger, Operation, Outcome, Record, RecordState, Records,
        embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
        journal::Scan,
        verify::{VerifyOptions, verify},
    },
    serial::SerialNumber,
};
use jiff::Timestamp;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use self::{disk::Disk, trace::Event};
use crate::support::ledger::{self, operation, terms};

/// Small, so that files are begun and the index is written often.
const SETTINGS: Settings = Settings { segment_size: 3000, flush_at: 10, min_free: 0, mirror: None, boot_id: None };
const FOLDER: &str = "BIRTHMARK_POWER_FOLDER";
/// Below the folder; nothing of it exists at first.
const DATA: &str = "site/data";

fn open(folder: &Path) -> Result<(EmbeddedLedger, EmbeddedRecords), birthmark::ledger::LedgerError> {
    // The disks of the model are copies; where there is an index, that is not asked about.
    fs::create_dir_all(folder.join("index"))
        .map_err(|cause| birthmark::ledger::LedgerError::Folder { folder: String::new(), cause })?;
    EmbeddedLedger::open(folder, Timestamp::now(), &SETTINGS)
}

fn holder(device: &str) -> Holder {
    ledger::holder(device, sha256(device.as_bytes()))
}

/// What the certificate of a device under a serial number is: long enough for several sectors, and known to who checks.
fn certificate(device: &str, serial_number: &SerialNumber) -> Vec<u8> {
    let seed = sha256(format!("{device} {serial_number}").as_bytes());
    let length = 200 + usize::from(seed[0]) * 4;
    seed.iter().copied().cycle().take(length).collect()
}

/// What the ledger acknowledged, one line a write, and so between the right system calls of the record.
#[derive(Clone, Debug)]
enum Acknowledged {
    Order,
    Reserved(SerialNumber, String),
    Issued(SerialNumber),
    Abandoned(SerialNumber),
    Confirmed(SerialNumber),
    Scrapped(SerialNumber),
    /// A copy of the index as it is now was kept under this number.
    Index(u32),
}

impl Acknowledged {
    fn to_line(&self) -> String {
        match self {
            Acknowledged::Order => "order\n".into(),
            Acknowledged::Reserved(serial, device) => format!("reserved {serial} {device}\n"),
            Acknowledged::Issued(serial) => format!("issued {serial}\n"),
            Acknowledged::Abandoned(serial) => format!("abandoned {serial}\n"),
            Acknowledged::Confirmed(serial) => format!("confirmed {serial}\n"),
            Acknowledged::Scrapped(serial) => format!("scrapped {serial}\n"),
            Acknowledged::Index(number) => format!("index {number}\n"),
        }
    }

    fn of_line(line: &str) -> Acknowledged {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["order"] => Acknowledged::Order,
            ["reserved", serial, device] => Acknowledged::Reserved(serial.parse().unwrap(), device.into()),
            ["issued", serial] => Acknowledged::Issued(serial.parse().unwrap()),
            ["abandoned", serial] => Acknowledged::Abandoned(serial.parse().unwrap()),
            ["confirmed", serial] => Acknowledged::Confirmed(serial.parse().unwrap()),
            ["scrapped", serial] => Acknowledged::Scrapped(serial.parse().unwrap()),
            ["index", number] => Acknowledged::Index(number.parse().unwrap()),
            _ => panic!("{line}"),
        }
    }
}

/// The work that is recorded: issuing, an orderly end, a crash, a torn end and the recovery from it.
struct Work {
    folder: PathBuf,
    acknowledgements: File,
    random: StdRng,
    devices: u32,
    pending: Vec<(SerialNumber, String)>,
    /// Certificates of which nothing became yet.
    issued: Vec<SerialNumber>,
}

impl Work {
    fn data(&self) -> PathBuf {
        self.folder.join(DATA)
    }

    fn acknowledge(&mut self, what: &[Acknowledged]) {
        let text: String = what.iter().map(Acknowledged::to_line).collect();
        self.acknowledgements.write_all(text.as_bytes()).unwrap();
    }

    /// Some batches of new reservations, records and ends of reservations, and of what becomes of certificates.
    fn batches(&mut self, ledger: &mut EmbeddedLedger, batches: u32) {
        for _ in 0..batches {
            let mut operations = Vec::new();
            let mut devices = Vec::new();
            for _ in 0..self.random.random_range(1..4) {
                let device = format!("device-{}", self.devices);
                self.devices += 1;
                operations.push(operation(Action::Reserve(holder(&device))));
                devices.push(device);
            }
            let finished = self.random.random_range(0..=self.pending.len());
            for (serial_number, device) in self.pending.drain(..finished) {
                let action = if self.random.random_ratio(1, 6) {
                    Action::Abandon { serial_number, reason: "a test".into() }
                } else {
                    let certificate = certificate(&device, &serial_number).into();
                    Action::Record { serial_number, certificate }
                };
                operations.push(operation(action));
            }
            let changed = self.random.random_range(0..=self.issued.len());
            for serial_number in self.issued.drain(..changed) {
                operations.push(operation(match self.random.random_ratio(1, 3) {
                    true => Action::Scrap { serial_number, reason: "a test".into() },
                    false => Action::Confirm { serial_number, device: None, profiles: None },
                }));
            }
            let asked = operations.clone();
            let outcomes = ledger.commit(Timestamp::now(), &operations).unwrap();
            let mut devices = devices.into_iter();
            let mut done = Vec::new();
            for (outcome, Operation { action, .. }) in outcomes.into_iter().zip(asked) {
                done.push(match (outcome, action) {
                    (Outcome::Reserved(serial), Action::Reserve(_)) => {
                        let device = devices.next().unwrap();
                        self.pending.push((serial, device.clone()));
                        Acknowledged::Reserved(serial, device)
                    }
                    (Outcome::Recorded, Action::Record { serial_number, .. }) => {
                        self.issued.push(serial_number);
                        Acknowledged::Issued(serial_number)
                    }
                    (Outcome::Changed { .. }, Action::Confirm { serial_number, .. }) => {
                        Acknowledged::Confirmed(serial_number)
                    }
                    (Outcome::Changed { .. }, Action::Scrap { serial_number, .. }) => {
                        Acknowledged::Scrapped(serial_number)
                    }
                    (Outcome::Abandoned, Action::Abandon { serial_number, .. }) => {
                        Acknowledged::Abandoned(serial_number)
                    }
                    other => panic!("{other:?}"),
                });
            }
            self.acknowledge(&done);
        }
    }

    fn keep_index(&mut self, number: u32) {
        copy_folder(&self.data().join("index"), &self.folder.join(format!("index-{number}")));
        self.acknowledge(&[Acknowledged::Index(number)]);
    }

    fn newest_file(&self) -> PathBuf {
        let entries = fs::read_dir(self.data().join("journal")).unwrap();
        entries.map(|entry| entry.unwrap().path()).max().unwrap()
    }
}

/// The parts of the work; each is a process of its own.
const PARTS: u32 = 3;
const PART: &str = "BIRTHMARK_POWER_PART";

#[test]
#[ignore = "runs under strace, in the processes that disk_that_any_power_cut_leaves_is_recovered_from starts"]
fn workload() {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let part = number(PART) as u32;
    let random = StdRng::seed_from_u64(number("BIRTHMARK_SEED") ^ u64::from(part));
    let acknowledgements = File::options().create(true).append(true).open(folder.join("acknowledgements")).unwrap();
    let mut work =
        Work { folder, acknowledgements, random, devices: 1000 * part, pending: Vec::new(), issued: Vec::new() };
    if part > 1 {
        work.keep_index(part);
    }
    if part == 3 {
        // As if the process before had died in the middle of a write.
        let newest = work.newest_file();
        let file = File::options().write(true).open(&newest).unwrap();
        let end = file.metadata().unwrap().len();
        file.write_all_at(&[0x20, 0x03, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd].repeat(80), end).unwrap();
    }

    let (mut ledger, records) = open(&work.data()).unwrap();
    if part == 1 {
        ledger.commit(Timestamp::now(), &[operation(Action::CreateOrder(terms("o")))]).unwrap();
        work.acknowledge(&[Acknowledged::Order]);
    }
    work.batches(&mut ledger, 18);
    if part == 1 {
        ledger.close().unwrap();
        drop(records);
    } else {
        // No orderly end: what is reserved stays so, until the next part gives it up.
        std::process::exit(0);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every disk that a power cut leaves is recovered from.
#[test]
fn disk_that_any_power_cut_leaves_is_recovered_from() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let wanted = number("BIRTHMARK_POWER_STATES").unwrap_or(10_000) as usize;
    let seed = number("BIRTHMARK_SEED").unwrap_or_else(rand::random);
    println!("BIRTHMARK_POWER_STATES={wanted} BIRTHMARK_SEED={seed}");
    let started = Instant::now();
    let folder = temporary();
    let events = record(folder.path(), seed);
    let syncs = events.iter().filter(|event| matches!(event, Event::SyncFile(_) | Event::SyncFolder(_))).count();
    println!("recorded {} calls, {syncs} of them syncs, in {:.1} s", events.len(), started.elapsed().as_secs_f64());
    assert!(syncs > 40 && events.iter().any(|event| matches!(event, Event::Truncate(..))));

    let mut tried = 0;
    let mut checked = 0;
    let (sender, receiver) = mpsc::sync_channel::<Case>(64);
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        let checkers: Vec<_> = (0..thread::available_parallelism().map_or(2, usize::from))
            .map(|_| {
                scope.spawn(|| {
                    let folder = temporary();
                    loop {
                        let case = receiver.lock().unwrap().recv();
                        let Ok(case) = case else { return };
                        check(&case, &folder.path().join("disk"));
                    }
                })
            })
            .collect();
        (tried, checked) = rebuild(&events, folder.path(), wanted, seed, &|mut case| {
            // A checker that failed ends the test when it is joined.
            while !checkers.iter().any(thread::ScopedJoinHandle::is_finished) {
                match sender.try_send(case) {
                    Ok(()) => return true,
                    Err(mpsc::TrySendError::Full(again)) => case = again,
                    Err(mpsc::TrySendError::Disconnected(_)) => return false,
                }
                thread::park_timeout(std::time::Duration::from_millis(1));
            }
            false
        });
        drop(sender);
    });
    println!(
        "{tried} different disks in {checked} openings after cuts at {} calls, {:.0} s",
        events.len(),
        started.elapsed().as_secs_f64()
    );
    assert!(tried >= wanted, "only {tried} different disks");
}

/// On memory if there is such a file system: what is rebuilt needs no disk.
fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Runs [`workload`] and gives what it did to the disk.
fn record(folder: &Path, seed: u64) -> Vec<Event> {
    let calls = "trace=openat,write,pwrite64,fsync,fdatasync,ftruncate,rename,renameat,renameat2,link,linkat,unlink,\
                 unlinkat,mkdir,mkdirat,rmdir,pwritev,writev,fallocate,sync_file_range,copy_file_range";
    let part = |part: u32| {
        let traces = folder.join(format!("traces-{part}"));
        fs::create_dir(&traces).unwrap();
        let run = Command::new("strace")
            .args(["-ff", "-y", "-xx", "-s", "16777216", "-e", "signal=none", "-e", calls, "-o"])
            .arg(traces.join("trace"))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "power_cut::workload", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .env(PART, part.to_string())
            .env("BIRTHMARK_SEED", seed.to_string())
            .output()
            .expect("strace must be installed");
        assert!(run.status.success(), "{run:?}");
        trace::read(&traces, folder)
    };
    (1..=PARTS).flat_map(part).collect()
}

/// A disk, and what the ledger had acknowledged when the power failed.
struct Case {
    disk: HashMap<PathBuf, disk::Content>,
    acknowledged: Vec<Acknowledged>,
    index: IndexThere,
    about: String,
}

/// What is left of the index.
enum IndexThere {
    Nothing,
    Noise(u64),
    Older(PathBuf),
}

/// Rebuilds disks until there are enough different ones. Gives how many there were, and how many were to be opened.
fn rebuild(events: &[Event], folder: &Path, wanted: usize, seed: u64, give: &dyn Fn(Case) -> bool) -> (usize, usize) {
    let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
    // How much was acknowledged when a disk was tried: more is a new case, also on the same disk.
    let mut tried: HashMap<u64, usize> = HashMap::new();
    let mut given = 0;
    for round in 0.. {
        let before = tried.len();
        let mut disk = Disk::new(folder.to_owned());
        let mut acknowledged: Vec<Acknowledged> = Vec::new();
        for (at, event) in events.iter().enumerate() {
            disk.apply(event);
            if let Event::Acknowledged(lines) = event {
                acknowledged.extend(lines.lines().map(Acknowledged::of_line));
            }
            let variants = if disk.has_pending() { 24 } else { 1 };
            for variant in 0..variants {
                let content = disk.after_a_cut(&mut random, variant);
                let known = tried.entry(disk::fingerprint(&content)).or_insert(usize::MAX);
                if *known != usize::MAX && *known >= acknowledged.len() {
                    continue;
                }
                *known = acknowledged.len();
                let older = acknowledged.iter().rev().find_map(|what| match what {
                    Acknowledged::Index(number) => Some(folder.join(format!("index-{number}"))),
                    _ => None,
                });
                let index = match (random.random_range(0..10), older) {
                    (0, _) => IndexThere::Noise(random.random()),
                    (1 | 2, Some(older)) => IndexThere::Older(older),
                    _ => IndexThere::Nothing,
                };
                let about = format!("round {round}, cut after call {at} ({event:?}), variant {variant}, seed {seed}");
                given += 1;
                if !give(Case { disk: content, acknowledged: acknowledged.clone(), index, about }) {
                    return (tried.len(), given);
                }
            }
        }
        if tried.len() >= wanted || tried.len() == before {
            break;
        }
    }
    (tried.len(), given)
}

fn check(case: &Case, folder: &Path) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).unwrap();
    disk::write(&case.disk, folder);
    let data = folder.join(DATA);
    if data.is_dir() {
        match &case.index {
            IndexThere::Nothing => {}
            IndexThere::Noise(seed) => noise(&data.join("index"), *seed),
            IndexThere::Older(older) => copy_folder(older, &data.join("index")),
        }
    }
    let (mut ledger, records) = open(&data).unwrap_or_else(|error| panic!("{}: {error}", case.about));
    let found = records.issued_under("o").unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let issued = must_hold_what_was_acknowledged(case, &records, &found);

    // It goes on as if nothing had been: what is issued is a retry, what is not can be issued.
    if records.order("o").unwrap().is_some() {
        if let Some(record) = found.iter().rfind(|record| record.state.is_live()) {
            let again = ledger.commit(Timestamp::now(), &[operation(Action::Reserve(record.holder.clone()))]).unwrap();
            let expected = &record.issued.as_ref().unwrap().certificate;
            assert!(
                matches!(&again[..], [Outcome::Replay { certificate, .. }] if certificate == expected),
                "{}: {again:?}",
                case.about
            );
        }
        let new = ledger.commit(Timestamp::now(), &[operation(Action::Reserve(holder("new")))]).unwrap();
        let [Outcome::Reserved(serial_number)] = new[..] else { panic!("{}: {new:?}", case.about) };
        let action = Action::Record { serial_number, certificate: certificate("new", &serial_number).into() };
        ledger.commit(Timestamp::now(), &[operation(action)]).unwrap();
        assert_eq!(records.order("o").unwrap().unwrap().issued, issued + 1, "{}", case.about);
    }
    drop((ledger, records));
    let verified = verify(Scan::open(&data).unwrap(), &VerifyOptions::default(), &mut |_| {});
    let verified = verified.unwrap_or_else(|error| panic!("{}: {error}", case.about));
    assert_eq!(verified.torn, None, "{}", case.about);
}

/// Gives how many certificates there are.
fn must_hold_what_was_acknowledged(case: &Case, records: &EmbeddedRecords, found: &[Record]) -> u64 {
    let about = &case.about;
    let mut later = HashSet::new();
    for what in case.acknowledged.iter().rev() {
        let (serial, states) = match what {
            Acknowledged::Order => {
                assert!(records.order("o").unwrap().is_some(), "{about}: the order is lost");
                continue;
            }
            Acknowledged::Index(_) => continue,
            // What became of it may have been durable, and not acknowledged yet.
            Acknowledged::Reserved(serial, _) => (serial, &[RecordState::Abandoned, RecordState::Issued][..]),
            Acknowledged::Issued(serial) => {
                (serial, &[RecordState::Issued, RecordState::Confirmed, RecordState::Scrapped][..])
            }
            Acknowledged::Confirmed(serial) => (serial, &[RecordState::Confirmed][..]),
            Acknowledged::Scrapped(serial) => (serial, &[RecordState::Scrapped][..]),
            Acknowledged::Abandoned(serial) => (serial, &[RecordState::Abandoned][..]),
        };
        if !later.insert(*serial) {
            continue;
        }
        let record = records.by_serial_number(serial).unwrap();
        let record = record.unwrap_or_else(|| panic!("{about}: {what:?} is lost"));
        assert!(states.contains(&record.state), "{about}: {what:?} is {:?}", record.state);
    }
    for record in found {
        let expected = certificate(&record.holder.device, &record.serial_number);
        assert_eq!(record.issued.as_ref().unwrap().certificate, expected, "{about}: {:?}", record.serial_number);
    }
    let counts = records.order("o").unwrap().map_or((0, 0, 0), |order| (order.issued, order.confirmed, order.scrapped));
    let of = |state| found.iter().filter(|record| record.state == state).count() as u64;
    let (confirmed, scrapped) = (of(RecordState::Confirmed), of(RecordState::Scrapped));
    assert_eq!(counts, (found.len() as u64 - scrapped, confirmed, scrapped), "{about}");
    counts.0
}

fn noise(folder: &Path, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    fs::create_dir_all(folder).unwrap();
    for name in ["conf", "db", "snap.0000000000000000"] {
        let bytes: Vec<u8> = (0..random.random_range(0..4096)).map(|_| random.random()).collect();
        fs::write(folder.join(name), bytes).unwrap();
    }
}
