//! Certificates that the daemon depends on: issuers, the station CA, its own TLS certificate. Says long before that one
//! expires, in the log once a day; `status` has their ends. One that is not valid is in [`crate::readiness`].

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{asn1::DerError, live::Live, x509::Certificate, x509_time::Time};

/// How often they are looked at.
const INTERVAL: Duration = Duration::from_secs(60);

/// From when on the log says so of a CA: half a year, in which a ceremony can be held.
const CA_NOTICE: Duration = Duration::from_secs(180 * 86_400);

/// The same of the daemon's own certificate, which is made in a minute.
const SERVER_NOTICE: Duration = Duration::from_secs(30 * 86_400);

/// How many intervals lie between two warnings.
const WARN_EVERY: u32 = 24 * 60;

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
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

/// A certificate that the daemon depends on: a CA's, or its own.
#[derive(Clone, Debug)]
pub(crate) struct MonitoredCertificate {
    purpose: Purpose,
    not_before: Time,
    not_after: Time,
}

impl MonitoredCertificate {
    /// A certificate that is valid from `not_before` to `not_after`, both included.
    pub(crate) fn new(purpose: Purpose, not_before: Time, not_after: Time) -> Self {
        MonitoredCertificate { purpose, not_before, not_after }
    }

    /// Reads the validity of a DER certificate.
    ///
    /// # Errors
    /// If it is not valid DER.
    pub(crate) fn read(purpose: Purpose, certificate: &[u8]) -> Result<Self, DerError> {
        let certificate = Certificate::from_der(certificate)?;
        Ok(MonitoredCertificate::new(purpose, certificate.not_before(), certificate.not_after()))
    }

    /// What it is for.
    pub(crate) fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    /// The last moment at which it is valid.
    pub(crate) fn not_after(&self) -> Time {
        self.not_after
    }

    /// Whether it is valid at this moment.
    ///
    /// # Errors
    /// Since when it is not, or from when on it will be.
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), NotValid> {
        let MonitoredCertificate { not_before, not_after, .. } = *self;
        if Time::from(now) > not_after {
            return Err(NotValid::Expired { not_after });
        }
        if Time::from(now) < not_before {
            return Err(NotValid::NotYet { not_before, now });
        }
        Ok(())
    }

    /// What there is to say about its end at this moment, if that is near.
    pub(crate) fn notice_at(&self, now: Timestamp) -> Option<String> {
        let left = self.not_after.since(now);
        if left.as_secs() >= self.notice().as_secs() as i64 {
            return None;
        }
        let (purpose, expires, days) = (&self.purpose, self.not_after, left.as_hours() / 24);
        Some(match left.is_negative() {
            true => format!("{purpose}: it expired at {expires}; renew it"),
            false => format!("{purpose}: it expires at {expires}, in {days} days; renew it"),
        })
    }

    fn notice(&self) -> Duration {
        if self.purpose == Purpose::Server { SERVER_NOTICE } else { CA_NOTICE }
    }
}

/// Why a certificate, or each of several, is not valid at this moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NotValid {
    /// Its end has passed.
    #[error("expired at {not_after}")]
    Expired {
        /// The last moment at which it was valid.
        not_after: Time,
    },
    /// Its begin has not come.
    #[error("not valid before {not_before}, and the clock says {now}")]
    NotYet {
        /// The first moment at which it is valid.
        not_before: Time,
        /// This machine's clock.
        now: Timestamp,
    },
    /// None of several is.
    #[error("{}", .0.iter().map(NotValid::to_string).collect::<Vec<_>>().join("; "))]
    All(Vec<NotValid>),
}

/// Whether one of several certificates for the same is valid at this moment.
///
/// # Errors
/// What is wrong with each of them.
pub(crate) fn check_any<'a>(
    certificates: impl IntoIterator<Item = &'a MonitoredCertificate>,
    now: Timestamp,
) -> Result<(), NotValid> {
    let mut wrong = Vec::new();
    for certificate in certificates {
        match certificate.check(now) {
            Ok(()) => return Ok(()),
            Err(what) => wrong.push(what),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(NotValid::All(wrong)) }
}

/// Monitors them until the task is ended.
pub(crate) async fn watch(certificates: Arc<Live<Vec<MonitoredCertificate>>>) {
    let mut interval = tokio::time::interval(INTERVAL);
    for round in 0_u32.. {
        interval.tick().await;
        let now = Timestamp::now();
        let certificates = certificates.get();
        if round % WARN_EVERY == 0 {
            certificates.iter().for_each(|certificate| warn(certificate, now));
        }
    }
}

fn warn(certificate: &MonitoredCertificate, now: Timestamp) {
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

    fn monitored(from: &str, until: &str) -> MonitoredCertificate {
        let time = |text: &str| Time::from(text.parse::<Timestamp>().unwrap());
        MonitoredCertificate::new(Purpose::StationCa, time(from), time(until))
    }

    #[test]
    fn certificate_is_valid_from_its_first_to_its_last_second() {
        let certificate = monitored("2026-01-01T00:00:00Z", "2026-12-31T23:59:59Z");
        for (now, says) in [
            ("2025-12-31T23:59:59.9Z", "not valid before 2026-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00Z", ""),
            ("2026-12-31T23:59:59.9Z", ""),
            ("2027-01-01T00:00:00Z", "expired at 2026-12-31T23:59:59Z"),
        ] {
            let found =
                certificate.check(now.parse().unwrap()).map_or_else(|error| error.to_string(), |()| String::new());
            assert!(found.starts_with(says) && found.is_empty() == says.is_empty(), "{now}: {found}");
        }
    }

    /// One valid certificate of several is enough.
    #[test]
    fn certificates_with_one_valid_are_enough() {
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        let old = monitored("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z");
        let good = monitored("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        assert_eq!(check_any([&old, &good], now), Ok(()));
        assert_eq!(
            check_any([&old, &old], now).unwrap_err().to_string(),
            ["expired at 2021-01-01T00:00:00Z"; 2].join("; ")
        );
        assert_eq!(check_any([&old], now), Err(NotValid::All(vec![NotValid::Expired { not_after: old.not_after }])));
    }

    #[test]
    fn names_in_the_log_are_words_for_people() {
        assert_eq!(Purpose::Issuer("device".into()).to_string(), "issuer device");
    }
}
