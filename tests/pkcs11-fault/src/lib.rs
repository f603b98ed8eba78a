//! A PKCS#11 module for tests: loads the real module that the environment variable `PKCS11_FAULT_MODULE` names and
//! passes every call on, with the faults of the script that `PKCS11_FAULT_SCRIPT` names. The script may be changed at
//! any time. What was seen is written next to it, as `<script>.report`, some milliseconds later.
//!
//! The functions that Birthmark uses are wrapped here; the others are the real module's own.

// A test's files need not survive a crash.
#![allow(clippy::disallowed_methods)]
// The unsafe functions of this crate are called by a PKCS#11 application, whose duties are the standard's.
#![allow(unsafe_op_in_unsafe_fn, clippy::missing_safety_doc, non_snake_case)]

mod report;
mod script;

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use cryptoki_sys::*;
use report::Calls;
use script::{Effect, Script};

/// How often the script is looked at and the report written.
const TICK: Duration = Duration::from_millis(5);

static REAL: OnceLock<Real> = OnceLock::new();
static SCRIPT: LazyLock<RwLock<Arc<Script>>> = LazyLock::new(RwLock::default);
/// The slot of each open session, and the token's label of each slot seen.
static SESSIONS: LazyLock<Mutex<HashMap<CK_SESSION_HANDLE, CK_SLOT_ID>>> = LazyLock::new(Mutex::default);
/// The sessions that the real module has open; of the others in [`SESSIONS`] the handles are void.
static OPEN: LazyLock<Mutex<HashSet<CK_SESSION_HANDLE>>> = LazyLock::new(Mutex::default);
static LABELS: LazyLock<Mutex<HashMap<CK_SLOT_ID, String>>> = LazyLock::new(Mutex::default);
/// The tokens that stay gone until the module is initialised again.
static VANISHED: LazyLock<Mutex<Vec<String>>> = LazyLock::new(Mutex::default);
static DEAD: AtomicBool = AtomicBool::new(false);
static INITIALISED: AtomicBool = AtomicBool::new(false);
static RANDOM: AtomicU64 = AtomicU64::new(0x5eed);
/// Held shared by every call of the real module, and exclusively while its sessions are closed: SoftHSM crashes when a
/// session is closed under a running call.
static CALLING: RwLock<()> = RwLock::new(());
static SIGNING: Mutex<usize> = Mutex::new(0);
static SIGNED: Condvar = Condvar::new();

/// The names of all return codes that a script may give, for tests that try them all.
pub fn return_codes() -> impl Iterator<Item = &'static str> {
    script::CODES.iter().map(|(name, _)| *name)
}

/// Whether the token is gone.
fn is_removed(script: &Script, label: &String) -> bool {
    script.removed.contains(label) || lock(&VANISHED).contains(label)
}

struct Real {
    /// Keeps the functions in memory.
    _library: Pkcs11,
    functions: CK_FUNCTION_LIST,
    /// The real functions, and ours where there are.
    wrapped: CK_FUNCTION_LIST,
}

// The list holds function pointers and a version, which no one changes.
unsafe impl Send for Real {}
unsafe impl Sync for Real {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn real() -> &'static CK_FUNCTION_LIST {
    &REAL.get().expect("C_GetFunctionList is called first").functions
}

fn in_force() -> Arc<Script> {
    Arc::clone(&SCRIPT.read().unwrap_or_else(PoisonError::into_inner))
}

/// The entry point.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    if REAL.get().is_none() {
        let Some(module) = env::var_os("PKCS11_FAULT_MODULE") else {
            eprintln!("pkcs11-fault: PKCS11_FAULT_MODULE must name the real module");
            return CKR_GENERAL_ERROR;
        };
        // Loading runs the real module's initialisers, as loading it directly would.
        let Ok(library) = Pkcs11::new(&module) else {
            eprintln!("pkcs11-fault: {} cannot be loaded", PathBuf::from(module).display());
            return CKR_GENERAL_ERROR;
        };
        let mut functions = std::ptr::null_mut();
        let code = library.C_GetFunctionList(&mut functions);
        if code != CKR_OK {
            return code;
        }
        let functions = *functions;
        let _ = REAL.set(Real { _library: library, functions, wrapped: wrap(functions) });
        if let Some(script) = env::var_os("PKCS11_FAULT_SCRIPT") {
            let script = PathBuf::from(script);
            let mut seen = Seen::default();
            follow(&script, &mut seen);
            thread::spawn(move || {
                loop {
                    thread::sleep(TICK);
                    follow(&script, &mut seen);
                }
            });
        }
    }
    let Some(real) = REAL.get() else { return CKR_GENERAL_ERROR };
    *list = std::ptr::from_ref(&real.wrapped).cast_mut();
    CKR_OK
}

#[derive(Default)]
struct Seen {
    script: String,
    report: String,
}

/// Takes a changed script, and writes a changed report.
fn follow(path: &Path, seen: &mut Seen) {
    if let Ok(text) = fs::read_to_string(path)
        && text != seen.script
    {
        match Script::parse(&text) {
            Ok(script) => {
                // In the order that no call sees the new faults with the old counts.
                report::new_script();
                let before = in_force();
                let script = Arc::new(script);
                *SCRIPT.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&script);
                lock(&VANISHED).extend(script.vanished.iter().cloned());
                if script.dead {
                    DEAD.store(true, Ordering::SeqCst);
                }
                let gone = |script: &Script| [&script.removed[..], &script.vanished[..]].concat();
                let removed = gone(&script).into_iter().filter(|label| !gone(&before).contains(label)).collect();
                close_sessions(script.lose_sessions, removed);
                seen.script = text;
            }
            Err(error) => eprintln!("pkcs11-fault: {}: {error}", path.display()),
        }
    }
    let report = report::text(in_force().version);
    if report != seen.report {
        let (new, place) = (path.with_extension("new"), path.with_extension("report"));
        if fs::write(&new, &report).is_ok() && fs::rename(new, place).is_ok() {
            seen.report = report;
        }
    }
}

/// The real module loses its sessions, and with them the login.
fn close_sessions(all: bool, removed: Vec<String>) {
    let lost: Vec<_> =
        lock(&LABELS).iter().filter(|(_, label)| all || removed.contains(label)).map(|(slot, _)| *slot).collect();
    if let Some(close) = real().C_CloseAllSessions
        && INITIALISED.load(Ordering::SeqCst)
    {
        let _alone = CALLING.write().unwrap_or_else(PoisonError::into_inner);
        for slot in &lost {
            unsafe { close(*slot) };
        }
        let sessions = lock(&SESSIONS);
        lock(&OPEN).retain(|session| sessions.get(session).is_none_or(|slot| !lost.contains(slot)));
    }
}

/// The label of the token in a slot, if it has one.
fn label_of(slot: CK_SLOT_ID) -> Option<String> {
    if let Some(label) = lock(&LABELS).get(&slot) {
        return Some(label.clone());
    }
    let mut info = CK_TOKEN_INFO::default();
    let code = unsafe { real().C_GetTokenInfo?(slot, &mut info) };
    let label = String::from_utf8_lossy(&info.label).trim_end().to_owned();
    if code != CKR_OK || label.is_empty() {
        return None;
    }
    lock(&LABELS).insert(slot, label.clone());
    Some(label)
}

/// What a call is about.
#[derive(Clone, Copy)]
enum About {
    Nothing,
    Slot(CK_SLOT_ID),
    Session(CK_SESSION_HANDLE),
}

impl About {
    fn label(self) -> Option<String> {
        match self {
            About::Nothing => None,
            About::Slot(slot) => label_of(slot),
            About::Session(session) => {
                let slot = lock(&SESSIONS).get(&session).copied();
                slot.and_then(label_of)
            }
        }
    }
}

/// A number in 0..1; the same sequence in every process.
fn random() -> f64 {
    let mut x = RANDOM.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// What becomes of a call.
#[derive(Default)]
struct Verdict {
    code: Option<CK_RV>,
    delay: Duration,
    wrong_signature: bool,
}

fn judge(script: &Script, function: &'static str, calls: &Calls, about: About) -> Verdict {
    calls.all.fetch_add(1, Ordering::Relaxed);
    let number = calls.of_script.fetch_add(1, Ordering::Relaxed) + 1;
    let mut verdict = Verdict::default();
    if DEAD.load(Ordering::SeqCst) && !matches!(function, "C_Initialize" | "C_Finalize") {
        verdict.code = Some(CKR_CRYPTOKI_NOT_INITIALIZED);
        return verdict;
    }
    if let Some(label) = about.label()
        && is_removed(script, &label)
    {
        let of_session = matches!(about, About::Session(_));
        verdict.code = Some(if of_session { CKR_DEVICE_REMOVED } else { CKR_TOKEN_NOT_PRESENT });
        return verdict;
    }
    for (when, effect) in &script.faults {
        let named = match &when.function {
            Some(name) => name == function,
            None => !matches!(function, "C_Initialize" | "C_Finalize"),
        };
        let happens = named
            && when.calls.is_none_or(|(first, last)| (first..=last).contains(&number))
            && when.token.as_ref().is_none_or(|wanted| about.label().as_ref() == Some(wanted))
            && when.rate.is_none_or(|rate| random() < rate);
        if !happens {
            continue;
        }
        match effect {
            Effect::Latency { fixed, jitter } => verdict.delay += *fixed + jitter.mul_f64(random()),
            Effect::Hang(time) => verdict.delay += *time,
            Effect::Fail(code) => verdict.code = verdict.code.or(Some(*code)),
            Effect::WrongSignature => verdict.wrong_signature = true,
        }
    }
    verdict
}

fn calling() -> RwLockReadGuard<'static, ()> {
    CALLING.read().unwrap_or_else(PoisonError::into_inner)
}

fn wait(delay: Duration) {
    if !delay.is_zero() {
        thread::sleep(delay);
    }
}

/// One of the places of `parallel`.
struct Place;

impl Place {
    fn take(script: &Script) -> Option<Place> {
        let most = script.parallel?;
        let mut signing = lock(&SIGNING);
        while *signing >= most {
            signing = SIGNED.wait(signing).unwrap_or_else(PoisonError::into_inner);
        }
        *signing += 1;
        Some(Place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *lock(&SIGNING) -= 1;
        SIGNED.notify_one();
    }
}

/// A function that is passed on unless the script says otherwise.
macro_rules! pass {
    ($name:ident, $about:expr, ($($argument:ident: $type:ty),*)) => {
        unsafe extern "C" fn $name($($argument: $type),*) -> CK_RV {
            static CALLS: LazyLock<&'static Calls> = LazyLock::new(|| report::calls(stringify!($name)));
            let verdict = judge(&in_force(), stringify!($name), &CALLS, $about);
            wait(verdict.delay);
            let _calling = calling();
            match (verdict.code, real().$name) {
                (Some(code), _) => code,
                (None, Some(function)) => function($($argument),*),
                (None, None) => CKR_FUNCTION_NOT_SUPPORTED,
            }
        }
    };
}

pass!(C_GetInfo, About::Nothing, (info: *mut CK_INFO));
pass!(C_GetSlotInfo, About::Slot(slot), (slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO));
pass!(C_GetTokenInfo, About::Slot(slot), (slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO));
pass!(C_GetMechanismList, About::Slot(slot), (slot: CK_SLOT_ID, list: *mut CK_MECHANISM_TYPE, count: *mut CK_ULONG));
pass!(C_GetMechanismInfo, About::Slot(slot), (slot: CK_SLOT_ID, kind: CK_MECHANISM_TYPE, info: *mut CK_MECHANISM_INFO));
pass!(C_CloseAllSessions, About::Slot(slot), (slot: CK_SLOT_ID));
pass!(C_GetSessionInfo, About::Session(session), (session: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO));
pass!(
    C_Login,
    About::Session(session),
    (session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, length: CK_ULONG)
);
pass!(C_Logout, About::Session(session), (session: CK_SESSION_HANDLE));
pass!(
    C_GetAttributeValue,
    About::Session(session),
    (session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG)
);
pass!(
    C_FindObjectsInit,
    About::Session(session),
    (session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG)
);
pass!(
    C_FindObjects,
    About::Session(session),
    (session: CK_SESSION_HANDLE, objects: *mut CK_OBJECT_HANDLE, most: CK_ULONG, count: *mut CK_ULONG)
);
pass!(C_FindObjectsFinal, About::Session(session), (session: CK_SESSION_HANDLE));
pass!(
    C_SignUpdate,
    About::Session(session),
    (session: CK_SESSION_HANDLE, part: *mut CK_BYTE, length: CK_ULONG)
);
pass!(
    C_SignFinal,
    About::Session(session),
    (session: CK_SESSION_HANDLE, signature: *mut CK_BYTE, length: *mut CK_ULONG)
);

unsafe extern "C" fn C_Initialize(arguments: *mut std::ffi::c_void) -> CK_RV {
    static CALLS: LazyLock<&'static Calls> = LazyLock::new(|| report::calls("C_Initialize"));
    let verdict = judge(&in_force(), "C_Initialize", &CALLS, About::Nothing);
    wait(verdict.delay);
    if let Some(code) = verdict.code {
        return code;
    }
    let Some(initialise) = real().C_Initialize else { return CKR_FUNCTION_NOT_SUPPORTED };
    let code = initialise(arguments);
    if code == CKR_OK {
        DEAD.store(false, Ordering::SeqCst);
        *lock(&VANISHED) = in_force().vanished.clone();
        INITIALISED.store(true, Ordering::SeqCst);
    }
    code
}

unsafe extern "C" fn C_Finalize(reserved: *mut std::ffi::c_void) -> CK_RV {
    static CALLS: LazyLock<&'static Calls> = LazyLock::new(|| report::calls("C_Finalize"));
    let verdict = judge(&in_force(), "C_Finalize", &CALLS, About::Nothing);
    wait(verdict.delay);
    if let Some(code) = verdict.code {
        return code;
    }
    INITIALISED.store(false, Ordering::SeqCst);
    lock(&SESSIONS).clear();
    lock(&OPEN).clear();
    lock(&LABELS).clear();
    match real().C_Finalize {
        Some(finalise) => finalise(reserved),
        None => CKR_FUNCTION_NOT_SUPPORTED,
    }
}

/// Leaves removed tokens out.
unsafe extern "C" fn C_GetSlotList(present: CK_BBOOL, list: *mut CK_SLOT_ID, count: *mut CK_ULONG) -> CK_RV {
    static CALLS: LazyLock<&'static Calls> = LazyLock::new(|| report::calls("C_GetSlotList"));
    let script = in_force();
    let verdict = judge(&script, "C_GetSlotList", &CALLS, About::Nothing);
    wait(verdict.delay);
    let Some(slots_of) = real().C_GetSlotList else { return CKR_FUNCTION_NOT_SUPPORTED };
    if let Some(code) = verdict.code {
        return code;
    }
    let mut slots = vec![0; 1024];
    let mut found = slots.len() as CK_ULONG;
    let code = slots_of(present, slots.as_mut_ptr(), &mut found);
    if code != CKR_OK {
        return code;
    }
    slots.truncate(found as usize);
    slots.retain(|slot| label_of(*slot).is_none_or(|label| !is_removed(&script, &label)));
    let room = *count as usize;
    *count = slots.len() as CK_ULONG;
    if list.is_null() {
        return CKR_OK;
    }
    if room < slots.len() {
        return CKR_BUFFER_TOO_SMALL;
    }
    std::ptr::copy_nonoverlapping(slots.as_ptr(), list, slots.len());
    CKR_OK
}

unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut std::ffi::c_void,
    notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    static CALLS: LazyLock<&'static Calls> = LazyLock::new(|| report::calls("C_OpenSession"));
    let script = in_force();
    let verdict = judge(&script, "C_OpenSession", &CALLS, About::Slot(slot));
    wait(verdict.delay);
    if let Some(code) = verdict.code {
        return code;
    }
    let Some(open) = real().C_OpenSession else { return CKR_FUNCTION_NOT_SUPPORTED };
    let _calling = calling();
    // Held until it is counted: two threads must not both take the last room.
    let mut sessions = lock(&SESSIONS);
    let of_token = lock(&OPEN).iter().filter(|session| sessions.get(session) == Some(&slot)).count();
    if script.sessions.is_some_and(|most| of_token >= most) {
        return CKR_SESSION_COUNT;
    }
    let code = open(slot, flags, application, notify, session);
    if code == CKR_OK {
        sessions.insert(*session, slot);
        lock(&OPEN).insert(*session);
        drop(sessions);
        label_of(slot);
    }
    code
}

unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    static CALLS: LazyLock<&'static Calls> = LazyLock::new(|| report::calls("C_CloseSession"));
    let verdict = judge(&in_force(), "C_CloseSession", &CALLS, About::Session(session));
    wait(verdict.delay);
    if let Some(code) = verdict.code {
        return code;
    }
    let _calling = calling();
    let code = match real().C_CloseSession {
        Some(close) => close(session),
        None => CKR_FUNCTION_NOT_SUPPORTED,
    };
    // Not before the real module has room again.
    lock(&SESSIONS).remove(&session);
    lock(&OPEN).remove(&session);
    code
}

unsafe extern "C" fn C_SignInit(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    static CALLS: LazyLock<&'static Calls> = LazyLock::new(|| report::calls("C_SignInit"));
    report::sign_begins();
    let verdict = judge(&in_force(), "C_SignInit", &CALLS, About::Session(session));
    wait(verdict.delay);
    let _calling = calling();
    match (verdict.code, real().C_SignInit) {
        (Some(code), _) => code,
        (None, Some(function)) => function(session, mechanism, key),
        (None, None) => CKR_FUNCTION_NOT_SUPPORTED,
    }
}

unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    length: CK_ULONG,
    signature: *mut CK_BYTE,
    signature_length: *mut CK_ULONG,
) -> CK_RV {
    static CALLS: LazyLock<&'static Calls> = LazyLock::new(|| report::calls("C_Sign"));
    let script = in_force();
    let verdict = judge(&script, "C_Sign", &CALLS, About::Session(session));
    let place = Place::take(&script);
    wait(verdict.delay);
    let in_call = calling();
    let code = match (verdict.code, real().C_Sign) {
        (Some(code), _) => code,
        (None, Some(function)) => function(session, data, length, signature, signature_length),
        (None, None) => CKR_FUNCTION_NOT_SUPPORTED,
    };
    drop(in_call);
    drop(place);
    if code == CKR_OK && verdict.wrong_signature && !signature.is_null() {
        *signature.add(*signature_length as usize / 2) ^= 4;
    }
    report::signed();
    code
}

fn wrap(functions: CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
    macro_rules! ours {
        ($($name:ident)*) => { CK_FUNCTION_LIST { $($name: Some($name),)* ..functions } };
    }
    ours! {
        C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo C_GetTokenInfo
        C_GetMechanismList C_GetMechanismInfo C_OpenSession C_CloseSession C_CloseAllSessions C_GetSessionInfo
        C_Login C_Logout C_GetAttributeValue C_FindObjectsInit C_FindObjects C_FindObjectsFinal C_SignInit C_Sign
        C_SignUpdate C_SignFinal
    }
}
