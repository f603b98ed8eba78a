//! PKCS#11 modules and the tokens that this process is logged in to.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11},
    error::RvError,
    mechanism::MechanismType,
    object::ObjectHandle,
    session::{Session, SessionState, UserType},
    slot::Slot,
    types::AuthPin,
};
use cryptoki_sys::{
    CK_FLAGS, CK_TOKEN_INFO, CKF_ERROR_STATE, CKF_LOGIN_REQUIRED, CKF_TOKEN_INITIALIZED, CKF_USER_PIN_FINAL_TRY,
    CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_LOCKED,
};

use super::{
    Error, TokenUri,
    call::{self, Calls, LONGEST_SIGNATURE, SignMechanism},
    ladder::{self, Rung},
};
use crate::signer::SignatureAlgorithm;

/// The modules of this process by canonical path. PKCS#11 knows one context per process and module: a second
/// `C_Initialize` fails at best. They stay loaded.
static MODULES: OnceLock<Mutex<HashMap<PathBuf, Arc<Module>>>> = OnceLock::new();

/// How long to wait for calls to return before the module is finalized, and the least time between two times.
const QUIET: Duration = Duration::from_secs(1);

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

/// A loaded PKCS#11 module.
pub(super) struct Module {
    path: PathBuf,
    context: Pkcs11,
    calls: Calls,
    /// Whether the module is initialised. Every call holds it shared: `C_Finalize` under a running call is undefined
    /// (PKCS#11 v2.40 section 5.4). It is only ever tried for exclusive use, so that a call that hangs blocks no other.
    initialised: RwLock<bool>,
    /// How often it was initialised. The sessions of an older generation are void.
    generation: AtomicU64,
    initialised_at: Mutex<Option<Instant>>,
    /// How many sessions sign now, of all pools.
    working: AtomicUsize,
    /// The tokens in use: all who open the same token share one login.
    tokens: Mutex<HashMap<TokenIdentity, Weak<Token>>>,
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
            generation: AtomicU64::new(0),
            initialised_at: Mutex::default(),
            working: AtomicUsize::new(0),
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

    /// Waits until no call is in the module.
    fn alone(&self) -> Result<RwLockWriteGuard<'_, bool>, Error> {
        let deadline = Instant::now() + QUIET;
        loop {
            match self.initialised.try_write() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(guard)) => return Ok(guard.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(QUIET / 200),
                Err(TryLockError::WouldBlock) => return Err(Error::ModuleBusy { path: self.path.clone() }),
            }
        }
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

    /// Finalizes the module and initialises it again, as a last resort: only if no session of any pool works with it, and
    /// not again and again. Gives whether it was done.
    ///
    /// # Errors
    /// If calls do not return, or the module refuses.
    pub(super) fn start_again(&self) -> Result<bool, Error> {
        let recent = lock(&self.initialised_at).is_some_and(|at| at.elapsed() < QUIET);
        if recent || self.working.load(Ordering::Acquire) > 0 {
            return Ok(false);
        }
        let generation = self.generation();
        tracing::warn!(module = %self.path.display(), "the PKCS#11 module is finalized and initialised again");
        self.initialise(Some(generation)).map(|()| true)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Counts a session that signs.
    pub(super) fn works(&self, works: bool) {
        match works {
            true => self.working.fetch_add(1, Ordering::AcqRel),
            false => self.working.fetch_sub(1, Ordering::AcqRel),
        };
    }

    /// Calls into the module.
    fn call<T>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&Pkcs11) -> cryptoki::error::Result<T>,
    ) -> Result<T, Error> {
        let _inside = self.enter(doing, None)?;
        call(&self.context).map_err(Error::doing(doing))
    }

    fn token_info(&self, slot: Slot) -> Result<TokenInfo, Error> {
        const DOING: &str = "reading a token's description";
        let _inside = self.enter(DOING, None)?;
        self.calls.token_info(slot.into()).map(TokenInfo).map_err(|failure| Error::call(DOING, failure))
    }

    /// Keeps the module initialised while the guard lives.
    fn enter(&self, doing: &'static str, generation: Option<u64>) -> Result<RwLockReadGuard<'_, bool>, Error> {
        let initialised = self.initialised.read().unwrap_or_else(PoisonError::into_inner);
        let failed = |code| Error::Call { doing, call: "the call".into(), code };
        if generation.is_some_and(|generation| generation != self.generation()) {
            return Err(failed(RvError::SessionHandleInvalid));
        }
        if !*initialised {
            return Err(failed(RvError::CryptokiNotInitialized));
        }
        Ok(initialised)
    }

    fn find_slot(&self, uri: &TokenUri) -> Result<(Slot, TokenIdentity), Error> {
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

/// A session, which is closed when dropped unless its handle is void.
pub(super) struct TokenSession {
    module: Arc<Module>,
    generation: u64,
    /// Taken out only by drop.
    session: Option<Session>,
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
            None => Err(Error::Call { doing, call: "the call".into(), code: RvError::SessionClosed }),
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

/// A token that this process is logged in to.
pub struct Token {
    module: Arc<Module>,
    identity: TokenIdentity,
    pin: AuthPin,
    login: Mutex<Login>,
}

/// One thread at a time logs in, and all see how it went.
struct Login {
    /// Where the token was seen last; a module that was initialised again may have another number for it.
    slot: Slot,
    /// Stays open so that the token keeps the login and the object handles while other sessions come and go.
    anchor: Option<TokenSession>,
    /// Once the PIN was refused, no thread of this process tries it again: the tries are few.
    refused: Option<RvError>,
    /// How often `C_Login` was called.
    attempts: u32,
}

impl Token {
    /// Loads the module, finds the token and logs in. All who open the same token share it.
    ///
    /// Relative paths of the URI start at `base_dir`, the folder of the configuration file.
    ///
    /// # Errors
    /// If the module, the token or the PIN is not there, or if the token refuses the PIN.
    pub fn open(uri: &TokenUri, base_dir: &Path) -> Result<Arc<Token>, Error> {
        let module = Module::open(&uri.module_in(base_dir))?;
        let (slot, identity) = module.find_slot(uri)?;
        let known = lock(&module.tokens).get(&identity).and_then(Weak::upgrade);
        let token = match known {
            Some(token) => token,
            None => {
                let login = Mutex::new(Login { slot, anchor: None, refused: None, attempts: 0 });
                let pin = uri.pin(base_dir)?;
                let token = Arc::new(Token { module: Arc::clone(&module), identity: identity.clone(), pin, login });
                token.check_flags()?;
                lock(&module.tokens).insert(identity, Arc::downgrade(&token));
                token
            }
        };
        lock(&token.login).slot = slot;
        token.ensure_login()?;
        Ok(token)
    }

    /// What the token says that it is.
    pub fn identity(&self) -> &TokenIdentity {
        &self.identity
    }

    /// The module behind it.
    pub(super) fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// What the module says that it is.
    ///
    /// # Errors
    /// If the module does not answer.
    pub fn module_info(&self) -> Result<ModuleInfo, Error> {
        let info = self.module.call("reading the module's description", Pkcs11::get_library_info)?;
        Ok(ModuleInfo {
            path: self.module.path.clone(),
            manufacturer: info.manufacturer_id().to_owned(),
            description: info.library_description().to_owned(),
            version: info.library_version().to_string(),
        })
    }

    /// What the token says of itself now.
    pub(super) fn info(&self) -> Result<TokenInfo, Error> {
        let slot = lock(&self.login).slot;
        self.module.token_info(slot)
    }

    /// Checks that the token can sign as a key of this algorithm must. Gives the mechanism's name.
    ///
    /// # Errors
    /// If it cannot, or whatever the HSM says.
    pub(super) fn must_have_mechanism(&self, algorithm: SignatureAlgorithm) -> Result<&'static str, Error> {
        let slot = lock(&self.login).slot;
        let (mechanism, name) = match algorithm {
            SignatureAlgorithm::EcdsaP256Sha256
            | SignatureAlgorithm::EcdsaP384Sha384
            | SignatureAlgorithm::EcdsaP521Sha512 => (MechanismType::ECDSA, "CKM_ECDSA"),
            SignatureAlgorithm::RsaPkcs1(_) => (MechanismType::RSA_PKCS, "CKM_RSA_PKCS"),
            SignatureAlgorithm::RsaPss(_) => (MechanismType::RSA_PKCS_PSS, "CKM_RSA_PKCS_PSS"),
        };
        let all = self.module.call("listing the token's mechanisms", |context| context.get_mechanism_list(slot))?;
        if all.contains(&mechanism) {
            Ok(name)
        } else {
            Err(Error::MechanismMissing { token: self.identity.label.clone(), mechanism: name })
        }
    }

    /// Checks what the token says of itself before a PIN is tried.
    fn check_flags(&self) -> Result<(), Error> {
        let info = self.info()?;
        let token = || self.identity.label.clone();
        let unfit = |reason| Err(Error::TokenUnfit { token: token(), reason });
        if info.has(CKF_USER_PIN_LOCKED) {
            return Err(Error::PinLocked { token: token() });
        }
        if info.has(CKF_ERROR_STATE) {
            return unfit("it says that it is in an error state (CKF_ERROR_STATE)");
        }
        if info.has(CKF_LOGIN_REQUIRED) && !info.has(CKF_USER_PIN_INITIALIZED) {
            return unfit("its user PIN is not set (CKF_USER_PIN_INITIALIZED is missing)");
        }
        if info.has(CKF_USER_PIN_FINAL_TRY) {
            return unfit(
                "only one try of its PIN is left (CKF_USER_PIN_FINAL_TRY), which is not risked; log in with the maker's tool to reset the counter",
            );
        }
        Ok(())
    }

    /// How many sessions the token allows, if it says so.
    pub(super) fn session_limit(&self) -> Option<usize> {
        self.info().ok()?.session_limit()
    }

    /// Opens a logged-in session that reads objects and signs.
    pub(super) fn session(&self) -> Result<TokenSession, Error> {
        let slot = self.ensure_login()?;
        self.open_session(|context| context.open_ro_session(slot))
    }

    /// Opens a logged-in session that may create objects.
    pub(super) fn read_write_session(&self) -> Result<TokenSession, Error> {
        let slot = self.ensure_login()?;
        self.open_session(|context| context.open_rw_session(slot))
    }

    fn open_session(
        &self,
        open: impl FnOnce(&Pkcs11) -> cryptoki::error::Result<Session>,
    ) -> Result<TokenSession, Error> {
        const DOING: &str = "opening a session";
        let _inside = self.module.enter(DOING, None)?;
        let generation = self.module.generation();
        let session = open(&self.module.context).map_err(Error::doing(DOING))?;
        Ok(TokenSession { module: Arc::clone(&self.module), generation, session: Some(session) })
    }

    /// Logs in unless this process is logged in already, keeps the anchor session open, and gives the slot.
    fn ensure_login(&self) -> Result<Slot, Error> {
        let mut login = lock(&self.login);
        let slot = login.slot;
        if let Some(refusal) = login.refused {
            return Err(self.refused(refusal));
        }
        // Asking is cheaper than C_Login, and with SoftHSM every C_Login rewrites a file that others read.
        if let Some(anchor) = &login.anchor {
            match anchor.call("looking at the anchor session", Session::get_session_info) {
                Ok(info) if matches!(info.session_state(), SessionState::RoUser | SessionState::RwUser) => {
                    return Ok(slot);
                }
                Ok(_) => {}
                Err(error) => {
                    if let Some(anchor) = login.anchor.take() {
                        anchor.discard(&error);
                    }
                }
            }
        }
        let anchor = match login.anchor.take() {
            Some(anchor) => anchor,
            None => self.open_session(|context| context.open_ro_session(slot))?,
        };
        login.attempts += 1;
        let outcome = anchor.call("logging in", |session| session.login(UserType::User, Some(&self.pin)));
        login.anchor = Some(anchor);
        let refusal = match outcome {
            Ok(()) | Err(Error::Call { code: RvError::UserAlreadyLoggedIn, .. }) => return Ok(slot),
            Err(Error::Call { code, .. }) if ladder::rung(code) == Rung::Final => code,
            Err(other) => return Err(other),
        };
        login.refused = Some(refusal);
        Err(self.refused(refusal))
    }

    fn refused(&self, code: RvError) -> Error {
        let token = self.identity.label.clone();
        match code {
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => Error::PinIncorrect { token },
            RvError::PinLocked => Error::PinLocked { token },
            other => Error::call("logging in", (Function::Login, other)),
        }
    }

    /// Ends the login of the whole process, as a network HSM does that was restarted.
    #[cfg(test)]
    #[expect(clippy::disallowed_methods, reason = "that every session loses its login is what is tried")]
    pub(super) fn log_out(&self) {
        if let Some(anchor) = &lock(&self.login).anchor {
            anchor.call("logging out", Session::logout).unwrap();
        }
    }

    /// Changes the PIN behind the token's back.
    #[cfg(test)]
    pub(super) fn change_pin(&self, pin: &str) {
        let session = self.read_write_session().unwrap();
        session.call("changing the PIN", |session| session.set_pin(&self.pin, &AuthPin::from(pin.to_owned()))).unwrap();
    }

    #[cfg(test)]
    pub(super) fn login_attempts(&self) -> u32 {
        lock(&self.login).attempts
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// What a token says that it is (`CK_TOKEN_INFO`), without the padding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct TokenIdentity {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Who made it.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
}

/// What a token says of itself (`CK_TOKEN_INFO`).
pub(super) struct TokenInfo(CK_TOKEN_INFO);

impl TokenInfo {
    fn identity(&self) -> TokenIdentity {
        let text = |padded: &[u8]| String::from_utf8_lossy(padded).trim_end_matches([' ', '\0']).to_owned();
        let info = &self.0;
        TokenIdentity {
            label: text(&info.label),
            serial: text(&info.serialNumber),
            manufacturer: text(&info.manufacturerID),
            model: text(&info.model),
        }
    }

    /// Whether it has this flag.
    pub(super) fn has(&self, flag: CK_FLAGS) -> bool {
        self.0.flags & flag != 0
    }

    /// Some modules say that there is no limit, or that they do not tell, in other numbers than the standard's.
    fn session_limit(&self) -> Option<usize> {
        usize::try_from(self.0.ulMaxSessionCount).ok().filter(|limit| (1..1 << 20).contains(limit))
    }

    /// Its versions, for people.
    pub(super) fn versions(&self) -> String {
        let (hardware, firmware) = (self.0.hardwareVersion, self.0.firmwareVersion);
        format!("hardware {}.{}, firmware {}.{}", hardware.major, hardware.minor, firmware.major, firmware.minor)
    }
}

impl TokenIdentity {
    fn is(&self, uri: &TokenUri, slot: Slot) -> bool {
        let same = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        same(&uri.label, &self.label)
            && same(&uri.serial, &self.serial)
            && same(&uri.manufacturer, &self.manufacturer)
            && same(&uri.model, &self.model)
            && uri.slot_id.is_none_or(|id| id == slot.id())
    }
}

/// What a PKCS#11 module says that it is (`CK_INFO`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ModuleInfo {
    /// The library's canonical path.
    pub path: PathBuf,
    /// Who made it.
    pub manufacturer: String,
    /// What it calls itself.
    pub description: String,
    /// Its version.
    pub version: String,
}

/// A panic while the lock was held cannot leave what these locks guard half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
