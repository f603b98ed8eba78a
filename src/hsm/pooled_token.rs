//! One token of a pool: its threads, its breaker, and when it is tried again after a failure.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    error::Error,
    key::Key,
    pace::Pace,
    queue::Queue,
    recovery::Recovery,
    sharing::SessionHolder,
    token::Token,
    uri::KeyUri,
    worker::{Job, Worker},
};
use crate::{
    metrics::{HsmPool, HsmToken},
    signer::{PublicKey, SignError, TokenFigures},
};

/// The pauses between attempts to bring the token back: the first, and the longest after doubling. A token that is back is
/// used within a second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(700);

/// How often the module is initialised again for the attempts, if nothing of it works: at first, and at most after doubling.
const FIRST_INITIALIZE: Duration = Duration::from_secs(1);
const LONGEST_INITIALIZE: Duration = Duration::from_secs(5);

/// How long a token may have signed nothing before one of its idle sessions is asked for a test signature, so that an HSM
/// that is away is known before somebody needs it; and what is added at random, so that daemons do not ask together.
const IDLE: Duration = Duration::from_millis(300);
const IDLE_JITTER: Duration = Duration::from_millis(150);

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
pub(super) struct PoolContext {
    pub(super) issuer: String,
    pub(super) expected: PublicKey,
    pub(super) base_dir: PathBuf,
    pub(super) queue: Queue<Job>,
    /// A call that takes longer hangs.
    pub(super) call_limit: Duration,
    /// How long a message may wait for an HSM that is away.
    pub(super) wait: Duration,
    pub(super) supervisor: OnceLock<thread::Thread>,
    pub(super) metrics: HsmPool,
}

impl PoolContext {
    /// Has the supervisor act now.
    pub(super) fn wake_supervisor(&self) {
        if let Some(supervisor) = self.supervisor.get() {
            supervisor.unpark();
        }
    }
}

/// Whether a token signs.
#[derive(Clone, Debug, PartialEq)]
enum Breaker {
    Closed,
    /// No thread signs; a probe finds out whether it works again.
    Open(String),
    /// It needs a person: the PIN was refused.
    Final(String),
}

/// A token of the pool.
pub(super) struct PooledToken {
    pub(super) context: Arc<PoolContext>,
    pub(super) uri: KeyUri,
    /// What logs and metrics call it.
    pub(super) name: String,
    pub(super) metrics: HsmToken,
    /// How many threads should sign.
    target_sessions: AtomicUsize,
    /// Wrong signatures without a right one between.
    pub(super) wrong: AtomicUsize,
    /// How many signatures it has made.
    pub(super) signatures: AtomicU64,
    /// How long signatures take, and when the newest one was made.
    pub(super) pace: Pace,
    /// One thread that waits for work is to make a test signature.
    probe_due: AtomicBool,
    /// Says the same as `state.breaker`, for the threads between two messages.
    pub(super) stopped: AtomicBool,
    /// How many of `releases` there are, for the threads between two messages.
    pending_releases: AtomicUsize,
    /// Other pools that wait for one of this pool's sessions.
    releases: Mutex<Vec<mpsc::SyncSender<()>>>,
    state: Mutex<State>,
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
    /// It was logged that there are fewer sessions than wanted.
    short: bool,
    /// While the token is out: when the module is initialised again though others work, and the pause after that.
    forced: Option<(Instant, Duration)>,
    /// When the module may be initialised again if nothing of it works, and the pause after that.
    initialize: (Instant, Duration),
    /// How many signatures there were when one was seen last, and until when none is missed.
    seen: (u64, Instant),
}

impl PooledToken {
    pub(super) fn new(context: &Arc<PoolContext>, uri: KeyUri) -> Arc<PooledToken> {
        let name = uri.token.name();
        Arc::new(PooledToken {
            metrics: HsmToken::new(&context.issuer, &name, Error::codes()),
            name,
            context: Arc::clone(context),
            uri,
            target_sessions: AtomicUsize::new(1),
            wrong: AtomicUsize::new(0),
            signatures: AtomicU64::new(0),
            pace: Pace::new(),
            probe_due: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            pending_releases: AtomicUsize::new(0),
            releases: Mutex::default(),
            state: Mutex::new(State {
                token: None,
                breaker: Breaker::Closed,
                workers: Vec::new(),
                next_attempt: Instant::now(),
                pause: FIRST_PAUSE,
                attempts: 0,
                short: false,
                forced: None,
                initialize: (Instant::now(), FIRST_INITIALIZE),
                seen: (0, Instant::now() + IDLE),
            }),
        })
    }

    /// Opens the token and the key in it, and checks that it is the expected one and signs.
    pub(super) fn open_key(self: &Arc<Self>) -> Result<(Arc<Token>, Key), Error> {
        // Kept before its login: it knows that its PIN was refused.
        let token = Token::find(&self.uri.token, &self.context.base_dir)?;
        let before = self.state.lock().token.replace(Arc::clone(&token));
        if before.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &token)) {
            let holder: Arc<dyn SessionHolder> = Arc::clone(self) as _;
            token.add_holder(Arc::downgrade(&holder));
        }
        if before.is_none() {
            // Once: the token may be another one later, its module not.
            let context = Arc::downgrade(&self.context);
            let wake = move || context.upgrade().inspect(|context| context.queue.wake_all()).is_some();
            token.module().on_probe(wake);
        }
        token.ensure_login()?;
        let key = self.reopen(&token, self.working() == 0)?;
        token.check_mechanism(key.algorithm())?;
        let began = Instant::now();
        key.test()?;
        self.pace.note(began.elapsed());
        Ok((token, key))
    }

    /// A new session with the same key: not one that was put in its place meanwhile. If it is to be this pool's `only`
    /// one at the token, another pool may have to close one of its own.
    pub(super) fn reopen(&self, token: &Arc<Token>, only: bool) -> Result<Key, Error> {
        let query = &self.uri.key;
        let key = if only { Key::open(token, query) } else { Key::open_if_room(token, query) }?;
        key.check_matches(&self.context.expected)?;
        Ok(key)
    }

    /// From now on there are to be `sessions` that sign.
    pub(super) fn set_target_sessions(&self, sessions: usize) {
        self.target_sessions.store(sessions.max(1), Ordering::Release);
    }

    /// How many threads are to sign.
    pub(super) fn target_sessions(&self) -> usize {
        self.target_sessions.load(Ordering::Acquire)
    }

    /// How many threads sign.
    pub(super) fn working(&self) -> usize {
        if self.stopped.load(Ordering::Acquire) {
            return 0;
        }
        self.state.lock().working()
    }

    /// Whether threads sign, and none has been stuck in a call since before the newest signature.
    pub(super) fn signs(&self) -> bool {
        if self.stopped.load(Ordering::Acquire) {
            return false;
        }
        let state = self.state.lock();
        state.working() > 0 && self.answers(&state)
    }

    fn stuck_after(&self) -> Duration {
        self.pace.stuck_after().min(self.context.call_limit)
    }

    fn answers(&self, state: &State) -> bool {
        let newest = self.pace.newest();
        state.stuck(self.stuck_after()).all(|since| since <= newest)
    }

    /// Why no thread signs, if none does.
    pub(super) fn outage(&self) -> Option<String> {
        let state = self.state.lock();
        match &state.breaker {
            Breaker::Open(reason) | Breaker::Final(reason) => {
                Some(format!("the token with {} does not sign: {reason}", self.uri.token))
            }
            Breaker::Closed if state.working() == 0 => {
                Some(format!("the token with {} does not sign: no session is open", self.uri.token))
            }
            Breaker::Closed if !self.answers(&state) => Some(format!(
                "the token with {} does not sign: it does not answer; a call to it does not return",
                self.uri.token
            )),
            Breaker::Closed => None,
        }
    }

    /// What its threads do now.
    pub(super) fn figures(&self) -> TokenFigures {
        let (outage, queued) = (self.outage(), self.context.queue.len());
        let stopped = self.stopped.load(Ordering::Acquire);
        let state = self.state.lock();
        let busy = state.workers.iter().filter(|worker| worker.signs && !worker.is_abandoned() && worker.is_busy());
        let stuck = state.stuck(self.stuck_after()).count();
        TokenFigures {
            token: self.name.clone(),
            working: if stopped { 0 } else { state.working() - stuck },
            wanted: self.target_sessions(),
            busy: if stopped { 0 } else { busy.count().saturating_sub(stuck) },
            hung: state.hung() + stuck,
            queued,
            outage,
            needs_operator: matches!(state.breaker, Breaker::Final(_)),
        }
    }

    /// How many threads there are that may still end by themselves soon.
    pub(super) fn threads(&self) -> usize {
        let state = self.state.lock();
        state.workers.len() - state.hung()
    }

    /// No thread of this token signs until a probe does, or a person has seen to it.
    pub(super) fn open_breaker(&self, error: &Error) {
        let mut state = self.state.lock();
        let (issuer, token) = (&self.context.issuer, &self.name);
        match (&state.breaker, error.recovery()) {
            (Breaker::Final(_), _) => return,
            (_, Recovery::Operator) => {
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
        drop(state);
        self.context.queue.wake_all();
        self.context.wake_supervisor();
    }

    pub(super) fn close_breaker(&self) {
        let mut state = self.state.lock();
        if state.breaker != Breaker::Closed {
            tracing::info!(issuer = self.context.issuer, token = self.name, "the HSM signs again");
        }
        state.breaker = Breaker::Closed;
        state.pause = FIRST_PAUSE;
        state.forced = None;
        state.initialize = (Instant::now(), FIRST_INITIALIZE);
        self.wrong.store(0, Ordering::Release);
        self.stopped.store(false, Ordering::Release);
    }

    /// Has another thread or token sign a job, or answers it if its time is over.
    pub(super) fn fail(&self, mut job: Job, reason: &str) {
        let failed_at = *job.failed_at.get_or_insert_with(Instant::now);
        if failed_at.elapsed() < self.context.wait {
            self.context.queue.put_back(job);
        } else {
            // The submitter may have gone.
            drop(job.reply.send(Err(unavailable(reason.to_owned()))));
        }
    }

    pub(super) fn add_worker(&self, worker: &Arc<Worker>) {
        self.state.lock().workers.push(Arc::clone(worker));
    }

    /// The token, if it was ever found.
    pub(super) fn token(&self) -> Option<Arc<Token>> {
        self.state.lock().token.clone()
    }

    /// Has the supervisor try again at once.
    pub(super) fn try_now(&self) {
        self.state.lock().next_attempt = Instant::now();
        self.context.wake_supervisor();
    }
}

/// What the supervisor does, again and again. It never calls the HSM itself.
impl PooledToken {
    /// Replaces threads whose call does not return: their jobs are signed elsewhere.
    pub(super) fn abandon_hung_calls(&self) {
        let limit = self.context.call_limit;
        let hangs = |worker: &&Arc<Worker>| !worker.is_abandoned() && worker.hangs(limit);
        let hanging: Vec<_> = self.state.lock().workers.iter().filter(hangs).cloned().collect();
        for worker in hanging {
            let job = worker.abandon();
            self.metrics.call_timeout();
            tracing::error!(
                issuer = self.context.issuer,
                token = self.name,
                limit_seconds = limit.as_secs(),
                "a call of the HSM does not return; its thread is abandoned"
            );
            if let Some(job) = job {
                self.fail(job, "a call of the HSM does not return");
            }
        }
    }

    /// A worker that is to open missing sessions, if it is time for that. The caller starts its thread.
    pub(super) fn due_recovery(&self) -> Option<Arc<Worker>> {
        let mut state = self.state.lock();
        let missing = state.working() < self.target_sessions();
        if !missing {
            state.pause = FIRST_PAUSE;
            state.short = false;
        }
        let waits = Instant::now() < state.next_attempt;
        if !missing || state.recovering() || waits || self.context.queue.is_closed() {
            return None;
        }
        if matches!(state.breaker, Breaker::Final(_)) {
            return None;
        }
        // Threads that hang are not without limit: each holds a session and a stack.
        if state.hung() > self.target_sessions() {
            if state.breaker == Breaker::Closed && state.working() == 0 {
                drop(state);
                self.open_breaker(&Error::Wrapper { doing: "signing", reason: "too many calls do not return".into() });
            }
            return None;
        }
        state.attempts += 1;
        state.next_attempt = Instant::now() + state.pause;
        let longest = if state.working() > 0 { CAPACITY_PAUSE } else { LONGEST_PAUSE };
        state.pause = (state.pause * 2).min(longest);
        let worker = Worker::recovering();
        state.workers.push(Arc::clone(&worker));
        Some(worker)
    }

    /// Asks one thread that waits for work for a test signature, if there was none for a while.
    pub(super) fn probe_if_idle(&self) {
        let signatures = self.signatures.load(Ordering::Relaxed);
        let mut state = self.state.lock();
        let now = Instant::now();
        let (seen, until) = state.seen;
        if signatures == seen && now < until {
            return;
        }
        state.seen = (signatures, now + IDLE + IDLE_JITTER.mul_f64(rand::random()));
        let idle = signatures == seen && state.working() > 0;
        drop(state);
        if idle {
            self.probe_due.store(true, Ordering::Release);
            self.context.queue.wake_all();
        }
    }

    /// Whether the caller, who has nothing else to do, is to make a test signature.
    pub(super) fn take_probe(&self) -> bool {
        self.probe_due.load(Ordering::Relaxed) && self.probe_due.swap(false, Ordering::AcqRel)
    }
}

/// Recovery, as the threads steer it that call the HSM.
impl PooledToken {
    /// Sessions are missing while others work: the token may have no room for more, whatever code it says that in.
    pub(super) fn run_short(&self, error: &Error) {
        let mut state = self.state.lock();
        if error.recovery() == Recovery::Capacity {
            state.next_attempt = Instant::now() + CAPACITY_PAUSE;
        }
        let (issuer, token, sessions, wanted) =
            (&self.context.issuer, &self.name, state.working(), self.target_sessions());
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

    /// Whether the token has been out for so long that its module is initialised again though others work with it,
    /// after this failure, which an initialisation may mend.
    pub(super) fn may_force(&self, error: &Error) -> bool {
        let mut state = self.state.lock();
        let now = Instant::now();
        match state.forced {
            Some((at, pause)) if at <= now && error.may_pass() => {
                state.forced = Some((now + pause, (2 * pause).min(LONGEST_FORCED)));
                true
            }
            _ => false,
        }
    }

    /// Whether it is time to initialise the module again, which does not work at all; that it is done is noted.
    pub(super) fn may_initialize(&self) -> bool {
        let mut state = self.state.lock();
        let (at, pause) = state.initialize;
        let now = Instant::now();
        let due = at <= now;
        if due {
            state.initialize = (now + pause, (2 * pause).min(LONGEST_INITIALIZE));
        }
        due
    }

    /// An operator asks for one more attempt: allows one more try of the PIN if it was refused, and wakes the
    /// supervisor. Gives the number of attempts before it. It calls the HSM.
    ///
    /// # Errors
    /// Why the PIN is not tried.
    pub(super) fn retry(&self, same_pin: bool) -> Result<u64, Error> {
        if let Some(token) = self.token() {
            token.allow_login(&self.uri.token, &self.context.base_dir, same_pin)?;
        }
        let mut state = self.state.lock();
        let attempts = state.attempts;
        if let Breaker::Final(reason) = &state.breaker {
            state.breaker = Breaker::Open(reason.clone());
        }
        (state.next_attempt, state.pause) = (Instant::now(), FIRST_PAUSE);
        state.initialize = (Instant::now(), FIRST_INITIALIZE);
        drop(state);
        self.context.wake_supervisor();
        Ok(attempts)
    }

    /// Whether a token that is out has had no attempt to the end since there were `attempts`.
    pub(super) fn is_trying(&self, attempts: u64) -> bool {
        let state = self.state.lock();
        state.breaker != Breaker::Closed && (state.attempts <= attempts || state.recovering())
    }

    /// Whether another pool waits for a session of this one.
    pub(super) fn release_requested(&self) -> bool {
        self.pending_releases.load(Ordering::Acquire) > 0
    }

    /// Takes on the closing of a session for another pool: the caller closes one, then says so to what this gives.
    /// `None` if a session is not asked for any more, or is the last.
    pub(super) fn take_release(&self) -> Option<mpsc::SyncSender<()>> {
        let mut releases = self.releases.lock();
        let release = releases.pop();
        self.pending_releases.store(releases.len(), Ordering::Release);
        // Dropped, it says that there is none.
        release.filter(|_| self.working() > 1)
    }
}

impl SessionHolder for PooledToken {
    fn spare(&self) -> usize {
        self.working().min(self.target_sessions()).saturating_sub(1)
    }

    fn release_one(&self) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let fewer = |sessions: usize| (sessions > 1).then(|| sessions - 1);
        if self.target_sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer).is_ok() {
            tracing::info!(
                issuer = self.context.issuer,
                token = self.name,
                "a session is closed so that another key in this token can sign"
            );
            let mut releases = self.releases.lock();
            releases.push(sender);
            self.pending_releases.store(releases.len(), Ordering::Release);
            drop(releases);
            self.context.queue.wake_all();
        }
        receiver
    }

    fn take_back(&self) {
        let mut releases = self.releases.lock();
        releases.pop();
        self.pending_releases.store(releases.len(), Ordering::Release);
        drop(releases);
        self.target_sessions.fetch_add(1, Ordering::AcqRel);
        self.try_now();
    }
}

impl State {
    fn working(&self) -> usize {
        self.workers.iter().filter(|worker| worker.signs && !worker.is_abandoned()).count()
    }

    fn hung(&self) -> usize {
        self.workers.iter().filter(|worker| worker.is_abandoned()).count()
    }

    /// Since when those that sign are in a call that takes longer than `limit`.
    fn stuck(&self, limit: Duration) -> impl Iterator<Item = Instant> {
        let sign = self.workers.iter().filter(|worker| worker.signs && !worker.is_abandoned());
        sign.filter_map(move |worker| worker.stuck_since(limit))
    }

    /// Whether a thread opens sessions.
    fn recovering(&self) -> bool {
        self.workers.iter().any(|worker| !worker.signs && !worker.is_abandoned())
    }
}

/// Removes a thread from its token when it is dropped: also after a panic, and if the thread could not be started.
pub(super) struct WorkerGuard(pub(super) Arc<PooledToken>, pub(super) Arc<Worker>);

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        let WorkerGuard(token, worker) = self;
        worker.session_ended();
        token.state.lock().workers.retain(|other| !Arc::ptr_eq(other, worker));
        token.context.wake_supervisor();
    }
}

/// The answer to a message that the HSM cannot sign now.
pub(super) fn unavailable(reason: String) -> SignError {
    SignError::Unavailable { reason, retry_after: Duration::from_secs(1) }
}
