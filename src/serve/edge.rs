//! What the daemon's edge works with and may be replaced while it runs: who is let in, who certifies them, what needs a
//! second operator.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustls::ServerConfig;

use super::{
    certificates::watched,
    est,
    peers::{self, ClientCrl},
    tls::open_tls,
};
use crate::{
    config::{self, Config, ConfigError},
    configure::{self, Issuers},
    est::Settings,
    expiry::MonitoredCertificate,
    grpc::{Access, ApprovalRules, Listed, RevocationLimit, StationCertifier},
    issuer::Policy,
    ledger::Records,
    live::Live,
};

/// What may be replaced.
#[derive(Clone)]
pub(super) struct Edge {
    pub(super) access: Arc<Access>,
    pub(super) certifier: Arc<Live<StationCertifier>>,
    pub(super) approval: Arc<Live<ApprovalRules>>,
    pub(super) client_crl: Arc<Mutex<ClientCrl>>,
    /// None without EST.
    pub(super) est: Option<Arc<Live<Settings>>>,
}

/// What the files of certificates make, all of them read and fitting each other.
pub(super) struct Files {
    pub(super) tls: Arc<ServerConfig>,
    pub(super) watched: Arc<Vec<MonitoredCertificate>>,
    certifier: StationCertifier,
    client_crl: (ClientCrl, Listed),
    est: Option<Settings>,
}

/// What needs a second operator.
pub(super) fn approval(config: &Config) -> ApprovalRules {
    let Some(approval) = &config.approval else { return ApprovalRules::default() };
    let config::Approval { orders_above, quantity_changes, revocations_above, revocation_window_hours } = *approval;
    let window = Duration::from_secs(3600 * u64::from(revocation_window_hours));
    let revocations = revocations_above.map(|most| RevocationLimit { most, window });
    ApprovalRules { orders_above, quantity_changes, revocations }
}

impl Edge {
    /// Reads what it works with before anything else is open.
    pub(super) fn open(config: &Config, access: &Arc<Access>) -> Result<Edge, ConfigError> {
        let certifier = Live::new(Arc::new(peers::certifier(config)?));
        let (list, listed) = ClientCrl::read(config)?;
        access.set_listed(listed);
        let (approval, client_crl) = (Live::new(Arc::new(approval(config))), Arc::new(Mutex::new(list)));
        Ok(Edge { access: Arc::clone(access), certifier, approval, client_crl, est: None })
    }

    /// Takes what the files make in place of what there was. Nothing of it fails.
    pub(super) fn take(&self, files: Files) {
        self.certifier.set(Arc::new(files.certifier));
        if let Some((settings, fresh)) = self.est.as_ref().zip(files.est) {
            settings.set(Arc::new(fresh));
        }
        let (list, listed) = files.client_crl;
        // Together, so that the one that watches the file sets nothing older.
        let mut client_crl = self.client_crl.lock();
        *client_crl = list;
        self.access.set_listed(listed);
    }
}

impl Files {
    /// Reads the files.
    pub(super) fn read(
        config: &Config,
        (issuers, policy): (&Issuers, &Policy),
        records: &dyn Records,
        access: &Arc<Access>,
    ) -> Result<Files, ConfigError> {
        let tls = open_tls(config, access)?;
        configure::check_client_ca(config, issuers)?;
        let (watched, certifier) = (Arc::new(watched(config, issuers)?), peers::certifier(config)?);
        let client_crl = ClientCrl::read(config)?;
        let est = est::read(config, (policy, &tls), records, access)?;
        Ok(Files { tls, watched, certifier, client_crl, est })
    }
}
