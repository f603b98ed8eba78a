//! The parts of the daemon that a snapshot is made of.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    checkpoint::Checkpoints,
    crl_publisher::Publisher,
    destinations::Destinations,
    expiry::MonitoredCertificate,
    ledger::{Measured, Records},
    live::Live,
    readiness::Readiness,
    refusals::Refusals,
    roster::Roster,
    signer::Recoverable,
    throughput::Throughput,
};

/// The parts of the daemon that know something.
pub(crate) struct Sources {
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) records: Arc<dyn Records>,
    /// The ledger's size and health.
    pub(crate) measured: Arc<dyn Measured>,
    pub(crate) throughput: Arc<Throughput>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) roster: Arc<Roster>,
    /// What signs, by the issuers' names and `audit`.
    pub(crate) signers: Arc<BTreeMap<String, Arc<dyn Recoverable>>>,
    pub(crate) destinations: Destinations,
    pub(crate) certificates: Arc<Live<Vec<MonitoredCertificate>>>,
    pub(crate) checkpoints: Option<Arc<Checkpoints>>,
    pub(crate) publisher: Option<Arc<Publisher>>,
}
