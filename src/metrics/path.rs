//! What is measured for each certificate. Handles are made once: looking one up by its name costs a tenth of a microsecond.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::list;

/// A step on the way of a request to its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Queue,
    Verify,
    Reserve,
    HsmWait,
    Sign,
    Check,
    Record,
}

impl Step {
    const ALL: [Step; 7] =
        [Step::Queue, Step::Verify, Step::Reserve, Step::HsmWait, Step::Sign, Step::Check, Step::Record];

    fn as_str(self) -> &'static str {
        match self {
            Step::Queue => "queue",
            Step::Verify => "verify",
            Step::Reserve => "reserve",
            Step::HsmWait => "hsm_wait",
            Step::Sign => "sign",
            Step::Check => "check",
            Step::Record => "record",
        }
    }
}

/// The handles. The recorder is installed before the first use.
struct Handles {
    steps: [Histogram; Step::ALL.len()],
    issue_duration: Histogram,
    in_flight: Gauge,
    streams: Gauge,
    watches: Gauge,
    events_told: Counter,
    newest_event: Gauge,
    commit_batch: Histogram,
    fsync: Histogram,
}

static HANDLES: LazyLock<Handles> = LazyLock::new(|| Handles {
    steps: Step::ALL.map(|step| histogram!(list::STEP_DURATION, "step" => step.as_str())),
    issue_duration: histogram!(list::ISSUE_DURATION),
    in_flight: gauge!(list::REQUESTS_IN_FLIGHT),
    streams: gauge!(list::STREAMS),
    watches: gauge!(list::WATCH_STREAMS),
    events_told: counter!(list::EVENTS_TOLD),
    newest_event: gauge!(list::EVENTS_SEQUENCE),
    commit_batch: histogram!(list::COMMIT_BATCH_OPERATIONS),
    fsync: histogram!(list::JOURNAL_FSYNC_DURATION),
});

/// Makes all of them, so that each is there from the start.
pub(super) fn prepare() {
    LazyLock::force(&HANDLES);
}

/// A step took so long.
pub(crate) fn step(step: Step, took: Duration) {
    if let Some(histogram) = HANDLES.steps.get(step as usize) {
        histogram.record(took);
    }
}

/// An event was told to a client that follows them.
pub(crate) fn event_told(sequence: u64) {
    HANDLES.events_told.increment(1);
    HANDLES.newest_event.set(sequence as f64);
}

pub(crate) fn commit_batch(operations: usize) {
    HANDLES.commit_batch.record(operations as f64);
}

pub(crate) fn fsync(took: Duration) {
    HANDLES.fsync.record(took);
}

/// Times the steps of a request, one after the other.
#[derive(Debug)]
pub(crate) struct Laps {
    started: Instant,
    since: Instant,
}

impl Laps {
    /// The first step begins.
    pub(crate) fn begin() -> Self {
        let started = Instant::now();
        Laps { started, since: started }
    }

    /// What was done until now was this step; the next one begins.
    pub(crate) fn end(&mut self, done: Step) {
        let now = Instant::now();
        step(done, now - self.since);
        self.since = now;
    }

    /// How long it has been since the first step began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What was done until now is no step; the next one begins.
    pub(crate) fn skip(&mut self) {
        self.since = Instant::now();
    }
}

/// The certificates of a profile.
#[derive(Clone)]
pub(crate) struct ProfileCertificates {
    new: Counter,
    replayed: Counter,
}

impl ProfileCertificates {
    pub(crate) fn new(profile: &str) -> Self {
        let certificates =
            |replay: &'static str| counter!(list::CERTIFICATES, "profile" => profile.to_owned(), "replay" => replay);
        ProfileCertificates { new: certificates("false"), replayed: certificates("true") }
    }

    /// One was sent, so long after it was asked for.
    pub(crate) fn sent(&self, replay: bool, elapsed: Duration) {
        if replay { &self.replayed } else { &self.new }.increment(1);
        HANDLES.issue_duration.record(elapsed);
    }
}

impl std::fmt::Debug for ProfileCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProfileCertificates").finish_non_exhaustive()
    }
}

/// Counts itself in a gauge until it is dropped.
macro_rules! counted {
    ($(#[$doc:meta])* $name:ident, $gauge:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(());

        impl $name {
            pub(crate) fn new() -> Self {
                HANDLES.$gauge.increment(1.0);
                $name(())
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                HANDLES.$gauge.decrement(1.0);
            }
        }
    };
}

counted! {
    /// An open Issue stream.
    OpenStream, streams
}

counted! {
    /// A client that follows the events.
    OpenWatch, watches
}

counted! {
    /// A request between reservation and record.
    InFlight, in_flight
}
