//! CA keys in the HSM and their certificates, as one reviewed file says.
//!
//! [`Ceremony::load`] reads the file, [`Ceremony::check`] looks at the token and at every file that it would read or
//! write and refuses whatever is in the way, and [`Plan::perform`] then makes everything and writes the record. Keys are
//! made in the HSM and stay there (invariant 7). A ceremony never replaces a key or a file: a second run of the same file is
//! refused.
//!
//! `hsm-config/ceremony.toml` is the example with every step commented.

mod certificate;
mod check;
mod error;
mod file;
mod import;
mod keys;
mod load;
mod perform;
mod plan;
mod prove;
mod read_aloud;
mod record;
mod signature;
mod verify;

use std::{collections::BTreeMap, path::Path, time::SystemTime};

pub(crate) use self::{
    certificate::{BACKDATE, Certificate, CertificateError, Validity, date, parameters},
    keys::CaKey,
};
pub use self::{
    error::{Error, Leftovers, StepError},
    file::Witness,
    plan::Plan,
    read_aloud::ReadAloud,
    record::{CertificateRecord, KeyRecord, Output, Program, Record, SignatureRecord, StepRecord, TokenRecord},
    verify::{FileState, Verified, VerifyError, verify},
};
use self::{file::CeremonyFile, keys::Tokens};
use crate::hsm::AskPin;

/// A ceremony file that was read; the token was not looked at yet.
#[derive(Debug)]
pub struct Ceremony {
    file: CeremonyFile,
}

impl Ceremony {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it, with line and key.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Ok(Ceremony { file: CeremonyFile::load(path)? })
    }

    /// The environment variables for the PKCS#11 module.
    pub fn module_environment(&self) -> BTreeMap<String, String> {
        self.file.source.fill_in(&self.file.environment)
    }

    /// Logs in to the tokens and checks all that can be known before anything is made. Where a PIN is neither in a file nor in
    /// the environment, it is asked for.
    ///
    /// # Errors
    /// The first thing that is in the way.
    pub fn check(self, ask: Option<AskPin<'_>>) -> Result<Plan, Error> {
        let tokens = Tokens::open(&self.file, ask)?;
        let now = SystemTime::now();
        let imported = check::check(&self.file, &tokens, now)?;
        Ok(Plan { file: self.file, tokens, now, imported })
    }
}
