//! The script: which faults, when. One fault a line, words separated by spaces, `#` begins a comment.
//!
//! ```text
//! version 7                                    echoed in the report, so that a test knows that it is in force
//! latency C_Sign 5ms [jitter 2ms] [WHEN]       the call takes at least so long
//! parallel 32                                  this number of C_Sign at a time; the others wait, as at a real HSM
//! sessions 4                                   each token has room for this number; more are CKR_SESSION_COUNT
//! fail C_Sign CKR_DEVICE_ERROR [WHEN]          the call is not passed on and returns this
//! hang C_Sign 3s [WHEN]                        the call waits, then is passed on
//! wrong-signature [WHEN]                       a bit of the signature is turned
//! remove LABEL                                 the token is gone as long as the line is there
//! vanish LABEL                                 as remove, and the token stays gone until the module is initialised again
//! lose-sessions                                once: all sessions are closed, as after a lost connection
//! dead                                         everything is refused until C_Finalize and C_Initialize
//! ```
//!
//! WHEN is any of `rate 0.05` (seeded), `calls 3..5` (of this function, counted from the script's start), `token LABEL`.
//! The function `*` is every function but C_Initialize, C_Finalize and those without arguments to tell by.

use std::time::Duration;

use cryptoki_sys::CK_RV;

/// When a fault happens.
#[derive(Clone, Debug, Default)]
pub(crate) struct When {
    pub(crate) function: Option<String>,
    pub(crate) rate: Option<f64>,
    pub(crate) calls: Option<(u64, u64)>,
    pub(crate) token: Option<String>,
}

/// What a fault does.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    Latency { fixed: Duration, jitter: Duration },
    Fail(CK_RV),
    Hang(Duration),
    WrongSignature,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) version: u64,
    pub(crate) parallel: Option<usize>,
    pub(crate) sessions: Option<usize>,
    pub(crate) faults: Vec<(When, Effect)>,
    pub(crate) removed: Vec<String>,
    pub(crate) vanished: Vec<String>,
    pub(crate) lose_sessions: bool,
    pub(crate) dead: bool,
}

impl Script {
    /// Reads the script; a line that is not understood is an error, or a test would test nothing.
    pub(crate) fn parse(text: &str) -> Result<Script, String> {
        let mut script = Script::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(verb) = words.next() else { continue };
            script.line(verb, &mut words).ok_or_else(|| format!("not understood: {line}"))?;
            if words.next().is_some() {
                return Err(format!("too much: {line}"));
            }
        }
        Ok(script)
    }

    fn line<'a>(&mut self, verb: &str, words: &mut impl Iterator<Item = &'a str>) -> Option<()> {
        match verb {
            "version" => self.version = words.next()?.parse().ok()?,
            "parallel" => self.parallel = Some(words.next()?.parse().ok()?),
            "sessions" => self.sessions = Some(words.next()?.parse().ok()?),
            "remove" => self.removed.push(words.next()?.to_owned()),
            "vanish" => self.vanished.push(words.next()?.to_owned()),
            "lose-sessions" => self.lose_sessions = true,
            "dead" => self.dead = true,
            "wrong-signature" => {
                let mut when = When { function: Some("C_Sign".into()), ..When::default() };
                let jitter = conditions(&mut when, words)?;
                if jitter.is_some() {
                    return None;
                }
                self.faults.push((when, Effect::WrongSignature));
            }
            "latency" | "fail" | "hang" => {
                let function = words.next()?;
                let mut when = When { function: (function != "*").then(|| function.to_owned()), ..When::default() };
                let value = words.next()?;
                let jitter = conditions(&mut when, words)?;
                let effect = match verb {
                    "latency" => Effect::Latency { fixed: duration(value)?, jitter: jitter.unwrap_or_default() },
                    "hang" => Effect::Hang(duration(value)?),
                    _ => Effect::Fail(code(value)?),
                };
                self.faults.push((when, effect));
            }
            _ => return None,
        }
        Some(())
    }
}

fn conditions<'a>(when: &mut When, words: &mut impl Iterator<Item = &'a str>) -> Option<Option<Duration>> {
    let mut jitter = None;
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word {
            "rate" => when.rate = Some(value.parse().ok()?),
            "token" => when.token = Some(value.to_owned()),
            "jitter" => jitter = Some(duration(value)?),
            "calls" => {
                let (first, last) = value.split_once("..")?;
                when.calls = Some((first.parse().ok()?, last.parse().ok()?));
            }
            _ => return None,
        }
    }
    Some(jitter)
}

fn duration(text: &str) -> Option<Duration> {
    for (unit, seconds) in [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)] {
        if let Some(number) = text.strip_suffix(unit)
            && let Ok(number) = number.parse::<f64>()
        {
            return Some(Duration::from_secs_f64(number * seconds));
        }
    }
    None
}

/// A return value by its name in the standard, or `0x…`.
fn code(name: &str) -> Option<CK_RV> {
    if let Some(hex) = name.strip_prefix("0x") {
        return CK_RV::from_str_radix(hex, 16).ok();
    }
    CODES.iter().find(|(known, _)| *known == name).map(|(_, code)| *code)
}

macro_rules! codes {
    ($($name:ident)*) => { &[$((stringify!($name), cryptoki_sys::$name)),*] };
}

/// Every return code of PKCS#11 up to 3.2 but CKR_OK.
pub(crate) const CODES: &[(&str, CK_RV)] = codes! {
    CKR_ACTION_PROHIBITED CKR_AEAD_DECRYPT_FAILED CKR_ARGUMENTS_BAD CKR_ATTRIBUTE_READ_ONLY CKR_ATTRIBUTE_SENSITIVE
    CKR_ATTRIBUTE_TYPE_INVALID CKR_ATTRIBUTE_VALUE_INVALID CKR_BUFFER_TOO_SMALL CKR_CANCEL CKR_CANT_LOCK
    CKR_CRYPTOKI_ALREADY_INITIALIZED CKR_CRYPTOKI_NOT_INITIALIZED CKR_CURVE_NOT_SUPPORTED CKR_DATA_INVALID
    CKR_DATA_LEN_RANGE CKR_DEVICE_ERROR CKR_DEVICE_MEMORY CKR_DEVICE_REMOVED CKR_DOMAIN_PARAMS_INVALID
    CKR_ENCRYPTED_DATA_INVALID CKR_ENCRYPTED_DATA_LEN_RANGE CKR_EXCEEDED_MAX_ITERATIONS CKR_FIPS_SELF_TEST_FAILED
    CKR_FUNCTION_CANCELED CKR_FUNCTION_FAILED CKR_FUNCTION_NOT_PARALLEL CKR_FUNCTION_NOT_SUPPORTED
    CKR_FUNCTION_REJECTED CKR_GENERAL_ERROR CKR_HOST_MEMORY CKR_INFORMATION_SENSITIVE CKR_KEY_CHANGED
    CKR_KEY_EXHAUSTED CKR_KEY_FUNCTION_NOT_PERMITTED CKR_KEY_HANDLE_INVALID CKR_KEY_INDIGESTIBLE CKR_KEY_NEEDED
    CKR_KEY_NOT_NEEDED CKR_KEY_NOT_WRAPPABLE CKR_KEY_SIZE_RANGE CKR_KEY_TYPE_INCONSISTENT CKR_KEY_UNEXTRACTABLE
    CKR_LIBRARY_LOAD_FAILED CKR_MECHANISM_INVALID CKR_MECHANISM_PARAM_INVALID CKR_MUTEX_BAD CKR_MUTEX_NOT_LOCKED
    CKR_NEED_TO_CREATE_THREADS CKR_NEW_PIN_MODE CKR_NEXT_OTP CKR_NO_EVENT CKR_OBJECT_HANDLE_INVALID
    CKR_OPERATION_ACTIVE CKR_OPERATION_CANCEL_FAILED CKR_OPERATION_NOT_INITIALIZED CKR_OPERATION_NOT_VALIDATED
    CKR_PARAMETER_SET_NOT_SUPPORTED CKR_PENDING CKR_PIN_EXPIRED CKR_PIN_INCORRECT CKR_PIN_INVALID CKR_PIN_LEN_RANGE
    CKR_PIN_LOCKED CKR_PIN_TOO_WEAK CKR_PUBLIC_KEY_INVALID CKR_RANDOM_NO_RNG CKR_RANDOM_SEED_NOT_SUPPORTED
    CKR_SAVED_STATE_INVALID CKR_SEED_RANDOM_REQUIRED CKR_SESSION_ASYNC_NOT_SUPPORTED CKR_SESSION_CLOSED
    CKR_SESSION_COUNT CKR_SESSION_EXISTS CKR_SESSION_HANDLE_INVALID CKR_SESSION_PARALLEL_NOT_SUPPORTED
    CKR_SESSION_READ_ONLY CKR_SESSION_READ_ONLY_EXISTS CKR_SESSION_READ_WRITE_SO_EXISTS CKR_SIGNATURE_INVALID
    CKR_SIGNATURE_LEN_RANGE CKR_SLOT_ID_INVALID CKR_STATE_UNSAVEABLE CKR_TEMPLATE_INCOMPLETE CKR_TEMPLATE_INCONSISTENT
    CKR_TOKEN_NOT_INITIALIZED CKR_TOKEN_NOT_PRESENT CKR_TOKEN_NOT_RECOGNIZED CKR_TOKEN_RESOURCE_EXCEEDED
    CKR_TOKEN_WRITE_PROTECTED CKR_UNWRAPPING_KEY_HANDLE_INVALID CKR_UNWRAPPING_KEY_SIZE_RANGE
    CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT CKR_USER_ALREADY_LOGGED_IN CKR_USER_ANOTHER_ALREADY_LOGGED_IN
    CKR_USER_NOT_LOGGED_IN CKR_USER_PIN_NOT_INITIALIZED CKR_USER_TOO_MANY_TYPES CKR_USER_TYPE_INVALID
    CKR_VENDOR_DEFINED CKR_WRAPPED_KEY_INVALID CKR_WRAPPED_KEY_LEN_RANGE CKR_WRAPPING_KEY_HANDLE_INVALID
    CKR_WRAPPING_KEY_SIZE_RANGE CKR_WRAPPING_KEY_TYPE_INCONSISTENT
};
