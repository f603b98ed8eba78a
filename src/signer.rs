//! What a signature is, apart from who makes it: algorithms, public keys, verification, and the trait that the HSM
//! pool implements.

mod algorithm;
mod dropped_key;
pub(crate) mod ecdsa;
mod fixed_key;
mod key_kind;
mod oid;
mod public_key;
mod verification;
mod verifier;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

pub use self::{
    algorithm::{Sha2, SignatureAlgorithm, UnknownAlgorithm, UnsuitableKey},
    key_kind::KeyKind,
    public_key::{PublicKey, SpkiError},
    verifier::{Signature, Verifier},
};
pub(crate) use self::{
    dropped_key::NoKey,
    public_key::{RsaPublicKey, ec_spki, ed25519_spki, rsa_spki},
    verification::{VerifyError, verify},
};

/// Why a message could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The HSM cannot sign now; the same request may succeed later.
    #[error("the HSM is not available: {reason}")]
    Unavailable {
        /// What the HSM said, for the log.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
}

/// A signer without a key: for those who only look at what would be signed.
#[derive(Debug)]
pub struct UnavailableSigner(pub SignatureAlgorithm);

impl UnavailableSigner {
    fn unavailable() -> SignError {
        SignError::Unavailable { reason: "there is no key here".into(), retry_after: Duration::ZERO }
    }
}

impl Signer for UnavailableSigner {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.0
    }

    fn sign(&self, _: Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Signature, SignError>> + Send + '_>> {
        Box::pin(std::future::ready(Err(UnavailableSigner::unavailable())))
    }

    fn can_sign(&self) -> bool {
        false
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = Result<(), SignError>> + Send + '_>> {
        Box::pin(std::future::ready(Err(UnavailableSigner::unavailable())))
    }
}

/// Something that signs with one private key and never shows it.
pub trait Signer: Send + Sync + 'static {
    /// The algorithm of its signatures.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// How many messages it signs at once.
    fn sessions(&self) -> usize {
        1
    }

    /// Signs `message`, and checks the signature: the signer is the one who can do something about a wrong one. Waits
    /// while the signer's bounded queue is full.
    fn sign(&self, message: Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Signature, SignError>> + Send + '_>>;

    /// Whether it signs now, as far as is known without asking it: whoever reserves something for a signature looks
    /// before.
    fn can_sign(&self) -> bool;

    /// Waits for the end of an outage, for as long as [`Signer::sign`] would.
    ///
    /// # Errors
    /// Why there is no signature to be had now.
    fn ready(&self) -> Pin<Box<dyn Future<Output = Result<(), SignError>> + Send + '_>>;
}

/// A token of an HSM, as its operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenState {
    /// Whose key it signs with: an issuer's name, or `audit`.
    pub signer: String,
    /// What the configuration calls it.
    pub token: String,
    /// How many sessions sign.
    pub sessions: usize,
    /// Why it does not sign; empty if it does.
    pub reason: String,
}

/// The sessions of a token that sign with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFigures {
    /// What the configuration calls the token.
    pub token: String,
    /// Sessions that sign, or wait for something to sign.
    pub working: usize,
    /// Sessions that should.
    pub wanted: usize,
    /// Of `working`: those that are in a call now.
    pub busy: usize,
    /// Calls that did not return in time, and have not yet.
    pub hung: usize,
    /// Messages that wait for a session, whichever token's.
    pub queued: usize,
    /// Why it does not sign; none if it does.
    pub outage: Option<String>,
    /// It stays out until a person has seen to it.
    pub needs_operator: bool,
}

/// A signer that may be out until a person has seen to it, and has to be told when that was done.
pub trait Recoverable: Send + Sync + 'static {
    /// Tries every token that is out once more, now, those too whose login was refused: the PIN is read again. Gives
    /// what came of it, for every token. `same_pin` says that a PIN which was refused is right now.
    fn retry(self: Arc<Self>, same_pin: bool) -> Pin<Box<dyn Future<Output = Vec<TokenState>> + Send>>;

    /// What its sessions do now, for every token. It does not ask the tokens.
    fn figures(&self) -> Vec<TokenFigures>;
}
