//! Says long before the end that an issuer or the station CA ends: as metrics at any time, in the log once a day.

use std::time::Duration;

use jiff::Timestamp;

use crate::{metrics, x509_time::Time};

/// How often the metrics are set.
const INTERVAL: Duration = Duration::from_secs(60);

/// From when on the log says so: half a year, in which a ceremony can be held.
const WARN: Duration = Duration::from_secs(180 * 86_400);

/// How many intervals lie between two warnings.
const WARN_EVERY: u32 = 24 * 60;

/// A CA certificate whose end is watched.
#[derive(Clone, Debug)]
pub enum Watched {
    /// A CA that signs devices, by its name in the configuration.
    Issuer(String),
    /// The CA of stations and operators.
    StationCa,
}

/// Watches until the task is ended.
pub async fn watch(authorities: Vec<(Watched, Time)>) {
    let mut interval = tokio::time::interval(INTERVAL);
    for round in 0_u32.. {
        interval.tick().await;
        for (authority, end) in &authorities {
            let left = end.since(Timestamp::now());
            match authority {
                Watched::Issuer(name) => metrics::issuer_expiry(name, left.as_secs_f64()),
                Watched::StationCa => metrics::station_ca_expiry(left.as_secs_f64()),
            }
            if round % WARN_EVERY == 0 && left.as_secs() < WARN.as_secs() as i64 {
                tracing::warn!(?authority, days = left.as_hours() / 24, %end, "a CA certificate ends; make a new one");
            }
        }
    }
}
