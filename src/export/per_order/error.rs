//! Why there are no files.

use std::{fmt, io, path::PathBuf};

use crate::{failure::Failure, quote::quoted};

/// The longest thing name and policy name of AWS IoT, in characters.
pub(super) const LONGEST_NAME: usize = 128;

/// Why there are no files. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The daemon refused or went away.
    #[error(transparent)]
    Daemon(#[from] Failure),
    /// A file could not be written.
    #[error("cannot write {}: {cause}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The file is there already.
    #[error("{} exists; remove it, or choose another folder with --out", .0.display())]
    Exists(PathBuf),
    /// The platform would refuse some devices.
    #[error("{0}")]
    Unfit(Unfit),
    /// The order's id cannot be one.
    #[error("{} cannot be the id of an order", quoted(.0))]
    OrderId(String),
    /// The policy's name cannot be one.
    #[error("\"{0}\" cannot be an AWS IoT policy: 1 to {LONGEST_NAME} characters of A-Z a-z 0-9 _ + = , . @ -")]
    Policy(String),
    /// A certificate's issuing CA is not known.
    #[error("{device} was issued by \"{issuer}\", which the daemon does not list")]
    IssuerUnknown {
        /// The device.
        device: String,
        /// Its issuer.
        issuer: String,
    },
    /// The CA that stands beside a certificate cannot have issued it.
    #[error("the certificate of {device} does not fit the CA of its issuer \"{issuer}\": {cause}")]
    IssuerMisfit {
        /// The device.
        device: String,
        /// Its issuer.
        issuer: String,
        /// What does not fit.
        cause: String,
    },
    /// The daemon's answers do not fit each other.
    #[error("the daemon sent {sent} certificates of the export {id}, which has {counted}")]
    Incomplete {
        /// The export's id.
        id: String,
        /// The number of certificates that came.
        sent: u64,
        /// The number that the export has.
        counted: u64,
    },
}

/// The devices that a platform would refuse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfit {
    /// How many.
    pub count: u64,
    /// The number of devices of the batch.
    pub of: u64,
    /// The first few, each with why.
    pub examples: Vec<String>,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the platform would refuse {} of {} devices, so nothing was written:", self.count, self.of)?;
        for example in &self.examples {
            write!(f, "\n  {example}")?;
        }
        if self.count > self.examples.len() as u64 {
            write!(f, "\n  …")?;
        }
        Ok(())
    }
}
