//! The daemon, wired together: what is opened in which order, and how it shuts down.
//!
//! Shutting down (SIGTERM, SIGINT, SIGQUIT): nothing new is accepted; what is reserved is signed, recorded and
//! answered; the ledger is closed; exit 0. A sync of the journal that fails terminates the process at once, with
//! another exit code (invariant 10). Other signals that would terminate a process are only logged.

mod agreements;
mod certificates;
mod check;
mod components;
mod destinations;
mod edge;
mod error;
mod est;
mod expiring_peers;
mod history;
mod keys;
mod ledger;
mod listen;
mod lists;
mod open;
mod peers;
mod reload;
mod security;
mod shutdown;
mod signals;
mod status;
mod supervisor;
mod takeover;
mod tls;
mod yields;

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::watch;

pub use self::{
    agreements::{Disagreement, agreements},
    check::{Checked, check},
    error::ServeError,
    listen::Addresses,
    reload::SetLogLevel,
    security::security_log,
};
use self::{
    components::readiness,
    edge::Edge,
    listen::{Listening, Ports, ReadyFile, connection_limits},
    open::{Opened, claim, open},
    reload::{Reloader, Replaceable},
    shutdown::{Running, committer_failure, watch_committer},
    signals::{hangups, log_other_signals, shutdown_signal},
};
use crate::{
    config::Config,
    destinations as batches, expiry,
    grpc::{
        self, Access, Reload, Services,
        listener::{self, SocketRole},
    },
    hash::sha256,
    http,
    ledger::Records,
    live::Live,
    metrics,
    readiness::Readiness,
    roster::Roster,
    security as events,
    version::VERSION,
};

/// What the command line says besides the configuration.
#[derive(Default)]
pub struct Options<'a> {
    /// A file that is there (as JSON, [`Addresses`]) while the daemon listens; whether it can issue, `Readiness` tells.
    pub ready_file: Option<&'a Path>,
    /// A checkpoint that was kept elsewhere: the daemon does not start with a journal that does not continue it.
    pub expect_checkpoint: Option<&'a Path>,
    /// Sets the level of the log, when the configuration is reloaded.
    pub set_log_level: Option<SetLogLevel>,
}

/// Runs the daemon until it is told to shut down.
///
/// # Errors
/// What is in the way of the start, as one sentence that says what to do; or what stopped the daemon.
pub fn run(config: Config, options: Options<'_>) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(ServeError::system("start threads"))?;
    let result = runtime.block_on(daemon(Arc::new(config), options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn daemon(config: Arc<Config>, options: Options<'_>) -> Result<(), ServeError> {
    // 1. Before anything is open: no other signal terminates a start that takes long.
    log_other_signals().map_err(ServeError::system("listen for signals"))?;
    let hangups = hangups().map_err(ServeError::system("listen for signals"))?;
    let ready_file = options.ready_file.map(ReadyFile::new);
    let exporter = metrics::install()?;
    metrics::known_reasons(grpc::counted_reasons());

    // 2. Everything that the configuration names.
    let access = Access::new();
    let socket_role = peers::socket_role(&config)?;
    let mut edge = Edge::open(&config, &access)?;
    // A second daemon that is started by mistake ends here, before it loads the HSM.
    let (claim, ports) = (claim(&config)?, Ports::bind(&config)?);
    let opened = open(&config, &access, claim, options.expect_checkpoint).await?;
    peers::note_revoked(&access, &opened.records);
    let head = opened.records.head();
    tracing::info!(
        target: events::TARGET,
        version = VERSION,
        configuration = %config.path().display(),
        configuration_sha256 = hex::encode(sha256(config.text().as_bytes())),
        journal_entries = head.sequence,
        journal_chain_hash = hex::encode(head.chain),
        "started"
    );

    // 3. The addresses.
    let listening = ports.listen(&config)?;
    let (policy, tls) = (opened.replaceable.policy.get(), opened.replaceable.tls.get());
    let est = est::read(&config, (&policy, &tls), &opened.records, &access)?;
    edge.est = est.map(|settings| Live::new(Arc::new(settings)));
    let addresses = listening.addresses().map_err(ServeError::system("read the addresses that are listened on"))?;

    // 4. The daemon serves, and says what it can do.
    let (drain, draining) = watch::channel(false);
    let readiness = Arc::new(readiness(&draining, &opened));
    let reloader = Reloader::new(
        Arc::clone(&config),
        (opened.replaceable.clone(), edge.clone()),
        opened.issuers.clone(),
        (opened.records.clone(), opened.committer.clone()),
        options.set_log_level,
    );
    let reload = reloader.handle();
    tokio::spawn(hangups.each(Arc::clone(&reload)));
    tokio::spawn(reloader.watch_files());
    let who = (reload, edge, socket_role);
    let mut running = start(&config, opened, listening, who, draining, (Arc::clone(&readiness), exporter))?;
    // Before anybody knows that there is a daemon to shut down.
    let shutdown = shutdown_signal().map_err(ServeError::system("listen for signals"))?;
    tracing::info!(
        grpc = %addresses.grpc,
        socket = addresses.socket.as_ref().map(|path| tracing::field::display(path.display())),
        http = addresses.http.map(tracing::field::display),
        est = addresses.est.map(tracing::field::display),
        "listening"
    );
    tokio::spawn(supervisor::watch(Arc::clone(&readiness)));
    tokio::spawn(readiness.watch());
    if let Some(file) = &ready_file {
        file.write(&addresses)?;
    }
    supervisor::ready();

    // 5. Until it is told to shut down, or cannot go on.
    let signal = tokio::select! {
        name = shutdown => name,
        result = &mut running.committer_result => return Err(committer_failure(result)),
    };
    tracing::info!(signal, "shutting down: finishing what is reserved");

    // 6. It shuts down, in order.
    supervisor::stopping();
    drop(ready_file);
    drain.send_replace(true);
    running.shutdown(signal).await
}

/// Starts all that runs beside: metrics and health first, so that they can be asked when nothing else can.
fn start(
    config: &Config,
    opened: Opened,
    listening: Listening,
    (reload, edge, socket_role): (Reload, Edge, SocketRole),
    draining: watch::Receiver<bool>,
    (readiness, exporter): (Arc<Readiness>, metrics::Exporter),
) -> Result<Running, ServeError> {
    let roster = Arc::<Roster>::default();
    let status = status::watch(&opened, &roster, &readiness);
    let Opened { pools, issuer, prover, signers, replaceable: Replaceable { policy, tls, watched }, .. } = opened;
    let Opened { destinations, .. } = opened;
    let Opened { records, scrub, committer, committer_thread, checkpoints, publisher, .. } = opened;
    let limits = connection_limits();
    let directory = publisher.as_ref().map(|publisher| Arc::clone(&publisher.directory));
    if let Some(http) = listening.http {
        let page = config.http.as_ref().is_some_and(|http| http.status_page);
        let status = (status, page);
        tokio::spawn(http::serve(http, limits.http, Arc::clone(&readiness), exporter, status, directory));
    }
    tokio::spawn(expiry::watch(watched));
    tokio::spawn(takeover::watch(Arc::clone(&policy)));
    tokio::spawn(expiring_peers::watch(Arc::new(records.clone())));
    let Edge { access, certifier, approval, client_crl, est: est_settings } = edge;
    let est = listening.est.zip(est_settings).map(|(listener, settings)| {
        let issuing = (Arc::clone(&issuer), committer.clone(), Arc::new(records.clone()) as Arc<dyn Records>);
        let known = (Arc::clone(&policy), Arc::clone(&roster));
        est::start(settings, listener, limits.est, issuing, known, draining.clone())
    });
    let (socket, unix) = listening.socket.unzip();
    tokio::spawn(peers::watch(client_crl, Arc::clone(&access)));
    if config.ledger.database.is_some() {
        tokio::spawn(peers::follow(Arc::clone(&access), Arc::new(records.clone())));
    }
    let unix = unix.map(|socket| (socket, socket_role));
    let incoming = listener::incoming(listening.tcp, tls, unix, Arc::clone(&access), limits);
    let services = Services {
        issuer,
        committer: committer.clone(),
        records: Arc::new(records),
        policy,
        reload,
        signers,
        prover,
        destinations: destinations.clone(),
        checkpoints: checkpoints.clone(),
        access,
        certifier,
        approval,
        readiness,
        roster,
        window: *config.server.window.get_ref(),
        stall_limit: Duration::from_secs(*config.server.stall_seconds.get_ref()),
        draining,
    };
    let refusals = Arc::clone(services.issuer.refusals());
    tokio::spawn(Arc::clone(&refusals).run());
    tokio::spawn(yields::watch(Arc::clone(&services.records)));
    let backlog = (!destinations.all.is_empty()).then(|| batches::watch(destinations.clone())).transpose();
    Ok(Running {
        server: tokio::spawn(grpc::serve(services, incoming)),
        committer,
        refusals,
        committer_result: watch_committer(committer_thread),
        checkpoints: checkpoints.map(|checkpoints| {
            let periodic = Arc::clone(&checkpoints).spawn();
            (checkpoints, periodic)
        }),
        publishing: publisher.map(|publisher| publisher.spawn()).unwrap_or_default(),
        unattended: batches::spawn_unattended(&destinations),
        backlog: backlog.map_err(ServeError::system("start the thread that counts what waits for destinations"))?,
        est,
        pools,
        scrub,
        socket,
    })
}
