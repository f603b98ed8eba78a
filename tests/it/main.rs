//! What a user sees: the `birthmark` program with a real SoftHSM token, real files and `openssl` as the second opinion.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test ends by panicking"
)]

mod agreements;
mod approvals;
mod audit;
mod batches;
mod bundle;
mod ceremony;
mod ceremony_record;
mod checkpoints;
mod cluster;
mod commands;
mod connections;
mod constrained_chain;
mod crl;
mod csr;
mod disk_faults;
mod documents;
mod enroll;
mod est;
mod events;
mod failover;
mod fairness;
mod figures;
mod foreign_clients;
mod golden;
mod housekeeping;
mod hsm;
mod hsm_codes;
mod hsm_recovery;
mod index;
mod issue_one;
mod issuers;
mod issuing;
mod layering;
mod lifecycle;
mod messages;
mod mirror;
mod mirror_faults;
mod monitoring;
mod old_journal;
mod order_lists;
mod packaging;
mod page;
mod platforms;
mod policy;
mod portable;
mod possession;
mod power_cut;
mod power_cut_ext4;
mod prometheus;
mod protocol;
mod protocol_examples;
mod random_kills;
mod readiness;
mod readiness_faults;
mod reconcile;
mod refused;
mod reload;
mod restarts;
mod restore;
mod roles;
mod rust_client;
mod security_log;
mod slow_readers;
mod startup;
mod station;
mod stations;
mod status;
mod storage;
mod supervision;
mod support;
mod tls;
mod watch;
