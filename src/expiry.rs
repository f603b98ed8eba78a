//! Certificates that the daemon depends on: issuers, the station CA, its own TLS certificate. Says long before that one
//! expires: as metrics at any time, in the log once a day. One that is not valid is in [`crate::readiness`].

use std::{fmt, time::Duration};

use jiff::Timestamp;

use crate::{asn1::DerError, metrics, x509::Certificate, x509_time::Time};

/// How often the metrics are set.
const INTERVAL: Duration = Duration::from_secs(60);

/// From when on the log says so of a CA: half a year, in which a ceremony can be held.
const CA_NOTICE: Duration = Duration::from_secs(180 * 86_400);

/// The same of the daemon's own certificate, which is made in a minute.
const SERVER_NOTICE: Duration = Duration::from_secs(30 * 86_400);

/// How many intervals lie between two warnings.
const WARN_EVERY: u32 = 24 * 60;

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A CA that signs devices, by its name in the configuration.
    Issuer(String),
    /// The CA of stations and operators.
    StationCa,
    /// The daemon's own TLS certificate.
    Server,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Purpose::Issuer(name) => write!(f, "issuer {name}"),
            Purpose::StationCa => f.write_str("station CA"),
            Purpose::Server => f.write_str("server certificate"),
        }
    }
}

/// A certificate whose validity is watched.
#[derive(Clone, Debug)]
pub struct Watched {
    purpose: Purpose,
    not_before: Time,
    not_after: Time,
}

impl Watched {
    /// A certificate that is valid from `not_before` to `not_after`, both included.
    pub fn new(purpose: Purpose, not_before: Time, not_after: Time) -> Self {
        Watched { purpose, not_before, not_after }
    }

    /// Reads the validity of a DER certificate.
    ///
    /// # Errors
    /// If it is not valid DER.
    pub fn read(purpose: Purpose, certificate: &[u8]) -> Result<Self, DerError> {
        let certificate = Certificate::from_der(certificate)?;
        Ok(Watched::new(purpose, certificate.not_before(), certificate.not_after()))
    }

    /// What it is for.
    pub fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    /// Whether it is valid at this moment.
    ///
    /// # Errors
    /// Since when it is not, or from when on it will be.
    pub fn check(&self, now: Timestamp) -> Result<(), String> {
        let Watched { not_before, not_after, .. } = self;
        if Time::from(now) > *not_after {
            return Err(format!("expired at {not_after}"));
        }
        if Time::from(now) < *not_before {
            return Err(format!("not valid before {not_before}, and the clock says {now}"));
        }
        Ok(())
    }

    fn notice(&self) -> Duration {
        if self.purpose == Purpose::Server { SERVER_NOTICE } else { CA_NOTICE }
    }
}

/// Whether one of several certificates for the same is valid at this moment.
///
/// # Errors
/// What is wrong with each of them.
pub fn check_any<'a>(certificates: impl IntoIterator<Item = &'a Watched>, now: Timestamp) -> Result<(), String> {
    let mut wrong = Vec::new();
    for certificate in certificates {
        match certificate.check(now) {
            Ok(()) => return Ok(()),
            Err(what) => wrong.push(what),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// Watches until the task is ended.
pub async fn watch(certificates: Vec<Watched>) {
    let mut interval = tokio::time::interval(INTERVAL);
    for round in 0_u32.. {
        interval.tick().await;
        let now = Timestamp::now();
        set_metrics(&certificates, now);
        if round % WARN_EVERY == 0 {
            certificates.iter().for_each(|certificate| warn(certificate, now));
        }
    }
}

fn set_metrics(certificates: &[Watched], now: Timestamp) {
    let left = |certificate: &Watched| certificate.not_after.since(now).as_secs_f64();
    for certificate in certificates {
        match &certificate.purpose {
            Purpose::Issuer(name) => metrics::issuer_expiry(name, left(certificate)),
            Purpose::Server => metrics::server_certificate_expiry(left(certificate)),
            Purpose::StationCa => {}
        }
    }
    let station_cas = certificates.iter().filter(|certificate| certificate.purpose == Purpose::StationCa);
    if let Some(first) = station_cas.map(left).min_by(f64::total_cmp) {
        metrics::station_ca_expiry(first);
    }
}

fn warn(certificate: &Watched, now: Timestamp) {
    let left = certificate.not_after.since(now);
    if left.as_secs() >= certificate.notice().as_secs() as i64 {
        return;
    }
    let (purpose, expires, days) = (&certificate.purpose, certificate.not_after, left.as_hours() / 24);
    if left.is_negative() {
        tracing::error!(certificate = %purpose, %expires, "a certificate has expired; renew it");
    } else {
        tracing::warn!(certificate = %purpose, %expires, days, "a certificate expires soon; renew it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(from: &str, until: &str) -> Watched {
        let time = |text: &str| Time::from(text.parse::<Timestamp>().unwrap());
        Watched::new(Purpose::StationCa, time(from), time(until))
    }

    #[test]
    fn certificate_is_valid_from_its_first_to_its_last_second() {
        let certificate = watched("2026-01-01T00:00:00Z", "2026-12-31T23:59:59Z");
        for (now, says) in [
            ("2025-12-31T23:59:59.9Z", "not valid before 2026-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00Z", ""),
            ("2026-12-31T23:59:59.9Z", ""),
            ("2027-01-01T00:00:00Z", "expired at 2026-12-31T23:59:59Z"),
        ] {
            let found = certificate.check(now.parse().unwrap()).err().unwrap_or_default();
            assert!(found.starts_with(says) && found.is_empty() == says.is_empty(), "{now}: {found}");
        }
    }

    #[test]
    fn one_valid_certificate_of_several_is_enough() {
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        let old = watched("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z");
        let good = watched("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        assert_eq!(check_any([&old, &good], now), Ok(()));
        assert_eq!(check_any([&old], now), Err("expired at 2021-01-01T00:00:00Z".into()));
    }

    #[test]
    fn names_in_the_log_are_words_for_people() {
        assert_eq!(Purpose::Issuer("device".into()).to_string(), "issuer device");
    }
}
