//! Signs with one key, held by one or several tokens, on several threads.
//!
//! `Pool::sign` puts a message into one bounded [queue](super::queue). Each [token](super::pooled_token) has its
//! [threads](super::signing_thread), one a session, which take from the queue while the token works. A
//! [supervisor](super::supervisor), which never calls the HSM itself, abandons calls that hang, has tokens that are out
//! probed, and refuses what has waited too long.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::{Arc, OnceLock},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    check::NEVER_EXTRACTABLE,
    error::Error,
    key::Key,
    pooled_token::{PoolContext, PooledToken, unavailable},
    queue::Queue,
    sessions::{self, Sessions},
    signing_input::{SigningInput, certificate_signature},
    signing_thread,
    supervisor::{Outage, Supervisor, TICK},
    timeout::with_timeout,
    token::Token,
    uri::KeyUri,
    worker::{Job, SignatureMaker},
};
use crate::{
    metrics::{HsmPool, Step},
    signer::{
        PublicKey, Recoverable, SignError, Signature, SignatureAlgorithm, Signer, TokenFigures, TokenState, Verifier,
    },
};

/// How many jobs may wait for each thread: enough that none is idle while the submitters are woken, few enough that
/// a slow HSM is felt at once.
const QUEUE_PER_THREAD: usize = 32;

/// How a pool is to work; the configuration has the words.
#[derive(Clone, Debug)]
pub(crate) struct PoolSettings {
    /// How many sessions sign with each token.
    pub(crate) sessions: Sessions,
    /// A call that takes longer hangs: it is abandoned and counted.
    pub(crate) call_limit: Duration,
    /// How long a message may wait for an HSM that is away before it is refused.
    pub(crate) wait: Duration,
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
pub(crate) struct Pool {
    algorithm: SignatureAlgorithm,
    verifier: Verifier,
    context: Arc<PoolContext>,
    tokens: Arc<[Arc<PooledToken>]>,
    outage: Arc<Outage>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl Pool {
    /// Opens the key in every token, checks that it is `expected` (the issuer certificate's), fit, and signs, and
    /// starts the threads.
    ///
    /// Relative paths of a URI start at `base_dir`. It blocks while the HSM answers. The recorder of the `metrics`
    /// crate must be installed before.
    ///
    /// # Errors
    /// If no token can be opened, or a key is not there, not fit, or another than expected. A token that is away while
    /// another works is no error: it is taken in when it comes.
    pub(crate) fn open(
        issuer: &str,
        uris: &[KeyUri],
        settings: &PoolSettings,
        expected: &PublicKey,
        base_dir: &Path,
    ) -> Result<Pool, Error> {
        let (algorithm, verifier) = algorithm(issuer, uris, expected)?;
        let context = Arc::new(PoolContext {
            issuer: issuer.to_owned(),
            expected: expected.clone(),
            base_dir: base_dir.to_owned(),
            queue: Queue::new(),
            call_limit: settings.call_limit,
            wait: settings.wait,
            supervisor: OnceLock::new(),
            metrics: HsmPool::new(issuer),
        });
        let tokens: Arc<[_]> = uris.iter().map(|uri| PooledToken::new(&context, uri.clone())).collect();
        start_signing(&tokens, settings)?;
        let threads: usize = tokens.iter().map(|token| token.target_sessions()).sum();
        // What the threads sign counts too.
        context.queue.add_capacity(threads * (1 + QUEUE_PER_THREAD));
        let outage = Arc::new(Outage::new(settings.wait));
        let supervisor =
            Supervisor { context: Arc::clone(&context), tokens: Arc::clone(&tokens), outage: Arc::clone(&outage) };
        let handle = thread::Builder::new()
            .name(format!("hsm-{issuer}-watch"))
            .spawn(move || supervisor.run())
            .map_err(Error::Thread)?;
        // Nobody else sets it.
        let _ = context.supervisor.set(handle.thread().clone());
        Ok(Pool { algorithm, verifier, context, tokens, outage, supervisor: Mutex::new(Some(handle)) })
    }

    /// Whether at least one session of one token works, and the token answers; otherwise why none does.
    ///
    /// # Errors
    /// What the tokens said last.
    pub(crate) fn healthy(&self) -> Result<(), String> {
        if self.tokens.iter().any(|token| token.signs()) {
            return Ok(());
        }
        let outages = self.outages();
        if outages.is_empty() { Ok(()) } else { Err(outages.join("; ")) }
    }

    /// Why some token does not sign, if others do.
    pub(crate) fn degraded(&self) -> Option<String> {
        self.healthy().ok()?;
        let outages = self.outages();
        (!outages.is_empty()).then(|| outages.join("; "))
    }

    /// Why tokens do not sign, one sentence each.
    fn outages(&self) -> Vec<String> {
        self.tokens.iter().filter_map(|token| token.outage()).collect()
    }

    /// How many threads sign.
    pub(crate) fn sessions(&self) -> usize {
        self.tokens.iter().map(|token| token.working()).sum()
    }

    /// Takes no more messages, lets those in the queue be signed, and waits for the threads to end, except those whose
    /// call does not return. Blocking.
    pub(crate) fn close(&self) {
        self.context.queue.close();
        self.context.wake_supervisor();
        let supervisor = self.supervisor.lock().take();
        if let Some(supervisor) = supervisor {
            // A thread that panicked has been reported by the panic hook.
            drop(supervisor.join());
        }
    }

    async fn sign_verified(&self, message: &[u8]) -> Result<Signature, SignError> {
        let closed = || unavailable("the daemon is shutting down".into());
        let mut permit = self.context.queue.permit().await.ok_or_else(closed)?;
        let mut failed_at = None;
        loop {
            // A message would only wait for the refusal that it can have now, unless a token is back and the supervisor
            // has not seen it yet.
            if self.outage.is_lasting()
                && let Err(reason) = self.healthy()
            {
                return Err(unavailable(reason));
            }
            let (reply, answer) = oneshot::channel();
            let input = SigningInput::new(self.algorithm, message);
            let job = Job { input, reply, failed_at, permit, queued_at: Instant::now() };
            match failed_at {
                None => self.context.queue.push(job),
                Some(_) => self.context.queue.put_back(job),
            }
            let raw = answer.await.map_err(|_| closed())??;
            if let Some(signature) = self.verify(message, raw.octets, &*raw.made_by) {
                return Ok(signature);
            }
            if failed_at.get_or_insert_with(Instant::now).elapsed() > self.context.wait {
                return Err(unavailable("the HSM gives wrong signatures".into()));
            }
            permit = raw.permit;
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
            let time_left = self.outage.time_left();
            if time_left.is_zero() || self.context.queue.is_closed() {
                return Err(unavailable(reason));
            }
            // Too late is seen in the next round.
            let _ = tokio::time::timeout(time_left, over).await;
        }
    }

    /// Tries one token, if it is out, and gives what came of it.
    async fn retry_one(&self, token: Arc<PooledToken>, same_pin: bool) -> TokenState {
        let limit = opening_limit(self.context.call_limit);
        let allowed = {
            let token = Arc::clone(&token);
            tokio::task::spawn_blocking(move || with_timeout(limit, move || token.retry(same_pin))).await
        };
        let reason = match allowed {
            Ok(Ok(attempts)) => {
                let until = tokio::time::Instant::now() + limit;
                while token.is_trying(attempts) && tokio::time::Instant::now() < until {
                    tokio::time::sleep(TICK).await;
                }
                token.outage()
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        TokenState {
            signer: self.context.issuer.clone(),
            token: token.name.clone(),
            sessions: token.working(),
            reason: reason.unwrap_or_default(),
        }
    }

    /// The self-check of the HSM's work. It is not made by the threads that call the HSM: it would cost their time.
    fn verify(&self, message: &[u8], signature: Vec<u8>, maker: &dyn SignatureMaker) -> Option<Signature> {
        let began = Instant::now();
        let signature = certificate_signature(self.algorithm, signature)
            .and_then(|octets| Signature::check(&self.verifier, message, octets));
        self.context.metrics.step(Step::Check, began.elapsed());
        match signature {
            Some(_) => maker.signature_verified(),
            None => maker.signature_rejected(),
        }
        signature
    }
}

/// How long opening a key may take: it is many calls, and a test signature.
fn opening_limit(call_limit: Duration) -> Duration {
    call_limit * 6
}

/// How the pool signs: as the first URI says. Each key is opened for its own, and all are checked to sign what
/// `expected` verifies.
fn algorithm(issuer: &str, uris: &[KeyUri], expected: &PublicKey) -> Result<(SignatureAlgorithm, Verifier), Error> {
    let unsupported = |reason| Error::KeyUnsupported { label: issuer.to_owned(), reason };
    let algorithm = match uris.first().and_then(|uri| uri.key.algorithm) {
        Some(chosen) => chosen.check_key(expected.kind).map(|()| chosen),
        None => SignatureAlgorithm::for_key(expected.kind),
    };
    let algorithm = algorithm.map_err(|error| unsupported(error.to_string()))?;
    let verifier = Verifier::new(expected, algorithm).ok_or_else(|| {
        unsupported(format!("the certificate's {} key is not a valid key for {algorithm}", expected.kind))
    })?;
    Ok((algorithm, verifier))
}

/// Opens the key in each token and starts its threads. A token that is away is left to the supervisor, if another
/// works.
fn start_signing(tokens: &Arc<[Arc<PooledToken>]>, settings: &PoolSettings) -> Result<(), Error> {
    let mut away = Vec::new();
    for pooled in tokens.iter() {
        let (opening, opening_settings) = (Arc::clone(pooled), settings.clone());
        let opened = with_timeout(opening_limit(settings.call_limit), move || open_keys(&opening, &opening_settings));
        let started = opened.and_then(|(token, keys)| {
            pooled.set_target_sessions(keys.len());
            keys.into_iter().try_for_each(|key| signing_thread::start(pooled, &token, key))
        });
        match started {
            Ok(()) => {}
            Err(error) if error.may_pass() && tokens.len() > 1 => away.push((pooled, error)),
            Err(error) => return Err(error),
        }
    }
    let works = away.len() < tokens.len();
    for (pooled, error) in away {
        if !works {
            return Err(error);
        }
        pooled.metrics.error(&error.code());
        pooled.open_breaker(&error);
        pooled.set_target_sessions(match settings.sessions {
            Sessions::Number(number) => number,
            // What was measured with another one.
            Sessions::Auto => tokens.iter().map(|token| token.target_sessions()).max().unwrap_or(1),
        });
    }
    Ok(())
}

/// Opens the first session, tests the key in it, then opens the others.
fn open_keys(pooled: &Arc<PooledToken>, settings: &PoolSettings) -> Result<(Arc<Token>, Vec<Key>), Error> {
    let (issuer, name) = (&pooled.context.issuer, &pooled.name);
    let (token, first) = pooled.open_key()?;
    if first.never_extractable() != Some(true) {
        tracing::warn!(issuer, token = name, "{NEVER_EXTRACTABLE}");
    }
    let opened = sessions::open(&token, &pooled.uri.key, first, settings.sessions)?;
    if opened.keys.len() < opened.wanted {
        tracing::warn!(
            issuer,
            token = name,
            wanted = opened.wanted,
            sessions = opened.keys.len(),
            error = opened.limit.map(|error| error.to_string()),
            "the HSM allows fewer sessions than wanted; signing goes on with these"
        );
    }
    Ok((token, opened.keys))
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("issuer", &self.context.issuer).finish_non_exhaustive()
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
        Box::pin(async move { self.sign_verified(&message).await })
    }
}

impl Recoverable for Pool {
    fn retry(self: Arc<Self>, same_pin: bool) -> Pin<Box<dyn Future<Output = Vec<TokenState>> + Send>> {
        Box::pin(async move {
            let tokens = self.tokens.iter().map(|token| self.retry_one(Arc::clone(token), same_pin));
            futures_util::future::join_all(tokens).await
        })
    }

    fn figures(&self) -> Vec<TokenFigures> {
        self.tokens.iter().map(|token| token.figures()).collect()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]
mod tests;
