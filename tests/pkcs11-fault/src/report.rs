//! What the module saw: calls by function, and the pauses between signatures.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Calls of one function: since the process began, and since the script in force began.
#[derive(Default)]
pub(crate) struct Calls {
    pub(crate) all: AtomicU64,
    pub(crate) of_script: AtomicU64,
}

static CALLS: Mutex<BTreeMap<&'static str, &'static Calls>> = Mutex::new(BTreeMap::new());

/// The pauses between the end of a `C_Sign` and the next `C_SignInit` of the same thread, in buckets of 0.25 µs.
static PAUSES: [AtomicU64; BUCKETS] = [const { AtomicU64::new(0) }; BUCKETS];
const BUCKETS: usize = 400;
const BUCKET: Duration = Duration::from_nanos(250);

thread_local! {
    static SIGNED_AT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The counters of a function, which live as long as the process.
pub(crate) fn calls(function: &'static str) -> &'static Calls {
    let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    calls.entry(function).or_insert_with(|| Box::leak(Box::default()))
}

pub(crate) fn new_script() {
    for calls in CALLS.lock().unwrap_or_else(PoisonError::into_inner).values() {
        calls.of_script.store(0, Ordering::Relaxed);
    }
    for bucket in &PAUSES {
        bucket.store(0, Ordering::Relaxed);
    }
}

pub(crate) fn signed() {
    SIGNED_AT.set(Some(Instant::now()));
}

pub(crate) fn sign_begins() {
    if let Some(at) = SIGNED_AT.take() {
        let bucket = (at.elapsed().as_nanos() / BUCKET.as_nanos()) as usize;
        PAUSES[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }
}

/// The report as text: `NAME NUMBER` lines.
pub(crate) fn text(version: u64) -> String {
    let mut text = format!("version {version}\n");
    for (name, calls) in CALLS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let (all, of_script) = (calls.all.load(Ordering::Relaxed), calls.of_script.load(Ordering::Relaxed));
        let _ = writeln!(text, "{name} {all}\n{name}.script {of_script}");
    }
    let pauses: Vec<u64> = PAUSES.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
    let all: u64 = pauses.iter().sum();
    for (name, share) in [("pause.p50.ns", 0.5), ("pause.p90.ns", 0.9), ("pause.p99.ns", 0.99)] {
        let mut seen = 0;
        let place = pauses.iter().position(|count| {
            seen += count;
            all > 0 && seen as f64 >= all as f64 * share
        });
        if let Some(place) = place {
            let _ = writeln!(text, "{name} {}", (place as u128 + 1) * BUCKET.as_nanos());
        }
    }
    let _ = writeln!(text, "pause.count {all}");
    text
}
