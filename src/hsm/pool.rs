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
use tokio::sync::oneshot;

use super::{
    Error, Key, KeyUri, Token,
    check::NEVER_EXTRACTABLE,
    key::{SigningInput, certificate_signature},
    member::{Duty, Member, Shared, unavailable},
    module::lock,
    queue::{Job, Queue},
    sessions::{self, Sessions},
};
use crate::signer::{PublicKey, SignError, Signature, SignatureAlgorithm, Signer, Verifier};

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
            let keys = within(opening_limit(&settings), move || open_keys(&opened, &settings));
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

    /// The one check of the HSM's work. It is not made by the threads that call the HSM: it would cost their time.
    fn check(&self, message: &[u8], signature: Vec<u8>, by: &Duty) -> Option<Signature> {
        let signature = certificate_signature(self.algorithm, signature)
            .and_then(|octets| Signature::check(&self.verifier, message, octets));
        match signature {
            Some(_) => by.commend(),
            None => by.condemn(),
        }
        signature
    }
}

/// How long opening a key may take: it is many calls, and a test signature.
fn opening_limit(settings: &PoolSettings) -> Duration {
    settings.call_limit * 6
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
    let (keys, wanted) = sessions::open(&token, &member.uri.key, first, settings.sessions)?;
    if keys.len() < wanted {
        let (issuer, sessions) = (&member.shared.issuer, keys.len());
        tracing::warn!(issuer, token = member.name, wanted, sessions, "the HSM allows fewer sessions than wanted");
    }
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

    fn sign(&self, message: Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Signature, SignError>> + Send + '_>> {
        Box::pin(async move { self.make(&message).await })
    }
}

/// Since when no token works.
#[derive(Default)]
struct Outage {
    /// Milliseconds since the pool was started, plus one; 0 while a token works.
    since: AtomicU64,
}

impl Outage {
    fn update(&self, works: bool, shared: &Shared) {
        let now = shared.started.elapsed().as_millis() as u64 + 1;
        match (works, self.since.load(Ordering::Acquire)) {
            (true, _) => self.since.store(0, Ordering::Release),
            (false, 0) => self.since.store(now, Ordering::Release),
            (false, _) => {}
        }
    }

    /// Whether it lasts for so long that nothing waits for its end.
    fn lasts(&self, shared: &Shared) -> bool {
        let since = self.since.load(Ordering::Acquire);
        since != 0 && shared.started.elapsed() > Duration::from_millis(since) + shared.wait
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
mod tests {
    use super::*;
    use crate::{hsm::generate, signer::KeyKind};
    use std::{env, fs, os::unix::fs::PermissionsExt, process::Command};

    const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
    const FOLDER: &str = "BIRTHMARK_TEST_FOLDER";

    /// Runs one of the ignored tests below in a process of its own with a new SoftHSM token: the module reads its
    /// environment once, and a process has one PKCS#11 context.
    fn with_token(test: &str) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tokens")).unwrap();
        let configuration = folder.path().join("softhsm2.conf");
        let tokens = folder.path().join("tokens");
        fs::write(&configuration, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())).unwrap();
        let pin = folder.path().join("pin");
        fs::write(&pin, "123456\n").unwrap();
        fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", "t", "--pin", "123456", "--so-pin", "87654321"])
            .env("SOFTHSM2_CONF", &configuration)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let run = Command::new(env::current_exe().unwrap())
            .args(["--exact", &format!("hsm::pool::tests::{test}"), "--ignored", "--nocapture"])
            .env("SOFTHSM2_CONF", &configuration)
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&run.stdout);
        eprint!("{}", String::from_utf8_lossy(&run.stderr));
        assert!(
            run.status.success() && output.contains("1 passed"),
            "{output}{}",
            String::from_utf8_lossy(&run.stderr)
        );
    }

    /// The folder that [`with_token`] made, and the URI of the key in it.
    fn place(label: &str) -> (std::path::PathBuf, KeyUri) {
        let uri = format!("pkcs11:token=t;object={label}?module-path={MODULE}&pin-source=file:pin");
        (env::var_os(FOLDER).unwrap().into(), KeyUri::parse(&uri).unwrap())
    }

    fn open(uri: &KeyUri, sessions: usize, expected: &PublicKey, folder: &Path) -> Result<Pool, Error> {
        let sessions = Sessions::Number(sessions);
        let settings = PoolSettings { sessions, wait: Duration::from_millis(500), ..PoolSettings::default() };
        Pool::open("test", std::slice::from_ref(uri), &settings, expected, folder)
    }

    async fn must_sign(pool: &Pool, key: &PublicKey, message: &[u8]) {
        let signature = pool.sign(message.to_vec()).await.unwrap();
        assert!(key.verifies(pool.algorithm(), message, signature.as_bytes()));
    }

    #[test]
    fn every_key_type_signs() {
        with_token("sign_with_every_key_type");
    }

    #[tokio::test]
    #[ignore = "runs in the process that every_key_type_signs starts"]
    async fn sign_with_every_key_type() {
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Rsa { bits: 2048 }] {
            let label = kind.to_string();
            let (folder, uri) = place(&label);
            let token = Token::open(&uri.token, &folder).unwrap();
            let public = generate(&token, &label, kind).unwrap().public_key().clone();
            assert_eq!(public.kind, kind);
            let pool = open(&uri, 2, &public, &folder).unwrap();
            for number in 0..50u8 {
                must_sign(&pool, &public, &[number]).await;
            }
            assert!(matches!(generate(&token, &label, kind), Err(Error::LabelTaken { .. })));
            let other = generate(&token, &format!("{label} other"), kind).unwrap();
            let mismatch = open(&uri, 1, other.public_key(), &folder).unwrap_err().to_string();
            for hash in [public.hash(), other.public_key().hash()] {
                assert!(mismatch.contains(&hex::encode(hash)), "{mismatch}");
            }
            for name in ["rsa-sha384", "rsa-sha512", "rsa-pss-sha256", "rsa-pss-sha384", "rsa-pss-sha512"] {
                let mut uri = uri.clone();
                uri.key.algorithm = Some(name.parse().unwrap());
                let pool = open(&uri, 1, &public, &folder);
                if !matches!(kind, KeyKind::Rsa { .. }) {
                    assert!(pool.unwrap_err().to_string().contains("use ecdsa-sha"));
                    continue;
                }
                let pool = pool.unwrap();
                assert_eq!(pool.algorithm().to_string(), name);
                must_sign(&pool, &public, b"message").await;
            }
        }
    }

    #[test]
    fn a_lost_login_costs_no_signature() {
        with_token("sign_after_a_logout");
    }

    #[tokio::test]
    #[ignore = "runs in the process that a_lost_login_costs_no_signature starts"]
    async fn sign_after_a_logout() {
        let (folder, uri) = place("k");
        let token = Token::open(&uri.token, &folder).unwrap();
        let public = generate(&token, "k", KeyKind::P256).unwrap().public_key().clone();
        let pool = open(&uri, 3, &public, &folder).unwrap();
        for round in 0..5u8 {
            token.log_out();
            for number in 0..20 {
                must_sign(&pool, &public, &[round, number]).await;
            }
        }
        assert_eq!(pool.healthy(), Ok(()));
    }

    #[test]
    fn a_refused_pin_is_never_tried_again() {
        with_token("refuse_after_a_changed_pin");
    }

    #[tokio::test]
    #[ignore = "runs in the process that a_refused_pin_is_never_tried_again starts"]
    async fn refuse_after_a_changed_pin() {
        let (folder, uri) = place("k");
        let token = Token::open(&uri.token, &folder).unwrap();
        let public = generate(&token, "k", KeyKind::P256).unwrap().public_key().clone();
        let pool = open(&uri, 3, &public, &folder).unwrap();
        token.change_pin("654321");
        token.log_out();
        for _ in 0..20 {
            let SignError::Unavailable { reason, retry_after } = pool.sign(vec![1]).await.unwrap_err();
            assert!(reason.contains("refused the PIN") && retry_after == Duration::from_secs(1), "{reason}");
            // Until each thread has found out for itself.
            tokio::task::yield_now().await;
        }
        assert_eq!(token.login_attempts(), 2, "one at the start, one after the logout");
        // And the threads that wait for a session end with the pool.
        pool.close();
    }

    #[test]
    fn a_key_that_is_not_fit_is_refused() {
        with_token("refuse_unfit_keys");
    }

    #[test]
    #[ignore = "runs in the process that a_key_that_is_not_fit_is_refused starts"]
    fn refuse_unfit_keys() {
        use cryptoki::{mechanism::Mechanism, object::Attribute};
        use der::Encode;
        let (folder, uri) = place("any");
        let token = Token::open(&uri.token, &folder).unwrap();
        let session = token.read_write_session().unwrap();
        let curve = const_oid::db::rfc5912::SECP_256_R_1.to_der().unwrap();
        let make = |label: &str, id: u8, attributes: &[Attribute]| {
            let name = [Attribute::Token(true), Attribute::Label(label.into()), Attribute::Id(vec![id])];
            let public = [&name[..], &[Attribute::EcParams(curve.clone()), Attribute::Private(false)]].concat();
            let private = [&name[..], &[Attribute::Private(true)], attributes].concat();
            session
                .call("making a key", |session| session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private))
                .unwrap();
        };
        let good = [Attribute::Sensitive(true), Attribute::Extractable(false), Attribute::Sign(true)];
        for (label, place, bad, says) in [
            ("readable", 0, Attribute::Sensitive(false), "CKA_SENSITIVE"),
            ("movable", 1, Attribute::Extractable(true), "CKA_EXTRACTABLE"),
            ("mute", 2, Attribute::Sign(false), "CKA_SIGN is false"),
        ] {
            let mut attributes = good.clone();
            attributes[place] = bad;
            make(label, 1, &attributes);
            let message = Key::open(&token, &self::place(label).1.key).unwrap_err().to_string();
            assert!(message.contains(says) && message.contains(label), "{message}");
        }
        make("each", 2, &[&good[..], &[Attribute::AlwaysAuthenticate(true)]].concat());
        let message = Key::open(&token, &self::place("each").1.key).unwrap_err().to_string();
        assert!(message.contains("CKA_ALWAYS_AUTHENTICATE"), "{message}");

        make("twin", 3, &good);
        make("twin", 4, &good);
        let message = Key::open(&token, &self::place("twin").1.key).unwrap_err().to_string();
        assert!(message.contains("2 private keys with label \"twin\"") && message.contains("03, 04"), "{message}");
        let query = crate::hsm::KeyQuery { label: None, id: Some(vec![4]), algorithm: None };
        assert_eq!(Key::open(&token, &query).unwrap().label(), "twin");
    }

    #[test]
    fn closing_signs_what_waits() {
        with_token("sign_what_waits");
    }

    #[tokio::test]
    #[ignore = "runs in the process that closing_signs_what_waits starts"]
    async fn sign_what_waits() {
        let (folder, uri) = place("k");
        let token = Token::open(&uri.token, &folder).unwrap();
        let public = generate(&token, "k", KeyKind::P256).unwrap().public_key().clone();
        let pool = open(&uri, 1, &public, &folder).unwrap();
        let waiting: Vec<_> = (0..QUEUE_PER_THREAD).map(|number| pool.sign(vec![number as u8])).collect();
        let answers = futures_util::future::join_all(waiting);
        let (answers, ()) = tokio::join!(answers, async { pool.close() });
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert!(pool.sign(vec![1]).await.is_err());
    }

    /// Not a test: the figures of benches/RESULTS.md.
    /// `cargo test --release --lib figures_of_the_pool -- --ignored --nocapture`
    #[test]
    #[ignore = "measures; run it alone and in release"]
    fn figures_of_the_pool() {
        with_token("measure_the_pool");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "runs in the process that figures_of_the_pool starts"]
    async fn measure_the_pool() {
        const THREADS: usize = 2;
        const TIME: Duration = Duration::from_secs(3);
        let (folder, uri) = place("k");
        let token = Token::open(&uri.token, &folder).unwrap();
        let public = generate(&token, "k", KeyKind::P256).unwrap().public_key().clone();
        let pool = Arc::new(open(&uri, THREADS, &public, &folder).unwrap());
        let bare = || {
            let keys: Vec<_> = (0..THREADS).map(|_| Key::open(&token, &uri.key).unwrap()).collect();
            let input = SigningInput::new(pool.algorithm, b"message");
            let began = Instant::now();
            let sign = |key: Key| {
                let mut signed = 0;
                while began.elapsed() < TIME {
                    key.sign_input(&input).unwrap();
                    signed += 1;
                }
                signed
            };
            let signed: usize = thread::scope(|scope| {
                let threads: Vec<_> = keys.into_iter().map(|key| scope.spawn(|| sign(key))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            signed as f64 / began.elapsed().as_secs_f64()
        };
        async fn through(pool: &Pool, checked: bool) -> f64 {
            let began = Instant::now();
            let task = || async {
                let mut signed = 0;
                while began.elapsed() < TIME {
                    if checked {
                        pool.make(b"message").await.unwrap();
                    } else {
                        let (reply, answer) = oneshot::channel();
                        let room = pool.shared.queue.room().await.unwrap();
                        let input = SigningInput::new(pool.algorithm, b"message");
                        pool.shared.queue.push(Job { input, reply, failed_at: None, room });
                        answer.await.unwrap().unwrap();
                    }
                    signed += 1;
                }
                signed
            };
            let signed: usize = futures_util::future::join_all((0..16).map(|_| task())).await.into_iter().sum();
            signed as f64 / began.elapsed().as_secs_f64()
        }
        for _ in 0..3 {
            let (bare, pool, checked) = (bare(), through(&pool, false).await, through(&pool, true).await);
            eprintln!(
                "bare {bare:.0}/s, pool {pool:.0}/s ({:.1} %), with the check {checked:.0}/s ({:.1} %)",
                pool / bare * 100.0,
                checked / bare * 100.0
            );
        }
    }
}
