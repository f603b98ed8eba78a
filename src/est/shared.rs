//! What EST works with.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::{codes::Codes, label::Label, tls::TlsSetup};
use crate::{
    committer::Committer,
    issuer::{Issuance, Policy},
    ledger::Records,
    live::Live,
    roster::Roster,
};

/// What EST works with.
pub(crate) struct Est {
    /// Issues certificates.
    pub(crate) issuer: Arc<Issuance>,
    /// Changes the ledger.
    pub(crate) committer: Committer,
    /// Reads the ledger.
    pub(crate) records: Arc<dyn Records>,
    /// What labels name.
    pub(crate) policy: Arc<Live<Policy>>,
    /// Who has been here.
    pub(crate) roster: Arc<Roster>,
    /// What may be replaced.
    pub(crate) settings: Arc<Live<Settings>>,
}

/// What may be replaced while connections last: each keeps what it began with.
pub(crate) struct Settings {
    /// TLS, and what tells stations from devices.
    pub(crate) tls: TlsSetup,
    /// What a request without a label means.
    pub(crate) default_label: Option<Label>,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) est: Est,
    pub(super) codes: Codes,
    /// Permits of enrolments under way.
    pub(super) in_progress: Arc<Semaphore>,
    pub(super) draining: watch::Receiver<bool>,
}
