//! One token of a pool: its threads, its breaker, and how it comes back after a failure.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use metrics::{Gauge, Histogram, counter, gauge, histogram};

use super::{
    Error, Key, KeyUri, Token,
    ladder::Rung,
    module::lock,
    queue::{Job, Made, Queue},
};
use crate::signer::{PublicKey, SignError};

/// The pauses between attempts to bring the token back: the first, and the longest after doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The pause after the token had no room for more sessions, while some work.
const CAPACITY_PAUSE: Duration = Duration::from_secs(30);

/// How many failures of one session in a row open the breaker. More than one, because errors pass; few, because each
/// costs the requests in flight time.
const SUSPICIOUS: u32 = 3;

/// What is the same for all tokens of a pool.
pub(super) struct Shared {
    pub(super) issuer: String,
    pub(super) expected: PublicKey,
    pub(super) base_dir: PathBuf,
    pub(super) queue: Queue,
    /// A call that takes longer hangs.
    pub(super) call_limit: Duration,
    /// How long a message may wait for an HSM that is away.
    pub(super) wait: Duration,
    pub(super) started: Instant,
    pub(super) supervisor: OnceLock<thread::Thread>,
}

impl Shared {
    /// Has the supervisor look now.
    pub(super) fn look(&self) {
        if let Some(supervisor) = self.supervisor.get() {
            supervisor.unpark();
        }
    }

    fn micros(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}

/// A thread that calls the HSM, as the supervisor sees it.
pub(super) struct Duty {
    member: Arc<Member>,
    signs: bool,
    /// When its call began, in microseconds since the pool was started, plus one; 0 while it is not in a call.
    since: AtomicU64,
    /// What it signs. Whoever takes the job out answers it: the thread, or the supervisor when the call hangs.
    job: Mutex<Option<Job>>,
    /// Its call hung, and it was replaced: it only ends.
    abandoned: AtomicBool,
    /// It gave a wrong signature: it signs no more.
    condemned: AtomicBool,
}

impl Duty {
    fn new(member: &Arc<Member>, signs: bool) -> Arc<Duty> {
        Arc::new(Duty {
            member: Arc::clone(member),
            signs,
            since: AtomicU64::new(0),
            job: Mutex::default(),
            abandoned: AtomicBool::new(false),
            condemned: AtomicBool::new(false),
        })
    }

    fn begin(&self) {
        self.since.store(self.member.shared.micros() + 1, Ordering::Release);
    }

    fn end(&self) {
        self.since.store(0, Ordering::Release);
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Its signature did not verify.
    pub(super) fn condemn(&self) {
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
    pub(super) fn commend(&self) {
        if self.member.wrong.load(Ordering::Relaxed) != 0 {
            self.member.wrong.store(0, Ordering::Relaxed);
        }
    }
}

/// Whether a token signs.
#[derive(Clone, Debug, PartialEq)]
enum Breaker {
    Closed,
    /// No thread signs; a probe looks whether it works again.
    Open(String),
    /// It needs a person: the PIN was refused.
    Final(String),
}

/// A token of the pool.
pub(super) struct Member {
    pub(super) shared: Arc<Shared>,
    pub(super) uri: KeyUri,
    /// What logs and metrics call it.
    pub(super) name: String,
    labels: [(&'static str, String); 2],
    /// How many threads should sign.
    sessions: AtomicUsize,
    /// Wrong signatures without a right one between.
    wrong: AtomicUsize,
    /// Says the same as `state.breaker`, for the threads between two messages.
    stopped: AtomicBool,
    state: Mutex<State>,
    sign_seconds: Histogram,
    gauge_sessions: Gauge,
    gauge_breaker: Gauge,
    gauge_hung: Gauge,
}

struct State {
    /// Kept from the first time it was opened: it knows whether the PIN was refused.
    token: Option<Arc<Token>>,
    breaker: Breaker,
    duties: Vec<Arc<Duty>>,
    /// When it may be tried again to have all sessions, and the pause after that.
    next_attempt: Instant,
    pause: Duration,
}

impl Member {
    pub(super) fn new(shared: &Arc<Shared>, uri: KeyUri) -> Arc<Member> {
        let issuer = shared.issuer.clone();
        let name = uri.token.to_string();
        let labels = [("issuer", issuer), ("token", name.clone())];
        // Metrics that are zero are seen too.
        counter!("birthmark_hsm_hung_calls_total", &labels).absolute(0);
        counter!("birthmark_hsm_wrong_signatures_total", &labels).absolute(0);
        Arc::new(Member {
            sign_seconds: histogram!("birthmark_hsm_sign_seconds", &labels),
            gauge_sessions: gauge!("birthmark_hsm_sessions", &labels),
            gauge_breaker: gauge!("birthmark_hsm_breaker_open", &labels),
            gauge_hung: gauge!("birthmark_hsm_hung_calls", &labels),
            labels,
            name,
            shared: Arc::clone(shared),
            uri,
            sessions: AtomicUsize::new(1),
            wrong: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            state: Mutex::new(State {
                token: None,
                breaker: Breaker::Closed,
                duties: Vec::new(),
                next_attempt: Instant::now(),
                pause: FIRST_PAUSE,
            }),
        })
    }

    /// Opens the token and the key in it, and checks that it is the expected one and signs.
    pub(super) fn open_key(&self) -> Result<(Arc<Token>, Key), Error> {
        let token = Token::open(&self.uri.token, &self.shared.base_dir)?;
        lock(&self.state).token = Some(Arc::clone(&token));
        let key = self.reopen(&token)?;
        token.must_have_mechanism(key.algorithm())?;
        key.test()?;
        Ok((token, key))
    }

    /// A new session with the same key: not one that was put in its place meanwhile.
    fn reopen(&self, token: &Arc<Token>) -> Result<Key, Error> {
        let key = Key::open(token, &self.uri.key)?;
        key.must_match(&self.shared.expected)?;
        Ok(key)
    }

    /// From now on there are to be so many sessions.
    pub(super) fn aim_at(&self, sessions: usize) {
        self.sessions.store(sessions.max(1), Ordering::Release);
    }

    /// Starts signing with these keys, and aims at as many.
    pub(super) fn start(self: &Arc<Self>, token: &Arc<Token>, keys: Vec<Key>) -> Result<(), Error> {
        self.aim_at(keys.len());
        keys.into_iter().try_for_each(|key| self.start_signing(token, key))
    }

    /// How many threads are to sign.
    pub(super) fn target(&self) -> usize {
        self.sessions.load(Ordering::Acquire)
    }

    /// How many threads sign.
    pub(super) fn working(&self) -> usize {
        if self.stopped.load(Ordering::Acquire) {
            return 0;
        }
        lock(&self.state).working()
    }

    /// Why no thread signs, if none does.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = lock(&self.state);
        match &state.breaker {
            Breaker::Open(reason) | Breaker::Final(reason) => Some(format!("{}: {reason}", self.name)),
            Breaker::Closed if state.working() == 0 => Some(format!("{}: no session is open", self.name)),
            Breaker::Closed => None,
        }
    }

    /// How many calls hang.
    pub(super) fn hung(&self) -> usize {
        lock(&self.state).hung()
    }

    /// How many threads there are that may still end by themselves soon.
    pub(super) fn threads(&self) -> usize {
        let state = lock(&self.state);
        state.duties.len() - state.hung()
    }

    pub(super) fn count(&self, error: &Error) {
        let [issuer, token] = self.labels.clone();
        counter!("birthmark_hsm_errors_total", &[issuer, token, ("code", error.code())]).increment(1);
    }

    /// No thread of this token signs until a probe does, or a person has seen to it.
    pub(super) fn open_breaker(&self, error: &Error) {
        let mut state = lock(&self.state);
        let (issuer, token) = (&self.shared.issuer, &self.name);
        match (&state.breaker, error.rung()) {
            (Breaker::Final(_), _) => return,
            (_, Rung::Final) => {
                tracing::error!(issuer, token, %error, "the HSM is out until a person has seen to it");
                state.breaker = Breaker::Final(error.to_string());
            }
            (breaker, _) => {
                if *breaker == Breaker::Closed {
                    tracing::error!(issuer, token, %error, "the HSM is out; it is probed until it signs again");
                    (state.next_attempt, state.pause) = (Instant::now(), FIRST_PAUSE);
                }
                state.breaker = Breaker::Open(error.to_string());
            }
        }
        self.stopped.store(true, Ordering::Release);
        self.gauge_breaker.set(1.0);
        drop(state);
        self.shared.queue.wake_all();
        self.shared.look();
    }

    fn close_breaker(&self) {
        let mut state = lock(&self.state);
        if state.breaker != Breaker::Closed {
            tracing::info!(issuer = self.shared.issuer, token = self.name, "the HSM signs again");
        }
        state.breaker = Breaker::Closed;
        state.pause = FIRST_PAUSE;
        self.wrong.store(0, Ordering::Release);
        self.stopped.store(false, Ordering::Release);
        self.gauge_breaker.set(0.0);
    }

    /// What the supervisor does, again and again. It never calls the HSM itself.
    pub(super) fn supervise(self: &Arc<Self>) {
        self.give_up_what_hangs();
        self.replace_what_ended();
        self.gauge_sessions.set(self.working() as f64);
        self.gauge_hung.set(self.hung() as f64);
    }

    fn give_up_what_hangs(&self) {
        let now = self.shared.micros();
        let limit = self.shared.call_limit.as_micros() as u64;
        let hangs = |duty: &Arc<Duty>| {
            let since = duty.since.load(Ordering::Acquire);
            since != 0 && now.saturating_sub(since) > limit && !duty.is_abandoned()
        };
        let hanging: Vec<_> = lock(&self.state).duties.iter().filter(|duty| hangs(duty)).cloned().collect();
        for duty in hanging {
            duty.abandoned.store(true, Ordering::Release);
            let job = lock(&duty.job).take();
            if duty.signs
                && let Some(token) = &lock(&self.state).token
            {
                token.module().works(false);
            }
            counter!("birthmark_hsm_hung_calls_total", &self.labels).increment(1);
            tracing::error!(
                issuer = self.shared.issuer,
                token = self.name,
                limit = ?self.shared.call_limit,
                "a call of the HSM does not return; its thread is left behind"
            );
            if let Some(job) = job {
                self.fail(job, "a call of the HSM does not return");
            }
        }
    }

    fn replace_what_ended(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        let missing = state.working() < self.target();
        if !missing {
            state.pause = FIRST_PAUSE;
        }
        let recovering = state.duties.iter().any(|duty| !duty.signs && !duty.is_abandoned());
        let waits = Instant::now() < state.next_attempt;
        if !missing || recovering || waits || self.shared.queue.is_closed() {
            return;
        }
        if matches!(state.breaker, Breaker::Final(_)) {
            return;
        }
        // Threads that hang are not without limit: each holds a session and a stack.
        if state.hung() > self.target() {
            if state.breaker == Breaker::Closed && state.working() == 0 {
                drop(state);
                self.open_breaker(&Error::Wrapper { doing: "signing", reason: "too many calls do not return".into() });
            }
            return;
        }
        state.next_attempt = Instant::now() + state.pause;
        state.pause = (state.pause * 2).min(LONGEST_PAUSE);
        let duty = Duty::new(self, false);
        state.duties.push(Arc::clone(&duty));
        drop(state);
        let recovery = Arc::clone(&duty);
        let spawned = thread::Builder::new().name("hsm-recovery".into()).spawn(move || {
            recovery.begin();
            recovery.recover();
            recovery.leave();
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "cannot start a thread");
            duty.leave();
        }
    }

    fn start_signing(self: &Arc<Self>, token: &Arc<Token>, key: Key) -> Result<(), Error> {
        let duty = Duty::new(self, true);
        lock(&self.state).duties.push(Arc::clone(&duty));
        let module = Arc::clone(token.module());
        module.works(true);
        let (thread_duty, token) = (Arc::clone(&duty), Arc::clone(token));
        let spawned = thread::Builder::new().name(format!("hsm-{}", self.shared.issuer)).spawn(move || {
            thread_duty.sign(&token, key);
            if !thread_duty.is_abandoned() {
                token.module().works(false);
            }
            // With the last of them the anchor session is closed, which is a call too.
            drop(token);
            thread_duty.leave();
        });
        spawned.map(drop).map_err(|error| {
            module.works(false);
            duty.leave();
            Error::Thread(error)
        })
    }

    /// Has a job signed by another thread or token, or answers it if its time is over.
    fn fail(&self, mut job: Job, reason: &str) {
        let failed_at = *job.failed_at.get_or_insert_with(Instant::now);
        if failed_at.elapsed() < self.shared.wait {
            self.shared.queue.put_back(job);
        } else {
            // The submitter may have gone.
            drop(job.reply.send(Err(unavailable(reason.to_owned()))));
        }
    }
}

impl State {
    fn working(&self) -> usize {
        self.duties.iter().filter(|duty| duty.signs && !duty.is_abandoned()).count()
    }

    fn hung(&self) -> usize {
        self.duties.iter().filter(|duty| duty.is_abandoned()).count()
    }
}

/// The answer to a message that the HSM cannot sign now.
pub(super) fn unavailable(reason: String) -> SignError {
    SignError::Unavailable { reason, retry_after: Duration::from_secs(1) }
}

/// What the threads do.
impl Duty {
    /// Signs job after job, until the token is out or the session cannot be replaced.
    fn sign(self: &Arc<Self>, token: &Arc<Token>, key: Key) {
        let member = &self.member;
        let shared = &member.shared;
        let ended = || member.stopped.load(Ordering::Acquire) || self.is_abandoned();
        let condemned = || self.condemned.load(Ordering::Acquire);
        let mut key = key;
        let mut failures = 0;
        loop {
            let Some(job) = shared.queue.next(|| ended() || condemned()) else {
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
            };
            let input = job.input.clone();
            *lock(&self.job) = Some(job);
            let began = Instant::now();
            self.begin();
            let made = key.sign_input(&input);
            let took = began.elapsed();
            self.end();
            // Without it the call hung, and the supervisor had it signed elsewhere.
            let Some(job) = lock(&self.job).take() else { return };
            match made {
                Ok(signature) => {
                    failures = 0;
                    // A signature that nobody waits for is not kept.
                    drop(job.reply.send(Ok(Made { signature, by: Arc::clone(self), room: job.room })));
                    member.sign_seconds.record(took);
                }
                Err(error) => {
                    member.count(&error);
                    failures += 1;
                    tracing::warn!(issuer = shared.issuer, token = member.name, %error, "an HSM session failed");
                    let out = match error.rung() {
                        Rung::Breaker | Rung::Final => true,
                        Rung::Fine | Rung::NewSession | Rung::Suspect | Rung::Capacity => failures >= SUSPICIOUS,
                    };
                    if out {
                        // First, so that no thread of this token gets the job.
                        member.open_breaker(&error);
                    }
                    member.fail(job, &error.to_string());
                    self.begin();
                    key.discard(&error);
                    let reopened = if out { None } else { self.replace_session(token) };
                    self.end();
                    match reopened {
                        Some(reopened) if !self.is_abandoned() => key = reopened,
                        _ => return,
                    }
                }
            }
        }
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
        let of_session = matches!(error.rung(), Rung::Capacity | Rung::NewSession | Rung::Suspect);
        if (alone || !of_session) && !self.is_abandoned() {
            member.open_breaker(&error);
        }
        None
    }

    /// Opens the sessions that are missing, after a test signature, and has threads sign with them.
    fn recover(self: &Arc<Self>) {
        let member = &self.member;
        let error = match self.fill() {
            Ok(()) => return,
            Err(error) => error,
        };
        if self.is_abandoned() {
            return;
        }
        member.count(&error);
        match error.rung() {
            Rung::Capacity if member.working() > 0 => {
                let (sessions, wanted) = (member.working(), member.target());
                let issuer = &member.shared.issuer;
                tracing::warn!(issuer, token = member.name, sessions, wanted, "the HSM has no room for more sessions");
                lock(&member.state).next_attempt = Instant::now() + CAPACITY_PAUSE;
            }
            Rung::Final => member.open_breaker(&error),
            _ => {
                if member.working() == 0 {
                    member.open_breaker(&error);
                }
                self.start_module_again();
            }
        }
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
    fn start_module_again(&self) {
        let member = &self.member;
        self.begin();
        let token = lock(&member.state).token.clone();
        let again = match token {
            Some(token) => token.module().start_again(),
            // Not even once found: the module itself may have refused.
            None => super::module::Module::open(&member.uri.token.module_in(&member.shared.base_dir))
                .and_then(|module| module.start_again()),
        };
        match again {
            Ok(true) => {
                lock(&member.state).next_attempt = Instant::now();
                member.shared.look();
            }
            Ok(false) => {}
            Err(error) => {
                member.count(&error);
                tracing::warn!(issuer = member.shared.issuer, token = member.name, %error, "not initialised again");
            }
        }
    }

    /// The thread ends.
    fn leave(self: &Arc<Self>) {
        lock(&self.member.state).duties.retain(|duty| !Arc::ptr_eq(duty, self));
        self.member.shared.look();
    }
}
