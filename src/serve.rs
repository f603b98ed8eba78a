//! The daemon, wired together: what is opened in which order, and how it goes down.
//!
//! Going down (SIGTERM, SIGINT, SIGQUIT): nothing new is accepted; what is reserved is signed, recorded and answered; the
//! ledger is closed; exit 0. A sync of the journal that fails ends the process at once, with another exit code. Other
//! signals that would end a process are logged, and end nothing.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
    task,
};
use toml::Spanned;

use crate::{
    ca::IssuingCa,
    checkpoint::Checkpoints,
    committer::Committer,
    config::{self, Config},
    configure::{self, Issuers},
    connections::{self, Limits},
    durable::{self, Access},
    expiry::{self, MonitoredCertificate, Purpose},
    grpc::{self, Services, Signers, listener, listener::Setting},
    hsm::{self, Key, KeyUri, Pool, PoolSettings, Sessions, Token},
    http,
    issuer::Issuance,
    ledger::{
        LedgerError, Records,
        clock::ClockBounds,
        embedded::{self, EmbeddedLedger, EmbeddedRecords, Guards, Settings},
        scrub::Scrub,
    },
    metrics, pem,
    profile::Profiles,
    readiness::{Part, Readiness},
    signer::{PublicKey, Recoverable},
    x509::Certificate,
    x509_time::Time,
};

/// How long open calls may take to end when the daemon goes down, and then what is reserved; a station that does not
/// read its replies gets them when it asks again.
const DRAIN: Duration = Duration::from_secs(10);

/// How long the HSM may take for the last checkpoint.
const LAST_CHECKPOINT: Duration = Duration::from_secs(5);

/// Where the daemon listens, with the ports that the system gave.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Addresses {
    /// mTLS.
    pub grpc: SocketAddr,
    /// The Unix socket.
    pub socket: Option<PathBuf>,
    /// Metrics and health.
    pub http: Option<SocketAddr>,
}

/// Runs the daemon until it is told to end. `ready_file`, if given, is there (as JSON, [`Addresses`]) while it listens;
/// whether it can issue, [`Readiness`] tells.
///
/// # Errors
/// What stands in the way of the start, as one sentence that says what to do; or what ended the daemon.
pub fn run(config: &Config, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let result = runtime.block_on(daemon(config, ready_file));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn daemon(config: &Config, ready_file: Option<&Path>) -> anyhow::Result<()> {
    // 1. What must be so before anything is open: no signal ends a start that takes long.
    log_other_signals().context("cannot listen for signals")?;
    let ready_file = ready_file.map(ReadyFile::new);
    let prometheus = metrics::install()?;

    // 2. Everything that the configuration names.
    let tls = open_tls(config)?;
    let opened = open(config)?;

    // 3. The addresses.
    let listening = listen(config).await?;
    let addresses = listening.addresses()?;

    // 4. The daemon serves, and says what it can do.
    let (drain, draining) = watch::channel(false);
    let readiness = Arc::new(readiness(&draining, &opened));
    let mut running = start(config, opened, listening, tls, draining, (Arc::clone(&readiness), prometheus));
    // Before anybody knows that there is a daemon to be ended.
    let end = asked_to_end().context("cannot listen for signals")?;
    tracing::info!(
        grpc = %addresses.grpc,
        socket = addresses.socket.as_ref().map(|path| tracing::field::display(path.display())),
        http = addresses.http.map(tracing::field::display),
        "listening"
    );
    tokio::spawn(readiness.watch());
    if let Some(file) = &ready_file {
        file.write(&addresses)?;
    }

    // 5. Until it is told to end, or cannot go on.
    tokio::select! {
        name = end => tracing::info!(signal = name, "shutting down: finishing what is reserved"),
        ended = &mut running.committer_ended => return Err(why_ended(ended)),
    }

    // 6. Down, in order.
    drop(ready_file);
    drain.send_replace(true);
    running.shut_down().await
}

/// Reads the TLS settings.
fn open_tls(config: &Config) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let config::Server { certificate, key, client_ca, .. } = &config.server;
    let [certificate_file, key_file, client_ca_file] =
        [certificate, key, client_ca].map(|path| config.resolve(path.get_ref()));
    let tls = listener::tls(&certificate_file, &key_file, &client_ca_file);
    let tls = tls.map_err(|(setting, message)| match setting {
        Setting::Certificate => config.error_at(certificate.span(), "server.certificate", message),
        Setting::Key => config.error_at(key.span(), "server.key", message),
        Setting::ClientCa => config.error_at(client_ca.span(), "server.client_ca", message),
    })?;
    Ok(tls)
}

/// What the daemon works with, opened and checked.
struct Opened {
    pools: Pools,
    watched: Vec<MonitoredCertificate>,
    issuer: Arc<Issuance>,
    profiles: Arc<Profiles>,
    signers: Signers,
    records: EmbeddedRecords,
    scrub: Option<Scrub>,
    committer: Committer,
    committer_thread: JoinHandle<Result<(), LedgerError>>,
    checkpoints: Option<Arc<Checkpoints>>,
}

/// Opens the keys, then what is said about certificates, then the ledger.
fn open(config: &Config) -> anyhow::Result<Opened> {
    let (pools, issuers) = open_issuers(config)?;
    let profiles = configure::profiles(config, &issuers, Timestamp::now())?;
    let refused_keys = configure::refused_keys(config, &issuers)?;
    configure::check_client_ca(config, &issuers)?;
    let watched = watched(config, &issuers)?;
    let audit = open_audit(config, &issuers)?;

    let data = config.resolve(config.ledger.path.get_ref());
    let settings = Settings { min_free: u64::from(config.ledger.min_free_mib) << 20, ..Settings::default() };
    let guards = Guards { audit_keys: audit_keys(config, audit.as_ref())?, clock: clock_bounds(config, &issuers) };
    let opened = EmbeddedLedger::open_guarded(&data, Timestamp::now(), &settings, &guards);
    let (ledger, records) = opened.map_err(|error| config.error_at(config.ledger.path.span(), "ledger.path", error))?;
    let begins_anew = records.head().sequence > 0 && !embedded::checkpoint_file(&data).exists();
    let scrub = config.ledger.scrub_interval().map(|interval| Scrub::start(records.clone(), interval)).transpose();
    let scrub = scrub.context("cannot start the scrub")?;
    let (committer, committer_thread) = Committer::start(ledger).context("cannot start the committer")?;
    let mut signers: BTreeMap<String, Arc<dyn Recoverable>> =
        pools.iter().map(|(name, pool)| (name.clone(), Arc::clone(pool) as Arc<dyn Recoverable>)).collect();
    let checkpoints = audit.map(|(signer, key, interval)| {
        signers.insert(AUDIT.to_owned(), Arc::clone(&signer) as Arc<dyn Recoverable>);
        let (committer, file) = (committer.clone(), embedded::checkpoint_file(&data));
        let begins_anew = begins_anew.into();
        Arc::new(Checkpoints {
            signer,
            key,
            records: Arc::new(records.clone()),
            committer,
            file,
            interval,
            begins_anew,
        })
    });
    let profiles = profiles.into_iter().map(|profile| (profile.name().to_owned(), profile));
    let profiles = Arc::new(profiles.collect::<Profiles>());
    let issuer = Issuance::new(Arc::clone(&profiles), refused_keys, committer.clone(), Arc::new(records.clone()));
    let issuer = Arc::new(issuer);
    let signers = Arc::new(signers);
    Ok(Opened { pools, watched, issuer, profiles, signers, records, scrub, committer, committer_thread, checkpoints })
}

/// Where the daemon listens.
struct Listening {
    tcp: TcpListener,
    http: Option<TcpListener>,
    socket: Option<(PathBuf, UnixListener)>,
}

async fn listen(config: &Config) -> anyhow::Result<Listening> {
    let bind = |address: &Spanned<SocketAddr>, key: &'static str| {
        let (address, span) = (*address.get_ref(), address.span());
        async move {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|error| config.error_at(span, key, format!("cannot listen on {address}: {error}")))
        }
    };
    let tcp = bind(&config.server.listen, "server.listen").await?;
    let http = match &config.http {
        Some(http) => Some(bind(&http.listen, "http.listen").await?),
        None => None,
    };
    // The last that can fail: the file would be left behind.
    let mut socket = None;
    if let Some(setting) = &config.server.socket {
        let path = config.resolve(setting.get_ref());
        let bound = listener::bind_socket(&path).map_err(|error| {
            let message = format!("cannot listen on {}: {error}", path.display());
            config.error_at(setting.span(), "server.socket", message)
        })?;
        socket = Some((path, bound));
    }
    Ok(Listening { tcp, http, socket })
}

impl Listening {
    fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            grpc: self.tcp.local_addr()?,
            socket: self.socket.as_ref().map(|(path, _)| path.clone()),
            http: self.http.as_ref().map(TcpListener::local_addr).transpose()?,
        })
    }
}

/// A daemon that serves.
struct Running {
    server: task::JoinHandle<Result<(), Box<dyn std::error::Error + Send + Sync>>>,
    committer: Committer,
    committer_ended: oneshot::Receiver<Result<(), LedgerError>>,
    checkpoints: Option<(Arc<Checkpoints>, task::JoinHandle<()>)>,
    pools: Pools,
    scrub: Option<Scrub>,
    socket: Option<PathBuf>,
}

/// Starts all that runs beside: metrics and health first, so that they can be asked when nothing else can.
fn start(
    config: &Config,
    opened: Opened,
    listening: Listening,
    tls: Arc<rustls::ServerConfig>,
    draining: watch::Receiver<bool>,
    (readiness, prometheus): (Arc<Readiness>, PrometheusHandle),
) -> Running {
    let Opened { pools, watched, issuer, profiles, signers, records, scrub, committer, committer_thread, checkpoints } =
        opened;
    let limits = connection_limits();
    if let Some(http) = listening.http {
        tokio::spawn(http::serve(http, limits.http, readiness, prometheus));
    }
    tokio::spawn(expiry::watch(watched));
    let (socket, unix) = listening.socket.unzip();
    let services = Services {
        issuer,
        committer: committer.clone(),
        records: Arc::new(records),
        profiles,
        signers,
        window: *config.server.window.get_ref(),
        stall_limit: Duration::from_secs(*config.server.stall_seconds.get_ref()),
        draining,
    };
    Running {
        server: tokio::spawn(grpc::serve(services, listener::incoming(listening.tcp, tls, unix, limits))),
        committer,
        committer_ended: watch_committer(committer_thread),
        checkpoints: checkpoints.map(|checkpoints| {
            let making = Arc::clone(&checkpoints).spawn();
            (checkpoints, making)
        }),
        pools,
        scrub,
        socket,
    }
}

impl Running {
    /// Ends the open calls, makes a last checkpoint, finishes what is reserved, and closes the ledger and the HSM. Nothing
    /// new is accepted already.
    async fn shut_down(self) -> anyhow::Result<()> {
        let Running { server, committer, committer_ended, checkpoints, pools, scrub, socket } = self;
        drop(scrub);
        if tokio::time::timeout(DRAIN, server).await.is_err() {
            tracing::warn!("some stations did not read their replies in time; they get them when they ask again");
        }
        if let Some((checkpoints, making)) = checkpoints {
            making.abort();
            match tokio::time::timeout(LAST_CHECKPOINT, checkpoints.make_last()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "no last checkpoint; one is made at the next start"),
                Err(_) => tracing::warn!("no last checkpoint in time; one is made at the next start"),
            }
        }
        let closed = async {
            committer.close().await;
            committer_ended.await
        };
        match tokio::time::timeout(DRAIN, closed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(ended) => return Err(why_ended(ended)),
            Err(_) => {
                tracing::warn!("some requests did not end in time; what they reserved is abandoned at the next start")
            }
        }
        if let Some(path) = socket {
            // It is replaced at the next start in any case.
            let _ = fs::remove_file(path);
        }
        tokio::task::block_in_place(|| pools.iter().for_each(|(_, pool)| pool.close()));
        tracing::info!("stopped");
        Ok(())
    }
}

/// What is in the way of issuing, or may come to be; the table is in [`crate::readiness`].
fn readiness(draining: &watch::Receiver<bool>, opened: &Opened) -> Readiness {
    let Opened { pools, watched, profiles, records, .. } = opened;
    let (mut checks, mut warnings): (Vec<Part>, Vec<Part>) = (Vec::new(), Vec::new());
    for (issuer, pool) in pools {
        let part = format!("hsm of issuer {issuer}");
        let (healthy, degraded) = (Arc::clone(pool), Arc::clone(pool));
        checks.push((part.clone(), Box::new(move || healthy.healthy())));
        warnings.push((part, Box::new(move || degraded.degraded().map_or(Ok(()), Err))));
    }
    for name in profiles.keys() {
        let part = format!("profile {name}");
        let (profiles, name) = (Arc::clone(profiles), name.clone());
        let check = move || match profiles.get(&name) {
            Some(profile) => profile.check_issuer(Timestamp::now()).map_err(|error| error.to_string()),
            None => Ok(()),
        };
        checks.push((part, Box::new(check)));
    }
    let (healthy, intact) = (records.clone(), records.clone());
    checks.push(("ledger".to_owned(), Box::new(move || healthy.healthy())));
    warnings.push(("ledger".to_owned(), Box::new(move || intact.intact())));
    for purpose in [Purpose::Server, Purpose::StationCa] {
        let certificates: Vec<_> = watched.iter().filter(|found| *found.purpose() == purpose).cloned().collect();
        let each = certificates.clone();
        let any = move || expiry::check_any(&certificates, Timestamp::now()).map_err(|error| error.to_string());
        checks.push((purpose.to_string(), Box::new(any)));
        warnings.push((
            purpose.to_string(),
            // When none is valid, that is in the way, and told there.
            Box::new(move || match expiry::check_any(&each, Timestamp::now()) {
                Ok(()) => {
                    let valid = each.iter().try_for_each(|certificate| certificate.check(Timestamp::now()));
                    valid.map_err(|error| error.to_string())
                }
                Err(_) => Ok(()),
            }),
        ));
    }
    Readiness::new(draining.clone(), checks, warnings)
}

/// How many connections each port may have, of the files that the process may still open.
fn connection_limits() -> Limits {
    let most = connections::raise_descriptor_limit();
    let limits = Limits::new(most.saturating_sub(connections::open_descriptors()));
    if most < Limits::FEW_DESCRIPTORS {
        tracing::warn!(
            most,
            connections = limits.tls,
            "the process may open few files; raise its limit (LimitNOFILE=)"
        );
    }
    limits
}

/// The file that tells where the daemon listens; it is there only while it does.
struct ReadyFile<'a>(&'a Path);

impl<'a> ReadyFile<'a> {
    /// One that a killed daemon left behind must not speak for this one.
    fn new(path: &'a Path) -> Self {
        let _ = fs::remove_file(path);
        ReadyFile(path)
    }

    fn write(&self, addresses: &Addresses) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(addresses)?;
        durable::write(self.0, text.as_bytes(), Access::Public)
            .with_context(|| format!("cannot write the ready file {}", self.0.display()))
    }
}

impl Drop for ReadyFile<'_> {
    fn drop(&mut self) {
        // It may be gone already; there is nothing else to do about it.
        let _ = fs::remove_file(self.0);
    }
}

/// The pools that have the issuers' keys, by the issuers' names.
type Pools = Vec<(String, Arc<Pool>)>;

/// What checkpoints are signed with, and how often.
type AuditKey = (Arc<Pool>, PublicKey, Duration);

/// What logs, metrics and operators call the audit key's sessions.
const AUDIT: &str = "audit";

/// How long the HSM may take for a checkpoint; a later one covers what this one would have.
const AUDIT_LIMIT: Duration = Duration::from_secs(10);

/// Opens the audit key, if there is one. It must issue nothing: who can make the daemon sign certificates must not be
/// able to vouch for the journal.
fn open_audit(config: &Config, issuers: &Issuers) -> anyhow::Result<Option<AuditKey>> {
    let Some(audit) = &config.audit else {
        tracing::warn!("there is no [audit] key: nothing will show that the journal was cut short or rewritten");
        return Ok(None);
    };
    let wrong_key = |message: String| config.error_at(audit.key.span(), "audit.key", message);
    let uri = KeyUri::parse(audit.key.get_ref()).map_err(|error| wrong_key(error.to_string()))?;
    let (named, folder) = (uri.clone(), config.folder().to_owned());
    let key = hsm::with_timeout(AUDIT_LIMIT, move || {
        let token = Token::open(&named.token, &folder)?;
        Ok(Key::open(&token, &named.key)?.public_key().clone())
    });
    let key = key.map_err(|error| wrong_key(error.to_string()))?;
    if let Some((name, _)) = issuers.iter().find(|(_, issuer)| *issuer.public_key() == key) {
        let message = format!("this is the key of the issuer \"{name}\"; checkpoints need a key that issues nothing");
        return Err(wrong_key(message).into());
    }
    let pool_settings = PoolSettings { sessions: Sessions::Number(1), call_limit: AUDIT_LIMIT, wait: AUDIT_LIMIT };
    let pool = Pool::open(AUDIT, &[uri], &pool_settings, &key, config.folder());
    let pool = pool.map_err(|error| wrong_key(error.to_string()))?;
    Ok(Some((Arc::new(pool), key, audit.interval().unwrap_or_default())))
}

/// The keys that may have signed the checkpoint file; none without an audit key.
fn audit_keys(config: &Config, audit: Option<&AuditKey>) -> anyhow::Result<Vec<PublicKey>> {
    let (Some(settings), Some((_, key, _))) = (&config.audit, audit) else { return Ok(Vec::new()) };
    let previous = settings.previous_keys.iter().map(|path| {
        let file = config.resolve(path.get_ref());
        let unreadable = |message: String| {
            let message = format!("cannot read a public key from {}: {message}", file.display());
            config.error_at(path.span(), "audit.previous_keys", message)
        };
        let spki = pem::read_public_key(&file).map_err(|error| unreadable(error.to_string()))?;
        PublicKey::from_spki(&spki).map_err(|error| unreadable(error.to_string()))
    });
    Ok(std::iter::once(Ok(key.clone())).chain(previous).collect::<Result<_, _>>()?)
}

/// Seconds since 1970.
const BUILT: &str = env!("BIRTHMARK_BUILT");

/// When the clock cannot be right: before this program was built or the first issuer's certificate was valid, and after
/// the end of the server's certificate, with which no station would talk to it anyway.
fn clock_bounds(config: &Config, issuers: &Issuers) -> ClockBounds {
    // Certificates know whole seconds.
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    // What is too far away for a timestamp bounds nothing.
    let moment = |time: Time| now.checked_add(time.since(now)).ok();
    let built = BUILT.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let built = built.map(|built| (built, "when this program was built".to_owned()));
    let issuers = issuers.values().filter_map(|issuer| Some((moment(issuer.not_before())?, issuer.name())));
    let issuer =
        issuers.min().map(|(begin, name)| (begin, format!("when the certificate of the issuer \"{name}\" begins")));
    let certificates = pem::read_certificates(&config.resolve(config.server.certificate.get_ref()));
    let server = certificates.ok().and_then(|certificates| Certificate::from_der(certificates.first()?).ok());
    let end = server.and_then(|certificate| moment(certificate.not_after()));
    let latest = end.map(|end| (end, "when the certificate server.certificate expires".to_owned()));
    ClockBounds { earliest: built.into_iter().chain(issuer).max(), latest }
}

/// Opens every issuer's key.
fn open_issuers(config: &Config) -> anyhow::Result<(Pools, Issuers)> {
    let mut pools = Vec::new();
    let mut issuers = Issuers::new();
    for (name, settings) in &config.issuers {
        let (chain, algorithm) = configure::chain(config, name, settings, Timestamp::now())?;
        let wrong_key = |message: String| config.error_at(settings.key.span(), &format!("issuers.{name}.key"), message);
        let uris = settings.key.get_ref().uris().iter().map(|uri| {
            let mut uri = KeyUri::parse(uri)?;
            uri.key.algorithm = Some(algorithm);
            Ok(uri)
        });
        let uris = uris.collect::<Result<Vec<_>, hsm::UriError>>().map_err(|error| wrong_key(error.to_string()))?;
        let pool_settings = PoolSettings {
            sessions: match settings.sessions.as_ref().map(Spanned::get_ref) {
                Some(config::Sessions::Number(number)) => Sessions::Number(*number),
                Some(config::Sessions::Auto(_)) | None => Sessions::Auto,
            },
            call_limit: Duration::from_secs(*settings.call_limit_seconds.get_ref()),
            wait: Duration::from_secs(*settings.wait_seconds.get_ref()),
        };
        let pool = Pool::open(name, &uris, &pool_settings, chain.public_key(), config.folder());
        let pool = Arc::new(pool.map_err(|error| wrong_key(error.to_string()))?);
        pools.push((name.clone(), Arc::clone(&pool)));
        issuers.insert(name.clone(), Arc::new(IssuingCa::new(name, chain, pool)));
    }
    Ok((pools, issuers))
}

/// The certificates that the daemon depends on.
fn watched(config: &Config, issuers: &Issuers) -> anyhow::Result<Vec<MonitoredCertificate>> {
    let config::Server { certificate, client_ca, .. } = &config.server;
    let read = |path: &Path, purpose: Purpose, number: usize| {
        let path = config.resolve(path);
        let certificates = pem::read_certificates(&path).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        let watched = certificates.iter().take(number).map(|der| MonitoredCertificate::read(purpose.clone(), der));
        watched.collect::<Result<Vec<_>, _>>().map_err(|error| anyhow!("{}: {error}", path.display()))
    };
    let issuers = issuers.values().map(|issuer| {
        MonitoredCertificate::new(Purpose::Issuer(issuer.name().to_owned()), issuer.not_before(), issuer.not_after())
    });
    let server = read(certificate.get_ref(), Purpose::Server, 1)?;
    let station_ca = read(client_ca.get_ref(), Purpose::StationCa, usize::MAX)?;
    Ok(issuers.chain(server).chain(station_ca).collect())
}

/// Resolves when the committer's thread has ended.
fn watch_committer(thread: JoinHandle<Result<(), LedgerError>>) -> oneshot::Receiver<Result<(), LedgerError>> {
    let (sender, receiver) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        if let Ok(ended) = thread.join() {
            let _ = sender.send(ended);
        }
        // A panic drops the sender.
    });
    receiver
}

fn why_ended(ended: Result<Result<(), LedgerError>, oneshot::error::RecvError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow!("the committer ended by itself"),
        Ok(Err(error)) => anyhow::Error::new(error).context("the ledger failed"),
        Err(_) => anyhow!("the committer panicked; the log says where"),
    }
}

/// From now on SIGTERM, SIGINT and SIGQUIT end nothing by themselves; what this gives resolves to the name of the first.
fn asked_to_end() -> io::Result<impl Future<Output = &'static str>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut quit = signal(SignalKind::quit())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            // A core dump would have the PIN in it.
            _ = quit.recv() => "SIGQUIT",
        }
    })
}

/// From now on these signals are logged: a closed terminal, the rotation of logs or the habit of `systemctl reload` must
/// not end the daemon. SIGPIPE is ignored by Rust's runtime already; a write beyond the limit of file sizes fails when
/// SIGXFSZ does not end the process.
fn log_other_signals() -> io::Result<()> {
    let read_at_start = "the configuration is read at the start only";
    let number = |signal: rustix::process::Signal| SignalKind::from_raw(signal.as_raw());
    let signals = [
        ("SIGHUP", SignalKind::hangup(), read_at_start),
        ("SIGUSR1", SignalKind::user_defined1(), "it has no meaning here"),
        ("SIGUSR2", SignalKind::user_defined2(), "it has no meaning here"),
        ("SIGALRM", SignalKind::alarm(), "it has no meaning here"),
        ("SIGVTALRM", number(rustix::process::Signal::VTALARM), "it has no meaning here"),
        ("SIGPROF", number(rustix::process::Signal::PROF), "it has no meaning here"),
        ("SIGIO", SignalKind::io(), "it has no meaning here"),
        ("SIGXFSZ", number(rustix::process::Signal::XFSZ), "a file would be larger than the process' limit allows"),
    ];
    for (name, kind, meaning) in signals {
        let mut received = signal(kind)?;
        tokio::spawn(async move {
            while received.recv().await.is_some() {
                tracing::warn!("{name} received: {meaning}");
            }
        });
    }
    Ok(())
}
