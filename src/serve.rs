//! The daemon, wired together: what is opened in which order, and how it shuts down.
//!
//! Shutting down (SIGTERM, SIGINT, SIGQUIT): nothing new is accepted; what is reserved is signed, recorded and
//! answered; the ledger is closed; exit 0. A sync of the journal that fails terminates the process at once, with
//! another exit code (invariant 10). Other signals that would terminate a process are only logged.

mod certificates;
mod components;
mod error;
mod est;
mod keys;
mod listen;
mod lists;
mod open;
mod peers;
mod shutdown;
mod signals;

use std::{path::Path, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use self::{
    components::readiness,
    listen::{Listening, ReadyFile, connection_limits, listen},
    open::{Opened, open, open_tls},
    peers::ClientCrl,
    shutdown::{Running, committer_failure, watch_committer},
    signals::{log_other_signals, shutdown_signal},
};
pub use self::{error::ServeError, listen::Addresses};
use crate::{
    config::Config,
    expiry,
    grpc::{
        self, Access, Services, StationCertifier,
        listener::{self, SocketRole},
    },
    http,
    ledger::Records,
    metrics,
    readiness::Readiness,
};

/// Runs the daemon until it is told to shut down. `ready_file`, if given, is there (as JSON, [`Addresses`]) while it
/// listens; whether it can issue, `Readiness` tells.
///
/// # Errors
/// What is in the way of the start, as one sentence that says what to do; or what stopped the daemon.
pub fn run(config: &Config, ready_file: Option<&Path>) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(ServeError::system("start threads"))?;
    let result = runtime.block_on(daemon(config, ready_file));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn daemon(config: &Config, ready_file: Option<&Path>) -> Result<(), ServeError> {
    // 1. Before anything is open: no other signal terminates a start that takes long.
    log_other_signals().map_err(ServeError::system("listen for signals"))?;
    let ready_file = ready_file.map(ReadyFile::new);
    let prometheus = metrics::install()?;

    // 2. Everything that the configuration names.
    let access = Access::new();
    let tls = open_tls(config, &access)?;
    let (socket_role, certifier) = (peers::socket_role(config)?, Arc::new(peers::certifier(config)?));
    let client_crl = ClientCrl::open(config, &access)?;
    let opened = open(config).await?;
    peers::note_revoked(&access, &opened.records);
    let who = Who { access, socket_role, certifier, client_crl };

    // 3. The addresses.
    let listening = listen(config).await?;
    let est_setup = est::Setup::read(config, &opened, &tls, &who.access)?;
    let addresses = listening.addresses().map_err(ServeError::system("read the addresses that are listened on"))?;

    // 4. The daemon serves, and says what it can do.
    let (drain, draining) = watch::channel(false);
    let readiness = Arc::new(readiness(&draining, &opened));
    let tls = (tls, est_setup, who);
    let mut running = start(config, opened, listening, tls, draining, (Arc::clone(&readiness), prometheus));
    // Before anybody knows that there is a daemon to shut down.
    let shutdown = shutdown_signal().map_err(ServeError::system("listen for signals"))?;
    tracing::info!(
        grpc = %addresses.grpc,
        socket = addresses.socket.as_ref().map(|path| tracing::field::display(path.display())),
        http = addresses.http.map(tracing::field::display),
        est = addresses.est.map(tracing::field::display),
        "listening"
    );
    tokio::spawn(readiness.watch());
    if let Some(file) = &ready_file {
        file.write(&addresses)?;
    }

    // 5. Until it is told to shut down, or cannot go on.
    tokio::select! {
        name = shutdown => tracing::info!(signal = name, "shutting down: finishing what is reserved"),
        result = &mut running.committer_result => return Err(committer_failure(result)),
    }

    // 6. It shuts down, in order.
    drop(ready_file);
    drain.send_replace(true);
    running.shutdown().await
}

/// Who may connect, and as what.
struct Who {
    access: Arc<Access>,
    socket_role: SocketRole,
    certifier: Arc<StationCertifier>,
    client_crl: Option<ClientCrl>,
}

/// Starts all that runs beside: metrics and health first, so that they can be asked when nothing else can.
fn start(
    config: &Config,
    opened: Opened,
    listening: Listening,
    (tls, est_setup, who): (Arc<rustls::ServerConfig>, Option<est::Setup>, Who),
    draining: watch::Receiver<bool>,
    (readiness, prometheus): (Arc<Readiness>, PrometheusHandle),
) -> Running {
    let Opened { pools, watched, issuer, prover, profiles, signers, .. } = opened;
    let Opened { records, scrub, committer, committer_thread, checkpoints, publisher, .. } = opened;
    let limits = connection_limits();
    let directory = publisher.as_ref().map(|publisher| Arc::clone(&publisher.directory));
    if let Some(http) = listening.http {
        tokio::spawn(http::serve(http, limits.http, Arc::clone(&readiness), prometheus, directory));
    }
    tokio::spawn(expiry::watch(watched));
    let est = listening.est.zip(est_setup).map(|(listener, setup)| {
        let issuing = (Arc::clone(&issuer), committer.clone(), Arc::new(records.clone()) as Arc<dyn Records>);
        setup.start(listener, limits.est, issuing, Arc::clone(&profiles), draining.clone())
    });
    let (socket, unix) = listening.socket.unzip();
    let Who { access, socket_role, certifier, client_crl } = who;
    if let Some(list) = client_crl {
        tokio::spawn(list.watch(Arc::clone(&access)));
    }
    let unix = unix.map(|socket| (socket, socket_role));
    let incoming = listener::incoming(listening.tcp, tls, unix, Arc::clone(&access), limits);
    let services = Services {
        issuer,
        committer: committer.clone(),
        records: Arc::new(records),
        profiles,
        signers,
        prover,
        access,
        certifier,
        readiness,
        window: *config.server.window.get_ref(),
        stall_limit: Duration::from_secs(*config.server.stall_seconds.get_ref()),
        draining,
    };
    Running {
        server: tokio::spawn(grpc::serve(services, incoming)),
        committer,
        committer_result: watch_committer(committer_thread),
        checkpoints: checkpoints.map(|checkpoints| {
            let periodic = Arc::clone(&checkpoints).spawn();
            (checkpoints, periodic)
        }),
        publishing: publisher.map(|publisher| publisher.spawn()).unwrap_or_default(),
        est,
        pools,
        scrub,
        socket,
    }
}
