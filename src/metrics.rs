//! What ops see: every metric's name, kind and meaning, once; and the Prometheus text that `/metrics` serves.
//!
//! | metric | labels |
//! |---|---|
//! | `birthmark_certificates_total` | `profile`, `replay` |
//! | `birthmark_possession_proofs_total` | `issuer`, `replay` |
//! | `birthmark_refusals_total` | `reason` as in the protocol's ErrorInfo, and `TOO_MANY_CONNECTIONS` |
//! | `birthmark_refused_requests_total` | `station` (`<line>/<station>` of the first 256 that are refused; `other`; `none`: no station asked), `reason` |
//! | `birthmark_devices_tried`, `birthmark_devices_first_pass` | `station`, as above, but `none` for devices that ask by themselves |
//! | `birthmark_connections_refused_total` | `port` (`grpc`, `socket`, `http`, `est`), `reason`: `handshake` (failed), `silent` (nothing in time), `crowded` (idle, made room for another), `limit`, `revoked` (or expired certificate), `accept` (by the system) |
//! | `birthmark_est_requests_total` | `operation` (`cacerts`, `csrattrs`, `simpleenroll`, `simplereenroll`, `other`), `status` |
//! | `birthmark_vending_guesses_total` | `result`: `right`, `wrong`, `malformed` (a typing error), `limited` (not looked at) |
//! | `birthmark_security_records_lost_total` | `sink`: `file`, `syslog` |
//! | `birthmark_hsm_queue_depth` | `issuer` |
//! | `birthmark_hsm_errors_total` | `issuer`, `token`, `code` |
//! | the other `birthmark_hsm_…` but `_retries_total` | `issuer` (or `audit`), `token`: the token's label |
//! | `birthmark_issuer_not_after_timestamp_seconds`, `birthmark_crl_…` | `issuer` |
//! | `birthmark_peer_certificates_expiring` | `days`: within so many, 7 or 30 |
//! | `birthmark_destination_…` | `destination` |
//! | all others | – |
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>: base units, `_total` for counters, a moment as
//! `_timestamp_seconds` in Unix time; `promtool check metrics` is silent about all of them.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Buckets from 10 µs to 10 s, three to a decade.
const SECONDS: [f64; 19] =
    [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
const OPERATIONS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// What a metric is.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Declares the names, and the table from which all are described.
macro_rules! metrics {
    ($($kind:ident $constant:ident $name:literal $help:literal;)*) => {
        $(const $constant: &str = concat!("birthmark_", $name);)*

        const ALL: &[(Kind, &str, &str)] = &[$((Kind::$kind, $constant, $help)),*];
    };
}

metrics! {
    Counter CERTIFICATES "certificates_total" "Certificates sent to stations; replay=true for retries";
    Counter CERTIFICATES_CONFIRMED "certificates_confirmed_total" "Certificates that their devices have taken";
    Counter CERTIFICATES_SCRAPPED "certificates_scrapped_total" "Certificates whose devices are scrap";
    Counter CERTIFICATES_REVOKED "certificates_revoked_total" "Certificates revoked";
    Counter POSSESSION_PROOFS "possession_proofs_total"
        "Proofs of possession of an issuer's key given to operators; replay=true for retries";
    Counter REFUSALS "refusals_total" "Requests refused, by reason";
    Counter REFUSED_REQUESTS "refused_requests_total"
        "Requests for certificates refused, by station and reason";
    Gauge DEVICES_TRIED "devices_tried"
        "Devices that a station was the first to try under an order, since the ledger began";
    Gauge DEVICES_FIRST_PASS "devices_first_pass"
        "Those of them that got their certificate without having been refused before";
    Counter SECURITY_RECORDS_LOST "security_records_lost_total"
        "Records that the security log's file or receiver did not take in time, by sink";
    Histogram ISSUE_DURATION "issue_duration_seconds" "From a request's arrival to its durable certificate";
    Gauge STREAMS "streams" "Open Issue streams";
    Counter CONNECTIONS_REFUSED "connections_refused_total"
        "Connections refused, or ended before they had done anything, by port and reason";
    Counter EST_REQUESTS "est_requests_total" "Requests over EST, by operation and HTTP status";
    Counter VENDING_GUESSES "vending_guesses_total"
        "Vending codes that were shown over EST, by result; wrong and limited ones are guesses";
    Histogram HSM_SIGN_DURATION "hsm_sign_duration_seconds" "One signature by the HSM, without waiting";
    Gauge HSM_QUEUE_DEPTH "hsm_queue_depth" "Messages that wait for an HSM session";
    Gauge HSM_SESSIONS "hsm_sessions" "HSM sessions that sign";
    Gauge HSM_BREAKER_OPEN "hsm_breaker_open" "1 while an HSM token is left out until a probe signs";
    Gauge HSM_CALLS_HUNG "hsm_calls_hung" "Calls of the HSM that took longer than the limit and have not returned";
    Counter HSM_CALL_TIMEOUTS "hsm_call_timeouts_total" "Calls of the HSM that took longer than the limit";
    Counter HSM_WRONG_SIGNATURES "hsm_wrong_signatures_total"
        "Wrong signatures of the HSM, found before they were used";
    Counter HSM_ERRORS "hsm_errors_total" "Errors of the HSM, by PKCS#11 return code";
    Counter HSM_RETRIES "hsm_retries_total" "Operators' requests to try HSM tokens again";
    Gauge REQUESTS_IN_FLIGHT "requests_in_flight" "Requests between reservation and record";
    Histogram COMMIT_BATCH_OPERATIONS "commit_batch_operations" "Operations that share one sync of the journal";
    Histogram JOURNAL_FSYNC_DURATION "journal_fsync_duration_seconds" "One sync of the journal";
    Gauge PEER_CERTIFICATES_EXPIRING "peer_certificates_expiring"
        "Stations, operators and auditors whose newest certificate expires within so many days";
    Gauge ISSUER_NOT_AFTER "issuer_not_after_timestamp_seconds" "When an issuer's certificate expires, Unix time";
    Gauge STATION_CA_NOT_AFTER "station_ca_not_after_timestamp_seconds"
        "When the first certificate of the station CA expires, Unix time";
    Gauge SERVER_CERTIFICATE_NOT_AFTER "server_certificate_not_after_timestamp_seconds"
        "When the daemon's own TLS certificate expires, Unix time";
    Gauge CHECKPOINT_LAG "checkpoint_lag_seconds"
        "How long the ledger has had entries that no checkpoint covers, 0 if it has none";
    Gauge CRL_NUMBER "crl_number" "The number of the newest revocation list, by issuer";
    Gauge CRL_THIS_UPDATE "crl_this_update_timestamp_seconds"
        "When the oldest of an issuer's newest revocation lists was made, Unix time";
    Gauge CRL_NEXT_UPDATE "crl_next_update_timestamp_seconds"
        "When the first of an issuer's newest revocation lists expires, Unix time";
    Gauge CRL_ENTRIES "crl_entries" "Certificates on an issuer's newest revocation lists";
    Gauge CRL_BYTES "crl_bytes" "Size of an issuer's newest revocation lists";
    Counter CRL_FAILURES "crl_failures_total" "Revocation lists that could not be made or published, by issuer";
    Gauge DESTINATION_BACKLOG "destination_backlog" "Certificates that wait for a destination's next batch";
    Gauge DESTINATION_BACKLOG_AGE "destination_backlog_age_seconds"
        "How long the oldest of them has waited, 0 if there is none";
    Gauge DESTINATION_WITHDRAWALS "destination_withdrawals" "Withdrawals that wait for a destination's next batch";
    Gauge DESTINATION_UNFIT "destination_unfit"
        "Live certificates that a destination's batches have left out, or its platform refused";
    Gauge DESTINATION_UNACKNOWLEDGED "destination_unacknowledged_batches"
        "Batches of a destination that are not acknowledged";
    Gauge DESTINATION_UNACKNOWLEDGED_AGE "destination_unacknowledged_age_seconds"
        "How long ago the oldest of them was cut, 0 if there is none";
    Gauge DESTINATION_HELD "destination_held"
        "1 while a destination's batches should be cut or written by the daemon, and cannot be";
    Gauge JOURNAL_MIRROR "journal_mirror_up" "Whether the mirror of the journal has all entries; absent without a mirror";
    Gauge JOURNAL_DAMAGE "journal_damage" "Places of the journal that are known to be damaged";
    Counter SCRUB_BYTES "scrub_bytes_total" "Bytes of the journal that the scrub has read and checked";
    Gauge SCRUB_COMPLETED "scrub_completed_timestamp_seconds"
        "When the whole journal was last read and checked, Unix time";
    Gauge READY "ready" "1 when the daemon issues certificates";
}

/// Makes the process record metrics, and gives what renders them. Once a process.
///
/// # Errors
/// If it was done before.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full(COMMIT_BATCH_OPERATIONS.into()), &OPERATIONS)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    for (kind, name, help) in ALL {
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Histogram => describe_histogram!(*name, *help),
        }
    }
}

pub(crate) fn certificate(profile: &str, replay: bool, elapsed: Duration) {
    let replay = if replay { "true" } else { "false" };
    counter!(CERTIFICATES, "profile" => profile.to_owned(), "replay" => replay).increment(1);
    histogram!(ISSUE_DURATION).record(elapsed);
}

pub(crate) fn possession_proof(issuer: &str, replay: bool) {
    let replay = if replay { "true" } else { "false" };
    counter!(POSSESSION_PROOFS, "issuer" => issuer.to_owned(), "replay" => replay).increment(1);
}

pub(crate) fn confirmed() {
    counter!(CERTIFICATES_CONFIRMED).increment(1);
}

pub(crate) fn scrapped() {
    counter!(CERTIFICATES_SCRAPPED).increment(1);
}

pub(crate) fn revoked() {
    counter!(CERTIFICATES_REVOKED).increment(1);
}

pub(crate) fn peer_certificates_expiring(days: &'static str, number: usize) {
    gauge!(PEER_CERTIFICATES_EXPIRING, "days" => days).set(number as f64);
}

pub(crate) fn security_records_lost(sink: &'static str) {
    counter!(SECURITY_RECORDS_LOST, "sink" => sink).increment(1);
}

pub(crate) fn refusal(reason: &'static str) {
    counter!(REFUSALS, "reason" => reason).increment(1);
}

pub(crate) fn refused_request(station: String, reason: &'static str) {
    counter!(REFUSED_REQUESTS, "station" => station, "reason" => reason).increment(1);
}

pub(crate) fn first_pass(station: &str, tried: u64, first: u64) {
    gauge!(DEVICES_TRIED, "station" => station.to_owned()).set(tried as f64);
    gauge!(DEVICES_FIRST_PASS, "station" => station.to_owned()).set(first as f64);
}

pub(crate) fn connection_refused(port: &'static str, reason: &'static str) {
    counter!(CONNECTIONS_REFUSED, "port" => port, "reason" => reason).increment(1);
}

pub(crate) fn est_request(operation: &'static str, status: u16) {
    counter!(EST_REQUESTS, "operation" => operation, "status" => status.to_string()).increment(1);
}

pub(crate) fn vending_guess(result: &'static str) {
    counter!(VENDING_GUESSES, "result" => result).increment(1);
}

pub(crate) fn commit_batch(operations: usize) {
    histogram!(COMMIT_BATCH_OPERATIONS).record(operations as f64);
}

pub(crate) fn fsync(elapsed: Duration) {
    histogram!(JOURNAL_FSYNC_DURATION).record(elapsed);
}

pub(crate) fn hsm_retry() {
    counter!(HSM_RETRIES).increment(1);
}

/// The gauge of one pool's queue.
pub(crate) fn hsm_queue_depth(issuer: &str) -> Gauge {
    gauge!(HSM_QUEUE_DEPTH, "issuer" => issuer.to_owned())
}

/// The metrics of one token of a pool. The recorder must be installed before.
pub(crate) struct HsmToken {
    labels: [(&'static str, String); 2],
    sign_duration: Histogram,
    sessions: Gauge,
    breaker_open: Gauge,
    calls_hung: Gauge,
    call_timeouts: Counter,
    wrong_signatures: Counter,
}

impl HsmToken {
    pub(crate) fn new(issuer: &str, token: &str) -> Self {
        let labels = [("issuer", issuer.to_owned()), ("token", token.to_owned())];
        let token = HsmToken {
            sign_duration: histogram!(HSM_SIGN_DURATION, &labels),
            sessions: gauge!(HSM_SESSIONS, &labels),
            breaker_open: gauge!(HSM_BREAKER_OPEN, &labels),
            calls_hung: gauge!(HSM_CALLS_HUNG, &labels),
            call_timeouts: counter!(HSM_CALL_TIMEOUTS, &labels),
            wrong_signatures: counter!(HSM_WRONG_SIGNATURES, &labels),
            labels,
        };
        // A counter that is absent until its first event hides that event from rate().
        token.call_timeouts.absolute(0);
        token.wrong_signatures.absolute(0);
        token
    }

    pub(crate) fn signed(&self, took: Duration) {
        self.sign_duration.record(took);
    }

    pub(crate) fn sessions(&self, sessions: usize) {
        self.sessions.set(sessions as f64);
    }

    pub(crate) fn breaker_open(&self, open: bool) {
        self.breaker_open.set(f64::from(open));
    }

    pub(crate) fn calls_hung(&self, calls: usize) {
        self.calls_hung.set(calls as f64);
    }

    pub(crate) fn call_timeout(&self) {
        self.call_timeouts.increment(1);
    }

    pub(crate) fn wrong_signature(&self) {
        self.wrong_signatures.increment(1);
    }

    /// Counts an error by its code.
    pub(crate) fn error(&self, code: &str) {
        let [issuer, token] = self.labels.clone();
        counter!(HSM_ERRORS, &[issuer, token, ("code", code.to_owned())]).increment(1);
    }
}

pub(crate) fn checkpoint_lag(lag: Duration) {
    gauge!(CHECKPOINT_LAG).set(lag.as_secs_f64());
}

/// The newest revocation lists of an issuer, all of its shards together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crls {
    /// The greatest number.
    pub(crate) number: u64,
    /// When the oldest was made, and when the first expires; Unix time.
    pub(crate) times: (i64, i64),
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

pub(crate) fn crls(issuer: &str, crls: &Crls) {
    let set = |name: &'static str, value: f64| gauge!(name, "issuer" => issuer.to_owned()).set(value);
    set(CRL_NUMBER, crls.number as f64);
    set(CRL_THIS_UPDATE, crls.times.0 as f64);
    set(CRL_NEXT_UPDATE, crls.times.1 as f64);
    set(CRL_ENTRIES, crls.entries as f64);
    set(CRL_BYTES, crls.bytes as f64);
}

pub(crate) fn crl_failed(issuer: &str) {
    counter!(CRL_FAILURES, "issuer" => issuer.to_owned()).increment(1);
}

/// What waits for a destination; ages in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DestinationGauges {
    pub(crate) backlog: u64,
    pub(crate) backlog_age: f64,
    pub(crate) withdrawals: u64,
    pub(crate) unfit: usize,
    pub(crate) unacknowledged: u32,
    pub(crate) unacknowledged_age: f64,
}

pub(crate) fn destination(name: &str, gauges: &DestinationGauges) {
    let set = |metric: &'static str, value: f64| gauge!(metric, "destination" => name.to_owned()).set(value);
    set(DESTINATION_BACKLOG, gauges.backlog as f64);
    set(DESTINATION_BACKLOG_AGE, gauges.backlog_age);
    set(DESTINATION_WITHDRAWALS, gauges.withdrawals as f64);
    set(DESTINATION_UNFIT, gauges.unfit as f64);
    set(DESTINATION_UNACKNOWLEDGED, f64::from(gauges.unacknowledged));
    set(DESTINATION_UNACKNOWLEDGED_AGE, gauges.unacknowledged_age);
}

pub(crate) fn destination_held(name: &str, held: bool) {
    gauge!(DESTINATION_HELD, "destination" => name.to_owned()).set(f64::from(held));
}

pub(crate) fn journal_mirror(up: bool) {
    gauge!(JOURNAL_MIRROR).set(f64::from(u8::from(up)));
}

pub(crate) fn journal_damage(places: usize) {
    gauge!(JOURNAL_DAMAGE).set(places as f64);
}

pub(crate) fn scrubbed(bytes: u64) {
    counter!(SCRUB_BYTES).increment(bytes);
}

pub(crate) fn scrub_finished() {
    gauge!(SCRUB_COMPLETED).set(jiff::Timestamp::now().as_second() as f64);
}

pub(crate) fn ready(ready: bool) {
    gauge!(READY).set(f64::from(ready));
}

/// `not_after` in Unix time, here and below.
pub(crate) fn issuer_not_after(issuer: &str, not_after: i64) {
    gauge!(ISSUER_NOT_AFTER, "issuer" => issuer.to_owned()).set(not_after as f64);
}

pub(crate) fn station_ca_not_after(not_after: i64) {
    gauge!(STATION_CA_NOT_AFTER).set(not_after as f64);
}

pub(crate) fn server_certificate_not_after(not_after: i64) {
    gauge!(SERVER_CERTIFICATE_NOT_AFTER).set(not_after as f64);
}

/// Counts itself in a gauge until it is dropped.
macro_rules! counted {
    ($(#[$doc:meta])* $name:ident, $gauge:ident) => {
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
    OpenStream, STREAMS
}

counted! {
    /// A request between reservation and record.
    InFlight, REQUESTS_IN_FLIGHT
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;

    /// Those too that a daemon shows only after something went wrong.
    #[test]
    fn every_metric_is_as_promtool_wants_it() {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Prefix("birthmark".into()), &SECONDS)
            .unwrap()
            .build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            for (kind, name, _) in ALL {
                match kind {
                    Kind::Counter => counter!(*name).increment(1),
                    Kind::Gauge => gauge!(*name).set(1.0),
                    Kind::Histogram => histogram!(*name).record(1.0),
                }
            }
            describe();
        });
        let text = handle.render();
        for (_, name, help) in ALL {
            assert!(text.contains(&format!("# HELP {name} {help}\n")), "{name}: {text}");
        }
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool (Debian: prometheus) must be installed");
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let said = promtool.wait_with_output().unwrap();
        assert!(said.status.success() && said.stdout.is_empty() && said.stderr.is_empty(), "{said:?}");
    }
}
