//! What the daemon knows of itself: `/status.json` says what happens, when it happens, and what `/metrics` says.

use std::time::{Duration, Instant};

use serde_json::Value;
use tonic::Code;

use crate::support::{
    faults::Faults,
    site::{Daemon, Site, csr, request, wait_until},
};

fn status(daemon: &Daemon) -> Value {
    let (code, text) = daemon.get("/status.json");
    assert_eq!(code, 200);
    serde_json::from_str(&text).unwrap()
}

/// Waits until the status says so, and gives it.
#[track_caller]
fn status_with(daemon: &Daemon, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, || wanted(&status(daemon)));
    status(daemon)
}

/// Numbers of the snapshot are those of the metrics and of the ledger, by station, order and reason.
#[tokio::test(flavor = "multi_thread")]
async fn status_says_what_metrics_and_ledger_say() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 10);
    site.create_order("o2", 5);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    for device in ["d1", "d2", "d3"] {
        stream.ask(request(device, "o1", csr(device))).await.issued();
    }
    stream.ask(request("d4", "o1", vec![1, 2, 3])).await.must_be(Code::InvalidArgument, "CSR_MALFORMED");
    stream.ask(request("d4", "o1", csr("d4"))).await.issued();
    stream.ask(request("d5", "none", csr("d5"))).await.must_be(Code::NotFound, "ORDER_UNKNOWN");

    let found = status_with(&daemon, "the order is counted", |status| {
        status["orders"]["listed"].as_array().unwrap().iter().any(|order| order["issued"] == 4)
    });
    assert_eq!((&found["ready"], &found["obstacles"]), (&true.into(), &serde_json::json!([])), "{found}");
    let issuing = &found["issuing"];
    for (field, metric, labels) in [
        ("issued", "birthmark_certificates_total", &["replay=\"false\""][..]),
        ("refused", "birthmark_refused_requests_total", &[]),
    ] {
        assert_eq!(issuing[field].as_f64().unwrap(), daemon.metric(metric, labels), "{found}");
    }
    assert!(issuing["rate"].as_f64().unwrap() > 0.0 && issuing["p99_seconds"].as_f64().unwrap() > 0.0, "{found}");
    assert_eq!(found["ledger"]["certificates"], 4, "{found}");
    assert!(found["ledger"]["entries"].as_u64().unwrap() > 10 && found["ledger"]["bytes"].as_u64().unwrap() > 1000);

    let stations = found["stations"]["listed"].as_array().unwrap();
    let station = stations.iter().find(|station| station["name"] == "line1/t1").unwrap();
    assert_eq!((&station["connected"], &station["issued"]), (&true.into(), &4.into()), "{station}");
    let reasons: Vec<_> = station["refusals"].as_array().unwrap().iter().map(|refused| &refused["reason"]).collect();
    assert_eq!(reasons, ["ORDER_UNKNOWN", "CSR_MALFORMED"], "the newest first: {station}");

    let orders = found["orders"]["listed"].as_array().unwrap();
    let ids: Vec<_> = orders.iter().map(|order| (&order["id"], &order["state"])).collect();
    assert_eq!(ids, [(&"o1".into(), &"open".into()), (&"o2".into(), &"open".into())], "those in use first");
    let order = &orders[0];
    assert_eq!((&order["left"], &order["tried"], &order["first_pass_yield"]), (&6.into(), &4.into(), &0.75.into()));
    assert!(order["rate"].as_f64().unwrap() > 0.0 && order["expected_end"].is_string(), "{order}");

    let hsm = found["hsm"].as_array().unwrap();
    let main = hsm.iter().find(|token| token["issuer"] == "main").unwrap();
    assert_eq!(main["working"].as_f64().unwrap(), daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""]));
    assert_eq!((&main["outage"], &main["working"]), (&Value::Null, &main["wanted"]), "{main}");
    let kinds: Vec<_> =
        found["certificates"].as_array().unwrap().iter().map(|end| end["kind"].as_str().unwrap()).collect();
    for kind in ["issuer", "station_ca", "server", "station"] {
        assert!(kinds.contains(&kind), "{kind}: {found}");
    }
    assert_eq!(found["backup"], Value::Null);
    assert!(site.operator(&["backup", "kept", "--config", "birthmark.toml"]).status.success());
    let found = status_with(&daemon, "the backup is known", |status| !status["backup"].is_null());
    assert!(found["backup"]["entries"].as_u64().unwrap() > 10, "{found}");
    daemon.end();
    // What was counted is found again after a start.
    let daemon = site.start();
    assert_eq!(status(&daemon)["ledger"]["certificates"], 4);
    daemon.end();
}

/// What `/readyz` says the status says in the same second, when it begins and when it is over.
#[tokio::test(flavor = "multi_thread")]
async fn status_flips_within_a_second_of_readyz() {
    let site = Site::new();
    let faults = Faults::between(&site, "sessions = 2\nwait_seconds = 1");
    let daemon = site.start();
    site.create_order("o1", 10);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    // The machine may do something else for a second, but not each time.
    let mut late = Vec::new();
    let flips = [("fail C_Sign CKR_DEVICE_ERROR", false), ("", true)];
    for (script, ready) in flips.into_iter().cycle().take(3 * flips.len()) {
        faults.set(script);
        let code = if ready { 200 } else { 503 };
        while daemon.get("/readyz").0 != code {
            // Sessions find out when they have something to sign.
            stream.ask(request("d1", "o1", csr("d1"))).await;
        }
        let begun = Instant::now();
        let found = status_with(&daemon, "the status flips", |status| status["ready"] == ready);
        if begun.elapsed() >= Duration::from_secs(1) {
            late.push((ready, begun.elapsed()));
        }
        assert_eq!(found["obstacles"].as_array().unwrap().is_empty(), ready, "{found}");
        let main = found["hsm"].as_array().unwrap().iter().find(|token| token["issuer"] == "main").unwrap();
        assert_eq!(main["outage"].is_null(), ready, "{main}");
    }
    assert!(late.len() < flips.len(), "{late:?}");
    daemon.end();
}
