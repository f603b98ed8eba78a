//! `C_SignInit`, `C_Sign` and `C_GetTokenInfo`, called through the module's own function list.
//!
//! cryptoki's `Session::sign` calls `C_Sign` twice, first only for the signature's length, which may cost a round trip
//! to a network HSM. The length is known from the key, so one call is enough. Its `get_token_info` fails for a token
//! whose clock it cannot read (openCryptoki's); the time is of no interest here.
#![expect(unsafe_code, reason = "functions of a C library are called")]

use std::{path::Path, ptr};

use cryptoki::{
    context::Function,
    error::{Rv, RvError},
    object::ObjectHandle,
    session::Session,
};
use cryptoki_sys::{
    CK_BYTE, CK_C_GetTokenInfo, CK_C_Sign, CK_C_SignInit, CK_FUNCTION_LIST, CK_MECHANISM, CK_MECHANISM_TYPE,
    CK_RSA_PKCS_MGF_TYPE, CK_RSA_PKCS_PSS_PARAMS, CK_RV, CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG, CKM_RSA_PKCS_PSS, CKR_OK,
    Pkcs11,
};

/// A call that failed, and how.
pub(super) type Failure = (Function, RvError);

/// The longest signature: RSA with 4096 bits.
pub(super) const LONGEST_SIGNATURE: usize = 512;

/// A mechanism to sign with, and its parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignMechanism {
    kind: CK_MECHANISM_TYPE,
    pss: Option<CK_RSA_PKCS_PSS_PARAMS>,
}

impl SignMechanism {
    /// One without a parameter.
    pub(super) fn plain(kind: CK_MECHANISM_TYPE) -> Self {
        SignMechanism { kind, pss: None }
    }

    /// CKM_RSA_PKCS_PSS with this hash, mask generation function and salt length in octets.
    pub(super) fn pss(hash: CK_MECHANISM_TYPE, mask: CK_RSA_PKCS_MGF_TYPE, salt: u8) -> Self {
        let parameters = CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash, mgf: mask, sLen: CK_ULONG::from(salt) };
        SignMechanism { kind: CKM_RSA_PKCS_PSS, pss: Some(parameters) }
    }
}

/// Why a module's functions cannot be called.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("{0}")]
    Library(String),
    #[error("it has no C_GetFunctionList")]
    NoFunctionList,
    #[error("C_GetFunctionList failed with 0x{0:08x}")]
    FunctionList(CK_RV),
}

/// The functions of a module that are called without cryptoki.
pub(super) struct Calls {
    sign_init: CK_C_SignInit,
    sign: CK_C_Sign,
    get_token_info: CK_C_GetTokenInfo,
    /// Keeps the functions in memory; dropped last.
    _library: Pkcs11,
}

impl Calls {
    /// Takes the functions from a module that cryptoki has loaded: loading it again only counts its users, and the list
    /// is asked for in cryptoki's order, so that both use the same one.
    pub(super) fn load(module: &Path) -> Result<Calls, LoadError> {
        // SAFETY: loading a library runs its initialisers. This one is loaded already, so none run.
        let library = unsafe { Pkcs11::new(module) }.map_err(|error| LoadError::Library(error.to_string()))?;
        let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
        if library.C_GetInterface.is_ok() {
            let mut interface = ptr::null_mut();
            // SAFETY: null name and version ask for the default interface (PKCS#11 3.0 section 5.4.5); the pointer to
            // it is valid until the library is unloaded. Each list begins with all of version 2's members.
            unsafe {
                if library.C_GetInterface(ptr::null_mut(), ptr::null_mut(), &mut interface, 0) == CKR_OK
                    && !interface.is_null()
                    && !(*interface).pFunctionList.is_null()
                    && (*(*interface).pFunctionList.cast::<CK_FUNCTION_LIST>()).version.major >= 3
                {
                    list = (*interface).pFunctionList.cast();
                }
            }
        }
        if list.is_null() {
            if library.C_GetFunctionList.is_err() {
                return Err(LoadError::NoFunctionList);
            }
            // SAFETY: `list` is where the function writes one pointer, valid until the library is unloaded.
            let code = unsafe { library.C_GetFunctionList(&mut list) };
            if code != CKR_OK || list.is_null() {
                return Err(LoadError::FunctionList(code));
            }
        }
        // SAFETY: the list is not null, and its members up to C_Sign are the same in all versions.
        let (sign_init, sign, get_token_info) = unsafe { ((*list).C_SignInit, (*list).C_Sign, (*list).C_GetTokenInfo) };
        Ok(Calls { sign_init, sign, get_token_info, _library: library })
    }

    /// What the token in a slot says that it is.
    pub(super) fn token_info(&self, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO, Failure> {
        let function = self.get_token_info.ok_or((Function::GetTokenInfo, RvError::FunctionNotSupported))?;
        let mut info = CK_TOKEN_INFO::default();
        // SAFETY: `info` is where the function writes one such structure.
        result(Function::GetTokenInfo, unsafe { function(slot, &mut info) })?;
        Ok(info)
    }

    /// Signs `data` and gives how many octets of `signature` are filled.
    ///
    /// `Session` is not `Sync`, so no other thread uses this session meanwhile.
    pub(super) fn sign(
        &self,
        session: &Session,
        key: ObjectHandle,
        mechanism: SignMechanism,
        data: &[u8],
        signature: &mut [u8; LONGEST_SIGNATURE],
    ) -> Result<usize, Failure> {
        let missing = RvError::FunctionNotSupported;
        let sign_init = self.sign_init.ok_or((Function::SignInit, missing))?;
        let sign = self.sign.ok_or((Function::Sign, missing))?;
        let SignMechanism { kind, mut pss } = mechanism;
        let (parameter, length) = match &mut pss {
            Some(parameters) => (ptr::from_mut(parameters).cast(), size_of::<CK_RSA_PKCS_PSS_PARAMS>()),
            None => (ptr::null_mut(), 0),
        };
        let mut mechanism = CK_MECHANISM { mechanism: kind, pParameter: parameter, ulParameterLen: length as CK_ULONG };
        // SAFETY: the mechanism and its parameter live until the call returns, and the standard has the module read it
        // before it does.
        result(Function::SignInit, unsafe { sign_init(session.handle(), &mut mechanism, key.handle()) })?;
        let mut length = signature.len() as CK_ULONG;
        // SAFETY: `data` is only read (the standard's C type lacks the const), `signature` has room for `length`
        // octets, and neither is kept after the call.
        let code = unsafe {
            sign(
                session.handle(),
                data.as_ptr().cast::<CK_BYTE>().cast_mut(),
                data.len() as CK_ULONG,
                signature.as_mut_ptr(),
                &mut length,
            )
        };
        result(Function::Sign, code)?;
        // A length beyond the buffer would be the module's lie.
        Ok((length as usize).min(signature.len()))
    }
}

fn result(function: Function, code: CK_RV) -> Result<(), Failure> {
    match Rv::from(code) {
        Rv::Ok => Ok(()),
        Rv::Error(error) => Err((function, error)),
    }
}

/// Ends the process at once with this exit code: nothing that was registered for the process' end runs.
pub(super) fn exit_at_once(code: u8) -> ! {
    unsafe extern "C" {
        safe fn _exit(status: std::ffi::c_int) -> !;
    }
    _exit(code.into())
}
