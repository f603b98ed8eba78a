//! PKCS#11 modules: loaded once, initialised, and initialised again when that is the last resort.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::RvError,
    object::ObjectHandle,
    session::Session,
    slot::Slot,
};
use cryptoki_sys::CKF_TOKEN_INITIALIZED;

use super::{
    Error, Token, TokenUri,
    call::{self, Calls, LONGEST_SIGNATURE, SignMechanism},
    ladder::Rung,
    token::{TokenIdentity, TokenInfo},
};

/// The modules of this process by canonical path. PKCS#11 knows one context per process and module: a second
/// `C_Initialize` fails at best. They stay loaded.
static MODULES: OnceLock<Mutex<HashMap<PathBuf, Arc<Module>>>> = OnceLock::new();

/// How long to wait for calls to return before the module is finalized, and the least time between two times.
const QUIET: Duration = Duration::from_secs(1);

/// How long a call waits before it looks again whether the module is being initialised.
const STEP: Duration = Duration::from_millis(1);

/// Finalizes every module and ends the process with this exit code, without what C libraries do when a process returns
/// from `main`: OpenSSL, on which many modules stand, frees what threads that are still ending use, and a call that hangs
/// would be waited for. Whatever must be on the disk has to be there. Blocking, up to a second.
pub fn end_process(code: u8) -> ! {
    let (finalized, all_finalized) = mpsc::sync_channel::<()>(0);
    // Finalizing is a call that may hang too.
    let spawned = thread::Builder::new().name("hsm-end".into()).spawn(move || {
        let modules: Vec<_> = lock(MODULES.get_or_init(Mutex::default)).values().cloned().collect();
        for module in modules {
            if let Ok(mut initialised) = module.alone() {
                module.finalize(&mut initialised);
            }
        }
        drop(finalized);
    });
    if spawned.is_ok() {
        // It is only ever closed.
        let _ = all_finalized.recv_timeout(QUIET);
    }
    call::exit_at_once(code)
}

type Waker = Box<dyn Fn() -> bool + Send + Sync>;

/// A loaded PKCS#11 module.
pub(super) struct Module {
    pub(super) path: PathBuf,
    pub(super) context: Pkcs11,
    pub(super) calls: Calls,
    /// Whether the module is initialised. Every call holds it shared: `C_Finalize` under a running call is undefined
    /// (PKCS#11 v2.40 section 5.4). It is only ever tried for exclusive use, so that a call that hangs blocks no other.
    initialised: RwLock<bool>,
    /// Somebody wants the module alone: new calls wait, or the busy sessions of one token would never let it happen.
    wanted_alone: AtomicBool,
    /// How often it was initialised. The sessions of an older generation are void.
    generation: AtomicU64,
    initialised_at: Mutex<Option<Instant>>,
    /// How many sessions count as working, of all pools.
    working: AtomicUsize,
    /// How often the idle sessions were asked to sign something, and when last.
    probes: AtomicU64,
    probed_at: Mutex<Option<Instant>>,
    /// Each wakes the idle threads of a pool; false when the pool is gone.
    wakers: Mutex<Vec<Waker>>,
    /// The tokens in use: all who open the same token share one login.
    pub(super) tokens: Mutex<HashMap<TokenIdentity, Weak<Token>>>,
}

impl Module {
    /// Loads the module, once a process, and initialises it unless it is.
    pub(super) fn open(path: &Path) -> Result<Arc<Module>, Error> {
        let path = path.canonicalize().map_err(|source| Error::ModuleMissing { path: path.to_owned(), source })?;
        let module = {
            let mut modules = lock(MODULES.get_or_init(Mutex::default));
            match modules.get(&path) {
                Some(module) => Arc::clone(module),
                None => {
                    let module = Arc::new(Module::load(path.clone())?);
                    modules.insert(path, Arc::clone(&module));
                    module
                }
            }
        };
        module.initialise(None)?;
        Ok(module)
    }

    fn load(path: PathBuf) -> Result<Module, Error> {
        let refused = |reason: String| Error::ModuleRefused { path: path.clone(), reason };
        let context =
            Pkcs11::new(&path).map_err(Error::doing("loading it")).map_err(|error| refused(error.to_string()))?;
        let calls = Calls::of(&path).map_err(refused)?;
        Ok(Module {
            path,
            context,
            calls,
            initialised: RwLock::new(false),
            wanted_alone: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            initialised_at: Mutex::default(),
            working: AtomicUsize::new(0),
            probes: AtomicU64::new(0),
            probed_at: Mutex::default(),
            wakers: Mutex::default(),
            tokens: Mutex::default(),
        })
    }

    /// Initialises the module if it is not; with `again`, finalizes and initialises it unless that was done since this
    /// generation.
    fn initialise(&self, again: Option<u64>) -> Result<(), Error> {
        if again.is_none() && *self.initialised.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(());
        }
        let mut initialised = self.alone()?;
        if *initialised && again != Some(self.generation()) {
            return Ok(());
        }
        let refused = |error: Error| Error::ModuleRefused { path: self.path.clone(), reason: error.to_string() };
        self.finalize(&mut initialised);
        // The older sessions are void from here on, whatever comes.
        self.generation.fetch_add(1, Ordering::AcqRel);
        *lock(&self.initialised_at) = Some(Instant::now());
        // Without OS_LOCKING_OK SoftHSM switches all its locks off.
        let outcome = self.context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        match outcome.map_err(Error::doing("initialising it")) {
            Err(error) if error.rung() != Rung::Fine => Err(refused(error)),
            _ => {
                *initialised = true;
                Ok(())
            }
        }
    }

    /// Waits until no call is in the module; new ones wait meanwhile.
    fn alone(&self) -> Result<RwLockWriteGuard<'_, bool>, Error> {
        let deadline = Instant::now() + QUIET;
        self.wanted_alone.store(true, Ordering::Release);
        let alone = loop {
            match self.initialised.try_write() {
                Ok(guard) => break Ok(guard),
                Err(TryLockError::Poisoned(guard)) => break Ok(guard.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(STEP),
                Err(TryLockError::WouldBlock) => break Err(Error::ModuleBusy { path: self.path.clone() }),
            }
        };
        self.wanted_alone.store(false, Ordering::Release);
        alone
    }

    fn finalize(&self, initialised: &mut bool) {
        if !std::mem::replace(initialised, false) {
            return;
        }
        // It may say that it is finalized already, or that it is too broken to be; initialising tells.
        if let Err(error) = self.context.clone().finalize() {
            tracing::debug!(module = %self.path.display(), %error, "C_Finalize failed");
        }
    }

    /// Finalizes the module and initialises it again, as a last resort: unless sessions work with it, and not again and
    /// again. Idle sessions that count as working are asked to sign, so that those whose handles are void are found; the
    /// next attempt then sees how many are left. With `though_others_work` it is done even so: their sessions are void
    /// then, and opened again before the next message. Gives whether it was done.
    ///
    /// # Errors
    /// If calls do not return, or the module refuses.
    pub(super) fn start_again(&self, though_others_work: bool) -> Result<bool, Error> {
        let recent = lock(&self.initialised_at).is_some_and(|at| at.elapsed() < QUIET);
        if recent {
            return Ok(false);
        }
        let working = self.working.load(Ordering::Acquire);
        if working > 0 && !though_others_work {
            self.probe_idle();
            return Ok(false);
        }
        let generation = self.generation();
        tracing::warn!(module = %self.path.display(), working, "the PKCS#11 module is finalized and initialised again");
        let again = self.initialise(Some(generation));
        // Their sessions are void now: they are opened again before somebody needs them.
        self.wake_idle();
        again.map(|()| true)
    }

    /// Has the threads that wait for work look whether their sessions still sign: a handle that became void is only
    /// found by using it.
    pub(super) fn probe_idle(&self) {
        let mut probed_at = lock(&self.probed_at);
        if probed_at.is_some_and(|at| at.elapsed() < QUIET) {
            return;
        }
        *probed_at = Some(Instant::now());
        drop(probed_at);
        self.wake_idle();
    }

    fn wake_idle(&self) {
        self.probes.fetch_add(1, Ordering::AcqRel);
        lock(&self.wakers).retain(|wake| wake());
    }

    /// The number of the newest probe: a session that has signed since it was asked for has answered it.
    pub(super) fn probes(&self) -> u64 {
        self.probes.load(Ordering::Acquire)
    }

    /// `wake` is called when idle threads are to look at [`Module::probes`], until it gives false.
    pub(super) fn on_probe(&self, wake: impl Fn() -> bool + Send + Sync + 'static) {
        lock(&self.wakers).push(Box::new(wake));
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Calls into the module.
    pub(super) fn call<T>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&Pkcs11) -> cryptoki::error::Result<T>,
    ) -> Result<T, Error> {
        let _inside = self.enter(doing, None)?;
        call(&self.context).map_err(Error::doing(doing))
    }

    pub(super) fn token_info(&self, slot: Slot) -> Result<TokenInfo, Error> {
        const DOING: &str = "reading a token's description";
        let _inside = self.enter(DOING, None)?;
        self.calls.token_info(slot.into()).map(TokenInfo::new).map_err(|failure| Error::call(DOING, failure))
    }

    /// Keeps the module initialised while the guard lives.
    pub(super) fn enter(
        &self,
        doing: &'static str,
        generation: Option<u64>,
    ) -> Result<RwLockReadGuard<'_, bool>, Error> {
        while self.wanted_alone.load(Ordering::Acquire) {
            thread::sleep(STEP);
        }
        let initialised = self.initialised.read().unwrap_or_else(PoisonError::into_inner);
        let failed = |code| Error::Call { doing, function: None, code };
        if generation.is_some_and(|generation| generation != self.generation()) {
            return Err(failed(RvError::SessionHandleInvalid));
        }
        if !*initialised {
            return Err(failed(RvError::CryptokiNotInitialized));
        }
        Ok(initialised)
    }

    pub(super) fn find_slot(&self, uri: &TokenUri) -> Result<(Slot, TokenIdentity), Error> {
        let slots = self.call("listing the tokens", |context| context.get_slots_with_token())?;
        let tokens = slots
            .into_iter()
            .filter_map(|slot| {
                // A token that went between the two calls is not there.
                let info = self.token_info(slot).ok()?;
                info.has(CKF_TOKEN_INITIALIZED).then(|| (slot, info.identity()))
            })
            .collect::<Vec<_>>();
        let known = tokens.iter().map(|(_, token)| token.label.clone()).collect();
        let mut found: Vec<_> = tokens.into_iter().filter(|(slot, token)| token.is(uri, *slot)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(token), true) => Ok(token),
            (None, _) => Err(Error::TokenMissing { wanted: uri.to_string(), known }),
            (Some(token), false) => Err(Error::TokenAmbiguous {
                wanted: uri.to_string(),
                serials: found.iter().chain([&token]).map(|(_, token)| token.serial.clone()).collect(),
            }),
        }
    }
}

/// A session that counts as working, until it is dropped.
pub(super) struct Working(Arc<Module>);

impl Working {
    pub(super) fn new(module: &Arc<Module>) -> Working {
        module.working.fetch_add(1, Ordering::AcqRel);
        Working(Arc::clone(module))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A session, which is closed when dropped unless its handle is void.
pub(super) struct TokenSession {
    pub(super) module: Arc<Module>,
    pub(super) generation: u64,
    /// Taken out only by drop.
    pub(super) session: Option<Session>,
}

impl TokenSession {
    /// Calls into the module with this session.
    pub(super) fn call<T>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&Session) -> cryptoki::error::Result<T>,
    ) -> Result<T, Error> {
        self.enter(doing, |_, session| call(session).map_err(Error::doing(doing)))
    }

    /// Signs `data`: `C_SignInit` and `C_Sign`, nothing else.
    pub(super) fn sign(&self, key: ObjectHandle, mechanism: SignMechanism, data: &[u8]) -> Result<Vec<u8>, Error> {
        const DOING: &str = "signing";
        let mut signature = [0; LONGEST_SIGNATURE];
        let length = self.enter(DOING, |calls, session| {
            let signed = calls.sign(session, key, mechanism, data, &mut signature);
            signed.map_err(|failure| Error::call(DOING, failure))
        })?;
        Ok(signature[..length].to_vec())
    }

    fn enter<T>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&Calls, &Session) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _inside = self.module.enter(doing, Some(self.generation))?;
        match &self.session {
            Some(session) => call(&self.module.calls, session),
            None => Err(Error::Call { doing, function: None, code: RvError::SessionClosed }),
        }
    }

    /// Gives the session up after `error`: a handle that is void may by now be another session's number.
    pub(super) fn discard(mut self, error: &Error) {
        if error.voids_session() {
            std::mem::forget(self.session.take());
        }
    }
}

impl Drop for TokenSession {
    fn drop(&mut self) {
        match self.module.enter("closing a session", Some(self.generation)) {
            Ok(_inside) => drop(self.session.take()),
            Err(_) => std::mem::forget(self.session.take()),
        }
    }
}

/// A panic while the lock was held cannot leave what these locks guard half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
