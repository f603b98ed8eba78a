//! What the status is made of.

use std::sync::Arc;

use super::open::Opened;
use crate::{
    readiness::Readiness,
    roster::Roster,
    status::{Sources, Status},
};

/// Keeps the status up to date for as long as the daemon runs.
pub(super) fn watch(opened: &Opened, roster: &Arc<Roster>, readiness: &Arc<Readiness>) -> Arc<Status> {
    let status = Status::new(Sources {
        readiness: Arc::clone(readiness),
        records: Arc::new(opened.records.clone()),
        measured: Arc::new(opened.records.clone()),
        throughput: Arc::clone(opened.issuer.throughput()),
        refusals: Arc::clone(opened.issuer.refusals()),
        roster: Arc::clone(roster),
        signers: Arc::clone(&opened.signers),
        destinations: opened.destinations.clone(),
        certificates: Arc::clone(&opened.replaceable.watched),
        checkpoints: opened.checkpoints.clone(),
        publisher: opened.publisher.clone(),
    });
    tokio::spawn(Arc::clone(&status).run());
    status
}
