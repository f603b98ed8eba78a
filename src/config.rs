//! The daemon's configuration file: strict TOML, whose errors name the key and the line.
//!
//! `hsm-config/birthmark.toml` is the example with every key commented.

mod destination;
mod est;
mod ledger;
mod profile;
mod source;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::SignedDuration;
use serde::Deserialize;
use toml::Spanned;

pub use self::destination::{Destination, DestinationTerms, Unattended, WrongKey};
pub use self::est::Est;
pub use self::ledger::Ledger;
pub use self::profile::{
    CsrSubject, CustomExtension, IssuerFrom, KeyType, KeyUsage, OrderRequirement, Preset, Profile, WhenOutlivingIssuer,
};
pub use self::source::ConfigError;
pub(crate) use self::source::Source;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Environment variables for the PKCS#11 modules; `{config_dir}` in a value stands for this file's folder.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The gRPC server.
    pub server: Server,
    /// The HTTP port for metrics and health; none if absent.
    pub http: Option<Http>,
    /// Enrollment over Secure Transport; none if absent.
    pub est: Option<Est>,
    /// The ledger.
    pub ledger: Ledger,
    /// The audit key, which signs checkpoints of the ledger; none are made if absent.
    pub audit: Option<Audit>,
    /// Certificate revocation lists; none are made if absent.
    pub crl: Option<Crl>,
    /// The CA of stations, operators and the daemon's own TLS certificate; used when somebody is enrolled.
    pub station_ca: Option<StationCa>,
    /// What needs a second operator; nothing does if absent.
    pub approval: Option<Approval>,
    /// The daemon's log.
    pub log: Option<Log>,
    /// The security log; none if absent.
    pub security_log: Option<SecurityLog>,
    /// Which public keys are refused.
    #[serde(default)]
    pub refused_keys: RefusedKeys,
    /// The issuing CAs by name.
    pub issuers: BTreeMap<String, Issuer>,
    /// The certificate profiles by name.
    pub profiles: BTreeMap<String, Profile>,
    /// The platforms that are to know the devices, by name.
    #[serde(default)]
    pub destinations: BTreeMap<String, Destination>,

    #[serde(skip)]
    source: Source,
}

/// `[server]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The address of the mTLS port; port 0 takes any free one.
    pub listen: Spanned<SocketAddr>,
    /// PEM: the server's certificate and whatever chain the stations need.
    pub certificate: Spanned<PathBuf>,
    /// PEM: its private key.
    pub key: Spanned<PathBuf>,
    /// PEM: the CA certificates that client certificates must come from.
    pub client_ca: Spanned<PathBuf>,
    /// PEM or DER: a revocation list of `client_ca`, read again when it changes; none if absent.
    pub client_crl: Option<Spanned<PathBuf>>,
    /// The Unix socket for local operators; none if absent.
    pub socket: Option<Spanned<PathBuf>>,
    /// What users of the socket are: `operator`, `operator:` and duties, or `auditor`.
    #[serde(default = "default_socket_role")]
    pub socket_role: Spanned<String>,
    /// How many unanswered requests one stream, and one station over all of its streams, may have.
    #[serde(default = "default_window")]
    pub window: Spanned<usize>,
    /// Seconds after which a stream is terminated whose peer takes no reply.
    #[serde(default = "default_stall")]
    pub stall_seconds: Spanned<u64>,
}

fn default_stall() -> Spanned<u64> {
    Spanned::new(0..0, 60)
}

fn default_socket_role() -> Spanned<String> {
    Spanned::new(0..0, "operator".to_owned())
}

fn default_window() -> Spanned<usize> {
    Spanned::new(0..0, 256)
}

/// `[http]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// The address of the plain HTTP port; port 0 takes any free one.
    pub listen: Spanned<SocketAddr>,
    /// Whether the status page is served there, and what it shows as JSON.
    #[serde(default = "default_status_page")]
    pub status_page: bool,
}

fn default_status_page() -> bool {
    true
}

/// `[approval]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Orders with a greater quantity need a second operator; none if absent.
    pub orders_above: Option<u64>,
    /// Whether changes of an order's quantity do.
    #[serde(default)]
    pub quantity_changes: bool,
    /// Revocations of more certificates by one operator within the window do; none if absent.
    pub revocations_above: Option<u64>,
    /// The window, in hours.
    #[serde(default = "default_revocation_window")]
    pub revocation_window_hours: u32,
}

fn default_revocation_window() -> u32 {
    24
}

/// `[refused_keys]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedKeys {
    /// A file with SHA-256 hashes of SubjectPublicKeyInfos in hex, one a line.
    pub block_list: Option<Spanned<PathBuf>>,
}

/// `[log]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The level, as BIRTHMARK_LOG has it, which wins over this; `info` if absent.
    pub level: Option<Spanned<String>>,
}

/// `[security_log]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityLog {
    /// A file that JSON lines are appended to; none if absent.
    pub file: Option<Spanned<PathBuf>>,
    /// A receiver of syslog, as `unix:/dev/log`, `udp://HOST:PORT` or `tcp://HOST:PORT`; none if absent.
    pub syslog: Option<Spanned<String>>,
}

/// `[audit]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// A PKCS#11 URI of a key that issues nothing.
    pub key_uri: Spanned<String>,
    /// How long entries may be without a checkpoint, such as `1h` or `30s`.
    #[serde(default = "default_interval")]
    pub interval: Spanned<String>,
    /// PEM: the public halves of the audit keys before this one, whose checkpoints are still to be trusted.
    #[serde(default)]
    pub previous_keys: Vec<Spanned<PathBuf>>,
}

fn default_interval() -> Spanned<String> {
    Spanned::new(0..0, "1h".into())
}

impl Audit {
    /// The interval, if it is one: `1s` to `168h`.
    pub fn interval(&self) -> Option<Duration> {
        let interval = self.interval.get_ref().parse::<SignedDuration>().ok()?;
        let interval = Duration::try_from(interval).ok()?;
        (Duration::from_secs(1)..=Duration::from_hours(7 * 24)).contains(&interval).then_some(interval)
    }
}

/// `[crl]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crl {
    /// A folder for a web server, in which the lists and the CA certificates are written; none if absent.
    pub folder: Option<Spanned<PathBuf>>,
    /// How often a new list is made even if nothing was revoked.
    #[serde(default = "default_crl_interval")]
    pub interval: Spanned<String>,
    /// For how long a list is valid: from thisUpdate to nextUpdate.
    #[serde(default = "default_crl_valid")]
    pub valid: Spanned<String>,
    /// How long revocations are gathered before a list is made.
    #[serde(default = "default_crl_gather")]
    pub gather: Spanned<String>,
    /// Whether scrapped certificates are on the lists, and those that were replaced.
    #[serde(default = "yes")]
    pub include_scrapped: bool,
}

fn default_crl_interval() -> Spanned<String> {
    Spanned::new(0..0, "24h".into())
}

fn default_crl_valid() -> Spanned<String> {
    Spanned::new(0..0, "7d".into())
}

fn default_crl_gather() -> Spanned<String> {
    Spanned::new(0..0, "2s".into())
}

fn yes() -> bool {
    true
}

/// The times of `[crl]`.
#[derive(Clone, Copy, Debug)]
pub struct CrlTimes {
    /// How often a new list is made.
    pub interval: Duration,
    /// For how long it is valid.
    pub valid: Duration,
    /// How long revocations are gathered.
    pub gather: Duration,
}

const DAY: Duration = Duration::from_hours(24);

impl Crl {
    /// The times, if they fit.
    ///
    /// # Errors
    /// The key that does not, where it stands, and what it must be.
    pub fn times(&self) -> Result<CrlTimes, (Range<usize>, &'static str, &'static str)> {
        let read = |text: &Spanned<String>, least: Duration, most: Duration| {
            let span: jiff::Span = text.get_ref().parse().ok()?;
            let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
            Duration::try_from(duration).ok().filter(|duration| (least..=most).contains(duration))
        };
        let wrong = |text: &Spanned<String>, key, message| (text.span(), key, message);
        let second = Duration::from_secs(1);
        let interval = read(&self.interval, second, 366 * DAY).ok_or(wrong(
            &self.interval,
            "interval",
            "must be a time from 1s to 366d, such as \"24h\"",
        ))?;
        let valid = read(&self.valid, 10 * second, 3660 * DAY).ok_or(wrong(
            &self.valid,
            "valid",
            "must be a time from 10s to 3660d, such as \"7d\"",
        ))?;
        let gather = read(&self.gather, Duration::ZERO, 60 * second).ok_or(wrong(
            &self.gather,
            "gather",
            "must be a time from 0s to 60s, such as \"2s\"",
        ))?;
        if valid < 2 * interval {
            let message = "must be at least twice the interval, so that a list is replaced well before it expires";
            return Err(wrong(&self.valid, "valid", message));
        }
        Ok(CrlTimes { interval, valid, gather })
    }
}

/// `[station_ca]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StationCa {
    /// PEM.
    pub certificate: Spanned<PathBuf>,
    /// A PKCS#11 URI.
    pub key_uri: Spanned<String>,
}

/// `[issuers.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// PEM files: the issuing CA first, then each certificate that issued the one before it.
    pub chain: Vec<Spanned<PathBuf>>,
    /// A PKCS#11 URI, or several of tokens that all have this key.
    pub key_uri: Spanned<KeyUris>,
    /// How it signs, such as `rsa-pss-sha384`; the usual algorithm of its key if absent.
    pub signature: Option<Spanned<String>>,
    /// How many sessions (and threads) sign with it, for each token; `"auto"` if absent.
    #[serde(default)]
    pub sessions: Option<Spanned<Sessions>>,
    /// Into how many certificate revocation lists its certificates are divided; 1 if absent.
    pub crl_shards: Option<Spanned<u16>>,
    /// Seconds after which a call of the HSM is abandoned.
    #[serde(default = "default_call_limit")]
    pub call_limit_seconds: Spanned<u64>,
    /// Seconds that a request waits for an HSM that is away before it is refused.
    #[serde(default = "default_wait")]
    pub wait_seconds: Spanned<u64>,
}

impl Issuer {
    /// Into how many revocation lists its certificates are divided.
    pub fn crl_shards(&self) -> u16 {
        self.crl_shards.as_ref().map_or(1, |shards| *shards.get_ref())
    }
}

fn default_call_limit() -> Spanned<u64> {
    Spanned::new(0..0, 10)
}

fn default_wait() -> Spanned<u64> {
    Spanned::new(0..0, 15)
}

/// One key or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a PKCS#11 URI or a list of them")]
pub enum KeyUris {
    /// One token.
    One(String),
    /// Several tokens with the same key.
    Several(Vec<String>),
}

impl KeyUris {
    /// The URIs.
    pub fn uris(&self) -> &[String] {
        match self {
            KeyUris::One(uri) => std::slice::from_ref(uri),
            KeyUris::Several(uris) => uris,
        }
    }
}

/// How many sessions sign.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "a number or \"auto\"")]
pub enum Sessions {
    /// This number.
    Number(usize),
    /// As a measurement at the start says.
    Auto(Auto),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// Measured.
    Auto,
}

impl Config {
    /// Reads and checks the file. What only the HSM or the files it names can tell is checked by who opens them.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let (mut config, source) = Source::read::<Config>(path, "configuration")?;
        config.source = source;
        match config.problems().into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(config),
        }
    }

    /// As [`Config::load`], with everything that is wrong: the configuration, as far as it can be read, and the errors.
    pub fn load_with_all_problems(path: &Path) -> (Option<Config>, Vec<ConfigError>) {
        let (read, mut problems) = Source::read_with_all_errors::<Config>(path, "configuration");
        let config = read.map(|(config, source)| Config { source, ..config });
        if let Some(config) = &config {
            problems.extend(config.problems());
        }
        (config, problems)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The file's folder: where relative paths start.
    pub fn folder(&self) -> &Path {
        self.source.folder()
    }

    /// The file as it was read.
    pub fn text(&self) -> &str {
        self.source.text()
    }

    /// A path of the configuration, made absolute.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.folder().join(path)
    }

    /// The environment variables for the PKCS#11 modules, with `{config_dir}` filled in.
    pub fn module_environment(&self) -> BTreeMap<String, String> {
        self.source.fill_in(&self.environment)
    }

    /// An error about the value of `key`, which stands at `span` of the file.
    pub fn error_at(&self, span: Range<usize>, key: &str, message: impl fmt::Display) -> ConfigError {
        self.source.error_at(span, key, message)
    }

    /// An error about a key of a profile, at its value or, where it has none, at the profile.
    pub fn profile_error(&self, profile: &str, key: &str, message: impl fmt::Display) -> ConfigError {
        let place = self.profiles.get(profile).and_then(|settings| settings.place(key));
        let place = place.or_else(|| {
            let start = self.source.text().find(&format!("[profiles.{profile}]"))?;
            Some(start..start)
        });
        self.error_at(place.unwrap_or_default(), &format!("profiles.{profile}.{key}"), message)
    }

    /// An error about a key of a destination, at its value or, where it has none, at the destination.
    pub fn destination_error(&self, destination: &str, wrong: &WrongKey) -> ConfigError {
        let header = || {
            let start = self.source.text().find(&format!("[destinations.{destination}]"))?;
            Some(start..start)
        };
        let place = wrong.place.clone().or_else(header).unwrap_or_default();
        self.error_at(place, &format!("destinations.{destination}.{}", wrong.key), &wrong.message)
    }

    fn check_destinations(&self, problems: &mut Vec<ConfigError>) {
        for (name, destination) in &self.destinations {
            let part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let fits = (1..=63).contains(&name.len()) && name.bytes().all(|byte| part(byte) || byte == b'-');
            let start = self.source.text().find(&format!("[destinations.{name}]")).unwrap_or_default();
            if !fits || name.starts_with('-') {
                problems.push(self.error_at(start..start, "destinations", destination::unfit_name(name)));
            }
            if self.audit.is_none() {
                let message = "needs an [audit] key, which signs the manifest of each batch";
                problems.push(self.error_at(start..start, &format!("destinations.{name}"), message));
            }
            problems.extend(destination.terms().err().map(|wrong| self.destination_error(name, &wrong)));
        }
    }

    /// The addresses that another port of the daemon listens on already.
    fn taken_addresses(&self) -> Vec<ConfigError> {
        let http = self.http.as_ref().map(|http| ("http.listen", &http.listen));
        let est = self.est.as_ref().map(|est| ("est.listen", &est.listen));
        let ports: Vec<_> = [("server.listen", &self.server.listen)].into_iter().chain(http).chain(est).collect();
        let collide = |one: &SocketAddr, other: &SocketAddr| {
            let (this, that) = (one.ip(), other.ip());
            one.port() == other.port()
                && one.port() != 0
                && (this == that || this.is_unspecified() || that.is_unspecified())
        };
        let mut taken = Vec::new();
        for (number, (key, listen)) in ports.iter().enumerate() {
            let before = ports.iter().take(number).find(|(_, other)| collide(listen.get_ref(), other.get_ref()));
            if let Some((other, _)) = before {
                let message =
                    format!("{} is the address of {other} already; each port needs its own", listen.get_ref());
                taken.push(self.error_at(listen.span(), key, message));
            }
        }
        taken
    }

    /// All that is wrong with the values, as far as the file alone tells.
    fn problems(&self) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        if !(1..=65_536).contains(self.server.window.get_ref()) {
            problems.push(self.error_at(self.server.window.span(), "server.window", "must be 1 to 65536"));
        }
        if !(1..=3600).contains(self.server.stall_seconds.get_ref()) {
            problems.push(self.error_at(self.server.stall_seconds.span(), "server.stall_seconds", "must be 1 to 3600"));
        }
        problems.extend(self.taken_addresses());
        if self.issuers.is_empty() {
            problems.push(self.error_at(0..0, "issuers", "there must be at least one [issuers.NAME]"));
        }
        if self.profiles.is_empty() {
            problems.push(self.error_at(0..0, "profiles", "there must be at least one [profiles.NAME]"));
        }
        let of_ledger = self.ledger.problems().into_iter();
        problems.extend(of_ledger.map(|(span, key, message)| self.error_at(span, key, message)));
        if let Some(audit) = &self.audit
            && audit.interval().is_none()
        {
            let message = "must be a time from 1s to 168h, such as \"1h\" or \"15m\"";
            problems.push(self.error_at(audit.interval.span(), "audit.interval", message));
        }
        if let Some(crl) = &self.crl {
            let wrong = crl.times().map_err(|(span, key, message)| self.error_at(span, &format!("crl.{key}"), message));
            problems.extend(wrong.err());
        }
        self.check_destinations(&mut problems);
        for (name, issuer) in &self.issuers {
            let key = format!("issuers.{name}");
            if issuer.chain.is_empty() {
                let message = "must name the issuing CA's certificate file";
                problems.push(self.error_at(issuer.key_uri.span(), &format!("{key}.chain"), message));
            }
            if issuer.key_uri.get_ref().uris().is_empty() {
                problems.push(self.error_at(
                    issuer.key_uri.span(),
                    &format!("{key}.key_uri"),
                    "must name at least one key",
                ));
            }
            if let Some(sessions) = &issuer.sessions
                && let Sessions::Number(number) = sessions.get_ref()
                && !(1..=1024).contains(number)
            {
                problems.push(self.error_at(
                    sessions.span(),
                    &format!("{key}.sessions"),
                    "must be 1 to 1024, or \"auto\"",
                ));
            }
            if let Some(shards) = &issuer.crl_shards
                && !(1..=4096).contains(shards.get_ref())
            {
                problems.push(self.error_at(shards.span(), &format!("{key}.crl_shards"), "must be 1 to 4096"));
            }
            let seconds = [("call_limit_seconds", &issuer.call_limit_seconds), ("wait_seconds", &issuer.wait_seconds)];
            for (name, value) in seconds {
                if !(1..=3600).contains(value.get_ref()) {
                    problems.push(self.error_at(value.span(), &format!("{key}.{name}"), "must be 1 to 3600"));
                }
            }
        }
        problems
    }
}
