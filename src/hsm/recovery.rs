//! The table of recovery actions: what each return code of PKCS#11 means for a token that signs.

use std::sync::LazyLock;

use cryptoki::{
    context::Function,
    error::{Rv, RvError},
};
use cryptoki_sys::{CK_RV, CKR_VENDOR_DEFINED};

/// What is done about a failed call. Whatever it is, the message that was to be signed is signed again, in another
/// session or by another token, until the pool's time for it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Not counted as a failure of the call.
    NoFailure,
    /// The session, the login or a handle is gone, the token is not: a new session.
    NewSession,
    /// It may be a passing trouble or a lasting one: a new session; the breaker opens when it comes again and again
    /// with no signature between.
    Suspect,
    /// The token or the module is gone or unfit: the breaker opens at once, and a probe closes it.
    Breaker,
    /// The token has no room for more sessions: run with fewer.
    Capacity,
    /// The login needs a person: trying again by itself might lock the PIN. Only `C_Login` has this; what an operator
    /// does about it is `birthmark hsm retry`.
    Operator,
}

use Recovery::{Breaker, Capacity, NewSession, NoFailure, Operator, Suspect};

macro_rules! table {
    ($($action:ident: $($code:ident)*;)*) => {
        const TABLE: &[(CK_RV, &str, Recovery)] = &[$($((cryptoki_sys::$code, stringify!($code), $action)),*),*];
    };
}

// Every return code of PKCS#11 up to 3.2.
table! {
    NoFailure: CKR_OK CKR_USER_ALREADY_LOGGED_IN CKR_CRYPTOKI_ALREADY_INITIALIZED CKR_NO_EVENT;

    // An operation that another call left active (OPERATION_ACTIVE, BUFFER_TOO_SMALL) goes with its session too.
    NewSession: CKR_SESSION_CLOSED CKR_SESSION_HANDLE_INVALID CKR_OBJECT_HANDLE_INVALID CKR_KEY_HANDLE_INVALID
        CKR_USER_NOT_LOGGED_IN CKR_OPERATION_ACTIVE CKR_OPERATION_NOT_INITIALIZED CKR_OPERATION_CANCEL_FAILED
        CKR_BUFFER_TOO_SMALL CKR_FUNCTION_CANCELED CKR_CANCEL CKR_KEY_CHANGED CKR_KEY_NEEDED
        CKR_SESSION_PARALLEL_NOT_SUPPORTED CKR_SESSION_READ_ONLY CKR_SESSION_EXISTS CKR_SESSION_READ_ONLY_EXISTS
        CKR_PENDING CKR_SESSION_ASYNC_NOT_SUPPORTED CKR_SAVED_STATE_INVALID CKR_STATE_UNSAVEABLE;

    // DEVICE_ERROR and GENERAL_ERROR are what modules say of everything from a lost packet to a dead card.
    Suspect: CKR_GENERAL_ERROR CKR_FUNCTION_FAILED CKR_DEVICE_ERROR CKR_HOST_MEMORY CKR_FUNCTION_REJECTED
        CKR_MUTEX_BAD CKR_MUTEX_NOT_LOCKED CKR_FUNCTION_NOT_PARALLEL CKR_RANDOM_NO_RNG CKR_SEED_RANDOM_REQUIRED
        CKR_RANDOM_SEED_NOT_SUPPORTED CKR_OPERATION_NOT_VALIDATED CKR_EXCEEDED_MAX_ITERATIONS CKR_SIGNATURE_INVALID
        CKR_SIGNATURE_LEN_RANGE CKR_DATA_INVALID CKR_DATA_LEN_RANGE CKR_ARGUMENTS_BAD CKR_VENDOR_DEFINED;

    // The first row is of tokens and modules; in the others the key or the HSM's policy was changed under us, which its
    // administrator may change back: the probe finds out.
    Breaker: CKR_DEVICE_REMOVED CKR_TOKEN_NOT_PRESENT CKR_TOKEN_NOT_RECOGNIZED CKR_SLOT_ID_INVALID
        CKR_TOKEN_NOT_INITIALIZED CKR_CRYPTOKI_NOT_INITIALIZED CKR_LIBRARY_LOAD_FAILED CKR_FIPS_SELF_TEST_FAILED
        CKR_NEED_TO_CREATE_THREADS CKR_CANT_LOCK CKR_SESSION_READ_WRITE_SO_EXISTS CKR_USER_ANOTHER_ALREADY_LOGGED_IN
        CKR_USER_TOO_MANY_TYPES CKR_USER_TYPE_INVALID CKR_TOKEN_WRITE_PROTECTED
        CKR_FUNCTION_NOT_SUPPORTED CKR_MECHANISM_INVALID CKR_MECHANISM_PARAM_INVALID CKR_KEY_FUNCTION_NOT_PERMITTED
        CKR_KEY_TYPE_INCONSISTENT CKR_KEY_SIZE_RANGE CKR_KEY_EXHAUSTED CKR_KEY_NOT_NEEDED CKR_KEY_INDIGESTIBLE
        CKR_KEY_NOT_WRAPPABLE CKR_KEY_UNEXTRACTABLE CKR_ACTION_PROHIBITED CKR_DOMAIN_PARAMS_INVALID
        CKR_CURVE_NOT_SUPPORTED CKR_PARAMETER_SET_NOT_SUPPORTED CKR_PUBLIC_KEY_INVALID
        CKR_ATTRIBUTE_READ_ONLY CKR_ATTRIBUTE_SENSITIVE CKR_ATTRIBUTE_TYPE_INVALID CKR_ATTRIBUTE_VALUE_INVALID
        CKR_TEMPLATE_INCOMPLETE CKR_TEMPLATE_INCONSISTENT CKR_INFORMATION_SENSITIVE CKR_ENCRYPTED_DATA_INVALID
        CKR_ENCRYPTED_DATA_LEN_RANGE CKR_AEAD_DECRYPT_FAILED CKR_WRAPPED_KEY_INVALID CKR_WRAPPED_KEY_LEN_RANGE
        CKR_WRAPPING_KEY_HANDLE_INVALID CKR_WRAPPING_KEY_SIZE_RANGE CKR_WRAPPING_KEY_TYPE_INCONSISTENT
        CKR_UNWRAPPING_KEY_HANDLE_INVALID CKR_UNWRAPPING_KEY_SIZE_RANGE CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT;

    Capacity: CKR_SESSION_COUNT CKR_DEVICE_MEMORY CKR_TOKEN_RESOURCE_EXCEEDED;

    // Of C_Login. From any other call they cost no try of the PIN, and may pass: they are suspect.
    Operator: CKR_PIN_INCORRECT CKR_PIN_INVALID CKR_PIN_LEN_RANGE CKR_PIN_EXPIRED CKR_PIN_LOCKED CKR_PIN_TOO_WEAK
        CKR_USER_PIN_NOT_INITIALIZED CKR_NEW_PIN_MODE CKR_NEXT_OTP;
}

/// The table by cryptoki's form of a code. cryptoki does not know the newest by name and keeps their number.
static BY_ERROR: LazyLock<Vec<(RvError, &'static str, Recovery)>> = LazyLock::new(|| {
    let error = |(code, name, recovery): &(CK_RV, &'static str, Recovery)| match Rv::from(*code) {
        Rv::Ok => None,
        Rv::Error(error) => Some((error, *name, *recovery)),
    };
    TABLE.iter().filter_map(error).collect()
});

/// What is done about a return code of this function. A vendor's own code, and one that no standard knows, is suspect.
pub(super) fn recovery(function: Option<Function>, code: RvError) -> Recovery {
    match find(code).map_or(Suspect, |(_, _, recovery)| *recovery) {
        // A session that is logged in tries no PIN: whatever the token means by it, it is not a refused try.
        Operator if !matches!(function, Some(Function::Login)) => Suspect,
        recovery => recovery,
    }
}

/// The code's name in the standard, or its number.
pub(super) fn name(code: RvError) -> String {
    match (code, find(code)) {
        (RvError::VendorDefined(value), _) if value != CKR_VENDOR_DEFINED => {
            format!("CKR_VENDOR_DEFINED (0x{value:08x})")
        }
        (RvError::UnknownErrorCode(value), None) => format!("0x{value:08x}"),
        (_, Some((_, name, _))) => (*name).to_owned(),
        (other, None) => format!("{other:?}"),
    }
}

/// The names of all codes that say that a call failed.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().filter(|(_, _, recovery)| *recovery != NoFailure).map(|(_, name, _)| *name)
}

fn find(code: RvError) -> Option<&'static (RvError, &'static str, Recovery)> {
    BY_ERROR.iter().find(|(known, ..)| *known == code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_return_code_of_the_standard_has_one_recovery() {
        let codes: BTreeSet<CK_RV> = TABLE.iter().map(|(code, ..)| *code).collect();
        assert_eq!(codes.len(), TABLE.len(), "a code stands twice");
        assert_eq!(codes.len(), 105, "as many as the header of PKCS#11 3.2 defines");
        for value in 0..=0x1000 {
            if !matches!(Rv::from(value), Rv::Error(RvError::UnknownErrorCode(_))) {
                assert!(codes.contains(&value), "0x{value:x} is not in the table");
            }
        }
        for (code, name, recovery) in TABLE {
            let Rv::Error(error) = Rv::from(*code) else { continue };
            assert_eq!(
                (super::recovery(Some(Function::Login), error), super::name(error).as_str()),
                (*recovery, *name)
            );
        }
    }

    #[test]
    fn only_a_login_waits_for_an_operator() {
        for (code, _, recovery) in TABLE {
            let Rv::Error(error) = Rv::from(*code) else { continue };
            for function in [Function::SignInit, Function::Sign, Function::OpenSession, Function::FindObjectsInit] {
                let expected = if *recovery == Operator { Suspect } else { *recovery };
                assert_eq!(super::recovery(Some(function), error), expected, "{error:?} of {function:?}");
            }
        }
    }

    #[test]
    fn recovery_of_the_commonest_codes_is_pinned() {
        for (code, expected) in [
            (RvError::SessionHandleInvalid, NewSession),
            (RvError::UserNotLoggedIn, NewSession),
            (RvError::ObjectHandleInvalid, NewSession),
            (RvError::GeneralError, Suspect),
            (RvError::DeviceError, Suspect),
            (RvError::VendorDefined(0x8000_0042), Suspect),
            (RvError::UnknownErrorCode(0x7777), Suspect),
            (RvError::DeviceRemoved, Breaker),
            (RvError::TokenNotPresent, Breaker),
            (RvError::CryptokiNotInitialized, Breaker),
            (RvError::SessionCount, Capacity),
            (RvError::DeviceMemory, Capacity),
            (RvError::PinIncorrect, Operator),
            (RvError::PinLocked, Operator),
        ] {
            assert_eq!(recovery(Some(Function::Login), code), expected, "{code:?}");
        }
        assert_eq!(name(RvError::VendorDefined(0x8000_0042)), "CKR_VENDOR_DEFINED (0x80000042)");
        assert_eq!(name(RvError::UnknownErrorCode(0x7777)), "0x00007777");
        assert_eq!(name(RvError::UnknownErrorCode(0x208)), "CKR_TOKEN_NOT_INITIALIZED");
    }
}
