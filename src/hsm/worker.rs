//! A thread that calls the HSM: it signs, or brings a token back.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use metrics::counter;

use super::{
    Error, Key, Token,
    ladder::Rung,
    member::{Member, SUSPICIOUS},
    module::{Module, Working, lock},
    queue::{Job, Made, Next},
};

/// A thread that calls the HSM, as the supervisor sees it.
pub(super) struct Worker {
    member: Arc<Member>,
    /// It signs; otherwise it opens sessions that are missing.
    pub(super) signs: bool,
    /// When its call began, in microseconds since the pool was started, plus one; 0 while it is not in a call.
    since: AtomicU64,
    /// What it signs. Whoever takes the job out answers it: the thread, or the supervisor when the call hangs.
    job: Mutex<Option<Job>>,
    /// Its call hung, and it was replaced: it only ends.
    abandoned: AtomicBool,
    /// It gave a wrong signature: it signs no more.
    condemned: AtomicBool,
    /// Its session counts as one that works, until its thread ends or is left behind, whichever is first.
    working: Mutex<Option<Working>>,
}

impl Worker {
    /// One that signs, in this module.
    pub(super) fn signing(member: &Arc<Member>, module: &Arc<Module>) -> Arc<Worker> {
        Worker::new(member, Some(Working::new(module)))
    }

    /// One that opens sessions.
    pub(super) fn recovering(member: &Arc<Member>) -> Arc<Worker> {
        Worker::new(member, None)
    }

    fn new(member: &Arc<Member>, working: Option<Working>) -> Arc<Worker> {
        Arc::new(Worker {
            member: Arc::clone(member),
            signs: working.is_some(),
            since: AtomicU64::new(0),
            job: Mutex::default(),
            abandoned: AtomicBool::new(false),
            condemned: AtomicBool::new(false),
            working: Mutex::new(working),
        })
    }

    pub(super) fn begin(&self) {
        self.since.store(self.member.shared.micros() + 1, Ordering::Release);
    }

    fn end(&self) {
        self.since.store(0, Ordering::Release);
    }

    /// When its call began, in microseconds since the pool was started.
    pub(super) fn in_call_since(&self) -> Option<u64> {
        self.since.load(Ordering::Acquire).checked_sub(1)
    }

    /// Its call hangs: it is left behind. Gives what it was to sign.
    pub(super) fn abandon(&self) -> Option<Job> {
        self.abandoned.store(true, Ordering::Release);
        lock(&self.working).take();
        lock(&self.job).take()
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Its signature did not verify.
    pub(super) fn signature_rejected(&self) {
        let member = &self.member;
        counter!("birthmark_hsm_wrong_signatures_total", &member.labels).increment(1);
        if self.condemned.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(
            issuer = member.shared.issuer,
            token = member.name,
            "the HSM gave a wrong signature; its session is taken out and the certificate is signed again"
        );
        if member.wrong.fetch_add(1, Ordering::AcqRel) + 1 >= SUSPICIOUS as usize {
            member.open_breaker(&Error::SignatureWrong { label: member.uri.key.to_string() });
        }
        member.shared.queue.wake_all();
    }

    /// Its signature verified.
    pub(super) fn signature_verified(&self) {
        if self.member.wrong.load(Ordering::Relaxed) != 0 {
            self.member.wrong.store(0, Ordering::Relaxed);
        }
    }

    /// Signs job after job, until the token is out or the session cannot be replaced.
    pub(super) fn sign(self: &Arc<Self>, token: &Arc<Token>, mut key: Key) {
        let (member, module) = (&self.member, token.module());
        let ended = || member.stopped.load(Ordering::Acquire) || self.is_abandoned();
        let condemned = || self.condemned.load(Ordering::Acquire);
        let mut probes = module.probes();
        let mut failures = 0;
        loop {
            let job = match member.shared.queue.next(|| ended() || condemned(), || module.probes() != probes) {
                Next::Sign(job) => Some(job),
                Next::Probe => None,
                Next::Stop => {
                    // Closing the session is a call too.
                    self.begin();
                    drop(key);
                    if ended() || !condemned() {
                        return self.end();
                    }
                    let tested = self.replace_session(token).filter(|key| key.test().is_ok());
                    self.end();
                    let Some(tested) = tested else { return };
                    self.condemned.store(false, Ordering::Release);
                    key = tested;
                    continue;
                }
            };
            probes = module.probes();
            let outcome = match job {
                Some(job) => self.sign_one(&key, job),
                None => self.probe(&key),
            };
            match outcome {
                Ok(()) => failures = 0,
                Err(failure) => {
                    failures += 1;
                    match self.failed(token, key, failure, failures) {
                        Some(reopened) => key = reopened,
                        None => return,
                    }
                }
            }
        }
    }

    /// Signs one job and answers it.
    fn sign_one(self: &Arc<Self>, key: &Key, job: Job) -> Result<(), Failure> {
        let input = job.input.clone();
        *lock(&self.job) = Some(job);
        let began = Instant::now();
        self.begin();
        let made = key.sign_input(&input);
        let took = began.elapsed();
        self.end();
        // Without it the call hung, and the supervisor had it signed elsewhere.
        let job = lock(&self.job).take();
        match (made, job) {
            (_, None) => Err(Failure::Hung),
            (Err(error), Some(job)) => Err(Failure::Call(error, Some(Box::new(job)))),
            (Ok(signature), Some(job)) => {
                // A signature that nobody waits for is not kept.
                drop(job.reply.send(Ok(Made { signature, by: Arc::clone(self), room: job.room })));
                self.member.sign_seconds.record(took);
                Ok(())
            }
        }
    }

    /// Signs a fixed text, to learn whether the session still works.
    fn probe(&self, key: &Key) -> Result<(), Failure> {
        self.begin();
        let tested = key.test();
        self.end();
        match tested {
            _ if self.is_abandoned() => Err(Failure::Hung),
            tested => tested.map_err(|error| Failure::Call(error, None)),
        }
    }

    /// Has the job signed elsewhere, and gives a new session in place of the one that failed, unless the token is out.
    fn failed(&self, token: &Arc<Token>, key: Key, failure: Failure, failures: u32) -> Option<Key> {
        let Failure::Call(error, job) = failure else { return None };
        let member = &self.member;
        member.count(&error);
        tracing::warn!(issuer = member.shared.issuer, token = member.name, %error, "an HSM session failed");
        let out = match error.rung() {
            Rung::Breaker | Rung::Final => true,
            Rung::Fine | Rung::NewSession | Rung::Suspect | Rung::Capacity => failures >= SUSPICIOUS,
        };
        if out {
            // First, so that no thread of this token gets the job.
            member.open_breaker(&error);
        }
        if let Some(job) = job {
            member.fail(*job, &error.to_string());
        }
        self.begin();
        key.discard(&error);
        let reopened = if out { None } else { self.replace_session(token) };
        self.end();
        reopened.filter(|_| !self.is_abandoned())
    }

    fn replace_session(&self, token: &Arc<Token>) -> Option<Key> {
        let error = match self.member.reopen(token) {
            Ok(key) => return Some(key),
            Err(error) => error,
        };
        let member = &self.member;
        member.count(&error);
        // If there are others they go on; the supervisor has the missing session opened again.
        let alone = member.working() <= 1;
        let of_session =
            error.refuses_session() || matches!(error.rung(), Rung::Capacity | Rung::NewSession | Rung::Suspect);
        if (alone || !of_session) && !self.is_abandoned() {
            member.open_breaker(&error);
        }
        None
    }

    /// Opens the sessions that are missing, after a test signature, and has threads sign with them.
    pub(super) fn recover(self: &Arc<Self>) {
        let member = &self.member;
        let error = match self.fill() {
            Ok(()) => return,
            Err(error) => error,
        };
        if self.is_abandoned() {
            return;
        }
        member.count(&error);
        if error.rung() == Rung::Final {
            return member.open_breaker(&error);
        }
        if member.working() > 0 {
            member.run_short(&error);
            // Or those that count as working do not work either.
            if let Some(token) = member.token() {
                token.module().probe_idle();
            }
            return;
        }
        member.open_breaker(&error);
        self.start_module_again(&error);
    }

    fn fill(self: &Arc<Self>) -> Result<(), Error> {
        let member = &self.member;
        let (token, key) = member.open_key()?;
        let mut key = Some(key);
        loop {
            // A call hung meanwhile, and another thread does this.
            if self.is_abandoned() || member.shared.queue.is_closed() {
                return Ok(());
            }
            self.begin();
            let next = match key.take() {
                Some(key) => key,
                None => member.reopen(&token)?,
            };
            if self.is_abandoned() {
                return Ok(());
            }
            member.close_breaker();
            member.start_signing(&token, next)?;
            if member.working() >= member.target() {
                return Ok(());
            }
        }
    }

    /// The last resort: many modules find a token that was away only then. The next probe says whether it helped.
    fn start_module_again(&self, error: &Error) {
        let member = &self.member;
        self.begin();
        let module = match member.token() {
            Some(token) => Ok(Arc::clone(token.module())),
            // Not even once found: the module itself may have refused.
            None => Module::open(&member.uri.token.module_in(&member.shared.base_dir)),
        };
        match module.and_then(|module| module.start_again(member.may_force(error))) {
            Ok(true) => member.try_now(),
            Ok(false) => {}
            Err(error) => {
                member.count(&error);
                tracing::warn!(issuer = member.shared.issuer, token = member.name, %error, "not initialised again");
            }
        }
    }
}

/// Says that a thread has ended, when it is dropped: also after a panic, and if it could not be started.
pub(super) struct Leaving(pub(super) Arc<Worker>);

impl Drop for Leaving {
    fn drop(&mut self) {
        lock(&self.0.working).take();
        self.0.member.remove(&self.0);
    }
}

/// Why a session signs no more.
enum Failure {
    /// The HSM said so, to this job or to a probe.
    Call(Error, Option<Box<Job>>),
    /// The call returned after the supervisor had left it behind.
    Hung,
}
