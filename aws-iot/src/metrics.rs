//! What ops see of the activator: every metric's name, kind and meaning, once.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use crate::limits::Api;

const CALLS: &str = "birthmark_aws_calls_total";
const ACTIVATED: &str = "birthmark_aws_certificates_activated_total";
const REVOKED: &str = "birthmark_aws_certificates_revoked_total";
const FAILURES: &str = "birthmark_aws_certificate_failures_total";
const UNKNOWN: &str = "birthmark_aws_unknown_pending_certificates";
const UNKNOWN_ACTIVE: &str = "birthmark_aws_unknown_active_certificates";
const BUNDLES: &str = "birthmark_aws_bundles";
const BUNDLES_REFUSED: &str = "birthmark_aws_bundles_refused";
const LISTED: &str = "birthmark_aws_listed_certificates";
const SWEPT: &str = "birthmark_aws_sweep_completed_timestamp_seconds";
const SWEPT_FULLY: &str = "birthmark_aws_full_sweep_completed_timestamp_seconds";
const EVENTS: &str = "birthmark_aws_events_total";

/// Installs the recorder.
///
/// # Errors
/// There is one already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new().install_recorder()?;
    describe_counter!(CALLS, "Calls of AWS IoT, by API and result: ok, or AWS's error code");
    describe_counter!(ACTIVATED, "Certificates made active at their first connection");
    describe_counter!(REVOKED, "Certificates revoked, by reason: withdrawn, replaced, unknown");
    describe_counter!(FAILURES, "Certificates that could not be settled, and are tried again");
    describe_gauge!(UNKNOWN, "Certificates that wait for activation and that no bundle names, at the last full sweep");
    describe_gauge!(UNKNOWN_ACTIVE, "Active certificates of the CAs that no bundle names, at the last full sweep");
    describe_gauge!(BUNDLES, "Bundles whose certificates are known");
    describe_gauge!(BUNDLES_REFUSED, "Files among the bundles that do not verify");
    describe_gauge!(LISTED, "Certificates and withdrawals in the bundles");
    describe_gauge!(SWEPT, "When the last sweep was completed, Unix time");
    describe_gauge!(SWEPT_FULLY, "When the last full sweep was completed, Unix time");
    describe_counter!(EVENTS, "Events of first connections from the queue");
    for counter in [counter!(ACTIVATED), counter!(FAILURES), counter!(EVENTS)] {
        counter.increment(0);
    }
    for reason in ["withdrawn", "replaced", "unknown"] {
        counter!(REVOKED, "reason" => reason).increment(0);
    }
    for gauge in [gauge!(UNKNOWN), gauge!(UNKNOWN_ACTIVE), gauge!(BUNDLES), gauge!(BUNDLES_REFUSED), gauge!(LISTED)] {
        gauge.set(0.0);
    }
    Ok(handle)
}

pub(crate) fn call(api: Api, result: &str) {
    counter!(CALLS, "api" => api.name(), "result" => result.to_owned()).increment(1);
}

pub(crate) fn activated() {
    counter!(ACTIVATED).increment(1);
}

pub(crate) fn revoked(reason: &'static str, count: u64) {
    counter!(REVOKED, "reason" => reason).increment(count);
}

pub(crate) fn failed() {
    counter!(FAILURES).increment(1);
}

pub(crate) fn event() {
    counter!(EVENTS).increment(1);
}

/// How many certificates no bundle names: waiting, and active.
pub(crate) fn unknown(pending: u64, active: u64) {
    gauge!(UNKNOWN).set(pending as f64);
    gauge!(UNKNOWN_ACTIVE).set(active as f64);
}

pub(crate) fn bundles(known: usize, refused: usize, entries: u64) {
    gauge!(BUNDLES).set(known as f64);
    gauge!(BUNDLES_REFUSED).set(refused as f64);
    gauge!(LISTED).set(entries as f64);
}

/// A sweep is done, in seconds of Unix time.
pub(crate) fn swept(at: i64, fully: bool) {
    gauge!(SWEPT).set(at as f64);
    if fully {
        gauge!(SWEPT_FULLY).set(at as f64);
    }
}
