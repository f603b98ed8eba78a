//! A thread that signs, in a session of its own.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    error::Error,
    key::Key,
    pooled_token::{PooledToken, SUSPICIOUS, WorkerGuard},
    queue::Next,
    recovery::Recovery,
    token::Token,
    worker::{Job, RawSignature, SignatureMaker, Worker},
};
use crate::metrics::Step;

/// How long after a test signature that failed the next one is made, in a new session.
const PROBE_PAUSE: Duration = Duration::from_millis(50);

/// Starts one that signs with this key.
pub(super) fn start(pooled: &Arc<PooledToken>, token: &Arc<Token>, key: Key) -> Result<(), Error> {
    let worker = Worker::signing(token.module());
    pooled.add_worker(&worker);
    let signing = Arc::new(SigningThread { pooled: Arc::clone(pooled), worker: Arc::clone(&worker) });
    let (guard, token) = (WorkerGuard(Arc::clone(pooled), worker), Arc::clone(token));
    let spawned = thread::Builder::new().name(format!("hsm-{}", pooled.context.issuer)).spawn(move || {
        signing.run(&token, key);
        // With the last of them the anchor session is closed, which is a call too.
        drop(token);
        drop(guard);
    });
    // A thread that was not started has dropped its guard.
    spawned.map(drop).map_err(Error::Thread)
}

/// Why a session signs no more.
enum Failure {
    /// The HSM said so, to this job or to a probe.
    Call(Error, Option<Box<Job>>),
    /// The call returned after the supervisor had abandoned it.
    Hung,
}

struct SigningThread {
    pooled: Arc<PooledToken>,
    worker: Arc<Worker>,
}

impl SignatureMaker for SigningThread {
    fn signature_verified(&self) {
        if self.pooled.wrong.load(Ordering::Relaxed) != 0 {
            self.pooled.wrong.store(0, Ordering::Relaxed);
        }
    }

    fn signature_rejected(&self) {
        let pooled = &self.pooled;
        pooled.metrics.wrong_signature();
        if !self.worker.reject() {
            return;
        }
        tracing::error!(
            issuer = pooled.context.issuer,
            token = pooled.name,
            "the HSM gave a wrong signature; its session is taken out and the certificate is signed again"
        );
        if pooled.wrong.fetch_add(1, Ordering::AcqRel) + 1 >= SUSPICIOUS as usize {
            pooled.open_breaker(&Error::SignatureWrong { label: pooled.uri.key.to_string() });
        }
        pooled.context.queue.wake_all();
    }
}

impl SigningThread {
    /// Signs job after job, until the token is out or the session cannot be replaced.
    fn run(self: &Arc<Self>, token: &Arc<Token>, mut key: Key) {
        let (pooled, worker, module) = (&self.pooled, &self.worker, token.module());
        let interrupted = || self.must_end() || worker.is_rejected() || pooled.release_requested();
        let mut probes = module.probes();
        let mut failures = 0;
        loop {
            let probe = || module.probes() != probes || pooled.take_probe();
            let job = match pooled.context.queue.next(interrupted, probe) {
                Next::Work(job) => Some(job),
                Next::Probe => None,
                Next::Interrupted if !self.must_end() => match self.interrupted(token, key) {
                    Some(usable) => {
                        key = usable;
                        continue;
                    }
                    None => return,
                },
                Next::Interrupted | Next::Closed => return self.close(key),
            };
            probes = module.probes();
            let probes_only = job.is_none();
            let mut outcome = match job {
                Some(job) => self.sign_one(&key, job),
                None => self.probe(&key),
            };
            // Nobody waits for a probe, so what comes of its new session is known at once.
            loop {
                let Err(failure) = outcome else {
                    failures = 0;
                    break;
                };
                failures += 1;
                match self.failed(token, key, failure, failures) {
                    Some(reopened) => key = reopened,
                    None => return,
                }
                if !probes_only || interrupted() {
                    break;
                }
                thread::sleep(PROBE_PAUSE);
                outcome = self.probe(&key);
            }
        }
    }

    fn must_end(&self) -> bool {
        self.pooled.stopped.load(Ordering::Acquire) || self.worker.is_abandoned()
    }

    /// Closing the session is a call too.
    fn close(&self, key: Key) {
        self.worker.begin_call();
        drop(key);
        self.worker.end_call();
    }

    /// Replaces a session that gave a wrong signature, or closes one for another pool. Gives the key to go on with.
    fn interrupted(&self, token: &Arc<Token>, key: Key) -> Option<Key> {
        if self.worker.is_rejected() {
            self.worker.begin_call();
            drop(key);
            let tested = self.replace_session(token).filter(|key| key.test().is_ok());
            self.worker.end_call();
            return tested.inspect(|_| self.worker.accept_again());
        }
        let Some(release) = self.pooled.take_release() else { return Some(key) };
        self.close(key);
        // It may have waited long enough.
        let _ = release.send(());
        None
    }

    /// Signs one job and answers it.
    fn sign_one(self: &Arc<Self>, key: &Key, job: Job) -> Result<(), Failure> {
        let (input, queued_at) = (job.input.clone(), job.queued_at);
        self.worker.set_job(job);
        let began = Instant::now();
        self.worker.begin_call();
        let made = key.sign_input(&input);
        let took = began.elapsed();
        self.worker.end_call();
        // Without it the call hung, and the supervisor had it signed elsewhere.
        match (made, self.worker.take_job()) {
            (_, None) => Err(Failure::Hung),
            (Err(error), Some(job)) => Err(Failure::Call(error, Some(Box::new(job)))),
            (Ok(octets), Some(job)) => {
                let made_by = Arc::clone(self) as Arc<dyn SignatureMaker>;
                // A signature that nobody waits for is not kept.
                drop(job.reply.send(Ok(RawSignature { octets, made_by, permit: job.permit })));
                self.pooled.signatures.fetch_add(1, Ordering::Relaxed);
                self.pooled.metrics.signed(took);
                self.pooled.pace.note(took);
                let steps = &self.pooled.context.metrics;
                steps.step(Step::HsmWait, began.saturating_duration_since(queued_at));
                steps.step(Step::Sign, took);
                Ok(())
            }
        }
    }

    /// Signs a fixed text, to learn whether the session still works.
    fn probe(&self, key: &Key) -> Result<(), Failure> {
        let began = Instant::now();
        self.worker.begin_call();
        let tested = key.test();
        self.worker.end_call();
        match tested {
            _ if self.worker.is_abandoned() => Err(Failure::Hung),
            Ok(()) => {
                self.pooled.pace.note(began.elapsed());
                Ok(())
            }
            Err(error) => Err(Failure::Call(error, None)),
        }
    }

    /// Has the job signed elsewhere, and gives a new session in place of the one that failed, unless the token is out.
    fn failed(&self, token: &Arc<Token>, key: Key, failure: Failure, failures: u32) -> Option<Key> {
        let Failure::Call(error, job) = failure else { return None };
        let pooled = &self.pooled;
        pooled.metrics.error(&error.code());
        tracing::warn!(issuer = pooled.context.issuer, token = pooled.name, %error, "an HSM session failed");
        let out = match error.recovery() {
            Recovery::Breaker | Recovery::Operator => true,
            Recovery::NoFailure | Recovery::NewSession | Recovery::Suspect | Recovery::Capacity => {
                failures >= SUSPICIOUS
            }
        };
        if out {
            // First, so that no thread of this token gets the job.
            pooled.open_breaker(&error);
        }
        if let Some(job) = job {
            pooled.fail(*job, &error.to_string());
        }
        self.worker.begin_call();
        key.discard(&error);
        let reopened = if out { None } else { self.replace_session(token) };
        self.worker.end_call();
        reopened.filter(|_| !self.worker.is_abandoned())
    }

    fn replace_session(&self, token: &Arc<Token>) -> Option<Key> {
        let pooled = &self.pooled;
        // This thread counts as one that works.
        let only = pooled.working() <= 1;
        let error = match pooled.reopen(token, only) {
            Ok(key) => return Some(key),
            Err(error) => error,
        };
        pooled.metrics.error(&error.code());
        // If there are others they go on; the supervisor has the missing session opened again.
        let of_session = error.refuses_session()
            || matches!(error.recovery(), Recovery::Capacity | Recovery::NewSession | Recovery::Suspect);
        if (pooled.working() <= 1 || !of_session) && !self.worker.is_abandoned() {
            pooled.open_breaker(&error);
        }
        None
    }
}
