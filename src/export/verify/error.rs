//! What is wrong with a bundle, and with which of its files.

use std::io;

use super::super::jws::JwsError;

/// What is wrong with a bundle, and with which of its files.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {fault}")]
pub struct VerifyError {
    /// Its path in the bundle, or the bundle's own.
    pub file: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The manifest names it.
    #[error("it is missing")]
    Missing,
    /// The manifest does not name it.
    #[error("it is not a file of this bundle: the manifest does not name it")]
    Foreign,
    /// The system could not read it.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is shorter or longer.
    #[error("it has {found} octets; the manifest says {stated}")]
    Length {
        /// What it has.
        found: u64,
        /// What the manifest says.
        stated: u64,
    },
    /// It has another content.
    #[error("its content was changed: its SHA-256 is not that of the manifest")]
    Changed,
    /// The manifest is not signed by a trusted key.
    #[error("{0}")]
    Signature(#[from] JwsError),
    /// The signature is over another manifest.
    #[error("it is not the manifest that manifest.jws signs")]
    OtherManifest,
    /// It is not what it should be.
    #[error("{0}")]
    Malformed(String),
    /// A certificate that nobody beside it has issued.
    #[error("certificate {position}: {reason}")]
    Certificate {
        /// In the file, counted from 1.
        position: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// There are more or fewer.
    #[error("the files have {found} {what}; the manifest says {stated}")]
    Count {
        /// Certificates or withdrawals.
        what: &'static str,
        /// What there are.
        found: u64,
        /// What the manifest says.
        stated: u64,
    },
}

impl VerifyError {
    pub(super) fn new(file: impl Into<String>, fault: impl Into<Fault>) -> Self {
        VerifyError { file: file.into(), fault: fault.into() }
    }
}
