//! Watches over the threads of a pool. It never calls the HSM itself, so nothing that the HSM does can stop it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    pooled_token::{PoolContext, PooledToken, unavailable},
    recovery_thread,
};

/// How often the supervisor acts.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// How long closing waits for threads that may be in a call.
const CLOSING: Duration = Duration::from_secs(2);

/// Since when no token works.
pub(super) struct Outage {
    started: Instant,
    /// Milliseconds since `started`, plus one; 0 while a token works.
    since: AtomicU64,
    /// Notified when it is over.
    pub(super) over: Notify,
    /// How long a message waits for its end.
    wait: Duration,
}

impl Outage {
    /// There is none yet.
    pub(super) fn new(wait: Duration) -> Self {
        Outage { started: Instant::now(), since: AtomicU64::new(0), over: Notify::new(), wait }
    }

    fn update(&self, works: bool) {
        let now = self.started.elapsed().as_millis() as u64 + 1;
        match (works, self.since.load(Ordering::Acquire)) {
            (true, 0) => {}
            (true, _) => {
                self.since.store(0, Ordering::Release);
                self.over.notify_waiters();
            }
            (false, 0) => self.since.store(now, Ordering::Release),
            (false, _) => {}
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.since.load(Ordering::Acquire) != 0
    }

    /// Whether it has lasted for so long that nothing waits for its end any more.
    pub(super) fn is_lasting(&self) -> bool {
        self.is_on() && self.time_left().is_zero()
    }

    /// How much longer its end is waited for.
    pub(super) fn time_left(&self) -> Duration {
        let since = Duration::from_millis(self.since.load(Ordering::Acquire));
        (since + self.wait).saturating_sub(self.started.elapsed())
    }
}

pub(super) struct Supervisor {
    pub(super) context: Arc<PoolContext>,
    pub(super) tokens: Arc<[Arc<PooledToken>]>,
    pub(super) outage: Arc<Outage>,
}

impl Supervisor {
    /// Abandons calls that hang, has idle sessions probed and missing ones opened again, and refuses what has waited too long,
    /// until the queue is closed and the threads have ended.
    pub(super) fn run(self) {
        let mut closed_at = None;
        loop {
            for token in self.tokens.iter() {
                token.abandon_hung_calls();
                if let Some(worker) = token.due_recovery() {
                    recovery_thread::start(token, worker);
                }
                token.probe_if_idle();
            }
            let works = self.tokens.iter().any(|token| token.working() > 0);
            self.outage.update(works);
            let closed = self.context.queue.is_closed();
            if self.outage.is_lasting() || closed && !works {
                self.refuse_what_waits();
            }
            if closed {
                let closed_at = *closed_at.get_or_insert_with(Instant::now);
                let threads: usize = self.tokens.iter().map(|token| token.threads()).sum();
                if threads == 0 || closed_at.elapsed() > CLOSING && self.context.queue.len() == 0 {
                    self.refuse_what_waits();
                    return;
                }
            }
            thread::park_timeout(TICK);
        }
    }

    fn refuse_what_waits(&self) {
        let outages: Vec<_> = self.tokens.iter().filter_map(|token| token.outage()).collect();
        for job in self.context.queue.drain() {
            // The submitter may have gone.
            drop(job.reply.send(Err(unavailable(outages.join("; ")))));
        }
    }
}
