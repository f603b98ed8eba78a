//! Refused requests in the ledger: told as events, counted in yields, and never a flood.

use birthmark::proto::{WatchReply, WatchRequest, admin_client::AdminClient};

use crate::support::{
    site::{Daemon, PATIENCE, Site, csr, request, wait_until},
    token::succeeded,
};

/// The events up to the first that is wanted.
async fn events_until(site: &Site, daemon: &Daemon, mut wanted: impl FnMut(&WatchReply) -> bool) -> Vec<WatchReply> {
    let mut admin = AdminClient::new(site.connect(daemon, "auditor", "mes").await);
    let mut events = admin.watch(WatchRequest { after: 0 }).await.unwrap().into_inner();
    let mut seen: Vec<WatchReply> = Vec::new();
    loop {
        let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
        let last = wanted(&event);
        seen.push(event);
        if last {
            return seen;
        }
    }
}

/// A CSR whose signature is another's.
fn bad_csr(device: &str) -> Vec<u8> {
    let mut csr = csr(device);
    *csr.last_mut().unwrap() ^= 1;
    csr
}

/// What `order show --json` says of the first pass, without the stations.
fn first_pass(site: &Site, order: &str) -> [u64; 4] {
    let passes = &site.order(order)["first_pass"];
    ["tried", "first", "later", "refused"].map(|name| passes[name].as_u64().unwrap())
}

/// Tries three devices: `again` is refused first, `good` is not, `bad` is refused only.
async fn try_three(site: &Site, daemon: &Daemon) {
    let mut stream = site.stream(daemon, "line1/t1").await;
    stream.ask(request("again", "lot", bad_csr("again"))).await.must_be(tonic::Code::InvalidArgument, "POP_INVALID");
    // At once: the refusal is known before the certificate all the same.
    stream.ask(request("again", "lot", csr("again"))).await.issued();
    let good = request("good", "lot", csr("good"));
    stream.ask(good.clone()).await.issued();
    // Refused after it passed, and for the order's sake: no other try.
    stream.ask(request("good", "lot", csr("good"))).await.must_be(tonic::Code::AlreadyExists, "DEVICE_HAS_CERTIFICATE");
    stream.ask(request("lost", "nowhere", csr("lost"))).await.must_be(tonic::Code::NotFound, "ORDER_UNKNOWN");
    stream.ask(good).await.issued();
    stream.ask(request("bad", "lot", bad_csr("bad"))).await.must_be(tonic::Code::InvalidArgument, "POP_INVALID");
}

/// First-pass yield by orders and stations, the same after a kill, a restart and a reindex.
#[tokio::test(flavor = "multi_thread")]
async fn first_pass_yield_survives_kill_and_reindex() {
    let site = Site::new();
    let mut daemon = site.start();
    site.create_order("lot", 100);
    try_three(&site, &daemon).await;
    let expected = [3, 1, 1, 1];
    wait_until("the refusals are recorded", || first_pass(&site, "lot") == expected);
    let shown = site.order("lot");
    assert_eq!(shown["first_pass"]["stations"][0]["station"], "line1/t1", "{shown}");
    assert!((shown["first_pass"]["yield"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9, "{shown}");
    let text = succeeded(&site.operator(&["order", "show", "lot"]));
    assert!(text.contains("33.3 % of 3 devices"), "{text}");
    assert_eq!(daemon.metric("birthmark_refused_requests_total", &["station=\"line1/t1\"", "POP_INVALID"]), 2.0);

    daemon.kill();
    let daemon = site.start();
    assert_eq!(first_pass(&site, "lot"), expected);
    // Metrics of all orders together.
    wait_until("the yields are metrics", || {
        daemon.metric("birthmark_devices_tried", &["station=\"line1/t1\""]) == 3.0
            && daemon.metric("birthmark_devices_first_pass", &["station=\"line1/t1\""]) == 1.0
    });
    // Another station has the device that the first one could not.
    site.stream(&daemon, "line2/t9").await.ask(request("bad", "lot", csr("bad"))).await.issued();
    assert_eq!(first_pass(&site, "lot"), [3, 1, 2, 0]);
    daemon.end();
    succeeded(&site.token.birthmark(&["journal", "reindex", "data"]));
    let daemon = site.start();
    assert_eq!(first_pass(&site, "lot"), [3, 1, 2, 0]);
    assert_eq!(site.order("lot")["first_pass"]["stations"].as_array().unwrap().len(), 1, "it was tried at the first");
    daemon.end();
    succeeded(&site.token.birthmark(&["journal", "verify", "data"]));
}

/// Network and files tell the same entries under the same names, refusals among them.
#[tokio::test(flavor = "multi_thread")]
async fn watch_and_dump_tell_the_same_events() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("lot", 100);
    std::fs::write(site.path("list"), "x\ny\n").unwrap();
    succeeded(&site.operator(&["order", "create", "listed", "--profile", "device", "--devices", "list"]));
    try_three(&site, &daemon).await;
    succeeded(&site.operator(&["order", "pause", "lot", "--reason", "lunch"]));
    site.stream(&daemon, "line1/t1")
        .await
        .ask(request("late", "lot", csr("late")))
        .await
        .must_be(tonic::Code::FailedPrecondition, "ORDER_PAUSED");
    let mut missing = std::collections::BTreeSet::from(["again", "bad", "late", "lost"]);
    let told = |event: &WatchReply| {
        missing.retain(|device| !event.device_ids.iter().any(|told| told == device));
        missing.is_empty()
    };
    let seen = events_until(&site, &daemon, told).await;
    assert!(seen.iter().map(|event| event.sequence).eq(1..=seen.len() as u64));
    let dumped = succeeded(&site.token.birthmark(&["journal", "dump", "data", "--to", &seen.len().to_string()]));
    let dumped: Vec<serde_json::Value> = dumped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names = |event: &WatchReply| (event.sequence, event.event.clone(), event.actor.clone());
    let dumped_names = dumped.iter().map(|entry| {
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        (entry["sequence"].as_u64().unwrap(), text("event"), text("actor"))
    });
    assert!(seen.iter().map(names).eq(dumped_names));

    let refused = |reason: &str| {
        let all = seen.iter().filter(|event| event.event == "refused" && event.reason == reason);
        let all: Vec<_> = all.collect();
        let devices = all.iter().flat_map(|event| event.device_ids.clone()).collect::<Vec<_>>();
        (all.iter().map(|event| event.count).sum::<u64>(), all[0].clone(), devices)
    };
    let (count, pop, devices) = refused("POP_INVALID");
    assert_eq!(
        (count, pop.scope.as_str(), pop.actor.as_str(), pop.order.as_str()),
        (2, "device", "station:line1/t1", "lot")
    );
    assert_eq!(devices, ["again", "bad"]);
    assert!(pop.since.is_some());
    // What peers make up is not recorded.
    assert_eq!(refused("ORDER_UNKNOWN").1.order, "");
    assert_eq!(refused("ORDER_PAUSED").1.scope, "order");
    let listed = seen.iter().find(|event| event.event == "order_devices_listed").unwrap();
    assert_eq!((listed.order.as_str(), listed.device_ids.clone()), ("listed", vec!["x".to_owned(), "y".to_owned()]));
    let again = dumped.iter().find(|entry| entry["event"] == "refused").unwrap();
    assert_eq!(again["device_ids"][0], "again");
    let of_device = succeeded(&site.token.birthmark(&["journal", "dump", "data", "--device", "again"]));
    assert!(of_device.lines().any(|line| line.contains("\"refused\"")), "{of_device}");
    daemon.end();
}

/// A station that is refused as fast as it can leaves some entries, and every refusal is counted. What waits at a shutdown
/// is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn flood_of_refusals_leaves_few_entries() {
    const REQUESTS: u64 = 5000;
    let site = Site::new();
    let daemon = site.start();
    site.create_order("lot", 100);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let mut received = 0;
    for number in 0..REQUESTS {
        // No CSR at all, which costs the least.
        stream.send(request(&format!("d{number}"), "lot", b"no CSR".to_vec())).await;
        if number >= 200 {
            stream.receive().await.unwrap().unwrap();
            received += 1;
        }
    }
    for _ in received..REQUESTS {
        stream.receive().await.unwrap().unwrap();
    }
    drop(stream);
    daemon.end();
    let dumped = succeeded(&site.token.birthmark(&["journal", "dump", "data"]));
    let entries = dumped.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let refused: Vec<_> = entries.filter(|entry| entry["event"] == "refused").collect();
    let sum: u64 =
        refused.iter().map(|entry| entry["count"].as_u64().unwrap() + entry["dropped"].as_u64().unwrap()).sum();
    assert_eq!(sum, REQUESTS);
    assert!(refused.len() < 150, "{} entries", refused.len());
    assert!(refused.iter().all(|entry| entry["device_ids"].as_array().unwrap().len() <= 64));
    let stopped = dumped.lines().last().unwrap();
    assert!(stopped.contains("\"stopped\"") || stopped.contains("checkpoint"), "{stopped}");
}
