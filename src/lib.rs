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

pub mod agreement;
pub mod ca;
pub mod ceremony;
mod cert;
mod checkpoint;
mod committer;
pub mod config;
pub mod configure;
mod connections;
pub mod crl;
pub mod crl_publisher;
pub mod csr;
pub mod describe_certificate;
mod destinations;
pub mod enroll;
mod est;
pub mod events;
mod expiry;
pub mod export;
mod fairness;
mod file_lock;
mod grpc;
mod handshake;
pub mod hsm;
mod http;
mod issuer;
pub mod ledger;
pub mod lint;
mod live;
pub mod local_user;
pub mod log_filter;
mod metrics;
mod path;
pub mod pattern;
pub mod possession;
pub mod private_key;
pub mod profile;
pub mod proof;
mod readiness;
pub mod reconcile;
mod refusals;
mod registration;
pub mod roles;
mod roster;
pub mod security;
pub mod security_log;
pub mod serial;
pub mod serve;
pub mod signer;
mod status;
mod throughput;
pub mod vending;

// What the daemon has in common with its clients, and the protocol, under the names that everything here knows.
pub use birthmark_base::{console, durable, hash, id, identity, pem, quote, secrecy, secret_file, text_file, version};
pub use birthmark_client::{self as client, proto};

use birthmark_base::{asn1, name, temporary, x509, x509_time};
use birthmark_client::{failure, limits};

/// What benches, fuzz targets and integration tests need of the inside; no interface.
#[doc(hidden)]
pub mod testing {
    pub use crate::{
        cert::{join, to_be_signed},
        committer::{CommitError, Committer},
    };
}
