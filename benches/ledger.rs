#![expect(clippy::expect_used, clippy::panic, reason = "a bench ends by panicking")]
//! What the ledger costs: CPU a certificate, a start, rebuilding the index, disk.
//!
//! `cargo bench --bench ledger`; with BIRTHMARK_BENCH_RECORDS=10000000 the start and the commits on top of that many
//! records (some minutes to fill, 10 GB in the system's temporary folder or in BIRTHMARK_BENCH_FOLDER, which is kept).
//!
//! With BIRTHMARK_BENCH_RESTARTS=50, instead, so many starts with work between them, in turn after an orderly stop and after
//! the process was killed.
//!
//! With BIRTHMARK_BENCH_ONE_TREE set, instead, what the index alone would cost as one sled tree that takes the keys and
//! devices of 65,536 records at a time, sorted: the comparison in the head of src/ledger/index/run.rs.

use std::{
    env, fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{self, Command},
    time::{Duration, Instant},
};

use birthmark::ledger::{
    Action, Actor, Holder, Ledger, Operation, OrderTerms, Outcome,
    embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

const BATCH: usize = 64;

fn open(folder: &Path) -> (EmbeddedLedger, EmbeddedRecords) {
    EmbeddedLedger::open(folder, Timestamp::now(), &Settings::default()).expect("the ledger opens")
}

fn operation(action: Action) -> Operation {
    Operation { actor: Actor("station:line1/tester1".into()), action }
}

fn create_order(ledger: &mut EmbeddedLedger) {
    let terms = OrderTerms::new("order-1", "device", 1 << 40);
    ledger.commit(Timestamp::now(), &[operation(Action::CreateOrder(terms))]).expect("an order");
}

/// Reserves and records a batch of new devices, with certificates of the usual size.
fn issue_batch(ledger: &mut EmbeddedLedger, certificate: &Bytes) {
    let reserve = |_| {
        let key_hash: [u8; 32] = rand::random();
        operation(Action::Reserve(Holder {
            device: format!("device-{}", hex::encode(&key_hash[..8])),
            key_hash,
            order: "order-1".into(),
            profile: "device".into(),
            issuer: "main".into(),
            issuer_id: 0,
        }))
    };
    let reserved = ledger.commit(Timestamp::now(), &(0..BATCH).map(reserve).collect::<Vec<_>>()).expect("reservations");
    let record = |outcome| match outcome {
        Outcome::Reserved(serial_number) => {
            operation(Action::Record { serial_number, certificate: certificate.clone() })
        }
        other => panic!("{other:?}"),
    };
    black_box(ledger.commit(Timestamp::now(), &reserved.into_iter().map(record).collect::<Vec<_>>()).expect("records"));
}

/// User and system time of the whole process: the committer's side, the indexer and sled's own threads.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A folder with a ledger of `records` records, made if it is not there yet.
fn filled(records: u64) -> (PathBuf, Option<tempfile::TempDir>) {
    let (folder, temporary) = match env::var_os("BIRTHMARK_BENCH_FOLDER") {
        Some(folder) => (PathBuf::from(folder).join(records.to_string()), None),
        None => {
            let temporary = tempfile::tempdir().expect("a temporary folder");
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    if !folder.join("journal").exists() {
        let (mut ledger, _records) = open(&folder);
        create_order(&mut ledger);
        let certificate = Bytes::from(vec![0x30; 520]);
        let mut meter = Meter::new(records);
        for _ in 0..records / BATCH as u64 {
            issue_batch(&mut ledger, &certificate);
            meter.count(BATCH as u64);
        }
        ledger.close().expect("an orderly close");
    }
    (folder, temporary)
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(
            |entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().map_or(0, |it| it.len()) },
        )
        .sum()
}

fn resident_mib() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    (pages * 4096) >> 20
}

/// Prints what each tenth of a filling costs.
struct Meter {
    records: u64,
    done: u64,
    tenth: u64,
    cpu: Duration,
    wall: Instant,
}

impl Meter {
    fn new(records: u64) -> Self {
        Meter { records, done: 0, tenth: 1, cpu: cpu_time(), wall: Instant::now() }
    }

    fn count(&mut self, records: u64) {
        self.done += records;
        let size = self.records / 10;
        if self.done >= self.tenth * size {
            let (cpu, wall) = (cpu_time(), self.wall.elapsed());
            let a_record = |time: Duration| time.as_secs_f64() * 1e6 / size as f64;
            println!(
                "{} records: {:.1} µs of CPU and {:.1} µs a record, {} MiB resident",
                self.done,
                a_record(cpu - self.cpu),
                a_record(wall),
                resident_mib()
            );
            (self.cpu, self.wall, self.tenth) = (cpu, Instant::now(), self.tenth + 1);
        }
    }
}

/// The index as one sled tree.
fn one_tree(records: u64) {
    const AT_ONCE: u64 = 65_536;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = sled::Config::new().path(folder.path()).cache_capacity(32 << 20).flush_every_ms(Some(500));
    let tree = config.open().expect("a database");
    let mut meter = Meter::new(records);
    for batch in 0..records / AT_ONCE {
        let mut names: Vec<([u8; 16], [u8; 8])> =
            (0..2 * AT_ONCE).map(|at| (rand::random(), (batch << 32 | at).to_be_bytes())).collect();
        names.sort_unstable();
        let mut batch = sled::Batch::default();
        names.iter().for_each(|(name, place)| batch.insert(name, place));
        tree.apply_batch(batch).expect("a batch");
        meter.count(AT_ONCE);
    }
    tree.flush().expect("a flush");
    println!("one sled tree of {records} records: {} B a record", size(folder.path()) / records);
}

/// How many batches are issued between two starts.
const WORK: u32 = 100;

/// The folder of a process that is to be killed.
const KILLED: &str = "BIRTHMARK_BENCH_KILLED";

/// Starts, and issues some batches.
fn start_and_work(folder: &Path, certificate: &Bytes) -> (EmbeddedLedger, Duration) {
    let started = Instant::now();
    let (mut ledger, _records) = open(folder);
    let elapsed = started.elapsed();
    (0..WORK).for_each(|_| issue_batch(&mut ledger, certificate));
    (ledger, elapsed)
}

/// Prints how long starts take, and whether the last ones take longer than the first.
fn restarts(folder: &Path, certificate: &Bytes, starts: u32) {
    let (mut orderly, mut killed) = (Vec::new(), Vec::new());
    for _ in 0..starts / 2 {
        let program = env::current_exe().expect("the program's own path");
        let run = Command::new(program).env(KILLED, folder).output().expect("the process that is killed");
        let said = String::from_utf8_lossy(&run.stdout);
        let micros = said.lines().next().and_then(|line| line.parse().ok());
        orderly.push(Duration::from_micros(micros.unwrap_or_else(|| panic!("{run:?}"))));
        let (ledger, elapsed) = start_and_work(folder, certificate);
        killed.push(elapsed);
        ledger.close().expect("an orderly close");
    }
    for (what, times) in [("an orderly stop", orderly), ("the process was killed", killed)] {
        let some = times.len().div_ceil(5);
        let average = |these: &[Duration]| these.iter().sum::<Duration>() / these.len() as u32;
        println!(
            "{} starts after {what}: the first {some} {:?} on average, the last {some} {:?}, the longest {:?}",
            times.len(),
            average(&times[..some]),
            average(&times[times.len() - some..]),
            times.iter().max().expect("a start")
        );
    }
}

fn ledger(criterion: &mut Criterion) {
    let records: u64 = env::var("BIRTHMARK_BENCH_RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    if env::var_os("BIRTHMARK_BENCH_ONE_TREE").is_some() {
        return one_tree(records);
    }
    let certificate = Bytes::from(vec![0x30; 520]);
    if let Some(folder) = env::var_os(KILLED) {
        let (_ledger, elapsed) = start_and_work(Path::new(&folder), &certificate);
        println!("{}", elapsed.as_micros());
        process::abort();
    }
    let (folder, _temporary) = filled(records);
    if let Some(starts) = env::var("BIRTHMARK_BENCH_RESTARTS").ok().and_then(|text| text.parse().ok()) {
        return restarts(&folder, &certificate, starts);
    }
    let (index, journal) = (size(&folder.join("index")), size(&folder.join("journal")));
    println!("disk with {records} records: journal {} B, index {} B a certificate", journal / records, index / records);

    let mut group = criterion.benchmark_group("ledger");
    group.sample_size(10).measurement_time(Duration::from_secs(10));

    for (name, folder) in [("empty", None), ("filled", Some(&folder))] {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let (mut ledger, _records) = open(folder.map_or(temporary.path(), PathBuf::as_path));
        if folder.is_none() {
            create_order(&mut ledger);
        }
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(BenchmarkId::new("cpu/batch=64", name), |bencher| {
            bencher.iter_custom(|iterations| {
                let started = cpu_time();
                (0..iterations).for_each(|_| issue_batch(&mut ledger, &certificate));
                cpu_time() - started
            });
        });
        group.bench_function(BenchmarkId::new("wall/batch=64", name), |bencher| {
            bencher.iter(|| issue_batch(&mut ledger, &certificate));
        });
        ledger.close().expect("an orderly close");
    }

    group.throughput(Throughput::Elements(records));
    group.bench_function(BenchmarkId::new("start", records), |bencher| {
        bencher.iter_custom(|iterations| {
            (0..iterations)
                .map(|_| {
                    let before = resident_mib();
                    let started = Instant::now();
                    let opened = open(&folder);
                    let elapsed = started.elapsed();
                    println!("start in {elapsed:?}, {} MiB more resident", resident_mib().saturating_sub(before));
                    opened.0.close().expect("an orderly close");
                    elapsed
                })
                .sum()
        });
    });
    group.bench_function(BenchmarkId::new("reindex", records), |bencher| {
        bencher.iter_custom(|iterations| {
            (0..iterations)
                .map(|_| {
                    fs::remove_dir_all(folder.join("index")).expect("an index");
                    let started = Instant::now();
                    let opened = open(&folder);
                    let elapsed = started.elapsed();
                    opened.0.close().expect("an orderly close");
                    elapsed
                })
                .sum()
        });
    });
    group.finish();
}

criterion_group!(benches, ledger);
criterion_main!(benches);
