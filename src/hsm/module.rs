//! PKCS#11 modules: loaded once, initialised, and initialised again when that is the last resort.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::RvError,
    slot::Slot,
};
use cryptoki_sys::CKF_TOKEN_INITIALIZED;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{
    call::{self, Calls},
    error::Error,
    recovery::Recovery,
    token_info::{TokenIdentity, TokenInfo},
    uri::TokenUri,
};

/// The modules of this process by canonical path. PKCS#11 knows one context per process and module: a second
/// `C_Initialize` fails at best. They stay loaded.
static MODULES: LazyLock<Mutex<HashMap<PathBuf, Arc<Module>>>> = LazyLock::new(Mutex::default);

/// How long to wait for calls to return before the module is finalized, and the least time between two times.
const QUIET: Duration = Duration::from_secs(1);

/// Finalizes every module and ends the process with this exit code, without what C libraries do when a process returns
/// from `main`: OpenSSL, on which many modules stand, frees what threads that are still ending use, and a call that
/// hangs would be waited for. Whatever must be on the disk has to be there. Blocking, up to a second.
pub fn end_process(code: u8) -> ! {
    let (finalized, all_finalized) = mpsc::sync_channel::<()>(0);
    // Finalizing is a call that may hang too.
    let spawned = thread::Builder::new().name("hsm-end".into()).spawn(move || {
        let modules: Vec<_> = MODULES.lock().values().cloned().collect();
        // None has a call left when the first is finalized: two may stand on one library, as p11-kit's do.
        let quiet: Vec<_> = modules.iter().map(|module| (module, module.quiesce())).collect();
        for (module, quiet) in quiet {
            if let Ok(mut initialised) = quiet {
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
    /// (PKCS#11 v2.40 section 5.4). Whoever wants it exclusively waits [`QUIET`] at most, so that a call that hangs
    /// blocks no other; new calls wait meanwhile, or the busy sessions of one token would never let it happen.
    initialised: RwLock<bool>,
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
}

impl Module {
    /// Loads the module, once a process, and initialises it unless it is.
    pub(super) fn open(path: &Path) -> Result<Arc<Module>, Error> {
        let path = path.canonicalize().map_err(|source| Error::ModuleMissing { path: path.to_owned(), source })?;
        let module = {
            let mut modules = MODULES.lock();
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
        let calls = Calls::load(&path).map_err(|error| refused(error.to_string()))?;
        Ok(Module {
            path,
            context,
            calls,
            initialised: RwLock::new(false),
            generation: AtomicU64::new(0),
            initialised_at: Mutex::default(),
            working: AtomicUsize::new(0),
            probes: AtomicU64::new(0),
            probed_at: Mutex::default(),
            wakers: Mutex::default(),
        })
    }

    /// Initialises the module if it is not; with `again`, finalizes and initialises it unless that was done since this
    /// generation.
    fn initialise(&self, again: Option<u64>) -> Result<(), Error> {
        if again.is_none() && *self.initialised.read() {
            return Ok(());
        }
        let mut initialised = self.quiesce()?;
        if *initialised && again != Some(self.generation()) {
            return Ok(());
        }
        let refused = |error: Error| Error::ModuleRefused { path: self.path.clone(), reason: error.to_string() };
        self.finalize(&mut initialised);
        // The older sessions are void from here on, whatever comes.
        self.generation.fetch_add(1, Ordering::AcqRel);
        *self.initialised_at.lock() = Some(Instant::now());
        // Without OS_LOCKING_OK SoftHSM switches all its locks off.
        let outcome = self.context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        match outcome.map_err(Error::doing("initialising it")) {
            Err(error) if error.recovery() != Recovery::NoFailure => Err(refused(error)),
            _ => {
                *initialised = true;
                Ok(())
            }
        }
    }

    /// Waits until no call is in the module; new ones wait meanwhile.
    fn quiesce(&self) -> Result<RwLockWriteGuard<'_, bool>, Error> {
        self.initialised.try_write_for(QUIET).ok_or_else(|| Error::ModuleBusy { path: self.path.clone() })
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
    /// again. Idle sessions that count as working are asked to sign, so that those whose handles are void are found;
    /// the next attempt then sees how many are left. With `though_others_work` it is done even so: their sessions are
    /// void then, and opened again before the next message. Gives whether it was done.
    ///
    /// # Errors
    /// If calls do not return, or the module refuses.
    pub(super) fn reinitialize(&self, though_others_work: bool) -> Result<bool, Error> {
        let recent = self.initialised_at.lock().is_some_and(|at| at.elapsed() < QUIET);
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
        let mut probed_at = self.probed_at.lock();
        if probed_at.is_some_and(|at| at.elapsed() < QUIET) {
            return;
        }
        *probed_at = Some(Instant::now());
        drop(probed_at);
        self.wake_idle();
    }

    fn wake_idle(&self) {
        self.probes.fetch_add(1, Ordering::AcqRel);
        self.wakers.lock().retain(|wake| wake());
    }

    /// The number of the newest probe: a session that has signed since it was asked for has answered it.
    pub(super) fn probes(&self) -> u64 {
        self.probes.load(Ordering::Acquire)
    }

    /// `wake` is called when idle threads are to look at [`Module::probes`], until it gives false.
    pub(super) fn on_probe(&self, wake: impl Fn() -> bool + Send + Sync + 'static) {
        self.wakers.lock().push(Box::new(wake));
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
        let initialised = self.initialised.read();
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
pub(super) struct WorkingSession(Arc<Module>);

impl WorkingSession {
    pub(super) fn new(module: &Arc<Module>) -> WorkingSession {
        module.working.fetch_add(1, Ordering::AcqRel);
        WorkingSession(Arc::clone(module))
    }
}

impl Drop for WorkingSession {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::AcqRel);
    }
}
