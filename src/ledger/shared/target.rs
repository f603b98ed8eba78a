//! The URL of a database, and how it is reached: with TLS and a verified name, or without on purpose.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{error::SharedError, settings::DatabaseSettings};
use crate::{pem, private_key, secret_file};

/// How long one host may take to answer, TLS and login included.
pub(super) const ANSWER: Duration = Duration::from_secs(3);

/// How long a connection may be without an answer of the other side's kernel.
const SILENT: Duration = Duration::from_secs(5);

/// The longest file of a password, in bytes.
const PASSWORD: usize = 64 << 10;

/// Where a database is, and how it is reached.
#[derive(Clone)]
pub(super) struct Target {
    /// Each host for people, and how it is reached.
    pub(super) hosts: Vec<(String, tokio_postgres::Config)>,
    pub(super) tls: Option<MakeRustlsConnect>,
    /// Hosts and database, for people.
    pub(super) place: String,
    pub(super) user: String,
}

/// What libpq knows and tokio-postgres does not.
#[derive(Default)]
struct Tls {
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Target {
    pub(super) fn of(settings: &DatabaseSettings) -> Result<Target, SharedError> {
        let (url, tls) = take_tls(&settings.url)?;
        let wrong = |error: tokio_postgres::Error| {
            // The URL may hold a password after all.
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            SharedError::Url(cause.unwrap_or_else(|| error.to_string()))
        };
        let mut config: tokio_postgres::Config = url.parse().map_err(wrong)?;
        if config.get_password().is_some() {
            let what = "it holds a password, which would be read by whoever reads the configuration; put it into a file \
                        (ledger.database_password)";
            return Err(SharedError::Url(what.into()));
        }
        let Some(user) = config.get_user().map(str::to_owned) else {
            return Err(SharedError::Url("it names no user: postgresql://USER@HOST/DATABASE".into()));
        };
        if config.get_hosts().is_empty() {
            return Err(SharedError::Url("it names no host: postgresql://USER@HOST/DATABASE".into()));
        }
        if let Some(path) = &settings.password {
            let password = secret_file::read_text(path, PASSWORD)
                .map_err(|error| SharedError::Password { path: path.display().to_string(), what: error.to_string() })?;
            config.password(password.as_str());
        }
        config.keepalives_idle(SILENT).keepalives_interval(Duration::from_secs(1)).keepalives_retries(3);
        config.tcp_user_timeout(SILENT);
        config.application_name(format!("birthmark {}", settings.daemon));
        let is_local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let tls = match tls.mode.as_deref() {
            Some("disable") => None,
            None if is_local => None,
            None | Some("verify-full") => Some(MakeRustlsConnect::new(verifying(&tls, &settings.folder)?)),
            Some(other) => {
                return Err(SharedError::Url(format!(
                    "sslmode={other} would not verify whom the ledger is given to: it is verify-full, or disable where nobody \
                     else is on the network"
                )));
            }
        };
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        let hosts = each_host(&config);
        let place = place(&hosts, &config);
        Ok(Target { hosts, tls, place, user })
    }
}

impl DatabaseSettings {
    /// Whether URL and files can be used; the database is not asked.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), SharedError> {
        Target::of(self).map(drop)
    }
}

/// The configuration for each of its hosts alone, in their order.
fn each_host(config: &tokio_postgres::Config) -> Vec<(String, tokio_postgres::Config)> {
    let ports = config.get_ports();
    let one = |(at, host): (usize, &Host)| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let mut one = tokio_postgres::Config::new();
        match host {
            Host::Tcp(name) => one.host(name),
            Host::Unix(path) => one.host_path(path),
        };
        if let Some(address) = config.get_hostaddrs().get(at) {
            one.hostaddr(*address);
        }
        one.port(port);
        config.get_user().map(|user| one.user(user));
        config.get_password().map(|password| one.password(password));
        config.get_dbname().map(|name| one.dbname(name));
        config.get_options().map(|options| one.options(options));
        config.get_application_name().map(|name| one.application_name(name));
        one.ssl_mode(config.get_ssl_mode()).ssl_negotiation(config.get_ssl_negotiation());
        one.target_session_attrs(config.get_target_session_attrs()).channel_binding(config.get_channel_binding());
        one.keepalives(config.get_keepalives()).keepalives_idle(config.get_keepalives_idle());
        config.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
        config.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
        config.get_tcp_user_timeout().map(|limit| one.tcp_user_timeout(*limit));
        one.connect_timeout(config.get_connect_timeout().copied().unwrap_or(ANSWER));
        let name = match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => path.display().to_string(),
        };
        (name, one)
    };
    config.get_hosts().iter().enumerate().map(one).collect()
}

/// Hosts and database, for people.
fn place(hosts: &[(String, tokio_postgres::Config)], config: &tokio_postgres::Config) -> String {
    let hosts: Vec<_> = hosts.iter().map(|(host, _)| host.as_str()).collect();
    format!("{}/{}", hosts.join(","), config.get_dbname().unwrap_or_else(|| config.get_user().unwrap_or_default()))
}

/// The URL without what is about TLS, and that.
fn take_tls(url: &str) -> Result<(String, Tls), SharedError> {
    if !url.starts_with("postgresql://") && !url.starts_with("postgres://") {
        return Err(SharedError::Url("it does not begin with postgresql://".into()));
    }
    let mut tls = Tls::default();
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), tls)) };
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        match name {
            "sslmode" => tls.mode = Some(value),
            "sslrootcert" => tls.root = Some(value),
            "sslcert" => tls.certificate = Some(value),
            "sslkey" => tls.key = Some(value),
            _ => rest.push(pair),
        }
    }
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    Ok((url, tls))
}

fn verifying(tls: &Tls, folder: &Path) -> Result<ClientConfig, SharedError> {
    let Some(root) = &tls.root else {
        let what = "it does not say who vouches for the database: sslrootcert=FILE names the CA's certificate (or \
                    sslmode=disable, where nobody else is on the network)";
        return Err(SharedError::Url(what.into()));
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(&folder.join(root))?);
    if added == 0 {
        return Err(file(&folder.join(root), "there is no CA's certificate in it"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let failed = |error: rustls::Error| SharedError::Url(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?.with_root_certificates(roots);
    match (&tls.certificate, &tls.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let path = folder.join(key);
            let key = private_key::read(&path).map_err(|error| file(&path, &error.to_string()))?;
            builder.with_client_auth_cert(certificates(&folder.join(certificate))?, key).map_err(failed)
        }
        _ => Err(SharedError::Url("sslcert and sslkey belong together".into())),
    }
}

fn file(path: &Path, what: &str) -> SharedError {
    SharedError::File { path: path.display().to_string(), what: what.to_owned() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SharedError> {
    let found = pem::read_certificates(path).map_err(|error| file(path, &error.to_string()))?;
    Ok(found.into_iter().map(CertificateDer::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, String> {
        let settings = DatabaseSettings {
            url: url.into(),
            password: None,
            folder: ".".into(),
            daemon: "one".into(),
            copies: 1,
            lease: Duration::from_secs(60),
            patience: Duration::from_secs(20),
        };
        Target::of(&settings).map_err(|error| error.to_string())
    }

    /// TLS is never left out, or left unverified, by omission; and no password stands in a configuration.
    #[test]
    fn database_url_is_verified_or_refused() {
        let place =
            target("postgresql://birthmark@pg1,pg2:6432/ledger?sslmode=disable&target_session_attrs=read-write");
        assert_eq!(place.map(|target| target.place).unwrap(), "pg1:5432,pg2:6432/ledger");
        for (url, says) in [
            ("mysql://a@b/c", "does not begin"),
            ("postgresql://birthmark:secret@pg1/ledger?sslmode=disable", "database_password"),
            ("postgresql://birthmark@pg1/ledger", "sslrootcert"),
            ("postgresql://birthmark@pg1/ledger?sslmode=require", "verify-full"),
            ("postgresql://birthmark@pg1/ledger?sslmode=verify-full&sslrootcert=missing.pem", "missing.pem"),
            ("postgresql://pg1/ledger?sslmode=disable", "names no user"),
        ] {
            let said = target(url).map(|target| target.place).unwrap_err();
            assert!(said.contains(says) && !said.contains("secret"), "{url}: {said}");
        }
    }
}
