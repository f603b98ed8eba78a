//! What becomes of certificates after their issue: confirmed, scrapped, revoked, reissued.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    process::{Output, Stdio},
    thread,
};

use birthmark::{
    ledger::{
        Action, Actor, Holder, Ledger, Operation, OrderTerms, Outcome, RecordState, Records, Refusal,
        embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
    },
    proto::{
        ConfirmRequest, GetOrderRequest, IssueRequest, ListOrdersRequest, admin_client::AdminClient,
        issuance_client::IssuanceClient,
    },
    serial::SerialNumber,
    testing::{CommitError, Committer},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{
    site::{Answer, Daemon, Site, csr, json_line, request},
    token::{refused, succeeded, text},
};

/// A site with a daemon, the order `o1` of this quantity, and the certificates `d1`, `d2`… under it.
fn site(quantity: u64, devices: usize) -> (Site, Daemon) {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", quantity);
    let ids: Vec<_> = (1..=devices).map(|number| format!("d{number}")).collect();
    sign(&site, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    (site, daemon)
}

/// Gives these devices a certificate for a new key.
fn sign(site: &Site, devices: &[&str]) {
    if !devices.is_empty() {
        succeeded(&try_to_sign(site, devices, &[]));
    }
}

fn try_to_sign(site: &Site, devices: &[&str], more: &[&str]) -> Output {
    let lines: String = devices.iter().map(|id| json_line(id, &csr(id))).collect();
    site.token.write("devices.jsonl", &lines);
    site.sign("line1/t1", "o1", "devices.jsonl", "certs").args(more).output().unwrap()
}

fn parsed(run: &Output) -> Value {
    serde_json::from_str(&succeeded(run)).unwrap()
}

fn record(site: &Site, of: &str) -> Value {
    parsed(&site.operator(&["record", "show", of, "--json"]))
}

fn serial(site: &Site, device: &str) -> String {
    record(site, device)["serial_number"].as_str().unwrap().to_owned()
}

/// `station confirm` of this station.
fn confirm(site: &Site, daemon: &Daemon, station: &str, arguments: &[&str]) -> Output {
    confirm_from(site, daemon, station, arguments, "")
}

fn confirm_from(site: &Site, daemon: &Daemon, station: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = site.token.command(&["station", "confirm", "--json", "--server", &daemon.url(), "--identity"]);
    command.arg(site.identity("station", station)).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn counts(site: &Site, expected: [u64; 5]) {
    let order = site.order("o1");
    let found = ["issued", "confirmed", "scrapped", "revoked", "left"].map(|name| order[name].as_u64().unwrap());
    assert_eq!(found, expected, "issued, confirmed, scrapped, revoked, left");
}

fn verify(site: &Site) -> Value {
    let journal = ["journal", "verify", "data", "--trusted-key", "ca/audit.pem", "--json"];
    parsed(&site.token.birthmark(&journal))
}

/// A device is confirmed, scrapped, revoked, and given a new certificate.
#[test]
fn device_is_confirmed_scrapped_revoked_and_reissued() {
    let (site, daemon) = site(4, 4);
    counts(&site, [4, 0, 0, 0, 0]);
    let [first, second] = ["d1", "d2"].map(|device| serial(&site, device));

    // By serial number, by line, by folder; again is free.
    assert_eq!(parsed(&confirm(&site, &daemon, "line1/t1", &[&first])), json!({ "confirmed": 1, "refused": [] }));
    let lines = format!("{first}\n\n{second}\n");
    assert_eq!(parsed(&confirm_from(&site, &daemon, "line2/t1", &["-"], &lines))["confirmed"], 2);
    counts(&site, [4, 2, 0, 0, 0]);
    assert_eq!(parsed(&confirm(&site, &daemon, "line1/t1", &["--certificates", "certs"]))["confirmed"], 4);
    counts(&site, [4, 4, 0, 0, 0]);
    assert_eq!(daemon.metric("birthmark_certificates_confirmed_total", &[]), 4.0);
    let shown = record(&site, "d2");
    assert_eq!([&shown["state"], &shown["changed_by"]], ["confirmed", "station:line2/t1"]);

    // Scrap gives the quantity back, and the key is blocked.
    let scrap = ["record", "scrap", "d2", "--reason", "cracked", "--json"];
    let scrapped = parsed(&site.operator(&scrap));
    assert_eq!([&scrapped["state"], &scrapped["scrap_reason"]], ["scrapped", "cracked"]);
    assert!(scrapped["changed_by"].as_str().unwrap().starts_with("operator:local-"));
    assert_eq!(parsed(&site.operator(&[&scrap[..4], &["again", "--json"]].concat())), scrapped);
    counts(&site, [3, 3, 1, 0, 1]);

    let error = |device: &str| {
        let text = fs::read(site.path(&format!("certs/{device}.error.json"))).unwrap();
        let error: Value = serde_json::from_slice(&text).unwrap();
        error["reason"].as_str().unwrap().to_owned()
    };
    assert!(!try_to_sign(&site, &["d2"], &[]).status.success());
    assert_eq!(error("d2"), "REISSUE_REQUIRED");
    assert!(!try_to_sign(&site, &["d9"], &["--reissue"]).status.success());
    assert_eq!(error("d9"), "REISSUE_REFUSED");
    assert!(!try_to_sign(&site, &["d1"], &["--reissue"]).status.success());
    assert_eq!(error("d1"), "DEVICE_HAS_CERTIFICATE");
    succeeded(&try_to_sign(&site, &["d2"], &["--reissue"]));
    let reissued = record(&site, "d2");
    assert_eq!([&reissued["state"], &reissued["replaces"]], [&json!("issued"), &json!(second)]);
    assert_eq!(record(&site, &second), scrapped);
    counts(&site, [4, 3, 1, 0, 0]);

    // Revocation gives nothing back.
    let revoke = ["record", "revoke", "d3", "--reason", "keyCompromise", "--json"];
    let revoked = parsed(&site.operator(&revoke));
    assert_eq!([&revoked["state"], &revoked["revocation_reason"]], ["revoked", "keyCompromise"]);
    counts(&site, [4, 2, 1, 1, 0]);
    assert!(!try_to_sign(&site, &["d3"], &["--reissue"]).status.success());
    assert_eq!(error("d3"), "ORDER_EXHAUSTED");
    for (reason, says) in
        [("cACompromise", "is for CA certificates"), ("certificateHold", "a revocation is final"), ("x", "RFC")]
    {
        let run = site.operator(&["record", "revoke", "d4", "--reason", reason]);
        assert!(run.status.code() == Some(2) && text(&run.stderr).contains(says), "{}", text(&run.stderr));
    }

    // What ended stays so.
    let run = confirm(&site, &daemon, "line1/t1", &[&second, &first, &"7f".repeat(20)]);
    assert_eq!(run.status.code(), Some(3));
    let summary: Value = serde_json::from_slice(&run.stdout).unwrap();
    let reasons: Vec<_> = summary["refused"].as_array().unwrap().iter().map(|item| &item["reason"]).collect();
    assert_eq!(summary["confirmed"], 1);
    assert_eq!(reasons, ["STATE_REFUSED", "RECORD_UNKNOWN"]);
    refused(&site.operator(&["record", "scrap", "d3", "--reason", "x"]), &["is revoked", "STATE_REFUSED"]);
    refused(&site.operator(&["record", "scrap", "d4", "--reason", ""]), &["reason must be", "REQUEST_INVALID"]);

    let listed = succeeded(&site.operator(&["record", "list", "--order", "o1", "--json"]));
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let states: BTreeMap<_, _> =
        listed.iter().map(|record| (record["serial_number"].to_string(), record["state"].as_str().unwrap())).collect();
    let mut all: Vec<_> = states.into_values().collect();
    all.sort_unstable();
    assert_eq!(all, ["confirmed", "confirmed", "issued", "revoked", "scrapped"]);
    let table = succeeded(&site.operator(&["record", "list", "--order", "o1"]));
    assert_eq!(table.lines().count(), 6, "{table}");
    refused(&site.operator(&["record", "list", "--order", "none"]), &["ORDER_UNKNOWN"]);

    for (name, count) in [("scrapped", 1.0), ("revoked", 1.0), ("confirmed", 4.0)] {
        assert_eq!(daemon.metric(&format!("birthmark_certificates_{name}_total"), &[]), count, "{name}");
    }
    // What was scrapped can be revoked afterwards; the order keeps the unit that the scrap gave back.
    let order = |site: &Site| parsed(&site.operator(&["order", "show", "o1", "--json"]))["left"].clone();
    let left = order(&site);
    let late = parsed(&site.operator(&["record", "revoke", &second, "--json"]));
    assert_eq!([&late["state"], &order(&site)], [&json!("revoked"), &left]);
    refused(&site.operator(&["record", "scrap", &second, "--reason", "x"]), &["is revoked", "STATE_REFUSED"]);
    daemon.end();
    let counts = &verify(&site)["counts"];
    let found = ["issued", "confirmed", "scrapped", "revoked"].map(|name| counts[name].as_u64().unwrap());
    assert_eq!(found, [5, 2, 1, 2]);
    let dumped = succeeded(&site.token.birthmark(&["journal", "dump", "data", "--device", "d2"]));
    let events = dumped.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone());
    let events: Vec<_> = events.filter(|event| event != "refused").collect();
    assert_eq!(events, ["reserved", "issued", "confirmed", "scrapped", "reserved", "issued", "revoked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn station_that_the_profile_refuses_confirms_nothing() {
    let site = Site::new();
    site.configure(|usual| usual.replace("validity_days = 7300", "validity_days = 7300\nstations = [\"line1/*\"]"));
    let daemon = site.start();
    // The order names no stations.
    site.create_order("o1", 5);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let serial_number = stream.ask(request("d1", "o1", csr("d1"))).await.issued().serial_number;
    let mut other = site.stream(&daemon, "line2/t1").await;
    other.ask(request("d2", "o1", csr("d2"))).await.must_be(Code::PermissionDenied, "STATION_REFUSED");

    let confirm = async |role: &str, name: &str| {
        let mut client = IssuanceClient::new(site.connect(&daemon, role, name).await);
        let request = ConfirmRequest { serial_numbers: vec![serial_number.clone()], ..Default::default() };
        let reply = client.confirm(request).await.unwrap().into_inner();
        reply.results[0].error.as_ref().map(Answer::of_status)
    };
    let refused = confirm("station", "line2/t1").await.expect("it is refused");
    refused.must_be(Code::PermissionDenied, "STATION_REFUSED");
    assert_eq!(site.order("o1")["confirmed"], 0);
    assert_eq!(confirm("station", "line1/t2").await, None);
    assert_eq!(confirm("operator", "anna").await, None);
    assert_eq!(site.order("o1")["confirmed"], 1);
    daemon.end();
}

/// A station confirms what it may use.
#[tokio::test(flavor = "multi_thread")]
async fn station_confirms_what_it_may_use() {
    let site = Site::new();
    site.configure(|usual| {
        usual.replace("validity_days = 7300", "validity_days = 7300\norder_requirement = \"optional\"")
    });
    let daemon = site.start();
    let line1 = ["order", "create", "line1", "--profile", "device", "--quantity", "5", "--station", "line1/*"];
    succeeded(&site.operator(&line1));
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let ordered = stream.ask(request("d1", "line1", csr("d1"))).await.issued().serial_number;
    let free = stream.ask(request("d2", "", csr("d2"))).await.issued().serial_number;

    let serial_numbers = vec![ordered.clone(), free.clone(), vec![1, 2, 3].into()];
    let confirm = async |role: &str, name: &str| {
        let mut client = IssuanceClient::new(site.connect(&daemon, role, name).await);
        let reply = client
            .confirm(ConfirmRequest { serial_numbers: serial_numbers.clone(), ..Default::default() })
            .await
            .unwrap();
        let results = reply.into_inner().results;
        assert_eq!(results.iter().map(|result| result.serial_number.clone()).collect::<Vec<_>>(), serial_numbers);
        let answers = results.iter().map(|result| result.error.as_ref().map(Answer::of_status));
        answers.collect::<Vec<_>>()
    };
    let reason = |answer: &Option<Answer>| match answer {
        None => "",
        Some(Answer::Refused { reason, .. }) => reason.clone().leak(),
        Some(Answer::Issued(_)) => unreachable!(),
    };
    let found: Vec<_> = confirm("station", "line2/t1").await.iter().map(reason).collect();
    assert_eq!(found, ["STATION_REFUSED", "STATION_REFUSED", "REQUEST_INVALID"]);
    // Of the same line, but another station.
    let found: Vec<_> = confirm("station", "line1/t2").await.iter().map(reason).collect();
    assert_eq!(found, ["", "STATION_REFUSED", "REQUEST_INVALID"]);
    let found: Vec<_> = confirm("operator", "anna").await.iter().map(reason).collect();
    assert_eq!(found, ["", "", "REQUEST_INVALID"]);
    let found: Vec<_> = confirm("station", "line1/t1").await.iter().map(reason).collect();
    assert_eq!(found, ["", "", "REQUEST_INVALID"]);
    assert_eq!(record(&site, "d1")["changed_by"], "station:line1/t2");
    assert_eq!(record(&site, "d2")["changed_by"], "operator:anna");

    let too_many = ConfirmRequest { serial_numbers: vec![ordered; 1001], ..Default::default() };
    let mut client = IssuanceClient::new(site.connect(&daemon, "station", "line1/t1").await);
    let status = client.confirm(too_many).await.unwrap_err();
    Answer::of_call(&status).must_be(Code::InvalidArgument, "REQUEST_INVALID");
    daemon.end();
    verify(&site);
}

/// One of two reissues wins.
#[tokio::test(flavor = "multi_thread")]
async fn reissues_at_once_have_one_winner() {
    let (site, daemon) = site(1000, 0);
    let mut one = site.stream(&daemon, "line1/t1").await;
    let mut two = site.stream(&daemon, "line1/t2").await;
    let mut admin = daemon.admin().await;
    let rounds = 200;
    for round in 0..rounds {
        let device = format!("d{round}");
        let serial_number = one.ask(request(&device, "o1", csr("a"))).await.issued().serial_number;
        let scrap = birthmark::proto::ScrapCertificateRequest { serial_number, reason: "a test".into() };
        admin.scrap_certificate(scrap).await.unwrap();
        let again = || IssueRequest { reissue: true, ..request(&device, "o1", csr("b")) };
        tokio::join!(one.send(again()), two.send(again()));
        let answers = [one.receive().await, two.receive().await].map(|reply| Answer::of(reply.unwrap().unwrap()));
        let (issued, refused): (Vec<_>, Vec<_>) =
            answers.iter().partition(|answer| matches!(answer, Answer::Issued(_)));
        assert_eq!(issued.len(), 1, "{answers:?}");
        refused[0].must_be(Code::AlreadyExists, "DEVICE_HAS_CERTIFICATE");
    }
    counts(&site, [rounds, 0, rounds, 0, 1000 - rounds]);
    daemon.end();
    verify(&site);
}

const RACES: u32 = 3000;

fn ledger(folder: &std::path::Path) -> (EmbeddedLedger, EmbeddedRecords) {
    let settings = Settings { min_free: 0, ..Settings::default() };
    let (mut ledger, records) = EmbeddedLedger::open(folder, Timestamp::now(), &settings).unwrap();
    let terms = OrderTerms::new("o", "p", RACES.into());
    commit(&mut ledger, vec![Action::CreateOrder(terms)]);
    (ledger, records)
}

fn commit(ledger: &mut EmbeddedLedger, actions: Vec<Action>) -> Vec<Outcome> {
    let operation = |action| Operation { actor: Actor("operator:anna".into()), action };
    ledger.commit(Timestamp::now(), &actions.into_iter().map(operation).collect::<Vec<_>>()).unwrap()
}

/// The holder of a device's certificate for its first or its second key.
fn holder(device: u32, key: u8) -> Holder {
    let key_hash = birthmark::hash::sha256(&[&device.to_be_bytes()[..], &[key]].concat());
    Holder {
        device: format!("d{device}"),
        key_hash,
        order: "o".into(),
        profile: "p".into(),
        issuer: "i".into(),
        issuer_id: 0,
    }
}

fn issue(ledger: &mut EmbeddedLedger, devices: u32) -> Vec<SerialNumber> {
    let reserved = commit(ledger, (0..devices).map(|device| Action::Reserve(holder(device, 1))).collect());
    let serial_numbers: Vec<_> = reserved
        .iter()
        .map(|outcome| match outcome {
            Outcome::Reserved(serial_number) => *serial_number,
            other => panic!("{other:?}"),
        })
        .collect();
    let record = |serial_number: &SerialNumber| Action::Record {
        serial_number: *serial_number,
        certificate: serial_number.to_string().into(),
    };
    commit(ledger, serial_numbers.iter().map(record).collect());
    serial_numbers
}

/// Two contrary changes in one batch have one winner.
#[test]
fn changes_in_one_batch_have_one_winner() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = ledger(folder.path());
    let serial_numbers = issue(&mut ledger, RACES);
    let scrap = |serial_number| Action::Scrap { serial_number, reason: "a test".into() };
    for (device, serial_number) in (0..).zip(serial_numbers) {
        let mut actions = vec![Action::Confirm { serial_number, device: None, profiles: None }, scrap(serial_number)];
        if device % 2 == 1 {
            actions.reverse();
        }
        actions.push(Action::Reissue(holder(device, 2)));
        actions.push(Action::Reissue(holder(device, 3)));
        let outcomes = commit(&mut ledger, actions);
        let confirmed = &outcomes[usize::from(device % 2 == 1)];
        let refused = matches!(confirmed, Outcome::Refused(Refusal::StateRefused { state: RecordState::Scrapped, .. }));
        assert_eq!(refused, device % 2 == 1, "{confirmed:?}");
        assert!(matches!(outcomes[2], Outcome::Reserved(_)), "{outcomes:?}");
        assert!(matches!(outcomes[3], Outcome::Refused(Refusal::DeviceHasCertificate { .. })), "{outcomes:?}");
    }
    let order = records.order("o").unwrap().unwrap();
    assert_eq!((order.scrapped, order.reserved, order.confirmed), (RACES.into(), RACES.into(), 0));
    assert_eq!((order.issued, order.left()), (0, 0));
}

/// When scrap and confirmation come at once, the certificate is scrapped.
#[test]
fn scrap_and_confirmation_at_once_give_scrapped() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, records) = ledger(folder.path());
    let serial_numbers = issue(&mut ledger, RACES);
    let (committer, thread) = Committer::start(ledger).unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let actor = || Actor("operator:anna".into());
    thread::scope(|scope| {
        scope.spawn(|| {
            runtime().block_on(async {
                for serial_number in &serial_numbers {
                    match committer.confirm(actor(), *serial_number, None, None).await {
                        Ok(()) | Err(CommitError::Refused(Refusal::StateRefused { .. })) => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        });
        scope.spawn(|| {
            runtime().block_on(async {
                for serial_number in &serial_numbers {
                    committer.scrap(actor(), *serial_number, "a test".into()).await.unwrap();
                }
            });
        });
    });
    let order = records.order("o").unwrap().unwrap();
    assert_eq!((order.scrapped, order.issued, order.confirmed), (RACES.into(), 0, 0));
    runtime().block_on(committer.close());
    thread.join().unwrap().unwrap();
}

/// Paused, resumed, raised and lowered, with who did it; a restart forgets nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn order_is_paused_resumed_and_changed() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 3);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    for device in ["d1", "d2"] {
        stream.ask(request(device, "o1", csr(device))).await.issued();
    }
    for _ in 0..2 {
        succeeded(&site.operator(&["order", "pause", "o1", "--reason", "wrong firmware"]));
    }
    let paused = stream.ask(request("d3", "o1", csr("d3"))).await;
    paused.must_be(Code::FailedPrecondition, "ORDER_PAUSED");
    daemon.end();
    let daemon = site.start();
    let shown = site.order("o1");
    assert_eq!((&shown["state"], &shown["pause_reason"]), (&"paused".into(), &"wrong firmware".into()));
    assert!(shown["paused_by"].as_str().unwrap().starts_with("operator:local-"), "{shown}");
    let listed = succeeded(&site.operator(&["order", "list", "--state", "paused", "--csv"]));
    assert!(listed.lines().count() == 2 && listed.contains("o1,device,paused,3,2"), "{listed}");
    assert_eq!(succeeded(&site.operator(&["order", "list", "--state", "open"])), "no order is such\n");

    let change = |quantity: &str| site.operator(&["order", "change", "o1", "--quantity", quantity, "--reason", "x"]);
    refused(&change("1"), &["2 of it are issued", "QUANTITY_BELOW_USED"]);
    succeeded(&change("2"));
    succeeded(&site.operator(&["order", "resume", "o1"]));
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let exhausted = stream.ask(request("d3", "o1", csr("d3"))).await;
    exhausted.must_be(Code::ResourceExhausted, "ORDER_EXHAUSTED");
    succeeded(&change("3"));
    stream.ask(request("d3", "o1", csr("d3"))).await.issued();
    succeeded(&site.operator(&["order", "close", "o1"]));
    refused(&change("9"), &["closed", "ORDER_CLOSED"]);
    let shown = site.order("o1");
    for by in ["created_by", "quantity_changed_by", "closed_by"] {
        assert!(shown[by].as_str().unwrap().starts_with("operator:local-"), "{by}: {shown}");
    }
    daemon.end();
    // Also from the journal alone.
    std::fs::remove_dir_all(site.path("data/index")).unwrap();
    let daemon = site.start();
    assert_eq!(site.order("o1"), shown);
    daemon.end();
    succeeded(&site.token.birthmark(&["journal", "verify", "--config", "birthmark.toml"]));
}

/// A station sees the orders that it may use, and learns of no other.
#[tokio::test(flavor = "multi_thread")]
async fn station_sees_the_orders_that_it_may_use() {
    let site = Site::new();
    let daemon = site.start();
    for (id, station) in [("all", None), ("mine", Some("line1/*")), ("theirs", Some("line2/*"))] {
        let mut arguments = vec!["order", "create", id, "--profile", "device", "--quantity", "1"];
        arguments.extend(station.iter().flat_map(|pattern| ["--station", pattern]));
        succeeded(&site.operator(&arguments));
    }
    let mut admin = AdminClient::new(site.connect(&daemon, "station", "line1/t1").await);
    let orders = admin.list_orders(ListOrdersRequest {}).await.unwrap().into_inner().orders;
    let ids: Vec<_> = orders.iter().map(|order| order.terms.as_ref().unwrap().id.as_str()).collect();
    assert_eq!(ids, ["all", "mine"]);
    assert!(admin.get_order(GetOrderRequest { id: "mine".into() }).await.is_ok());
    for id in ["theirs", "none"] {
        let status = admin.get_order(GetOrderRequest { id: id.into() }).await.unwrap_err();
        Answer::of_call(&status).must_be(Code::NotFound, "ORDER_UNKNOWN");
    }
    daemon.end();
}
