//! Tokens that this process is logged in to.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Weak},
};

use cryptoki::{
    context::{Function, Pkcs11},
    error::RvError,
    mechanism::MechanismType,
    object::{Attribute, ObjectClass},
    session::{Session, SessionState, UserType},
    slot::Slot,
};
use cryptoki_sys::{
    CKF_ERROR_STATE, CKF_LOGIN_REQUIRED, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_LOCKED,
};
use parking_lot::Mutex;

use super::{
    error::Error,
    module::Module,
    pin::{AskPin, Pin},
    recovery::{self, Recovery},
    session::TokenSession,
    sharing::{SessionHolder, Sharing},
    token_info::{ModuleInfo, TokenIdentity, TokenInfo},
    uri::TokenUri,
};
use crate::{security, signer::SignatureAlgorithm};

type Tokens = HashMap<(PathBuf, TokenIdentity), Weak<Token>>;

/// The tokens in use, by their module's path: all who open the same token share one login and its sessions.
static TOKENS: LazyLock<Mutex<Tokens>> = LazyLock::new(Mutex::default);

/// A token that this process is logged in to.
pub struct Token {
    module: Arc<Module>,
    identity: TokenIdentity,
    login: Mutex<Login>,
    sharing: Sharing,
}

/// One thread at a time logs in, and all see how it went.
struct Login {
    pin: Pin,
    /// Where the token was seen last; a module that was initialised again may have another number for it.
    slot: Slot,
    /// Stays open so that the token keeps the login and the object handles while other sessions come and go.
    anchor: Option<TokenSession>,
    /// Once the PIN was refused, no thread of this process tries it again by itself: the tries are few.
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
        let token = Token::find(uri, base_dir)?;
        token.ensure_login()?;
        Ok(token)
    }

    /// As [`Token::open`]; a person is asked for a PIN that neither the URI's file nor, if it may be this token's, the
    /// environment has.
    ///
    /// # Errors
    /// Besides, if there is nobody to ask.
    pub(crate) fn open_asking(
        uri: &TokenUri,
        base_dir: &Path,
        from_environment: bool,
        ask: Option<AskPin<'_>>,
    ) -> Result<Arc<Token>, Error> {
        let token = Token::find_with(uri, base_dir, || {
            let read = match uri.pin_source.is_some() || from_environment {
                true => uri.pin(base_dir),
                false => Err(uri.no_pin(true)),
            };
            match (read, ask) {
                (Err(Error::PinMissing { token, .. }), Some(ask)) => Pin::asked(&token, ask),
                (read, _) => read,
            }
        })?;
        token.ensure_login()?;
        Ok(token)
    }

    /// Loads the module and finds the token, without a login.
    pub(super) fn find(uri: &TokenUri, base_dir: &Path) -> Result<Arc<Token>, Error> {
        Token::find_with(uri, base_dir, || uri.pin(base_dir))
    }

    fn find_with(
        uri: &TokenUri,
        base_dir: &Path,
        pin: impl FnOnce() -> Result<Pin, Error>,
    ) -> Result<Arc<Token>, Error> {
        let module = Module::open(&uri.module_in(base_dir))?;
        let (slot, identity) = module.find_slot(uri)?;
        let name = (module.path.clone(), identity.clone());
        let known = TOKENS.lock().get(&name).and_then(Weak::upgrade);
        let token = match known {
            Some(token) => token,
            None => {
                let pin = pin()?;
                let login = Mutex::new(Login { pin, slot, anchor: None, refused: None, attempts: 0 });
                let token = Arc::new(Token { module, identity, login, sharing: Sharing::default() });
                token.check_flags()?;
                TOKENS.lock().insert(name, Arc::downgrade(&token));
                token
            }
        };
        token.login.lock().slot = slot;
        Ok(token)
    }

    /// What the token says that it is.
    pub fn identity(&self) -> &TokenIdentity {
        &self.identity
    }

    /// The module that it is reached through.
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
            cryptoki: info.cryptoki_version().to_string(),
        })
    }

    /// The versions of the token's hardware and firmware, as it says.
    ///
    /// # Errors
    /// If the module does not answer.
    pub(crate) fn versions(&self) -> Result<(String, String), Error> {
        Ok(self.info()?.versions())
    }

    /// What the token says of itself now.
    pub(super) fn info(&self) -> Result<TokenInfo, Error> {
        let slot = self.login.lock().slot;
        self.module.token_info(slot)
    }

    /// Checks that the token can sign as a key of this algorithm must. Gives the mechanism's name.
    ///
    /// # Errors
    /// If it cannot, or whatever the HSM says.
    pub(super) fn check_mechanism(&self, algorithm: SignatureAlgorithm) -> Result<&'static str, Error> {
        let slot = self.login.lock().slot;
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

    /// Whether any object (a private or public key, a certificate) has this label.
    ///
    /// # Errors
    /// Whatever the HSM says.
    pub fn has_object(&self, label: &str) -> Result<bool, Error> {
        let session = self.session()?;
        for class in
            [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY, ObjectClass::CERTIFICATE, ObjectClass::SECRET_KEY]
        {
            let template = [Attribute::Class(class), Attribute::Label(label.as_bytes().to_vec())];
            if !session.call("finding an object", |session| session.find_objects(&template))?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many sessions the token allows, if it says so.
    pub(super) fn session_limit(&self) -> Option<usize> {
        self.info().ok()?.session_limit()
    }

    /// Opens a logged-in session that reads objects and signs. If the token has no room for it, a pool of this process
    /// that has several closes one: each key gets at least one session.
    pub(super) fn session(&self) -> Result<TokenSession, Error> {
        self.sharing.open(|| self.session_if_room())
    }

    /// As [`Token::session`], but only if the token has room.
    pub(super) fn session_if_room(&self) -> Result<TokenSession, Error> {
        let slot = self.ensure_login()?;
        self.open_session(|context| context.open_ro_session(slot))
    }

    /// From now on this holder may be asked to close a session for another.
    pub(super) fn add_holder(&self, holder: Weak<dyn SessionHolder>) {
        self.sharing.add(holder);
    }

    /// Opens a logged-in session that may create objects.
    pub(super) fn read_write_session(&self) -> Result<TokenSession, Error> {
        let slot = self.ensure_login()?;
        self.sharing.open(|| self.open_session(|context| context.open_rw_session(slot)))
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
    pub(super) fn ensure_login(&self) -> Result<Slot, Error> {
        let mut login = self.login.lock();
        let slot = login.slot;
        if let Some(refusal) = login.refused {
            return Err(self.refused(&login, refusal));
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
        let outcome = anchor.call("logging in", |session| session.login(UserType::User, Some(&login.pin.for_login())));
        login.anchor = Some(anchor);
        let refusal = match outcome {
            Ok(()) => {
                tracing::info!(target: security::TARGET, token = self.identity.label, "logged in to the HSM's token");
                return Ok(slot);
            }
            Err(Error::Call { code: RvError::UserAlreadyLoggedIn, .. }) => return Ok(slot),
            Err(error) => match (&error, error.recovery()) {
                (Error::Call { code, .. }, Recovery::Operator) => *code,
                _ => return Err(error),
            },
        };
        login.refused = Some(refusal);
        tracing::error!(target: security::TARGET, token = self.identity.label, code = recovery::name(refusal), "the HSM's token refused the login");
        Err(self.refused(&login, refusal))
    }

    /// After the PIN was refused: reads it again from where the URI says, and allows one more try. That is for a person
    /// to ask for. Nothing is tried here.
    ///
    /// # Errors
    /// If the PIN is not there, the token says that no try should be made, or the token refused this very PIN and
    /// `same_pin` does not say that it is right now.
    pub(super) fn allow_login(&self, uri: &TokenUri, base_dir: &Path, same_pin: bool) -> Result<(), Error> {
        let refused = self.login.lock().refused;
        let Some(refused) = refused else { return Ok(()) };
        self.check_flags()?;
        let pin = uri.pin(base_dir)?;
        let mut login = self.login.lock();
        let was_wrong = matches!(refused, RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange);
        if was_wrong && !same_pin && login.pin == pin {
            return Err(Error::PinUnchanged { token: self.identity.label.clone() });
        }
        login.pin = pin;
        login.refused = None;
        Ok(())
    }

    fn refused(&self, login: &Login, code: RvError) -> Error {
        let token = self.identity.label.clone();
        match code {
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
                Error::PinIncorrect { token, outer_blank: login.pin.has_outer_blank() }
            }
            RvError::PinLocked => Error::PinLocked { token },
            other => Error::call("logging in", (Function::Login, other)),
        }
    }

    /// Ends the login of the whole process, as a network HSM does that was restarted.
    #[cfg(test)]
    #[expect(clippy::disallowed_methods, reason = "that every session loses its login is what is tried")]
    pub(super) fn log_out(&self) {
        if let Some(anchor) = &self.login.lock().anchor {
            anchor.call("logging out", Session::logout).unwrap();
        }
    }

    /// Changes the PIN without telling this `Token`.
    #[cfg(test)]
    pub(super) fn change_pin(&self, pin: &str) {
        let session = self.read_write_session().unwrap();
        let (old, new) = (self.login.lock().pin.for_login(), Pin::new(pin).for_login());
        session.call("changing the PIN", |session| session.set_pin(&old, &new)).unwrap();
    }

    #[cfg(test)]
    pub(super) fn login_attempts(&self) -> u32 {
        self.login.lock().attempts
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("identity", &self.identity).finish_non_exhaustive()
    }
}
