//! EST: its settings, checked before anything is served, and its start.

use std::sync::Arc;

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::open::Opened;
use crate::{
    committer::Committer,
    config::{Config, ConfigError},
    est::{self, Est, Label, Port, TlsSetup},
    grpc::{Access, tls},
    issuer::{Issuance, Policy},
    ledger::Records,
    live::Live,
};

/// What EST needs besides the ledger.
pub(super) struct Setup {
    tls: TlsSetup,
    default_label: Option<Label>,
}

impl Setup {
    /// Reads the section `[est]`, if there is one.
    pub(super) fn read(config: &Config, opened: &Opened, access: &Arc<Access>) -> Result<Option<Setup>, ConfigError> {
        let Some(settings) = &config.est else { return Ok(None) };
        let (policy, grpc) = (opened.replaceable.policy.get(), opened.replaceable.tls.get());
        let default_label = settings.default_label.as_ref().map(|text| {
            let wrong = |message: String| config.error_at(text.span(), "est.default_label", message);
            let label: Label = text.get_ref().parse().map_err(|error: est::InvalidLabel| wrong(error.to_string()))?;
            if !policy.profiles.contains_key(&label.profile) {
                return Err(wrong(format!("there is no profile \"{}\"", label.profile)));
            }
            Ok(label)
        });
        let wrong_tls = |error: String| config.error_at(settings.listen.span(), "est.listen", error);
        let client_ca = config.resolve(config.server.client_ca.get_ref());
        let stations = tls::client_verifier(&client_ca, access, grpc.crypto_provider());
        let stations = stations.map_err(|error| wrong_tls(error.to_string()))?;
        // Those that are recorded, and those that are new: devices show certificates of both.
        let recorded = opened.records.issuers().into_iter().filter_map(|issuer| issuer.chain.first().cloned());
        let configured = policy.profiles.values().flat_map(|profile| profile.issuers());
        let configured = configured.filter_map(|(_, issuer)| issuer.chain().first().cloned());
        let issuers = recorded.map(Vec::from).chain(configured);
        let tls = est::configure(&grpc, (stations, access), issuers).map_err(|error| wrong_tls(error.to_string()))?;
        Ok(Some(Setup { tls, default_label: default_label.transpose()? }))
    }

    /// Serves it.
    pub(super) fn start(
        self,
        listener: TcpListener,
        connections: usize,
        (issuer, committer, records): (Arc<Issuance>, Committer, Arc<dyn Records>),
        policy: Arc<Live<Policy>>,
        draining: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        let Setup { tls, default_label } = self;
        let est = Est { issuer, committer, records, policy, default_label };
        tokio::spawn(est::serve(est, Port { listener, tls, connections }, draining))
    }
}
