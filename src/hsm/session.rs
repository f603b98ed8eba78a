//! A session, which knows when its handle is void.

use std::sync::Arc;

use cryptoki::{error::RvError, object::ObjectHandle, session::Session};

use super::{
    call::{Calls, LONGEST_SIGNATURE, SignMechanism},
    error::Error,
    module::Module,
};

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

    /// Abandons the session after `error`: a handle that is void may by now be another session's number.
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
