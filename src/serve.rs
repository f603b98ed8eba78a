//! The daemon, wired together: what is opened in which order, and how it goes down.
//!
//! Going down (SIGTERM, SIGINT): nothing new is accepted; what is reserved is signed, recorded and answered; the
//! ledger is closed; exit 0. A sync of the journal that fails ends the process at once, with another exit code.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
};
use toml::Spanned;

use crate::{
    cert::{self, IssuingCa, Time},
    checkpoint::Checkpoints,
    committer::Committer,
    config::{self, Config},
    durable::{self, Access},
    expiry::{self, Watched},
    grpc::{self, Services, listener, listener::Setting},
    hsm::{self, Key, KeyUri, Pool, PoolSettings, Sessions, Token},
    http::{self, Check, Readiness},
    issuer::Issuance,
    ledger::{
        LedgerError, Records,
        clock::ClockBounds,
        embedded::{self, EmbeddedLedger, Guards, Settings},
        scrub::Scrub,
    },
    metrics,
    policy::{self, Issuers},
    signer::{PublicKey, Signer},
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

/// Runs the daemon until it is told to end. `ready_file`, if given, is written (as JSON, [`Addresses`]) when it issues.
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
    let prometheus = metrics::install()?;
    let config::Server { certificate, key, client_ca, .. } = &config.server;
    let [certificate_file, key_file, client_ca_file] =
        [certificate, key, client_ca].map(|path| config.resolve(path.get_ref()));
    let tls = listener::tls(&certificate_file, &key_file, &client_ca_file);
    let tls = tls.map_err(|(setting, message)| match setting {
        Setting::Certificate => config.error_at(certificate.span(), "server.certificate", message),
        Setting::Key => config.error_at(key.span(), "server.key", message),
        Setting::ClientCa => config.error_at(client_ca.span(), "server.client_ca", message),
    })?;
    let (pools, issuers) = open_issuers(config)?;
    let profiles = policy::profiles(config, &issuers, Timestamp::now())?;
    let refused_keys = policy::refused_keys(config, &issuers)?;
    tokio::spawn(expiry::watch(watched(config, &issuers)?));
    let audit = open_audit(config, &issuers)?;

    let data = config.resolve(config.ledger.path.get_ref());
    let settings = Settings { min_free: u64::from(config.ledger.min_free_mib) << 20, ..Settings::default() };
    let guards = Guards { audit_keys: audit_keys(config, audit.as_ref())?, clock: clock_bounds(config, &issuers) };
    let opened = EmbeddedLedger::open_guarded(&data, Timestamp::now(), &settings, &guards);
    let (ledger, records) = opened.map_err(|error| config.error_at(config.ledger.path.span(), "ledger.path", error))?;
    let begins_anew = records.head().sequence > 0 && !embedded::checkpoint_file(&data).exists();
    let scrub = config.ledger.scrub_interval().map(|interval| Scrub::start(records.clone(), interval)).transpose();
    let _scrub = scrub.context("cannot start the scrub")?;
    let (committer, committer_thread) = Committer::start(ledger).context("cannot start the committer")?;

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
    let mut unix = None;
    if let Some(setting) = &config.server.socket {
        let path = config.resolve(setting.get_ref());
        let bound = listener::bind_socket(&path).map_err(|error| {
            let message = format!("cannot listen on {}: {error}", path.display());
            config.error_at(setting.span(), "server.socket", message)
        })?;
        (socket, unix) = (Some(path), Some(bound));
    }
    let addresses = Addresses {
        grpc: tcp.local_addr()?,
        socket: socket.clone(),
        http: http.as_ref().map(TcpListener::local_addr).transpose()?,
    };

    let (drain, draining) = watch::channel(false);
    let part = |issuer: &str| format!("hsm of issuer {issuer}");
    let checks = pools.iter().map(|(issuer, pool)| {
        let pool = Arc::clone(pool);
        (part(issuer), Box::new(move || pool.healthy()) as Check)
    });
    let warnings = pools.iter().map(|(issuer, pool)| {
        let pool = Arc::clone(pool);
        (part(issuer), Box::new(move || pool.degraded().map_or(Ok(()), Err)) as Check)
    });
    let ledger_check = {
        let records = records.clone();
        ("ledger".to_owned(), Box::new(move || records.healthy()) as Check)
    };
    let ledger_warning = {
        let records = records.clone();
        ("ledger".to_owned(), Box::new(move || records.intact()) as Check)
    };
    let warnings = warnings.chain([ledger_warning]).collect();
    let readiness = Readiness::new(draining.clone(), checks.chain([ledger_check]).collect(), warnings);
    if let Some(http) = http {
        tokio::spawn(http::serve(http, readiness, prometheus));
    }

    let records = Arc::new(records);
    let checkpoints = audit.map(|(signer, key, interval)| {
        let (committer, file) = (committer.clone(), embedded::checkpoint_file(&data));
        let begins_anew = begins_anew.into();
        Arc::new(Checkpoints { signer, key, records: records.clone(), committer, file, interval, begins_anew })
    });
    let services = Services {
        issuance: Arc::new(Issuance::new(profiles, refused_keys, committer.clone(), records.clone())),
        records,
        window: *config.server.window.get_ref(),
        draining,
    };
    let server = tokio::spawn(grpc::serve(services, listener::incoming(tcp, tls, unix)));
    let mut committer_ended = watch_committer(committer_thread);
    let making_checkpoints = checkpoints.as_ref().map(|checkpoints| Arc::clone(checkpoints).spawn());

    // Before anybody knows that there is a daemon to be ended.
    let end = asked_to_end().context("cannot listen for signals")?;
    tracing::info!(
        grpc = %addresses.grpc,
        socket = socket.as_ref().map(|path| tracing::field::display(path.display())),
        http = addresses.http.map(tracing::field::display),
        "ready"
    );
    if let Some(path) = ready_file {
        let text = serde_json::to_string_pretty(&addresses)?;
        durable::write(path, text.as_bytes(), Access::Public)
            .with_context(|| format!("cannot write the ready file {}", path.display()))?;
    }

    tokio::select! {
        name = end => tracing::info!(signal = name, "shutting down: finishing what is reserved"),
        ended = &mut committer_ended => return Err(why_ended(ended)),
    }
    drain.send_replace(true);
    if tokio::time::timeout(DRAIN, server).await.is_err() {
        tracing::warn!("some stations did not read their replies in time; they get them when they ask again");
    }
    if let (Some(task), Some(checkpoints)) = (making_checkpoints, checkpoints) {
        task.abort();
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
    tracing::info!("ended");
    Ok(())
}

/// The pools that have the issuers' keys, by the issuers' names.
type Pools = Vec<(String, Arc<Pool>)>;

/// What checkpoints are signed with, and how often.
type AuditKey = (Arc<dyn Signer>, PublicKey, Duration);

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
    let key = hsm::within(AUDIT_LIMIT, move || {
        let token = Token::open(&named.token, &folder)?;
        Ok(Key::open(&token, &named.key)?.public_key().clone())
    });
    let key = key.map_err(|error| wrong_key(error.to_string()))?;
    if let Some((name, _)) = issuers.iter().find(|(_, issuer)| *issuer.public_key() == key) {
        let message = format!("this is the key of the issuer \"{name}\"; checkpoints need a key that issues nothing");
        return Err(wrong_key(message).into());
    }
    let pool_settings = PoolSettings { sessions: Sessions::Number(1), call_limit: AUDIT_LIMIT, wait: AUDIT_LIMIT };
    let pool = Pool::open("audit", &[uri], &pool_settings, &key, config.folder());
    let pool = pool.map_err(|error| wrong_key(error.to_string()))?;
    Ok(Some((Arc::new(pool), key, audit.interval().unwrap_or_default())))
}

/// The keys that may have signed the checkpoint file; none without an audit key.
fn audit_keys(config: &Config, audit: Option<&AuditKey>) -> anyhow::Result<Vec<PublicKey>> {
    let (Some(settings), Some((_, key, _))) = (&config.audit, audit) else { return Ok(Vec::new()) };
    let previous = settings.previous_keys.iter().map(|path| {
        let file = config.resolve(path.get_ref());
        PublicKey::read(&file).map_err(|message| {
            let message = format!("cannot read a public key from {}: {message}", file.display());
            config.error_at(path.span(), "audit.previous_keys", message)
        })
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
    let certificates = cert::read_certificates(&config.resolve(config.server.certificate.get_ref()));
    let end = certificates.ok().and_then(|certificates| moment(Time::end_of(certificates.first()?).ok()?));
    let latest = end.map(|end| (end, "when the certificate server.certificate expires".to_owned()));
    ClockBounds { earliest: built.into_iter().chain(issuer).max(), latest }
}

/// Opens every issuer's key.
fn open_issuers(config: &Config) -> anyhow::Result<(Pools, Issuers)> {
    let mut pools = Vec::new();
    let mut issuers = Issuers::new();
    for (name, settings) in &config.issuers {
        let (chain, algorithm) = policy::chain(config, name, settings)?;
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

/// The CA certificates whose end must not come as a surprise.
fn watched(config: &Config, issuers: &Issuers) -> anyhow::Result<Vec<(Watched, Time)>> {
    let path = config.resolve(config.server.client_ca.get_ref());
    let certificates = cert::read_certificates(&path).map_err(|message| anyhow!("{}: {message}", path.display()))?;
    let ends = certificates.iter().map(|certificate| Time::end_of(certificate)).collect::<Result<Vec<_>, _>>();
    let end = ends.map_err(|error| anyhow!("{}: {error}", path.display()))?.into_iter().min();
    let issuers = issuers.values().map(|issuer| (Watched::Issuer(issuer.name().to_owned()), issuer.not_after()));
    Ok(issuers.chain(end.map(|end| (Watched::StationCa, end))).collect())
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

/// From now on SIGTERM and SIGINT end nothing by themselves; what this gives resolves to the name of the first.
fn asked_to_end() -> io::Result<impl Future<Output = &'static str>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
