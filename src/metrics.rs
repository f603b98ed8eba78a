//! What ops see: the metrics' names, and the Prometheus text that `/metrics` serves.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `birthmark_certificates_total` | counter | `profile`, `replay` |
//! | `birthmark_confirmed_total` | counter | – ; certificates that their devices have taken |
//! | `birthmark_scrapped_total` | counter | – |
//! | `birthmark_revoked_total` | counter | – |
//! | `birthmark_refusals_total` | counter | `reason` as in the protocol's ErrorInfo, and `TOO_MANY_CONNECTIONS` |
//! | `birthmark_issue_seconds` | histogram | – ; from the request's arrival to its durable certificate |
//! | `birthmark_streams` | gauge | – ; open Issue streams |
//! | `birthmark_connections_refused_total` | counter | `port` (`grpc`, `socket`, `http`), `reason`: `handshake` (failed), `silent` (nothing in time), `crowded` (idle, made room for another), `limit`, `accept` (by the system) |
//! | `birthmark_hsm_sign_seconds` | histogram | `issuer`, `token` ; one signature, without waiting |
//! | `birthmark_hsm_queue_depth` | gauge | `issuer` ; messages that wait for a session |
//! | `birthmark_hsm_sessions` | gauge | `issuer`, `token` ; that sign now |
//! | `birthmark_hsm_breaker_open` | gauge | `issuer`, `token` ; 1 while the token is left out |
//! | `birthmark_hsm_hung_calls` | gauge | `issuer`, `token` ; calls that have not returned in time |
//! | `birthmark_hsm_hung_calls_total` | counter | `issuer`, `token` |
//! | `birthmark_hsm_wrong_signatures_total` | counter | `issuer`, `token` ; found before they were used |
//! | `birthmark_hsm_errors_total` | counter | `issuer`, `token`, `code` |
//! | `birthmark_hsm_retries_total` | counter | – ; operators' requests to try tokens again |
//! | `birthmark_committer_queue_depth` | gauge | – ; requests between reservation and record |
//! | `birthmark_commit_batch_operations` | histogram | – |
//! | `birthmark_fsync_seconds` | histogram | – ; one sync of the journal |
//! | `birthmark_issuer_expiry_seconds` | gauge | `issuer` ; until its certificate ends, negative when it has |
//! | `birthmark_station_ca_expiry_seconds` | gauge | – ; the same of the CA of stations and operators |
//! | `birthmark_server_certificate_expiry_seconds` | gauge | – ; the same of the daemon's own TLS certificate |
//! | `birthmark_checkpoint_age_seconds` | gauge | – ; how long entries have waited for a checkpoint, 0 if none does |
//! | `birthmark_journal_damage` | gauge | – ; places of the journal that are known to be damaged |
//! | `birthmark_scrub_bytes_total` | counter | – ; bytes of the journal that were read again and checked |
//! | `birthmark_scrub_timestamp_seconds` | gauge | – ; when the whole journal was last read and checked |
//! | `birthmark_ready` | gauge | – ; 1 when `/readyz` says ready |

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Buckets from 10 µs to 10 s, three to a decade.
const SECONDS: [f64; 19] =
    [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
const OPERATIONS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Makes the process record metrics, and gives what renders them. Once a process.
///
/// # Errors
/// If it was done before.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full("birthmark_commit_batch_operations".into()), &OPERATIONS)?
        .install_recorder()?;
    describe_counter!("birthmark_certificates_total", "Certificates sent to stations; replay=true for retries");
    describe_counter!("birthmark_confirmed_total", "Certificates that their devices have taken");
    describe_counter!("birthmark_scrapped_total", "Certificates whose devices are scrap");
    describe_counter!("birthmark_revoked_total", "Certificates revoked");
    describe_counter!("birthmark_refusals_total", "Requests refused, by reason");
    describe_histogram!(
        "birthmark_issue_seconds",
        Unit::Seconds,
        "From a request's arrival to its durable certificate"
    );
    describe_gauge!("birthmark_streams", "Open Issue streams");
    describe_counter!(
        "birthmark_connections_refused_total",
        "Connections refused, or ended before they had done anything, by port and reason"
    );
    describe_histogram!("birthmark_hsm_sign_seconds", Unit::Seconds, "One signature by the HSM, without waiting");
    describe_gauge!("birthmark_hsm_queue_depth", "Messages that wait for an HSM session");
    describe_gauge!("birthmark_hsm_sessions", "HSM sessions that work");
    describe_gauge!("birthmark_hsm_breaker_open", "1 while an HSM token is left out until a probe signs");
    describe_gauge!("birthmark_hsm_hung_calls", "Calls of the HSM that have not returned in time");
    describe_counter!("birthmark_hsm_hung_calls_total", "Calls of the HSM that did not return in time");
    describe_counter!(
        "birthmark_hsm_wrong_signatures_total",
        "Wrong signatures of the HSM, found before they were used"
    );
    describe_counter!("birthmark_hsm_errors_total", "Errors of the HSM, by PKCS#11 return code");
    describe_counter!("birthmark_hsm_retries_total", "Operators' requests to try HSM tokens again");
    describe_gauge!("birthmark_committer_queue_depth", "Requests between reservation and record");
    describe_histogram!("birthmark_commit_batch_operations", "Operations that share one sync of the journal");
    describe_histogram!("birthmark_fsync_seconds", Unit::Seconds, "One sync of the journal");
    describe_gauge!("birthmark_issuer_expiry_seconds", Unit::Seconds, "Until an issuer's certificate ends");
    describe_gauge!("birthmark_station_ca_expiry_seconds", Unit::Seconds, "Until the station CA's certificate ends");
    describe_gauge!(
        "birthmark_server_certificate_expiry_seconds",
        Unit::Seconds,
        "Until the daemon's own TLS certificate ends"
    );
    describe_gauge!(
        "birthmark_checkpoint_age_seconds",
        Unit::Seconds,
        "How long the ledger has had entries that no checkpoint covers"
    );
    describe_gauge!("birthmark_journal_damage", "Places of the journal that are known to be damaged");
    describe_counter!("birthmark_scrub_bytes_total", "Bytes of the journal that the scrub has read");
    describe_gauge!("birthmark_scrub_timestamp_seconds", Unit::Seconds, "When the last scrub ended, Unix time");
    describe_gauge!("birthmark_ready", "1 when the daemon issues certificates");
    Ok(handle)
}

pub(crate) fn certificate(profile: &str, replay: bool, elapsed: Duration) {
    let replay = if replay { "true" } else { "false" };
    counter!("birthmark_certificates_total", "profile" => profile.to_owned(), "replay" => replay).increment(1);
    histogram!("birthmark_issue_seconds").record(elapsed);
}

pub(crate) fn confirmed() {
    counter!("birthmark_confirmed_total").increment(1);
}

pub(crate) fn scrapped() {
    counter!("birthmark_scrapped_total").increment(1);
}

pub(crate) fn revoked() {
    counter!("birthmark_revoked_total").increment(1);
}

pub(crate) fn refusal(reason: &'static str) {
    counter!("birthmark_refusals_total", "reason" => reason).increment(1);
}

pub(crate) fn connection_refused(port: &'static str, reason: &'static str) {
    counter!("birthmark_connections_refused_total", "port" => port, "reason" => reason).increment(1);
}

pub(crate) fn commit_batch(operations: usize) {
    histogram!("birthmark_commit_batch_operations").record(operations as f64);
}

pub(crate) fn fsync(elapsed: Duration) {
    histogram!("birthmark_fsync_seconds").record(elapsed);
}

pub(crate) fn hsm_retry() {
    counter!("birthmark_hsm_retries_total").increment(1);
}

pub(crate) fn checkpoint_age(age: Duration) {
    gauge!("birthmark_checkpoint_age_seconds").set(age.as_secs_f64());
}

pub(crate) fn journal_damage(places: usize) {
    gauge!("birthmark_journal_damage").set(places as f64);
}

pub(crate) fn scrubbed(bytes: u64) {
    counter!("birthmark_scrub_bytes_total").increment(bytes);
}

pub(crate) fn scrub_finished() {
    gauge!("birthmark_scrub_timestamp_seconds").set(jiff::Timestamp::now().as_second() as f64);
}

pub(crate) fn ready(ready: bool) {
    gauge!("birthmark_ready").set(if ready { 1.0 } else { 0.0 });
}

pub(crate) fn issuer_expiry(issuer: &str, seconds: f64) {
    gauge!("birthmark_issuer_expiry_seconds", "issuer" => issuer.to_owned()).set(seconds);
}

pub(crate) fn station_ca_expiry(seconds: f64) {
    gauge!("birthmark_station_ca_expiry_seconds").set(seconds);
}

pub(crate) fn server_certificate_expiry(seconds: f64) {
    gauge!("birthmark_server_certificate_expiry_seconds").set(seconds);
}

/// Counts itself in a gauge until it is dropped.
macro_rules! counted {
    ($(#[$doc:meta])* $name:ident, $gauge:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(());

        impl $name {
            pub(crate) fn new() -> Self {
                gauge!($gauge).increment(1.0);
                $name(())
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                gauge!($gauge).decrement(1.0);
            }
        }
    };
}

counted! {
    /// An open Issue stream.
    OpenStream, "birthmark_streams"
}

counted! {
    /// A request between reservation and record.
    InFlight, "birthmark_committer_queue_depth"
}
