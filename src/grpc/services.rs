//! What the services share.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{access::Access, hsm::Signers, reload::Reload};
use crate::{
    checkpoint::Checkpoints,
    committer::Committer,
    destinations::Destinations,
    enroll::StationCaPlace,
    issuer::{Issuance, Policy},
    ledger::{OrderTerms, Records},
    live::Live,
    proof::Prover,
    readiness::Readiness,
    roster::Roster,
};

/// What the services work with.
#[derive(Clone)]
pub(crate) struct Services {
    /// Issues certificates.
    pub(crate) issuer: Arc<Issuance>,
    /// Changes the ledger.
    pub(crate) committer: Committer,
    /// Reads the ledger.
    pub(crate) records: Arc<dyn Records>,
    /// What stations may ask for.
    pub(crate) policy: Arc<Live<Policy>>,
    /// Reads the configuration anew.
    pub(crate) reload: Reload,
    /// What signs, by the issuers' names and `audit`, for operators who have seen to a token.
    pub(crate) signers: Signers,
    /// Proves possession of the issuers' keys.
    pub(crate) prover: Arc<Prover>,
    /// The platforms that are to know the devices.
    pub(crate) destinations: Destinations,
    /// Signs what the journal is; none without an audit key.
    pub(crate) checkpoints: Option<Arc<Checkpoints>>,
    /// Who may not connect.
    pub(crate) access: Arc<Access>,
    /// Certifies stations, operators and auditors.
    pub(crate) certifier: Arc<Live<StationCertifier>>,
    /// What needs a second operator.
    pub(crate) approval: Arc<Live<ApprovalRules>>,
    /// What keeps the daemon from issuing.
    pub(crate) readiness: Arc<Readiness>,
    /// Who has been here.
    pub(crate) roster: Arc<Roster>,
    /// How many unanswered requests one stream, and one station over all of its streams, may have.
    pub(crate) window: usize,
    /// A stream whose peer takes no reply for this long is terminated.
    pub(crate) stall_limit: Duration,
    /// True when nothing new is to be accepted.
    pub(crate) draining: watch::Receiver<bool>,
}

/// What certifies stations, operators and auditors.
#[derive(Debug)]
pub(crate) struct StationCertifier {
    /// The station CA, if the configuration names one.
    pub(crate) ca: Option<StationCaPlace>,
    /// The CAs whose certificates clients have, DER.
    pub(crate) client_cas: Vec<Vec<u8>>,
}

/// How many certificates one operator may revoke in a time without a second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RevocationLimit {
    /// How many.
    pub(crate) most: u64,
    /// In which time.
    pub(crate) window: Duration,
}

/// What needs a second operator.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ApprovalRules {
    /// Orders with a greater quantity.
    pub(crate) orders_above: Option<u64>,
    /// Changes of an order's quantity.
    pub(crate) quantity_changes: bool,
    /// Revocations of more certificates.
    pub(crate) revocations: Option<RevocationLimit>,
}

impl ApprovalRules {
    /// Whether an order is one that needs a second operator.
    pub(super) fn concern_order(&self, terms: &OrderTerms) -> bool {
        self.orders_above.is_some_and(|most| terms.quantity > most)
    }

    /// Whether a change of an order's quantity is one. Nobody raises alone what he could not have created alone.
    pub(super) fn concern_change(&self, from: u64, to: u64) -> bool {
        let is_above = to > from && self.orders_above.is_some_and(|most| to > most);
        from != to && (self.quantity_changes || is_above)
    }
}
