//! The PKCS#11 HSM: the only place that knows cryptoki.
//!
//! [`KeyUri`] names a key, [`Token`] is a token that this process is logged in to, [`Key`] is a checked private key in
//! its own session, and `Pool` signs with several of them. `generate` makes new keys, and `RcgenKey` lets rcgen sign CA
//! and station certificates with a key that never leaves the HSM (invariant 7).

mod attributes;
mod call;
mod check;
mod error;
mod generate;
mod key;
mod locked;
mod module;
mod pace;
mod pin;
mod pool;
mod pooled_token;
mod public_half;
mod queue;
mod rcgen_key;
mod recovery;
mod recovery_thread;
mod session;
mod sessions;
mod sharing;
mod signing_input;
mod signing_thread;
mod supervisor;
mod timeout;
mod token;
mod token_info;
mod uri;
mod worker;

/// What keeps the log readable: cryptoki logs each return code that it has no name for as an error; what matters of
/// them, we say.
pub const LOG_FILTER: &str = "cryptoki=off";

pub use check::{Check, Outcome, check};
pub use error::{Error, PinFault};
pub(crate) use generate::generate;
pub use key::{Key, KeyAttributes};
pub use module::end_process;
pub use pin::AskPin;
pub(crate) use pin::read_secret;
pub(crate) use pool::{Pool, PoolSettings};
pub(crate) use rcgen_key::RcgenKey;
pub(crate) use sessions::Sessions;
pub(crate) use timeout::with_timeout;
pub use token::Token;
pub use token_info::{ModuleInfo, TokenIdentity};
pub use uri::{KeyQuery, KeyUri, TokenUri, UriError};
