//! Certificates for stations, operators, auditors and the daemon itself, from the site's own station CA.
//!
//! Their keys are made in software and lie in files: they say who may ask, they sign no device certificate. A certificate
//! is recorded in the ledger, through the daemon where it runs; where it does not, the CA signs a line of a list
//! ([`Listed`]) that is recorded later.

mod ca;
mod error;
mod list;
mod subject;

pub use self::{
    ca::{Certified, StationCa, StationCaPlace},
    error::EnrollError,
    list::{ListError, Listed},
    subject::{Request, Subject},
};
