//! Why a ceremony is refused or did not finish, and what it left behind.

use std::{fmt, io, path::PathBuf};

use super::{certificate::CertificateError, import::ImportError, keys::IssuerError};
use crate::{ca::ChainError, config::ConfigError, hsm};

/// Why a ceremony is refused or did not finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is wrong, or what it would make exists.
    #[error(transparent)]
    Refused(#[from] ConfigError),
    /// The token cannot be used.
    #[error(transparent)]
    Hsm(#[from] hsm::Error),
    /// What the record is to say of the tokens or the program cannot be read.
    #[error(transparent)]
    Surroundings(#[from] Box<StepError>),
    /// A step failed; what the steps before it made exists.
    #[error("step {number} ({name}, key \"{key}\") failed: {reason}\n{leftovers}")]
    Unfinished {
        /// Counted from 1.
        number: usize,
        /// What the step does.
        name: &'static str,
        /// The step's key.
        key: String,
        /// Why it failed.
        reason: Box<StepError>,
        /// What exists now and how to remove it.
        leftovers: Leftovers,
    },
    /// A signal ended it between two steps; what the steps before made exists.
    #[error("stopped by {signal}, with {done} of {all} steps done\n{leftovers}")]
    Stopped {
        /// The signal's name.
        signal: &'static str,
        /// How many steps were done.
        done: usize,
        /// How many there are.
        all: usize,
        /// What exists now and how to remove it.
        leftovers: Leftovers,
    },
    /// Everything was made, but the record of it could not be signed.
    #[error(
        "everything was made and the record {} is written, but it is not signed: {reason}; the record is not to be \
         changed: note its SHA-256 {sha256} in the minutes",
        path.display()
    )]
    Unsigned {
        /// The record's path.
        path: PathBuf,
        /// Of the record's file.
        sha256: String,
        /// Why it is not signed.
        reason: Box<StepError>,
    },
    /// Everything was made, but the record of it could not be written.
    #[error("everything was made, but the record {} cannot be written ({source}); keep this in its place:\n{record}", path.display())]
    Unrecorded {
        /// The record's path.
        path: PathBuf,
        /// Why it could not be written.
        source: io::Error,
        /// The record's JSON.
        record: String,
    },
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The HSM refused.
    #[error(transparent)]
    Hsm(#[from] hsm::Error),
    /// The certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// What the daemon's start would refuse is refused here.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The CA that would issue cannot.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// What an offline root signed cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// It is not what people said yes to.
    #[error("{} or what belongs to it was changed since the plan was shown", .0.display())]
    Changed(PathBuf),
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Something that a ceremony made.
#[derive(Debug)]
pub(super) enum Made {
    Key {
        label: String,
        /// The token's label.
        token: String,
        module: PathBuf,
    },
    File(PathBuf),
}

/// What an unfinished ceremony left behind; its `Display` says how to remove it.
#[derive(Debug)]
pub struct Leftovers {
    pub(super) made: Vec<Made>,
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.made.is_empty() {
            return f.write_str("Nothing was made; no record was written.");
        }
        f.write_str("No record was written. What exists now must be removed before the ceremony can be run again:")?;
        for made in &self.made {
            match made {
                Made::File(path) => write!(f, "\n  rm {}", path.display())?,
                Made::Key { label, token, module } => {
                    for kind in ["privkey", "pubkey"] {
                        write!(
                            f,
                            "\n  pkcs11-tool --module {} --token-label \"{token}\" --login --delete-object --type {kind} --label \"{label}\"",
                            module.display(),
                        )?;
                    }
                }
            }
        }
        Ok(())
    }
}
