//! What ops see. `metrics/list.rs` is the list of all metrics, docs/metrics.md what it says for people; here is what sets them,
//! and the text that `/metrics` serves.
//!
//! Whatever is counted is there from the start, at 0, for every value that a label is known to have: a counter that appears with its
//! first event hides that event from `increase()`.

mod exposition;
mod hsm;
mod ledger;
pub(crate) mod list;
mod metric;
mod path;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

pub(crate) use self::{
    hsm::{AUDIT, HsmPool, HsmToken},
    ledger::{ledger_commit, ledger_daemons, ledger_follow_lag, ledger_lock_wait, ledger_retry, ledger_unknown},
    path::{InFlight, Laps, OpenStream, OpenWatch, ProfileCertificates, Step, commit_batch, event_told, fsync},
};
use self::{
    list::SUBJECTS,
    metric::{Kind, Metric},
};

/// Buckets from 10 µs to 10 s, three to a decade.
pub(crate) const SECONDS: [f64; 19] =
    [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
const OPERATIONS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Renders what is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Exporter {
    handle: PrometheusHandle,
    process: Collector,
}

/// Makes the process record metrics, and gives what renders them. Once a process.
///
/// # Errors
/// If it was done before.
pub(crate) fn install() -> Result<Exporter, BuildError> {
    let handle = builder()?.install_recorder()?;
    let process = Collector::default();
    process.describe();
    prepare();
    Ok(Exporter { handle, process })
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full(list::COMMIT_BATCH_OPERATIONS.into()), &OPERATIONS)
}

impl Exporter {
    /// The text as Prometheus reads it, and its media type; as OpenMetrics has it for a client that accepts that. `set` sets the
    /// metrics that are there for this once: what it does not set is gone.
    pub(crate) fn render(&self, accept: &str, set: impl FnOnce()) -> (&'static str, String) {
        self.process.collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge!(list::CLOCK).set(now.as_secs_f64());
        let once = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&once, || {
            describe();
            set();
        });
        let text = self.handle.render() + &once.handle().render();
        match exposition::wants_open_metrics(accept) {
            true => (exposition::OPEN_METRICS, exposition::open_metrics(&text)),
            false => (exposition::PROMETHEUS, text),
        }
    }

    /// Puts samples of histograms into their buckets: without it they pile up in memory between two looks.
    pub(crate) fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn all() -> impl Iterator<Item = &'static Metric> {
    SUBJECTS.iter().flat_map(|subject| subject.metrics)
}

fn describe() {
    for Metric { kind, name, help, .. } in all() {
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Histogram => describe_histogram!(*name, *help),
        }
    }
}

/// Describes all metrics, and makes those that need no more to be there.
fn prepare() {
    describe();
    for Metric { name, .. } in all().filter(|metric| metric.kind == Kind::Counter && metric.labels.is_empty()) {
        drop(counter!(*name));
    }
    path::prepare();
    ledger::prepare();
    gauge!(list::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for result in ["right", "wrong", "malformed", "limited"] {
        drop(counter!(list::VENDING_GUESSES, "result" => result));
    }
    for sink in ["file", "syslog"] {
        drop(counter!(list::SECURITY_RECORDS_LOST, "sink" => sink));
    }
}

/// Requests may be refused for these reasons.
pub(crate) fn known_reasons(reasons: impl Iterator<Item = &'static str>) {
    reasons.for_each(|reason| drop(counter!(list::REFUSALS, "reason" => reason)));
}

/// Connections of a port may be refused for these reasons.
pub(crate) fn known_connection_reasons(port: &'static str, reasons: impl Iterator<Item = &'static str>) {
    reasons.for_each(|reason| drop(counter!(list::CONNECTIONS_REFUSED, "port" => port, "reason" => reason)));
}

/// TLS handshakes of a port may end so.
pub(crate) fn known_handshakes(port: &'static str, results: impl Iterator<Item = &'static str>) {
    results.for_each(|result| drop(counter!(list::TLS_HANDSHAKES, "port" => port, "result" => result)));
}

/// An operation of EST may be answered so.
pub(crate) fn known_est_statuses(operation: &'static str, statuses: impl Iterator<Item = u16>) {
    statuses.for_each(|status| {
        drop(counter!(list::EST_REQUESTS, "operation" => operation, "status" => status.to_string()));
    });
}

/// An issuer may be asked for proofs of possession.
pub(crate) fn known_prover(issuer: &str) {
    for replay in ["false", "true"] {
        drop(counter!(list::POSSESSION_PROOFS, "issuer" => issuer.to_owned(), "replay" => replay));
    }
}

/// An issuer has revocation lists.
pub(crate) fn known_crl_issuer(issuer: &str) {
    drop(counter!(list::CRL_FAILURES, "issuer" => issuer.to_owned()));
}

pub(crate) fn possession_proof(issuer: &str, replay: bool) {
    let replay = if replay { "true" } else { "false" };
    counter!(list::POSSESSION_PROOFS, "issuer" => issuer.to_owned(), "replay" => replay).increment(1);
}

pub(crate) fn confirmed() {
    counter!(list::CERTIFICATES_CONFIRMED).increment(1);
}

pub(crate) fn scrapped() {
    counter!(list::CERTIFICATES_SCRAPPED).increment(1);
}

pub(crate) fn revoked() {
    counter!(list::CERTIFICATES_REVOKED).increment(1);
}

pub(crate) fn peer_certificates_expiring(days: &'static str, number: usize) {
    gauge!(list::PEER_CERTIFICATES_EXPIRING, "days" => days).set(number as f64);
}

pub(crate) fn security_records_lost(sink: &'static str) {
    counter!(list::SECURITY_RECORDS_LOST, "sink" => sink).increment(1);
}

pub(crate) fn refusal(reason: &'static str) {
    counter!(list::REFUSALS, "reason" => reason).increment(1);
}

pub(crate) fn refused_request(station: String, reason: &'static str) {
    counter!(list::REFUSED_REQUESTS, "station" => station, "reason" => reason).increment(1);
}

/// Requests of a station may be refused for this reason.
pub(crate) fn known_refused_request(station: &str, reason: &'static str) {
    drop(counter!(list::REFUSED_REQUESTS, "station" => station.to_owned(), "reason" => reason));
}

pub(crate) fn first_pass(station: &str, tried: u64, first: u64) {
    gauge!(list::DEVICES_TRIED, "station" => station.to_owned()).set(tried as f64);
    gauge!(list::DEVICES_FIRST_PASS, "station" => station.to_owned()).set(first as f64);
}

pub(crate) fn connection_refused(port: &'static str, reason: &'static str) {
    counter!(list::CONNECTIONS_REFUSED, "port" => port, "reason" => reason).increment(1);
}

/// A handshake of a port ended so.
pub(crate) fn tls_handshake(port: &'static str, result: &'static str) {
    counter!(list::TLS_HANDSHAKES, "port" => port, "result" => result).increment(1);
}

pub(crate) fn est_request(operation: &'static str, status: u16) {
    counter!(list::EST_REQUESTS, "operation" => operation, "status" => status.to_string()).increment(1);
}

pub(crate) fn vending_guess(result: &'static str) {
    counter!(list::VENDING_GUESSES, "result" => result).increment(1);
}

pub(crate) fn hsm_retry() {
    counter!(list::HSM_RETRIES).increment(1);
}

pub(crate) fn crl_failed(issuer: &str) {
    counter!(list::CRL_FAILURES, "issuer" => issuer.to_owned()).increment(1);
}

pub(crate) fn journal_damage(places: usize) {
    gauge!(list::JOURNAL_DAMAGE).set(places as f64);
}

pub(crate) fn scrubbed(bytes: u64) {
    counter!(list::SCRUB_BYTES).increment(bytes);
}

pub(crate) fn scrub_finished() {
    gauge!(list::SCRUB_COMPLETED).set(jiff::Timestamp::now().as_second() as f64);
}
