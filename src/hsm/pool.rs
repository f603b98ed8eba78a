//! Signs with one key, held by one or several tokens, on several threads.
//!
//! `Pool::sign` puts a message into one bounded [queue](super::queue). Each token is a [member](super::member) with its
//! threads, one a session, which take from the queue while the token works. A supervisor, which never calls the HSM
//! itself, gives up calls that hang, has tokens that are out probed, and refuses what has waited too long.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use metrics::gauge;
use tokio::sync::{Notify, oneshot};

use super::{
    Error, Key, KeyUri, Token,
    check::NEVER_EXTRACTABLE,
    key::{SigningInput, certificate_signature},
    member::{Member, Shared, unavailable},
    module::lock,
    queue::{Job, Queue},
    sessions::{self, Sessions},
    worker::Worker,
};
use crate::signer::{PublicKey, Recoverable, SignError, Signature, SignatureAlgorithm, Signer, TokenState, Verifier};

/// How many jobs may wait for each thread: enough that none is idle while the submitters are woken, few enough that
/// a slow HSM is felt at once.
const QUEUE_PER_THREAD: usize = 32;

/// How often the supervisor looks.
const TICK: Duration = Duration::from_millis(50);

/// How long closing waits for threads that may be in a call.
const CLOSING: Duration = Duration::from_secs(2);

/// How a pool is to work; the configuration has the words.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// How many sessions sign with each token.
    pub sessions: Sessions,
    /// A call that takes longer hangs: it is left behind and counted.
    pub call_limit: Duration,
    /// How long a message may wait for an HSM that is away before it is refused.
    pub wait: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        PoolSettings { sessions: Sessions::Auto, call_limit: Duration::from_secs(10), wait: Duration::from_secs(15) }
    }
}

/// Signs with one key of one or several HSM tokens on several operating-system threads (PKCS#11 calls block), each with
/// its own session and its own key handle, all fed by one bounded queue.
///
/// A session that failed is closed and never used again. Its message is signed by another thread, session or token; the
/// submitter hears [`SignError::Unavailable`] only when no token worked for [`PoolSettings::wait`]. Every message is
/// answered once, and with a signature that was checked.
pub struct Pool {
    algorithm: SignatureAlgorithm,
    verifier: Verifier,
    shared: Arc<Shared>,
    members: Arc<[Arc<Member>]>,
    outage: Arc<Outage>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl Pool {
    /// Opens the key in every token, checks that it is `expected` (the issuer certificate's), fit, and signs, and starts
    /// the threads.
    ///
    /// Relative paths of a URI start at `base_dir`. It blocks while the HSM answers. The recorder of the `metrics` crate
    /// must be installed before.
    ///
    /// # Errors
    /// If no token can be opened, or a key is not there, not fit, or another than expected. A token that is away while
    /// another works is no error: it is taken in when it comes.
    pub fn open(
        issuer: &str,
        uris: &[KeyUri],
        settings: &PoolSettings,
        expected: &PublicKey,
        base_dir: &Path,
    ) -> Result<Pool, Error> {
        // As the first URI says; each key is opened for its own, and all are checked to sign what `expected` verifies.
        let unsupported = |reason| Error::KeyUnsupported { label: issuer.to_owned(), reason };
        let algorithm = match uris.first().and_then(|uri| uri.key.algorithm) {
            Some(chosen) => chosen.must_fit(expected).map(|()| chosen),
            None => SignatureAlgorithm::for_key(expected),
        };
        let algorithm = algorithm.map_err(unsupported)?;
        let verifier = Verifier::new(expected, algorithm)
            .ok_or_else(|| unsupported(format!("{expected:?} is not a valid key for {algorithm}")))?;
        let shared = Arc::new(Shared {
            issuer: issuer.to_owned(),
            expected: expected.clone(),
            base_dir: base_dir.to_owned(),
            queue: Queue::new(),
            call_limit: settings.call_limit,
            wait: settings.wait,
            started: Instant::now(),
            supervisor: OnceLock::new(),
        });
        let members: Arc<[_]> = uris.iter().map(|uri| Member::new(&shared, uri.clone())).collect();
        let mut away = Vec::new();
        for member in members.iter() {
            let (opened, settings) = (Arc::clone(member), settings.clone());
            let keys = within(opening_limit(settings.call_limit), move || open_keys(&opened, &settings));
            match keys.and_then(|(token, keys)| member.start(&token, keys)) {
                Ok(()) => {}
                Err(error) if error.may_pass() && members.len() > 1 => away.push((member, error)),
                Err(error) => return Err(error),
            }
        }
        let works = away.len() < members.len();
        for (member, error) in away {
            if !works {
                return Err(error);
            }
            member.count(&error);
            member.open_breaker(&error);
            member.aim_at(match settings.sessions {
                Sessions::Number(number) => number,
                // What was measured with another one.
                Sessions::Auto => members.iter().map(|member| member.target()).max().unwrap_or(1),
            });
        }
        let threads: usize = members.iter().map(|member| member.target()).sum();
        // What the threads sign counts too.
        shared.queue.widen(threads * (1 + QUEUE_PER_THREAD));
        let outage = Arc::new(Outage::default());
        let supervisor =
            Supervisor { shared: Arc::clone(&shared), members: Arc::clone(&members), outage: Arc::clone(&outage) };
        let handle = thread::Builder::new()
            .name(format!("hsm-{issuer}-watch"))
            .spawn(move || supervisor.run())
            .map_err(Error::Thread)?;
        // Nobody else sets it.
        let _ = shared.supervisor.set(handle.thread().clone());
        Ok(Pool { algorithm, verifier, shared, members, outage, supervisor: Mutex::new(Some(handle)) })
    }

    /// Whether at least one session of one token works; otherwise why none does.
    ///
    /// # Errors
    /// What the tokens said last.
    pub fn healthy(&self) -> Result<(), String> {
        if self.members.iter().any(|member| member.working() > 0) {
            return Ok(());
        }
        let troubles: Vec<_> = self.members.iter().filter_map(|member| member.trouble()).collect();
        if troubles.is_empty() { Ok(()) } else { Err(troubles.join("; ")) }
    }

    /// Why some token does not sign, if others do.
    pub fn degraded(&self) -> Option<String> {
        self.healthy().ok()?;
        let troubles: Vec<_> = self.members.iter().filter_map(|member| member.trouble()).collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    /// How many messages wait.
    pub fn queue_depth(&self) -> usize {
        self.shared.queue.len()
    }

    /// How many threads sign.
    pub fn sessions(&self) -> usize {
        self.members.iter().map(|member| member.working()).sum()
    }

    /// Takes no more messages, lets those in the queue be signed, and waits for the threads to end, except those whose
    /// call does not return. Blocking.
    pub fn close(&self) {
        self.shared.queue.close();
        self.shared.look();
        if let Some(supervisor) = lock(&self.supervisor).take() {
            // A thread that panicked has been reported by the panic hook.
            drop(supervisor.join());
        }
    }

    async fn make(&self, message: &[u8]) -> Result<Signature, SignError> {
        let closed = || unavailable("the daemon is shutting down".into());
        let mut room = self.shared.queue.room().await.ok_or_else(closed)?;
        let mut failed_at = None;
        loop {
            // A message would only wait for the refusal that it can have now, unless a token is back and the supervisor has
            // not seen it yet.
            if self.outage.lasts(&self.shared)
                && let Err(reason) = self.healthy()
            {
                return Err(unavailable(reason));
            }
            let (reply, answer) = oneshot::channel();
            let job = Job { input: SigningInput::new(self.algorithm, message), reply, failed_at, room };
            match failed_at {
                None => self.shared.queue.push(job),
                Some(_) => self.shared.queue.put_back(job),
            }
            let made = answer.await.map_err(|_| closed())??;
            if let Some(signature) = self.check(message, made.signature, &made.by) {
                return Ok(signature);
            }
            if failed_at.get_or_insert_with(Instant::now).elapsed() > self.shared.wait {
                return Err(unavailable("the HSM gives wrong signatures".into()));
            }
            room = made.room;
        }
    }

    async fn outage_over(&self) -> Result<(), SignError> {
        loop {
            // Before the look, so that no end is missed.
            let over = self.outage.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            // A token may be back that the supervisor has not seen yet.
            let Err(reason) = self.healthy() else { return Ok(()) };
            if !self.outage.is_on() {
                return Ok(());
            }
            let patience = self.outage.patience(&self.shared);
            if patience.is_zero() || self.shared.queue.is_closed() {
                return Err(unavailable(reason));
            }
            // Too late is seen in the next round.
            let _ = tokio::time::timeout(patience, over).await;
        }
    }

    /// Tries one token, if it is out, and gives what came of it.
    async fn retry_one(&self, member: Arc<Member>, same_pin: bool) -> TokenState {
        let limit = opening_limit(self.shared.call_limit);
        let allowed = {
            let member = Arc::clone(&member);
            tokio::task::spawn_blocking(move || within(limit, move || member.retry(same_pin))).await
        };
        let reason = match allowed {
            Ok(Ok(attempts)) => {
                let until = tokio::time::Instant::now() + limit;
                while member.is_trying(attempts) && tokio::time::Instant::now() < until {
                    tokio::time::sleep(TICK).await;
                }
                member.trouble()
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        TokenState {
            signer: self.shared.issuer.clone(),
            token: member.name.clone(),
            sessions: member.working(),
            reason: reason.unwrap_or_default(),
        }
    }

    /// The one check of the HSM's work. It is not made by the threads that call the HSM: it would cost their time.
    fn check(&self, message: &[u8], signature: Vec<u8>, by: &Worker) -> Option<Signature> {
        let signature = certificate_signature(self.algorithm, signature)
            .and_then(|octets| Signature::check(&self.verifier, message, octets));
        match signature {
            Some(_) => by.signature_verified(),
            None => by.signature_rejected(),
        }
        signature
    }
}

/// How long opening a key may take: it is many calls, and a test signature.
fn opening_limit(call_limit: Duration) -> Duration {
    call_limit * 6
}

/// Opens something of the HSM in a thread of its own, which is left behind if it does not return.
///
/// # Errors
/// What `open` says, or [`Error::NoAnswer`] after the limit.
pub fn within<T: Send + 'static>(
    limit: Duration,
    open: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, opened) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("hsm-open".into()).spawn(move || {
        // Nobody waits for what comes too late; it is dropped.
        let _ = sender.send(open());
    });
    thread.map_err(Error::Thread)?;
    opened.recv_timeout(limit).unwrap_or(Err(Error::NoAnswer { limit }))
}

/// Opens the first session, tests the key in it, then opens the others.
fn open_keys(member: &Member, settings: &PoolSettings) -> Result<(Arc<Token>, Vec<Key>), Error> {
    let (token, first) = member.open_key()?;
    if first.never_extractable() != Some(true) {
        tracing::warn!(issuer = member.shared.issuer, token = member.name, "{NEVER_EXTRACTABLE}");
    }
    let opened = sessions::open(&token, &member.uri.key, first, settings.sessions)?;
    if opened.keys.len() < opened.wanted {
        tracing::warn!(
            issuer = member.shared.issuer,
            token = member.name,
            wanted = opened.wanted,
            sessions = opened.keys.len(),
            error = opened.limit.map(|error| error.to_string()),
            "the HSM allows fewer sessions than wanted; signing goes on with these"
        );
    }
    let keys = opened.keys;
    Ok((token, keys))
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("issuer", &self.shared.issuer).finish_non_exhaustive()
    }
}

impl Signer for Pool {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    fn sessions(&self) -> usize {
        Pool::sessions(self)
    }

    fn can_sign(&self) -> bool {
        !self.outage.is_on()
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = Result<(), SignError>> + Send + '_>> {
        Box::pin(self.outage_over())
    }

    fn sign(&self, message: Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Signature, SignError>> + Send + '_>> {
        Box::pin(async move { self.make(&message).await })
    }
}

impl Recoverable for Pool {
    fn retry(self: Arc<Self>, same_pin: bool) -> Pin<Box<dyn Future<Output = Vec<TokenState>> + Send>> {
        Box::pin(async move {
            let tokens = self.members.iter().map(|member| self.retry_one(Arc::clone(member), same_pin));
            futures_util::future::join_all(tokens).await
        })
    }
}

/// Since when no token works.
#[derive(Default)]
struct Outage {
    /// Milliseconds since the pool was started, plus one; 0 while a token works.
    since: AtomicU64,
    /// Notified when it is over.
    over: Notify,
}

impl Outage {
    fn update(&self, works: bool, shared: &Shared) {
        let now = shared.started.elapsed().as_millis() as u64 + 1;
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

    fn is_on(&self) -> bool {
        self.since.load(Ordering::Acquire) != 0
    }

    /// Whether it lasts for so long that nothing waits for its end.
    fn lasts(&self, shared: &Shared) -> bool {
        self.is_on() && self.patience(shared).is_zero()
    }

    /// How much longer its end is waited for.
    fn patience(&self, shared: &Shared) -> Duration {
        let since = Duration::from_millis(self.since.load(Ordering::Acquire));
        (since + shared.wait).saturating_sub(shared.started.elapsed())
    }
}

struct Supervisor {
    shared: Arc<Shared>,
    members: Arc<[Arc<Member>]>,
    outage: Arc<Outage>,
}

impl Supervisor {
    fn run(self) {
        let depth = gauge!("birthmark_hsm_queue_depth", "issuer" => self.shared.issuer.clone());
        let mut closed_at = None;
        loop {
            self.members.iter().for_each(Member::supervise);
            depth.set(self.shared.queue.len() as f64);
            let works = self.members.iter().any(|member| member.working() > 0);
            self.outage.update(works, &self.shared);
            let closed = self.shared.queue.is_closed();
            if self.outage.lasts(&self.shared) || closed && !works {
                self.refuse_what_waits();
            }
            if closed {
                let closed_at = *closed_at.get_or_insert_with(Instant::now);
                let threads: usize = self.members.iter().map(|member| member.threads()).sum();
                if threads == 0 || closed_at.elapsed() > CLOSING && self.shared.queue.len() == 0 {
                    self.refuse_what_waits();
                    return;
                }
            }
            thread::park_timeout(TICK);
        }
    }

    fn refuse_what_waits(&self) {
        let troubles: Vec<_> = self.members.iter().filter_map(|member| member.trouble()).collect();
        for job in self.shared.queue.drain() {
            // The submitter may have gone.
            drop(job.reply.send(Err(unavailable(troubles.join("; ")))));
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // A test ends before its files matter.
mod tests;
