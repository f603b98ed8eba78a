//! What operations sees: metrics, health, and what they say when something is wrong.

use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt};

use birthmark::proto::ListOrdersRequest;
use birthmark_bench::assertions::judge_metrics;
use rustix::process::Signal;
use tonic::Code;

use crate::support::{
    faults::Faults,
    site::{Answer, IssueStream, Site, csr, request, wait_until},
};

/// Reads the text as Prometheus does, and gives the samples. Every line must be right.
fn parse(text: &str) -> Vec<(String, f64)> {
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let mut kinds = HashMap::new();
    let mut helped = Vec::new();
    let mut samples = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no text: {line}"));
            assert!(is_name(name) && help.len() > 10, "{line}");
            helped.push(name);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kinds.insert(name, kind).is_none(), "twice: {line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"))),
            None => (series, ""),
        };
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(name) && value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
        }
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|family| kinds.get(family) == Some(&"histogram"))
            .unwrap_or(name);
        assert!(kinds.contains_key(family), "no TYPE before: {line}");
        assert!(helped.contains(&family), "no HELP before: {line}");
        samples.push((series.to_owned(), value));
    }
    samples
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_happens() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 10);
    assert_eq!(daemon.get("/livez"), (200, "alive\n".into()));
    assert_eq!(daemon.get("/readyz"), (200, "ready\n".into()));
    assert_eq!(daemon.get("/none").0, 404);

    let mut stream = site.stream(&daemon, "line1/t1").await;
    wait_until("what may be refused to a station is counted from 0 on", || {
        let (_, text) = daemon.get("/metrics");
        ["KEY_REUSED", "ORDER_EXHAUSTED", "POP_INVALID"].into_iter().all(|reason| {
            let of = |line: &&str| line.starts_with("birthmark_refused_requests_total{");
            let labels = [format!("reason=\"{reason}\""), "station=\"line1/t1\"".to_owned()];
            text.lines().filter(of).any(|line| labels.iter().all(|label| line.contains(label)) && line.ends_with(" 0"))
        })
    });
    let again = request("d1", "o1", csr("d1"));
    for _ in 0..3 {
        stream.ask(again.clone()).await.issued();
    }
    stream.ask(request("d2", "o1", csr("d2"))).await.issued();
    stream.ask(request("d3", "o1", vec![1, 2, 3])).await.must_be(Code::InvalidArgument, "CSR_MALFORMED");
    stream.ask(request("d3", "none", csr("d3"))).await.must_be(Code::NotFound, "ORDER_UNKNOWN");

    let of_device = "profile=\"device\"";
    for (name, labels, expected) in [
        ("birthmark_certificates_total", &["replay=\"false\"", of_device][..], 2.0),
        ("birthmark_certificates_total", &["replay=\"true\"", of_device], 2.0),
        ("birthmark_refusals_total", &["reason=\"CSR_MALFORMED\""], 1.0),
        ("birthmark_refusals_total", &["reason=\"ORDER_UNKNOWN\""], 1.0),
        ("birthmark_refusals_total", &[], 2.0),
        ("birthmark_issue_duration_seconds_count", &[], 4.0),
        ("birthmark_hsm_sign_duration_seconds_count", &["issuer=\"main\""], 2.0),
        ("birthmark_streams", &[], 1.0),
        ("birthmark_ready", &[], 1.0),
        ("birthmark_hsm_queue_depth", &["issuer=\"main\""], 0.0),
    ] {
        assert_eq!(daemon.metric(name, labels), expected, "{name} {labels:?}");
    }
    // Two certificates and an order are at least five syncs.
    assert!(daemon.metric("birthmark_journal_fsync_duration_seconds_count", &[]) >= 5.0);
    assert!(daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""]) >= 1.0);
    assert!(stream.finish().await.unwrap().is_empty());
    wait_until("the stream is closed", || daemon.metric("birthmark_streams", &[]) == 0.0);

    let (_, text) = daemon.get("/metrics");
    let samples = parse(&text);
    for name in [
        "birthmark_issue_duration_seconds",
        "birthmark_hsm_sign_duration_seconds",
        "birthmark_journal_fsync_duration_seconds",
    ] {
        let of_another = |series: &str| series.contains("issuer=") && !series.contains("issuer=\"main\"");
        let of_this = |series: &str| series.starts_with(&format!("{name}_bucket")) && !of_another(series);
        let buckets: Vec<_> = samples.iter().filter(|(series, _)| of_this(series)).collect();
        assert!(buckets.len() > 10, "{name}");
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name} is not cumulative: {buckets:?}");
        assert!(buckets.last().unwrap().0.contains("le=\"+Inf\""), "{name}");
        assert!(daemon.metric(&format!("{name}_sum"), &[]) > 0.0, "{name}");
    }
    daemon.end();
}

/// Prometheus' own judge has nothing to say about the names, kinds and texts, whatever has happened.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_a_daemon_pass_promtool_in_silence() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 10);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();
    stream.ask(request("d2", "none", csr("d2"))).await.must_be(Code::NotFound, "ORDER_UNKNOWN");
    let (_, text) = daemon.get("/metrics");
    assert!(text.contains("token=\"birthmark\""), "a token's label as it is: {text}");
    judge_metrics(&text);
    daemon.end();
}

/// A daemon that has done nothing yet has metrics of the right form.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_an_idle_daemon_have_the_right_form() {
    let site = Site::new();
    let daemon = site.start();
    let samples = parse(&daemon.get("/metrics").1);
    for name in ["birthmark_ready", "birthmark_hsm_sessions"] {
        assert!(samples.iter().any(|(series, _)| series.split('{').next() == Some(name)), "{name}");
    }
    daemon.end();
}

/// A daemon that shuts down says so and answers what it has.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_that_shuts_down_says_so_and_answers_what_it_has() {
    let site = Site::new();
    let faults = Faults::between(&site, "sessions = 1");
    let mut daemon = site.start();
    site.create_order("o1", 1000);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    // What is in flight takes the HSM some seconds.
    faults.set("latency C_Sign 20ms");
    for number in 0..300 {
        let device = format!("d{number}");
        stream.send(request(&device, "o1", csr(&device))).await;
    }
    wait_until("some are issued", || daemon.metric("birthmark_certificates_total", &[]) >= 50.0);
    daemon.signal(Signal::TERM);
    wait_until("the daemon is not ready any more", || daemon.get("/readyz").0 == 503);
    assert!(daemon.get("/readyz").1.contains("draining"), "{}", daemon.get("/readyz").1);
    assert_eq!(daemon.get("/livez").0, 200);
    assert_eq!(daemon.metric("birthmark_ready", &[]), 0.0);

    let mut issued = 0;
    let end = loop {
        match stream.receive().await {
            Ok(Some(reply)) => {
                Answer::of(reply).issued();
                issued += 1;
            }
            Ok(None) => panic!("the stream ended as if all were answered"),
            Err(status) => break status,
        }
    };
    Answer::of_call(&end).must_be(Code::Unavailable, "DRAINING");
    assert!(daemon.wait().success());
    let daemon = site.start();
    assert_eq!(site.order("o1")["issued"], issued);
    assert_eq!(site.order("o1")["reserved"], 0);
    daemon.end();
}

/// An HSM that goes away is told and costs no device its certificate.
#[tokio::test(flavor = "multi_thread")]
async fn hsm_that_goes_away_is_told_and_costs_no_certificate() {
    let site = Site::new();
    let mut daemon = site.start();
    site.create_order("o1", 10);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();

    fs::rename(site.path("tokens"), site.path("tokens-away")).unwrap();
    // Each session of the pool finds out for itself, when it has something to sign.
    let mut answer = stream.ask(request("d2", "o1", csr("d2"))).await;
    for _ in 0..50 {
        if daemon.get("/readyz").0 == 503 {
            break;
        }
        answer = stream.ask(request("d2", "o1", csr("d2"))).await;
    }
    match &answer {
        Answer::Refused { code, reason, retry, .. } => {
            assert_eq!((*code, reason.as_str(), *retry), (Code::Unavailable, "HSM_UNAVAILABLE", true));
        }
        Answer::Issued(_) => panic!("a signature without an HSM"),
    }
    let (status, obstacles) = daemon.get("/readyz");
    assert!(status == 503 && obstacles.starts_with("hsm of issuer main: "), "{status} {obstacles}");
    assert_eq!(daemon.metric("birthmark_ready", &[]), 0.0);
    assert_eq!(daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""]), 0.0);
    assert!(daemon.metric("birthmark_hsm_errors_total", &[]) >= 1.0);
    assert_eq!(daemon.get("/livez").0, 200);
    assert_eq!(site.order("o1")["issued"], 1);

    let pid = daemon.pid();
    fs::rename(site.path("tokens-away"), site.path("tokens")).unwrap();
    wait_until("it is ready again by itself", || daemon.get("/readyz").0 == 200);
    assert!(daemon.is_running() && daemon.pid() == pid);
    stream.ask(request("d2", "o1", csr("d2"))).await.issued();
    let order = site.order("o1");
    assert_eq!([&order["issued"], &order["reserved"]], [2, 0]);
    daemon.end();
}

/// A local user who may open the socket is an operator.
#[tokio::test(flavor = "multi_thread")]
async fn user_who_may_open_the_socket_is_an_operator() {
    let site = Site::new();
    let daemon = site.start();
    let mode = fs::metadata(&daemon.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "for its owner and group only");
    site.create_order("o1", 1);
    let orders = daemon.admin().await.list_orders(ListOrdersRequest {}).await.unwrap().into_inner().orders;
    assert_eq!(orders.len(), 1);
    // Devices are for stations.
    let Err(refused) = IssueStream::open(daemon.connect_locally().await).await else { panic!("a stream") };
    Answer::of_call(&refused).must_be(Code::PermissionDenied, "ROLE_REQUIRED");
    daemon.end();
}

/// A daemon that is stopped as soon as it is ready exits in order.
#[test]
fn daemon_stopped_as_soon_as_ready_exits_in_order() {
    let site = Site::new();
    for _ in 0..5 {
        site.start().end();
    }
}
