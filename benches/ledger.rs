#![allow(missing_docs, clippy::expect_used, clippy::panic)] // A bench ends by panicking.
//! What the ledger costs: CPU a certificate, a start, making the index anew, disk.
//!
//! `cargo bench --bench ledger`; with BIRTHMARK_BENCH_RECORDS=10000000 the start and the commits on top of that many
//! records (some minutes to fill, 10 GB in the system's temporary folder or in BIRTHMARK_BENCH_FOLDER, which is kept).

use std::{
    env, fs,
    hint::black_box,
    path::{Path, PathBuf},
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
    let terms = OrderTerms {
        id: "order-1".into(),
        profile: "device".into(),
        quantity: 1 << 40,
        not_before: None,
        not_after: None,
        stations: vec![],
        attributes: Default::default(),
    };
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

/// A folder with a ledger of so many records, made if it is not there yet.
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
        for _ in 0..records / BATCH as u64 {
            issue_batch(&mut ledger, &certificate);
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

fn ledger(criterion: &mut Criterion) {
    let records: u64 = env::var("BIRTHMARK_BENCH_RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let certificate = Bytes::from(vec![0x30; 520]);
    let (folder, _temporary) = filled(records);
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
