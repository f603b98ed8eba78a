//! What changes while the daemon runs: profiles, keys that are refused, its own TLS certificate, the station CA, the log's
//! level. A configuration is taken as a whole or not at all, and no connection is dropped for it: TLS settings are those of
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
    certificates::{clock_bounds, watched},
    history, supervisor,
    tls::open_tls,
};
use crate::{
    committer::Committer,
    config::{Config, ConfigError},
    configure::{self, Issuers},
    expiry::MonitoredCertificate,
    grpc::{Access, Reload, Reloaded},
    hash::sha256,
    issuer::Policy,
    ledger::{Actor, embedded::EmbeddedRecords},
    live::Live,
    profile::Profiles,
    security,
};

/// How often the certificate files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What cannot change while the daemon runs: tables of the configuration, and keys of `[server]`.
const FIXED_TABLES: [&str; 8] =
    ["http", "ledger", "audit", "crl", "issuers", "station_ca", "environment", "security_log"];
const FIXED_OF_SERVER: [&str; 6] = ["listen", "socket", "socket_role", "client_crl", "window", "stall_seconds"];

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
    access: Arc<Access>,
    issuers: Issuers,
    records: EmbeddedRecords,
    committer: Committer,
    set_log_level: Option<SetLogLevel>,
    /// One at a time; the configuration that is in force, and how its certificate files looked.
    state: Mutex<State>,
}

struct State {
    config: Arc<Config>,
    files: Vec<Option<Look>>,
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
    tls: Arc<rustls::ServerConfig>,
    watched: Vec<MonitoredCertificate>,
    files: Vec<Option<Look>>,
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
        (replaceable, access): (Replaceable, Arc<Access>),
        issuers: Issuers,
        (records, committer): (EmbeddedRecords, Committer),
        set_log_level: Option<SetLogLevel>,
    ) -> Arc<Reloader> {
        let (file, files) = (config.path().to_owned(), looks(&config));
        let state = Mutex::new(State { config, files });
        Arc::new(Reloader { file, replaceable, access, issuers, records, committer, set_log_level, state })
    }

    fn read(&self) -> Result<Fresh, ConfigError> {
        let config = Config::load(&self.file)?;
        let files = looks(&config);
        let tls = open_tls(&config, &self.access)?;
        configure::check_client_ca(&config, &self.issuers)?;
        let policy = policy(&config, &self.issuers)?;
        let watched = watched(&config, &self.issuers)?;
        Ok(Fresh { config, policy, tls, watched, files })
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
        let Fresh { config, policy, tls, watched, files } =
            tokio::task::block_in_place(|| self.read()).map_err(|error| refused(&error))?;
        if let Some(set) = &self.set_log_level {
            let level = config.log.as_ref().and_then(|log| log.level.as_ref());
            set(level.map(|level| level.get_ref().as_str())).map_err(|error| {
                refused(&config.error_at(level.map_or(0..0, toml::Spanned::span), "log.level", error))
            })?;
        }
        let (changed, needs_restart) = differences(&state.config, &config);
        let sha256 = sha256(config.text().as_bytes());
        history::record_reload(&self.committer, actor, sha256, config.text()).await.map_err(|error| refused(&error))?;
        // From here on nothing fails.
        self.replaceable.tls.set(tls);
        self.replaceable.policy.set(Arc::new(policy));
        self.replaceable.watched.set(Arc::new(watched));
        self.records.set_clock_bounds(clock_bounds(&config, &self.issuers));
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
        *state = State { config: Arc::new(config), files };
        Ok(Reloaded { changed, needs_restart, sha256 })
    }

    /// Takes certificate files that were replaced, when they fit each other.
    pub(super) async fn watch_files(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK);
        let mut refused: Option<String> = None;
        loop {
            ticks.tick().await;
            let mut state = self.state.lock().await;
            let files = looks(&state.config);
            if files == state.files {
                continue;
            }
            let config = Arc::clone(&state.config);
            let read = tokio::task::block_in_place(|| {
                let tls = open_tls(&config, &self.access)?;
                configure::check_client_ca(&config, &self.issuers)?;
                Ok::<_, ConfigError>((tls, watched(&config, &self.issuers)?))
            });
            match read {
                Ok((tls, watched)) => {
                    self.replaceable.tls.set(tls);
                    self.replaceable.watched.set(Arc::new(watched));
                    self.records.set_clock_bounds(clock_bounds(&config, &self.issuers));
                    state.files = files;
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

/// How the files that are watched look.
fn looks(config: &Config) -> Vec<Option<Look>> {
    let server = &config.server;
    let look = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some(Look { inode: metadata.ino(), length: metadata.len(), modified: metadata.modified().ok() })
    };
    [&server.certificate, &server.key, &server.client_ca].map(|path| look(&config.resolve(path.get_ref()))).to_vec()
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
    let (table, name) = key.split_once('.').unwrap_or((key, ""));
    FIXED_TABLES.contains(&table) || (table == "server" && FIXED_OF_SERVER.contains(&name))
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
        ] {
            assert_eq!(is_fixed(key), fixed, "{key}");
        }
    }
}
