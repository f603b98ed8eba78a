//! What a user sees: the `birthmark` program with a real SoftHSM token, real files and `openssl` as the second opinion.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)] // A test ends by panicking.

mod bench;
mod ceremony;
mod checkpoints;
mod clients;
mod connections;
mod crash;
mod csr;
mod demo;
mod enroll;
mod fairness;
mod faults;
mod golden;
mod hsm;
mod hsm_codes;
mod hsm_recovery;
mod index;
mod issuing;
mod kill;
mod life;
mod old_journal;
mod operators;
mod ops;
mod policy;
mod power_cut;
mod power_cut_ext4;
mod readiness;
mod site;
mod slow_readers;
mod startup;
mod station;
mod storage;
mod tls;
mod token;
mod trouble;
mod walls;
