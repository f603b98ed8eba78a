//! What changes while the daemon runs: profiles, keys that are refused, its own TLS certificate (also EST's), the station CA
//! and its revocation list, the CA that enrols, what needs a second operator, the log's level. A configuration is taken as a whole or not at all, and no connection is dropped for it: TLS settings are those of
//! the handshake, a policy that of the request.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::{
    certificates::clock_bounds,
    destinations,
    edge::{Edge, Files, approval},
    history, supervisor,
};
use crate::{
    committer::Committer,
    config::{Config, ConfigError},
    configure::{self, Issuers},
    expiry::MonitoredCertificate,
    grpc::{Reload, Reloaded},
    hash::sha256,
    issuer::Policy,
    ledger::{Actor, embedded::EmbeddedRecords},
    live::Live,
    profile::Profiles,
    security,
};

/// How often the certificate files are looked at.
const LOOK: Duration = Duration::from_millis(700);

/// What cannot change while the daemon runs: tables of the configuration, and keys.
const FIXED_TABLES: [&str; 8] =
    ["http", "ledger", "audit", "crl", "issuers", "environment", "destinations", "security_log"];
const FIXED_KEYS: [&str; 7] = [
    "server.listen",
    "server.socket",
    "server.socket_role",
    "server.window",
    "server.stall_seconds",
    // Whether there is EST at all, and where.
    "est",
    "est.listen",
];

/// Sets the log's level; a level that cannot be read is an error.
pub type SetLogLevel = Box<dyn Fn(Option<&str>) -> Result<(), String> + Send + Sync>;

/// What may be replaced.
#[derive(Clone)]
pub(super) struct Replaceable {
    pub(super) policy: Arc<Live<Policy>>,
    pub(super) tls: Arc<Live<rustls::ServerConfig>>,
    pub(super) watched: Arc<Live<Vec<MonitoredCertificate>>>,
}

/// Reads the configuration anew.
pub(super) struct Reloader {
    file: PathBuf,
    replaceable: Replaceable,
    edge: Edge,
    issuers: Issuers,
    records: EmbeddedRecords,
    committer: Committer,
    set_log_level: Option<SetLogLevel>,
    /// One at a time; the configuration that is in force, and how its certificate files looked.
    state: Mutex<State>,
}

struct State {
    config: Arc<Config>,
    /// That of the start: what needs a restart is still as it says.
    started: Arc<Config>,
    looks: Vec<Option<Look>>,
    /// Those of files that are read at a start only, with the keys that name them.
    fixed: Vec<(String, PathBuf, Option<Look>)>,
}

/// How a file looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

/// A configuration that was read and checked, and what it makes.
struct Fresh {
    config: Config,
    policy: Policy,
    files: Files,
    looks: Vec<Option<Look>>,
}

/// Profiles and refused keys, checked.
pub(super) fn policy(config: &Config, issuers: &Issuers) -> Result<Policy, ConfigError> {
    let profiles = configure::profiles(config, issuers, Timestamp::now())?;
    let profiles = profiles.into_iter().map(|profile| (profile.name().to_owned(), profile)).collect::<Profiles>();
    Ok(Policy { profiles, refused_keys: configure::refused_keys(config, issuers)? })
}

impl Reloader {
    pub(super) fn new(
        config: Arc<Config>,
        (replaceable, edge): (Replaceable, Edge),
        issuers: Issuers,
        (records, committer): (EmbeddedRecords, Committer),
        set_log_level: Option<SetLogLevel>,
    ) -> Arc<Reloader> {
        let (file, looks, fixed) = (config.path().to_owned(), looks(&config), fixed_files(&config));
        let state = Mutex::new(State { started: Arc::clone(&config), config, looks, fixed });
        Arc::new(Reloader { file, replaceable, edge, issuers, records, committer, set_log_level, state })
    }

    fn read(&self) -> Result<Fresh, ConfigError> {
        let config = Config::load(&self.file)?;
        let looks = looks(&config);
        let policy = policy(&config, &self.issuers)?;
        let files = self.read_files(&config, &policy)?;
        // They come with a restart, which a wrong one would refuse.
        for (name, section) in &config.destinations {
            destinations::one(&config, name, section)?;
        }
        Ok(Fresh { config, policy, files, looks })
    }

    fn read_files(&self, config: &Config, policy: &Policy) -> Result<Files, ConfigError> {
        Files::read(config, (&self.issuers, policy), &self.records, &self.edge.access)
    }

    /// Takes the files that were read. Nothing of it fails.
    fn take_files(&self, config: &Config, files: Files) {
        self.replaceable.tls.set(Arc::clone(&files.tls));
        self.replaceable.watched.set(Arc::clone(&files.watched));
        self.edge.take(files);
        self.records.set_clock_bounds(clock_bounds(config, &self.issuers));
    }

    /// Reads the configuration anew, for an operator or, at a signal, nobody; the supervisor is told meanwhile.
    async fn run(&self, actor: Option<Actor>) -> Result<Reloaded, String> {
        supervisor::reloading();
        let reloaded = self.reload(actor).await;
        supervisor::ready();
        reloaded
    }

    async fn reload(&self, actor: Option<Actor>) -> Result<Reloaded, String> {
        let mut state = self.state.lock().await;
        let by = actor.as_ref().map_or("SIGHUP".to_owned(), ToString::to_string);
        let refused = |error: &dyn std::fmt::Display| {
            tracing::error!(target: security::TARGET, by, %error, "the configuration was not reloaded; the one before stays in force");
            error.to_string()
        };
        let Fresh { config, policy, files, looks } =
            tokio::task::block_in_place(|| self.read()).map_err(|error| refused(&error))?;
        if let Some(set) = &self.set_log_level {
            let level = config.log.as_ref().and_then(|log| log.level.as_ref());
            set(level.map(|level| level.get_ref().as_str())).map_err(|error| {
                refused(&config.error_at(level.map_or(0..0, toml::Spanned::span), "log.level", error))
            })?;
        }
        let (changed, _) = differences(&state.config, &config);
        let (_, mut needs_restart) = differences(&state.started, &config);
        let replaced = state.fixed.iter().filter(|(_, path, then)| Look::at(path) != *then);
        needs_restart.extend(replaced.map(|(key, path, _)| format!("{key} ({} was replaced)", path.display())));
        let sha256 = sha256(config.text().as_bytes());
        history::record_reload(&self.committer, actor, sha256, config.text()).await.map_err(|error| refused(&error))?;
        // From here on nothing fails.
        self.replaceable.policy.set(Arc::new(policy));
        self.edge.approval.set(Arc::new(approval(&config)));
        self.take_files(&config, files);
        tracing::info!(
            target: security::TARGET,
            by,
            configuration = hex::encode(sha256),
            changed = changed.join(", "),
            "the configuration was reloaded"
        );
        if !needs_restart.is_empty() {
            tracing::warn!(target: security::TARGET, needs_restart = needs_restart.join(", "), "these settings changed, and need a restart");
        }
        (state.config, state.looks) = (Arc::new(config), looks);
        Ok(Reloaded { changed, needs_restart, sha256 })
    }

    /// Takes certificate files that were replaced, when they fit each other.
    pub(super) async fn watch_files(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK);
        let mut refused: Option<String> = None;
        loop {
            ticks.tick().await;
            let mut state = self.state.lock().await;
            let looks = looks(&state.config);
            if looks == state.looks {
                continue;
            }
            let (config, policy) = (Arc::clone(&state.config), self.replaceable.policy.get());
            match tokio::task::block_in_place(|| self.read_files(&config, &policy)) {
                Ok(files) => {
                    self.take_files(&config, files);
                    state.looks = looks;
                    refused = None;
                    tracing::info!(target: security::TARGET, "the server's certificate files were replaced, and are in use");
                }
                // A half that was replaced waits for the other.
                Err(error) => {
                    let error = error.to_string();
                    if refused.as_ref() != Some(&error) {
                        tracing::warn!(error, "the server's certificate files were replaced, and do not fit yet");
                        refused = Some(error);
                    }
                }
            }
        }
    }

    /// The daemon's side of [`Reload`].
    pub(super) fn handle(self: &Arc<Self>) -> Reload {
        let reloader = Arc::clone(self);
        Arc::new(move |actor| {
            let reloader = Arc::clone(&reloader);
            Box::pin(async move { reloader.run(actor).await })
        })
    }
}

impl Look {
    fn at(path: &Path) -> Option<Look> {
        let metadata = fs::metadata(path).ok()?;
        Some(Look { inode: metadata.ino(), length: metadata.len(), modified: metadata.modified().ok() })
    }
}

/// How the files that are watched look.
fn looks(config: &Config) -> Vec<Option<Look>> {
    let server = &config.server;
    let station_ca = config.station_ca.as_ref().map(|ca| &ca.certificate);
    let files = [&server.certificate, &server.key, &server.client_ca].into_iter().chain(station_ca);
    files.map(|path| Look::at(&config.resolve(path.get_ref()))).collect()
}

/// The files that are read at a start only.
fn fixed_files(config: &Config) -> Vec<(String, PathBuf, Option<Look>)> {
    let chains = config.issuers.iter().flat_map(|(name, issuer)| {
        issuer.chain.iter().map(move |path| (format!("issuers.{name}.chain"), config.resolve(path.get_ref())))
    });
    let keys = config.audit.iter().flat_map(|audit| &audit.previous_keys);
    let keys = keys.map(|path| ("audit.previous_keys".to_owned(), config.resolve(path.get_ref())));
    chains.chain(keys).map(|(key, path)| (key, path.clone(), Look::at(&path))).collect()
}

/// What differs between two configurations: what is taken, and what needs a restart.
fn differences(before: &Config, now: &Config) -> (Vec<String>, Vec<String>) {
    let table = |config: &Config| config.text().parse::<toml::Table>().unwrap_or_default();
    let (before, now) = (table(before), table(now));
    let mut changed = BTreeSet::new();
    for name in before.keys().chain(now.keys()) {
        let (Some(toml::Value::Table(old)), Some(toml::Value::Table(new))) = (before.get(name), now.get(name)) else {
            if before.get(name) != now.get(name) {
                changed.insert(name.clone());
            }
            continue;
        };
        let keys: BTreeSet<_> = old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).collect();
        changed.extend(keys.into_iter().map(|key| format!("{name}.{key}")));
    }
    changed.into_iter().partition(|key| !is_fixed(key))
}

fn is_fixed(key: &str) -> bool {
    let table = key.split_once('.').map_or(key, |(table, _)| table);
    FIXED_TABLES.contains(&table) || FIXED_KEYS.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_need_a_restart_are_named() {
        for (key, fixed) in [
            ("server.listen", true),
            ("server.certificate", false),
            ("ledger.path", true),
            ("issuers.device", true),
            ("profiles.device", false),
            ("refused_keys.block_list", false),
            ("http", true),
            ("log.level", false),
            ("server.client_crl", false),
            ("server.window", true),
            ("station_ca.certificate", false),
            ("station_ca", false),
            ("approval.orders_above", false),
            ("est", true),
            ("est.listen", true),
            ("est.default_label", false),
            ("destinations.cloud", true),
            ("security_log.file", true),
        ] {
            assert_eq!(is_fixed(key), fixed, "{key}");
        }
    }
}
