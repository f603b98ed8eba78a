//! What can go wrong with an HSM, each as one sentence that says what to do.

use std::{io, path::PathBuf, time::Duration};

use cryptoki::{context::Function, error::RvError};

use super::{
    recovery::{self, Recovery},
    uri::UriError,
};
use crate::text_file::{EncodingError, TextError};

/// Why the HSM, its token or its key cannot be used. No variant ever carries a PIN.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentences say what the fields are")]
pub enum Error {
    #[error(transparent)]
    Uri(#[from] UriError),

    #[error("there is no PKCS#11 module {}: {source}; install the HSM's client software or correct module-path", path.display())]
    ModuleMissing { path: PathBuf, source: io::Error },

    #[error("the PKCS#11 module {} cannot be used ({reason}); check that it is a PKCS#11 library for this machine and that its own configuration is right", path.display())]
    ModuleRefused { path: PathBuf, reason: String },

    #[error("the PKCS#11 module {} cannot be initialised again while calls into it do not return", path.display())]
    ModuleBusy { path: PathBuf },

    #[error("there is no token with {wanted}; {}", known_tokens(known))]
    TokenMissing { wanted: String, known: Vec<String> },

    #[error("there are {} tokens with {wanted}; add serial=… to the PKCS#11 URI (their serial numbers are {})", serials.len(), serials.join(", "))]
    TokenAmbiguous { wanted: String, serials: Vec<String> },

    #[error("there is no PIN for token \"{token}\"; {}", match *one_of_several {
        true => "BIRTHMARK_PIN serves one token only: add pin-source=file:… to each token's PKCS#11 URI, or run it at a terminal",
        false => "add pin-source=file:… to the PKCS#11 URI or set the environment variable BIRTHMARK_PIN",
    })]
    PinMissing { token: String, one_of_several: bool },

    #[error("the PIN of token \"{token}\" was not typed: {source}")]
    PinNotTyped { token: String, source: io::Error },

    #[error("the secret file {} cannot be read: {source}; correct its path or create it", path.display())]
    SecretFile { path: PathBuf, source: io::Error },

    #[error("the secret file {} is open to others (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    SecretFileExposed { path: PathBuf, mode: u32 },

    #[error("the secret file {} is empty; write the secret into it", path.display())]
    SecretFileEmpty { path: PathBuf },

    #[error("the secret file {}: {source}", path.display())]
    SecretFileText { path: PathBuf, source: TextError },

    #[error("{place} holds no PIN: {fault}; it was not tried, so no try is lost")]
    PinMalformed { place: String, fault: PinFault },

    #[error(
        "token \"{token}\" refused the PIN; it was tried once and is not tried again, because more tries would lock the token: correct the PIN, then start again, or run birthmark hsm retry if the daemon runs{}",
        if *outer_blank { "; it begins or ends with a blank, which counts as part of it: only line ends are removed" } else { "" }
    )]
    PinIncorrect { token: String, outer_blank: bool },

    #[error(
        "the PIN is the one that token \"{token}\" refused, and another try would be wasted: correct it in the file that pin-source names; if the token was changed so that this PIN is right now, add --same-pin"
    )]
    PinUnchanged { token: String },

    #[error("the PIN of token \"{token}\" is locked; its security officer must reset it")]
    PinLocked { token: String },

    #[error("token \"{token}\" cannot be used: {reason}")]
    TokenUnfit { token: String, reason: &'static str },

    #[error("token \"{token}\" has no {mechanism}, which this key needs to sign; use another key type, or another HSM")]
    MechanismMissing { token: String, mechanism: &'static str },

    #[error("token \"{token}\" has no private key with {wanted}; {}", known_keys(known))]
    KeyMissing { wanted: String, token: String, known: Vec<String> },

    #[error("token \"{token}\" has {} private keys with {wanted}; {}", known.len(), tell_apart(known))]
    KeyAmbiguous { wanted: String, token: String, known: Vec<(String, Vec<u8>)> },

    #[error(
        "the key \"{label}\" is not marked CKA_SENSITIVE, so its value could be read; make a new key with birthmark ceremony"
    )]
    KeyNotSensitive { label: String },

    #[error(
        "the key \"{label}\" is marked CKA_EXTRACTABLE, so it could leave the HSM; make a new key with birthmark ceremony"
    )]
    KeyExtractable { label: String },

    #[error(
        "the key \"{label}\" is marked CKA_ALWAYS_AUTHENTICATE and would need its PIN for every signature; make a new key without it"
    )]
    KeyAlwaysAuthenticate { label: String },

    #[error("the key \"{label}\" may not sign (CKA_SIGN is false); use a key that was made for signing")]
    KeyCannotSign { label: String },

    #[error("the key \"{label}\" cannot be used: {reason}")]
    KeyUnsupported { label: String, reason: String },

    #[error(
        "the public half of key \"{label}\" is not in token \"{token}\" ({seen} public keys and certificates there have its CKA_ID or CKA_LABEL, none verifies its signatures); import the public key with the same CKA_ID and CKA_LABEL as the private key"
    )]
    PublicKeyMissing { label: String, token: String, seen: usize },

    #[error(
        "the certificate does not belong to key \"{label}\": SHA-256 of the certificate's public key is {certificate}, of the key's {key}; correct one of the two in the configuration"
    )]
    KeyMismatch { label: String, certificate: String, key: String },

    #[error(
        "a signature by key \"{label}\" does not verify with its public key; look whether the token's public key with that CKA_ID and CKA_LABEL is another pair's, and otherwise do not use this HSM before its maker has looked at it"
    )]
    SignatureWrong { label: String },

    #[error(
        "token \"{token}\" already has an object with the label \"{label}\"; if a ceremony that was broken off left it, note that \
         in the minutes and remove it (pkcs11-tool --token-label \"{token}\" --login --delete-object --label \"{label}\" --type \
         privkey, then --type pubkey); if it is in use, choose another label"
    )]
    LabelTaken { label: String, token: String },

    #[error("a certificate cannot be made: {0}")]
    Certificate(String),

    #[error("the HSM does not answer: its key was not open after {} s; look whether it can be reached", limit.as_secs())]
    NoAnswer { limit: Duration },

    #[error("cannot start a signing thread: {0}")]
    Thread(io::Error),

    /// A PKCS#11 call failed in a way that has no sentence of its own.
    #[error("{doing}: {call} failed with {code}", call = called(*function), code = recovery::name(*code))]
    Call { doing: &'static str, function: Option<Function>, code: RvError },

    /// cryptoki failed before or after the PKCS#11 call.
    #[error("{doing}: {reason}")]
    Wrapper { doing: &'static str, reason: String },
}

/// What cannot be a PIN. The messages never repeat any of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinFault {
    /// It is no text.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// There is nothing but a line end.
    #[error("it is empty")]
    Empty,
    /// A PIN is one line.
    #[error("it has several lines; write the PIN alone, on one line")]
    Lines,
    /// No keypad has it, and a NUL ends the PIN early in many modules.
    #[error("it contains the character U+{0:04X}, which no PIN has; write the PIN as plain text")]
    Character(u32),
}

impl Error {
    /// For `map_err`: what was being done when cryptoki failed.
    pub(super) fn doing(doing: &'static str) -> impl Fn(cryptoki::error::Error) -> Error {
        move |error| match error {
            cryptoki::error::Error::Pkcs11(code, function) => Error::call(doing, (function, code)),
            other => Error::Wrapper { doing, reason: other.to_string() },
        }
    }

    /// A PKCS#11 call that failed.
    pub(super) fn call(doing: &'static str, (function, code): (Function, RvError)) -> Error {
        Error::Call { doing, function: Some(function), code }
    }

    /// A short, stable code for metrics: the `CKR_…` name where there is one.
    pub fn code(&self) -> String {
        match self {
            Error::Call { code, .. } => recovery::name(*code),
            Error::PinIncorrect { .. } => "CKR_PIN_INCORRECT".into(),
            Error::PinLocked { .. } => "CKR_PIN_LOCKED".into(),
            Error::KeyMissing { .. } => "KEY_MISSING".into(),
            Error::KeyMismatch { .. } => "KEY_MISMATCH".into(),
            Error::TokenMissing { .. } => "TOKEN_MISSING".into(),
            Error::SignatureWrong { .. } => "SIGNATURE_WRONG".into(),
            Error::PublicKeyMissing { .. } => "PUBLIC_KEY_MISSING".into(),
            Error::ModuleBusy { .. } => "MODULE_BUSY".into(),
            Error::NoAnswer { .. } => "NO_ANSWER".into(),
            _ => "OTHER".into(),
        }
    }

    /// All codes but those of a vendor.
    pub(super) fn codes() -> impl Iterator<Item = &'static str> {
        recovery::names().chain([
            "KEY_MISSING",
            "KEY_MISMATCH",
            "TOKEN_MISSING",
            "SIGNATURE_WRONG",
            "PUBLIC_KEY_MISSING",
            "MODULE_BUSY",
            "NO_ANSWER",
            "OTHER",
        ])
    }

    /// What is done about it.
    pub(super) fn recovery(&self) -> Recovery {
        match self {
            Error::Call { function, code, .. } => recovery::recovery(*function, *code),
            Error::PinIncorrect { .. } | Error::PinLocked { .. } => Recovery::Operator,
            Error::Wrapper { .. } => Recovery::Suspect,
            _ => Recovery::Breaker,
        }
    }

    /// Whether time alone may mend it; what else is wrong is for the configuration, and refuses the start.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Error::Call { .. } => self.recovery() != Recovery::Operator,
            Error::Wrapper { .. }
            | Error::TokenMissing { .. }
            | Error::ModuleRefused { .. }
            | Error::ModuleBusy { .. }
            | Error::NoAnswer { .. } => true,
            _ => false,
        }
    }

    /// Whether the token did not open a session. Many say so in another code than CKR_SESSION_COUNT when they have no
    /// room for more.
    pub(super) fn refuses_session(&self) -> bool {
        matches!(self, Error::Call { function: Some(Function::OpenSession), .. })
    }

    /// Whether the session's handle is already void, so that closing it might close another that was given its number.
    pub(super) fn voids_session(&self) -> bool {
        matches!(
            self,
            Error::Call {
                code: RvError::SessionHandleInvalid | RvError::SessionClosed | RvError::CryptokiNotInitialized,
                ..
            }
        )
    }
}

fn called(function: Option<Function>) -> String {
    function.map_or_else(|| "the call".to_owned(), |function| format!("C_{function:?}"))
}

fn known_tokens(labels: &[String]) -> String {
    if labels.is_empty() {
        "the module shows no token at all: initialise one, or check the environment variables that the module reads"
            .into()
    } else {
        format!("the tokens are {}", quoted(labels))
    }
}

fn known_keys(labels: &[String]) -> String {
    if labels.is_empty() {
        "it shows no private key at all: make one with birthmark ceremony, or, if it had one, look whether the token is still there"
            .into()
    } else {
        format!("its private keys are {}", quoted(labels))
    }
}

/// How the URI can name one of several private keys, by their labels and ids.
fn tell_apart(known: &[(String, Vec<u8>)]) -> String {
    let distinct = |mut names: Vec<String>| {
        names.sort_unstable();
        names.windows(2).all(|pair| pair[0] != pair[1]) && names.iter().all(|name| !name.is_empty())
    };
    let labels: Vec<_> = known.iter().map(|(label, _)| label.clone()).collect();
    let ids: Vec<_> = known.iter().map(|(_, id)| hex::encode(id)).collect();
    if distinct(ids.clone()) {
        format!("name one of them with id=%… in the PKCS#11 URI (their ids are {})", ids.join(", "))
    } else if distinct(labels.clone()) {
        format!("name one of them with object=… in the PKCS#11 URI (their labels are {})", quoted(&labels))
    } else {
        let named: Vec<_> = known.iter().map(|(label, id)| format!("\"{label}\" {}", hex::encode(id))).collect();
        let named = named.join(", ");
        format!("neither label nor id tells them apart ({named}): give each a CKA_ID of its own with the HSM's tools")
    }
}

fn quoted(labels: &[String]) -> String {
    labels.iter().map(|label| format!("\"{label}\"")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failed call is shown with its names in the standard.
    #[test]
    fn error_of_a_call_names_function_and_code_as_pkcs11_does() {
        let error = Error::doing("signing")(cryptoki::error::Error::Pkcs11(RvError::DeviceError, Function::Sign));
        assert_eq!(error.to_string(), "signing: C_Sign failed with CKR_DEVICE_ERROR");
    }
}
