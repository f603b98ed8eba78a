//! EST: its settings, checked before anything is served and whenever they are read anew, and its start.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    committer::Committer,
    config::{Config, ConfigError},
    est::{self, Est, Label, Port, Settings},
    grpc::{Access, tls},
    issuer::{Issuance, Policy},
    ledger::Records,
    live::Live,
    roster::Roster,
};

/// Reads the section `[est]`, if there is one. The certificate is that of the gRPC port.
pub(super) fn read(
    config: &Config,
    (policy, grpc): (&Policy, &ServerConfig),
    records: &dyn Records,
    access: &Arc<Access>,
) -> Result<Option<Settings>, ConfigError> {
    let Some(settings) = &config.est else { return Ok(None) };
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
    let recorded = records.issuers().into_iter().filter_map(|issuer| issuer.chain.first().cloned());
    let configured = policy.profiles.values().flat_map(|profile| profile.issuers());
    let configured = configured.filter_map(|(_, issuer)| issuer.chain().first().cloned());
    let issuers = recorded.map(Vec::from).chain(configured);
    let tls = est::configure(grpc, (stations, access), issuers).map_err(|error| wrong_tls(error.to_string()))?;
    Ok(Some(Settings { tls, default_label: default_label.transpose()? }))
}

/// Serves it.
pub(super) fn start(
    settings: Arc<Live<Settings>>,
    listener: TcpListener,
    connections: usize,
    (issuer, committer, records): (Arc<Issuance>, Committer, Arc<dyn Records>),
    (policy, roster): (Arc<Live<Policy>>, Arc<Roster>),
    draining: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let est = Est { issuer, committer, records, policy, roster, settings };
    tokio::spawn(est::serve(est, Port { listener, connections }, draining))
}
