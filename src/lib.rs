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
//! [`issuer`] holds the way of one CSR, whole, in one function. [`serve`] wires the daemon together. The command
//! line is in `src/main.rs` and `src/cli/`. `ARCHITECTURE.md` has the map on one page.

mod asn1;
pub mod ca;
pub mod ceremony;
pub mod cert;
pub mod checkpoint;
pub mod client;
pub mod committer;
pub mod config;
mod connections;
pub mod crl;
pub mod csr;
pub mod durable;
pub mod expiry;
pub mod export;
mod fairness;
pub mod grpc;
pub mod hsm;
pub mod http;
pub mod issuer;
pub mod ledger;
pub mod lint;
pub mod metrics;
pub mod name;
mod path;
pub mod pattern;
pub mod pem;
pub mod policy;
pub mod possession;
pub mod profile;
pub mod quote;
pub mod readiness;
pub mod secrecy;
pub mod serial;
pub mod serve;
pub mod show;
pub mod signer;
pub mod station;
pub mod text_file;
pub mod x509;
pub mod x509_time;

/// The gRPC protocol, generated from `proto/birthmark/v1/`; the definitions there are its manual.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod proto {
    tonic::include_proto!("birthmark.v1");

    /// The definitions in their binary form, as gRPC reflection serves them.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/protocol.binpb"));
}
