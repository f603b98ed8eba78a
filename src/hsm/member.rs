//! One token of a pool: its threads, its breaker, and how it comes back after a failure.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use metrics::{Gauge, Histogram, counter, gauge, histogram};

use super::{
    Error, Key, KeyUri, Token,
    ladder::Rung,
    module::lock,
    queue::{Job, Queue},
    worker::{Leaving, Worker},
};
use crate::signer::{PublicKey, SignError};

/// The pauses between attempts to bring the token back: the first, and the longest after doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause while some sessions work and the token opens no more: it may have no room, whatever it says.
const CAPACITY_PAUSE: Duration = Duration::from_secs(30);

/// How long a token is out before the module is initialised again under others that work, and the longest pause before
/// that is done once more, after doubling. Many modules see a token that came back only then; the others are without
/// sessions for a moment.
const FIRST_FORCED: Duration = Duration::from_secs(15);
const LONGEST_FORCED: Duration = Duration::from_secs(3600);

/// How many failures of one session in a row open the breaker. More than one, because errors pass; few, because each
/// costs the requests in flight time.
pub(super) const SUSPICIOUS: u32 = 3;

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

    pub(super) fn micros(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
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
    pub(super) labels: [(&'static str, String); 2],
    /// How many threads should sign.
    sessions: AtomicUsize,
    /// Wrong signatures without a right one between.
    pub(super) wrong: AtomicUsize,
    /// Says the same as `state.breaker`, for the threads between two messages.
    pub(super) stopped: AtomicBool,
    state: Mutex<State>,
    pub(super) sign_seconds: Histogram,
    gauge_sessions: Gauge,
    gauge_breaker: Gauge,
    gauge_hung: Gauge,
}

struct State {
    /// Kept from the first time it was opened: it knows whether the PIN was refused.
    token: Option<Arc<Token>>,
    breaker: Breaker,
    workers: Vec<Arc<Worker>>,
    /// When it may be tried again to have all sessions, and the pause after that.
    next_attempt: Instant,
    pause: Duration,
    /// How often it was tried to open sessions, attempts under way included.
    attempts: u64,
    /// It was said that there are fewer sessions than wanted.
    short: bool,
    /// While the token is out: when the module is initialised again though others work, and the pause after that.
    forced: Option<(Instant, Duration)>,
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
                workers: Vec::new(),
                next_attempt: Instant::now(),
                pause: FIRST_PAUSE,
                attempts: 0,
                short: false,
                forced: None,
            }),
        })
    }

    /// Opens the token and the key in it, and checks that it is the expected one and signs.
    pub(super) fn open_key(&self) -> Result<(Arc<Token>, Key), Error> {
        // Kept before its login: it knows that its PIN was refused.
        let token = Token::find(&self.uri.token, &self.shared.base_dir)?;
        if lock(&self.state).token.replace(Arc::clone(&token)).is_none() {
            // Once: the token of a member may be another one later, its module not.
            let shared = Arc::downgrade(&self.shared);
            let wake = move || shared.upgrade().inspect(|shared| shared.queue.wake_all()).is_some();
            token.module().on_probe(wake);
        }
        token.ensure_login()?;
        let key = self.reopen(&token)?;
        token.must_have_mechanism(key.algorithm())?;
        key.test()?;
        Ok((token, key))
    }

    /// A new session with the same key: not one that was put in its place meanwhile.
    pub(super) fn reopen(&self, token: &Arc<Token>) -> Result<Key, Error> {
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
        state.workers.len() - state.hung()
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
                    state.forced = Some((Instant::now() + FIRST_FORCED, 2 * FIRST_FORCED));
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

    pub(super) fn close_breaker(&self) {
        let mut state = lock(&self.state);
        if state.breaker != Breaker::Closed {
            tracing::info!(issuer = self.shared.issuer, token = self.name, "the HSM signs again");
        }
        state.breaker = Breaker::Closed;
        state.pause = FIRST_PAUSE;
        state.forced = None;
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
        let hangs = |worker: &Arc<Worker>| {
            !worker.is_abandoned() && worker.in_call_since().is_some_and(|since| now.saturating_sub(since) > limit)
        };
        let hanging: Vec<_> = lock(&self.state).workers.iter().filter(|worker| hangs(worker)).cloned().collect();
        for worker in hanging {
            let job = worker.abandon();
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
            state.short = false;
        }
        let recovering = state.workers.iter().any(|worker| !worker.signs && !worker.is_abandoned());
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
        state.attempts += 1;
        state.next_attempt = Instant::now() + state.pause;
        let longest = if state.working() > 0 { CAPACITY_PAUSE } else { LONGEST_PAUSE };
        state.pause = (state.pause * 2).min(longest);
        let worker = Worker::recovering(self);
        state.workers.push(Arc::clone(&worker));
        drop(state);
        let recovery = Leaving(worker);
        let spawned = thread::Builder::new().name("hsm-recovery".into()).spawn(move || {
            recovery.0.begin();
            recovery.0.recover();
            drop(recovery);
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "cannot start a thread");
        }
    }

    pub(super) fn start_signing(self: &Arc<Self>, token: &Arc<Token>, key: Key) -> Result<(), Error> {
        let worker = Worker::signing(self, token.module());
        lock(&self.state).workers.push(Arc::clone(&worker));
        let (ending, token) = (Leaving(Arc::clone(&worker)), Arc::clone(token));
        let spawned = thread::Builder::new().name(format!("hsm-{}", self.shared.issuer)).spawn(move || {
            ending.0.sign(&token, key);
            // With the last of them the anchor session is closed, which is a call too.
            drop(token);
            drop(ending);
        });
        // A thread that was not started has dropped what tells of its end.
        spawned.map(drop).map_err(Error::Thread)
    }

    /// Has a job signed by another thread or token, or answers it if its time is over.
    pub(super) fn fail(&self, mut job: Job, reason: &str) {
        let failed_at = *job.failed_at.get_or_insert_with(Instant::now);
        if failed_at.elapsed() < self.shared.wait {
            self.shared.queue.put_back(job);
        } else {
            // The submitter may have gone.
            drop(job.reply.send(Err(unavailable(reason.to_owned()))));
        }
    }
}

/// Recovery, as [`Worker::recover`] steers it.
impl Member {
    /// Sessions are missing while others work: the token may have no room for more, whatever code it says that in.
    pub(super) fn run_short(&self, error: &Error) {
        let mut state = lock(&self.state);
        if error.rung() == Rung::Capacity {
            state.next_attempt = Instant::now() + CAPACITY_PAUSE;
        }
        let (issuer, token, sessions, wanted) = (&self.shared.issuer, &self.name, state.working(), self.target());
        if !std::mem::replace(&mut state.short, true) {
            tracing::warn!(
                issuer,
                token,
                sessions,
                wanted,
                %error,
                "the HSM opens no more sessions; signing goes on with those that work, and more are tried from time to time"
            );
        }
    }

    /// Whether the token has been out for so long that its module is initialised again though others work with it, after
    /// this failure, which an initialisation may mend.
    pub(super) fn may_force(&self, error: &Error) -> bool {
        let mut state = lock(&self.state);
        let now = Instant::now();
        match state.forced {
            Some((at, pause)) if at <= now && error.may_pass() => {
                state.forced = Some((now + pause, (2 * pause).min(LONGEST_FORCED)));
                true
            }
            _ => false,
        }
    }

    /// An operator asks for one more attempt: allows one more try of the PIN if it was refused, and wakes the supervisor.
    /// Gives the number of attempts before it. It calls the HSM.
    ///
    /// # Errors
    /// Why the PIN is not tried.
    pub(super) fn retry(&self, same_pin: bool) -> Result<u64, Error> {
        if let Some(token) = self.token() {
            token.allow_login(&self.uri.token, &self.shared.base_dir, same_pin)?;
        }
        let mut state = lock(&self.state);
        let attempts = state.attempts;
        if let Breaker::Final(reason) = &state.breaker {
            state.breaker = Breaker::Open(reason.clone());
        }
        (state.next_attempt, state.pause) = (Instant::now(), FIRST_PAUSE);
        drop(state);
        self.shared.look();
        Ok(attempts)
    }

    /// Whether a token that is out has not had an attempt since there were so many.
    pub(super) fn is_trying(&self, attempts: u64) -> bool {
        let state = lock(&self.state);
        let under_way = state.workers.iter().any(|worker| !worker.signs && !worker.is_abandoned());
        state.breaker != Breaker::Closed && (state.attempts <= attempts || under_way)
    }

    /// The token, if it was ever found.
    pub(super) fn token(&self) -> Option<Arc<Token>> {
        lock(&self.state).token.clone()
    }

    /// Has the supervisor try again at once.
    pub(super) fn try_now(&self) {
        lock(&self.state).next_attempt = Instant::now();
        self.shared.look();
    }

    /// A thread has ended.
    pub(super) fn remove(&self, worker: &Arc<Worker>) {
        lock(&self.state).workers.retain(|other| !Arc::ptr_eq(other, worker));
        self.shared.look();
    }
}

impl State {
    fn working(&self) -> usize {
        self.workers.iter().filter(|worker| worker.signs && !worker.is_abandoned()).count()
    }

    fn hung(&self) -> usize {
        self.workers.iter().filter(|worker| worker.is_abandoned()).count()
    }
}

/// The answer to a message that the HSM cannot sign now.
pub(super) fn unavailable(reason: String) -> SignError {
    SignError::Unavailable { reason, retry_after: Duration::from_secs(1) }
}
