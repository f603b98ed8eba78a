//! The start-up checks one by one, for whoever brings a new HSM: `birthmark hsm check`.

use std::{path::Path, time::Instant};

use cryptoki_sys::{
    CKF_LOGIN_REQUIRED, CKF_PROTECTED_AUTHENTICATION_PATH, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_TO_BE_CHANGED,
};

use super::{
    error::Error,
    key::Key,
    sessions::{self, Sessions},
    token::Token,
    token_info::TokenInfo,
    uri::KeyUri,
};
use crate::signer::PublicKey;

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it must be.
    Ok,
    /// It works, and should be known.
    Note,
    /// The daemon does not start with it.
    Failed,
}

/// One line of the table.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Check {
    /// What was looked at.
    pub what: &'static str,
    /// Whether it is as it must be.
    pub outcome: Outcome,
    /// What was found, or what to do about it.
    pub found: String,
}

/// Makes every check that the daemon makes at its start, and measures how many sessions are best. The first failure
/// ends it. A few test signatures over fixed texts are made; nothing is changed.
///
/// Relative paths of the URI start at `base_dir`.
pub fn check(uri: &KeyUri, certificate: Option<&PublicKey>, base_dir: &Path) -> Vec<Check> {
    let mut checks = Checks { made: Vec::new(), current: "token" };
    if let Err(error) = checks.run(uri, certificate, base_dir) {
        checks.add(checks.current, Outcome::Failed, error.to_string());
    }
    checks.made
}

struct Checks {
    made: Vec<Check>,
    /// What is looked at.
    current: &'static str,
}

impl Checks {
    fn add(&mut self, what: &'static str, outcome: Outcome, found: impl Into<String>) {
        self.made.push(Check { what, outcome, found: found.into() });
    }

    fn ok(&mut self, what: &'static str, found: impl Into<String>) {
        self.add(what, Outcome::Ok, found);
    }

    fn run(&mut self, uri: &KeyUri, certificate: Option<&PublicKey>, base_dir: &Path) -> Result<(), Error> {
        let token = Token::open(&uri.token, base_dir)?;
        let module = token.module_info()?;
        self.ok(
            "module",
            format!("{}: {} {} {}", module.path.display(), module.manufacturer, module.description, module.version),
        );
        let identity = token.identity();
        self.ok(
            "token",
            format!(
                "\"{}\", serial number {}, {} {}",
                identity.label, identity.serial, identity.manufacturer, identity.model
            ),
        );
        let info = token.info()?;
        let (hardware, firmware) = info.versions();
        self.ok("versions", format!("hardware {hardware}, firmware {firmware}"));
        self.flags(&info);
        match token.session_limit() {
            Some(limit) => self.ok("session limit", format!("{limit} sessions, one of which is the anchor")),
            None => self.ok("session limit", "none said"),
        }

        self.current = "key";
        let key = Key::open(&token, &uri.key)?;
        self.ok("key", format!("\"{}\", id {}, {}", key.label(), hex::encode(key.id()), key.public_key().kind));
        self.ok("sensitive", "CKA_SENSITIVE is true");
        self.ok("extractable", "CKA_EXTRACTABLE is false");
        match key.never_extractable() {
            Some(true) => self.ok("never extractable", "CKA_NEVER_EXTRACTABLE is true"),
            Some(false) | None => self.add("never extractable", Outcome::Note, NEVER_EXTRACTABLE),
        }
        self.ok("may sign", "CKA_SIGN is true, CKA_ALWAYS_AUTHENTICATE is not");
        self.current = "mechanism";
        let mechanism = token.check_mechanism(key.algorithm())?;
        self.ok("mechanism", mechanism);
        match certificate {
            Some(certificate) => {
                self.current = "certificate";
                key.check_matches(certificate)?;
                self.ok("certificate", "its public key is this key's");
            }
            None => self.add("certificate", Outcome::Note, "none given; use --certificate FILE to compare it"),
        }
        self.current = "test signature";
        let began = Instant::now();
        key.test()?;
        self.ok("test signature", format!("verified; it took {:.1} ms", began.elapsed().as_secs_f64() * 1e3));
        self.current = "best sessions";
        let opened = sessions::open(&token, &uri.key, key, Sessions::Auto)?;
        let found = format!("{} (measured now, as with sessions = \"auto\")", opened.keys.len());
        match opened.limit {
            None => self.ok("best sessions", found),
            Some(limit) => {
                self.add("best sessions", Outcome::Note, format!("{found}; with one more the token failed: {limit}"));
            }
        }
        Ok(())
    }

    fn flags(&mut self, info: &TokenInfo) {
        // What would stop the daemon was looked at before the login.
        let known = [
            (info.has(CKF_USER_PIN_COUNT_LOW), "a wrong PIN was entered since the last login"),
            (info.has(CKF_USER_PIN_TO_BE_CHANGED), "the PIN must be changed before it expires"),
            (
                info.has(CKF_PROTECTED_AUTHENTICATION_PATH),
                "the token has its own PIN pad; the daemon sends the PIN itself",
            ),
            (!info.has(CKF_LOGIN_REQUIRED), "the token needs no login: whoever reaches it can sign"),
        ];
        let found: Vec<_> = known.into_iter().filter(|(flag, _)| *flag).map(|(_, text)| text).collect();
        match found[..] {
            [] => self.ok("token flags", "initialised, PIN set, no tries lost"),
            _ => self.add("token flags", Outcome::Note, found.join("; ")),
        }
        self.ok("login", "the PIN is right");
    }
}

/// What is said of a key that was once outside.
pub(super) const NEVER_EXTRACTABLE: &str = "CKA_NEVER_EXTRACTABLE is not known to be true: the key was imported, cloned, or could once leave the HSM; whether a copy is elsewhere is for its custodians to know";
