//! The certificates that the daemon depends on, and what they say about the clock.

use std::{fmt::Display, path::PathBuf};

use jiff::Timestamp;
use toml::Spanned;

use crate::{
    config::{self, Config, ConfigError},
    configure::Issuers,
    expiry::{MonitoredCertificate, Purpose},
    ledger::clock::ClockBounds,
    pem,
    x509::Certificate,
    x509_time::Time,
};

/// The certificates that the daemon depends on.
pub(super) fn watched(config: &Config, issuers: &Issuers) -> Result<Vec<MonitoredCertificate>, ConfigError> {
    let config::Server { certificate, client_ca, .. } = &config.server;
    let read = |setting: &Spanned<PathBuf>, key: &str, purpose: Purpose, number: usize| {
        let path = config.resolve(setting.get_ref());
        let unreadable =
            |error: &dyn Display| config.error_at(setting.span(), key, format!("{}: {error}", path.display()));
        let certificates = pem::read_certificates(&path).map_err(|error| unreadable(&error))?;
        let watched = certificates.iter().take(number).map(|der| MonitoredCertificate::read(purpose.clone(), der));
        watched.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(&error))
    };
    let issuers = issuers.values().map(|issuer| {
        MonitoredCertificate::new(Purpose::Issuer(issuer.name().to_owned()), issuer.not_before(), issuer.not_after())
    });
    let server = read(certificate, "server.certificate", Purpose::Server, 1)?;
    let station_ca = read(client_ca, "server.client_ca", Purpose::StationCa, usize::MAX)?;
    Ok(issuers.chain(server).chain(station_ca).collect())
}

/// Seconds since 1970.
const BUILT: &str = env!("BIRTHMARK_BUILT");

/// When the clock is implausible: before this program was built or the first issuer's certificate was valid, and after
/// the server's certificate has expired, with which no station would talk to the daemon anyway.
pub(super) fn clock_bounds(config: &Config, issuers: &Issuers) -> ClockBounds {
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
    let not_after = server.and_then(|certificate| moment(certificate.not_after()));
    let latest = not_after.map(|not_after| (not_after, "when the certificate server.certificate expires".to_owned()));
    ClockBounds { earliest: built.into_iter().chain(issuer).max(), latest }
}
