use std::time::Instant;

use tokio::sync::watch;

use super::{orders::ORDERS, stations::STATIONS, *};
use crate::{
    committer::Committer,
    destinations::Destinations,
    ledger::{
        Action, Actor, Holder, Ledger, Operation, OrderTerms, Outcome, RefusalScope,
        embedded::{EmbeddedLedger, Settings},
    },
    live::Live,
    readiness::Readiness,
    refusals::{Refusals, Refused},
    roster::Roster,
};

fn commit(ledger: &mut EmbeddedLedger, actions: impl Iterator<Item = Action>) -> Vec<Outcome> {
    let operations: Vec<_> = actions.map(|action| Operation { actor: Actor::daemon(), action }).collect();
    ledger.commit(Timestamp::now(), &operations).unwrap()
}

/// A ledger with `orders` open orders and a closed one, and a roster with `stations`, all of which are connected.
fn sources(folder: &std::path::Path, orders: u64, stations: u64) -> Sources {
    let settings = Settings { min_free: 0, ..Settings::default() };
    let (mut ledger, records) = EmbeddedLedger::open(folder, Timestamp::now(), &settings).unwrap();
    let terms = |number| OrderTerms::new(format!("o{number:04}"), "p", 10 + number);
    commit(&mut ledger, (0..orders).map(|number| Action::CreateOrder(terms(number))));
    commit(&mut ledger, std::iter::once(Action::CreateOrder(OrderTerms::new("closed", "p", 1))));
    commit(&mut ledger, std::iter::once(Action::CloseOrder { id: "closed".into() }));
    let (committer, _) = Committer::start(ledger).unwrap();
    let roster = Arc::<Roster>::default();
    for number in 0..stations {
        let seen = roster.of(&format!("station:line1/t{number:04}").into());
        seen.connect();
        seen.call();
        (0..=number).for_each(|_| seen.issue());
    }
    let (_, draining) = watch::channel(false);
    let records = Arc::new(records);
    Sources {
        readiness: Arc::new(Readiness::new(draining, Vec::new(), Vec::new())),
        records: records.clone(),
        measured: records.clone(),
        throughput: Arc::default(),
        refusals: Refusals::new(committer.clone()),
        roster,
        signers: Arc::default(),
        destinations: Destinations {
            all: Arc::default(),
            records: records.clone(),
            committer,
            signer: None,
            figures: Arc::default(),
        },
        certificates: Live::new(Arc::default()),
        checkpoints: None,
        publisher: None,
    }
}

/// However many orders and stations there are, so many are listed, and none is forgotten in the sums.
#[tokio::test]
async fn snapshot_is_bounded_and_sums_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), 300, 300);
    let refusals = Arc::clone(&sources.refusals);
    let actor = Actor("station:line1/t0000".into());
    let refused = |reason| Refused { actor: &actor, order: "o", device: None, reason, scope: RefusalScope::Device };
    for reason in ["KEY_WEAK", "KEY_REUSED", "KEY_WEAK"] {
        refusals.note(&refused(reason));
    }
    let nobody = Actor("operator:anna".into());
    refusals.note(&Refused { actor: &nobody, ..refused("KEY_WEAK") });

    let snapshot = Status::new(sources).newest();
    let orders = &snapshot.orders;
    assert_eq!((orders.listed.len(), orders.left_out), (ORDERS, 300 - ORDERS));
    let listed: u64 = orders.listed.iter().map(|order| order.left).sum();
    assert_eq!(listed + orders.others.left, (0..300).map(|number| 10 + number).sum::<u64>());
    assert!(orders.listed.iter().all(|order| order.id != "closed" && order.rate == 0.0 && order.state == "open"));
    let stations = &snapshot.stations;
    assert_eq!((stations.listed.len(), stations.left_out), (STATIONS, 300 - STATIONS));
    assert_eq!(stations.others.connected, 300 - STATIONS);
    let listed: u64 = stations.listed.iter().map(|station| station.issued).sum();
    assert_eq!(listed + stations.others.issued, (1..=300).sum::<u64>());
    assert!(stations.listed.is_sorted_by_key(|station| &station.name));
    // Who was refused is among the others when many were seen later; all refusals count.
    let refused = stations.listed.iter().map(|station| station.refused()).sum::<u64>() + stations.others.refused;
    assert_eq!((refused, snapshot.issuing.refused), (3, 4));
}

/// The rate of an order is that of its certificates, and its end follows from what is missing.
#[test]
fn order_that_is_worked_on_has_a_rate_and_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { min_free: 0, ..Settings::default() };
    let (mut ledger, records) = EmbeddedLedger::open(folder.path(), Timestamp::now(), &settings).unwrap();
    commit(&mut ledger, ["busy", "idle"].into_iter().map(|id| Action::CreateOrder(OrderTerms::new(id, "p", 100))));
    let (mut rates, begun, now) = (orders::OrderRates::default(), Instant::now(), Timestamp::now());
    rates.read(&records, now, begun).unwrap();
    for round in 1..=5_u8 {
        let holder = |number: u8| Holder {
            device: format!("d{round}-{number}"),
            key_hash: crate::hash::sha256(&[round, number]),
            order: "busy".into(),
            profile: "p".into(),
            issuer: "i".into(),
            issuer_id: 0,
        };
        let reserved = commit(&mut ledger, (0..2).map(|number| Action::Reserve(holder(number))));
        let record = reserved.into_iter().map(|outcome| match outcome {
            Outcome::Reserved(serial_number) => Action::Record { serial_number, certificate: vec![0x30, 0].into() },
            other => panic!("{other:?}"),
        });
        commit(&mut ledger, record);
        rates.read(&records, now, begun + Duration::from_secs(2 * u64::from(round))).unwrap();
    }
    let read = rates.read(&records, now, begun + Duration::from_secs(20)).unwrap();
    let ids: Vec<_> = read.listed.iter().map(|order| order.id.as_str()).collect();
    assert_eq!(ids, ["busy", "idle"], "those that are worked on first");
    let (busy, idle) = (&read.listed[0], &read.listed[1]);
    assert_eq!((busy.issued, busy.left, busy.rate), (10, 90, 0.5));
    assert_eq!(busy.expected_end.map(|end| end.duration_since(now).as_secs()), Some(180));
    assert_eq!((idle.rate, idle.expected_end), (0.0, None));
    // What was long ago is in no rate.
    let later = rates.read(&records, now, begun + Duration::from_secs(3600)).unwrap();
    assert_eq!((later.listed[0].rate, later.listed[0].expected_end), (0.0, None));
}

/// `cargo test --release --lib -- --ignored --nocapture status::`
#[tokio::test]
#[ignore = "a measurement"]
async fn snapshot_of_a_large_site_takes_so_long() {
    const ROUNDS: u32 = 200;
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), 1000, 1000);
    let status = Status::new(sources);
    let begun = Instant::now();
    (0..ROUNDS).for_each(|_| status.renew());
    let renewed = begun.elapsed() / ROUNDS;
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        status.stored.read(&status.sources);
    }
    let read = begun.elapsed() / ROUNDS;
    let begun = Instant::now();
    let octets = serde_json::to_vec(&*status.newest()).unwrap().len();
    let written = begun.elapsed();
    println!("a snapshot: {renewed:?}; what is read beside it: {read:?}; its JSON: {octets} octets, {written:?}");
    let throughput = &status.sources.throughput;
    let begun = Instant::now();
    (0..1_000_000).for_each(|_| throughput.note(false, Duration::from_millis(3)));
    println!("what a certificate pays: {:?}", begun.elapsed() / 1_000_000);
}
