//! Orders with a list of their devices, and with a limit per day.

use std::time::Instant;

use birthmark::{hash::sha256, signer::PublicKey};
use rcgen::{KeyPair, PublicKeyData};
use tonic::Code;

use crate::support::{
    site::{Site, csr, csr_of, request},
    token::{refused, succeeded},
};

#[tokio::test(flavor = "multi_thread")]
async fn order_with_a_list_serves_only_what_is_on_it() {
    let site = Site::new();
    let daemon = site.start();
    let key = KeyPair::generate().unwrap();
    let spki = key.subject_public_key_info();
    assert_eq!(PublicKey::from_spki(&spki).unwrap().hash(), sha256(&spki));
    let listed = format!("# lot 7\r\nd1\r\n\r\nd2, {}\r\nd3\r\n", hex::encode(sha256(&spki)));
    site.token.write("devices.csv", &listed);
    let create = ["order", "create", "o1", "--profile", "device", "--devices", "devices.csv"];
    for _ in 0..2 {
        succeeded(&site.operator(&create));
    }
    let shown = site.order("o1");
    assert_eq!((&shown["quantity"], &shown["devices_listed"], &shown["state"]), (&3.into(), &3.into(), &"open".into()));
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();
    let other = stream.ask(request("d4", "o1", csr("d4"))).await;
    other.must_be(Code::PermissionDenied, "DEVICE_NOT_ON_ORDER");
    let wrong_key = stream.ask(request("d2", "o1", csr("d2"))).await;
    wrong_key.must_be(Code::PermissionDenied, "DEVICE_NOT_ON_ORDER");
    stream.ask(request("d2", "o1", csr_of(&key, "d2"))).await.issued();
    assert_eq!(succeeded(&site.operator(&["order", "devices", "o1", "--missing"])), "d3\n");
    daemon.end();

    // Of another list it is another order; and all of it is in the journal.
    std::fs::remove_dir_all(site.path("data/index")).unwrap();
    let daemon = site.start();
    site.token.write("other.csv", "d1\nd2\nd4\n");
    let other = ["order", "create", "o1", "--profile", "device", "--devices", "other.csv"];
    refused(&site.operator(&other), &["another list", "ORDER_EXISTS"]);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let other = stream.ask(request("d4", "o1", csr("d4"))).await;
    other.must_be(Code::PermissionDenied, "DEVICE_NOT_ON_ORDER");
    stream.ask(request("d3", "o1", csr("d3"))).await.issued();
    assert_eq!(succeeded(&site.operator(&["order", "devices", "o1", "--missing"])), "");
    for (text, says) in
        [("d1\nd1\n", "is in line 1 already"), ("d 1 x\n", "SHA-256"), ("-x\n", "list.csv:1"), ("\n", "no device")]
    {
        site.token.write("list.csv", text);
        let create = ["order", "create", "o2", "--profile", "device", "--devices", "list.csv"];
        refused(&site.operator(&create), &[says]);
    }
    daemon.end();
    succeeded(&site.token.birthmark(&["journal", "verify", "--config", "birthmark.toml"]));
}

/// A list that was cut off is taken in where it ended, and nothing is issued before it is whole.
#[tokio::test(flavor = "multi_thread")]
async fn order_list_that_was_interrupted_goes_on() {
    use birthmark::proto::{AddOrderDevicesRequest, OrderDevice};
    let site = Site::new();
    let daemon = site.start();
    let list: String = (0..10_000).map(|number| format!("d{number}\n")).collect();
    site.token.write("devices", &list);
    let mut admin = daemon.admin().await;
    let terms = birthmark::proto::OrderTerms {
        id: "o1".into(),
        profile: "device".into(),
        quantity: 10_000,
        devices: 10_000,
        devices_sha256: sha256(list.as_bytes()).to_vec().into(),
        ..Default::default()
    };
    admin.create_order(birthmark::proto::CreateOrderRequest { terms: Some(terms) }).await.unwrap();
    let devices = |range: std::ops::Range<u64>| AddOrderDevicesRequest {
        id: "o1".into(),
        first: range.start,
        devices: range.map(|number| OrderDevice { id: format!("d{number}"), ..Default::default() }).collect(),
    };
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let early = stream.ask(request("d1", "o1", csr("d1"))).await;
    early.must_be(Code::FailedPrecondition, "ORDER_LIST_INCOMPLETE");
    admin.add_order_devices(tokio_stream::iter([devices(0..4000)])).await.unwrap();
    let gap = admin.add_order_devices(tokio_stream::iter([devices(5000..6000)])).await.unwrap_err();
    crate::support::site::Answer::of_call(&gap).must_be(Code::FailedPrecondition, "ORDER_LIST_OUT_OF_ORDER");
    // What is there already is a retry.
    admin.add_order_devices(tokio_stream::iter([devices(0..4000)])).await.unwrap();
    assert_eq!(site.order("o1")["state"], "incomplete");
    daemon.end();
    let daemon = site.start();
    succeeded(&site.operator(&["order", "create", "o1", "--profile", "device", "--devices", "devices"]));
    let shown = site.order("o1");
    assert_eq!((&shown["devices_listed"], &shown["state"]), (&10_000.into(), &"open".into()));
    let mut stream = site.stream(&daemon, "line1/t1").await;
    for device in ["d0", "d4000", "d9999"] {
        stream.ask(request(device, "o1", csr(device))).await.issued();
    }
    let begun = Instant::now();
    let missing = succeeded(&site.operator(&["order", "devices", "o1", "--missing"]));
    assert_eq!(missing.lines().count(), 9997, "{:?}", begun.elapsed());
    daemon.end();
    succeeded(&site.token.birthmark(&["journal", "verify", "--config", "birthmark.toml"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn order_with_a_limit_per_day_keeps_it() {
    let site = Site::new();
    let daemon = site.start();
    let create = ["order", "create", "o1", "--profile", "device", "--quantity", "5", "--per-day", "2"];
    succeeded(&site.operator(&create));
    let mut stream = site.stream(&daemon, "line1/t1").await;
    for device in ["d1", "d2"] {
        stream.ask(request(device, "o1", csr(device))).await.issued();
    }
    let exhausted = stream.ask(request("d3", "o1", csr("d3"))).await;
    // At midnight another day begins.
    if site.order("o1")["reserved_today"] == 2 {
        exhausted.must_be(Code::ResourceExhausted, "ORDER_DAY_EXHAUSTED");
    }
    daemon.end();
    std::fs::remove_dir_all(site.path("data/index")).unwrap();
    let daemon = site.start();
    let shown = site.order("o1");
    assert!(shown["per_day"] == 2 && shown["left"].as_u64().unwrap() >= 2, "{shown}");
    daemon.end();
}
