//! Birthmark gives every device its birth certificate on the production line.
//!
//! A gRPC daemon keeps the CA private key in a PKCS#11 HSM, signs the CSRs that production stations stream to it,
//! records every serial number before the HSM touches it, and exports the records so that a cloud knows the devices
//! before they first connect.
//!
//! # What always holds
//!
//! 1. **Nothing leaves before it is durable.** A certificate is sent only after its record is on stable storage.
//! 2. **The HSM signs nothing that is not written down.** The reservation is durable before `C_Sign` is called; one
//!    left without a certificate by a crash becomes abandoned, and its serial number is never used again.
//! 3. **One key, one device; one device, one live certificate.**
//! 4. **A retry is free**: the same request again gives the byte-identical certificate.
//! 5. **No over-production**: an order's quantity is never exceeded.
//! 6. **The journal is the truth**; the index is rebuilt from it.
//! 7. **The key never leaves the HSM**, and the process that uses it holds no cloud credentials.
//! 8. **A device gets what its profile says, not what its CSR asks.**
//! 9. **Back-pressure, not memory**: every queue is bounded.
//! 10. **Fail closed and say so**: the daemon stops issuing, says why, and goes on when the cause is gone.
//!
//! # Where to start reading
//!
//! `src/issuer.rs` holds the path of one CSR, whole, in one function. [`serve`] wires the daemon together. The command
//! line is in `src/main.rs` and `src/cli/`. `ARCHITECTURE.md` has the map on one page.

mod asn1;
pub mod ca;
pub mod ceremony;
mod cert;
mod checkpoint;
pub mod client;
mod committer;
pub mod config;
pub mod configure;
mod connections;
pub mod console;
pub mod crl;
pub mod crl_publisher;
pub mod csr;
pub mod describe_certificate;
mod destinations;
pub mod durable;
pub mod enroll;
mod est;
mod expiry;
pub mod export;
mod failure;
mod fairness;
mod grpc;
pub mod hash;
pub mod hsm;
mod http;
pub mod id;
pub mod identity;
mod issuer;
pub mod ledger;
mod limits;
pub mod lint;
mod live;
pub mod local_user;
pub mod log_filter;
mod metrics;
mod name;
mod path;
pub mod pattern;
pub mod pem;
pub mod possession;
pub mod profile;
pub mod proof;
pub mod proto;
pub mod quote;
mod readiness;
pub mod reconcile;
mod registration;
pub mod roles;
pub mod secrecy;
pub mod security;
pub mod security_log;
pub mod serial;
pub mod serve;
pub mod signer;
pub mod station;
mod temporary;
pub mod text_file;
pub mod vending;
mod x509;
mod x509_time;

/// What benches, fuzz targets and integration tests need of the inside; no interface.
#[doc(hidden)]
pub mod testing {
    pub use crate::{
        cert::{join, to_be_signed},
        committer::{CommitError, Committer},
    };
}
