//! Batches of a real ledger with a small index, against a model that knows nothing of how they are found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;
use proptest::prelude::*;

use crate::{
    hash::sha256,
    ledger::{
        Action, Actor, BatchId, BatchTerms, FailedCertificate, Filter, Holder, Ledger, Moment, Operation, OrderTerms,
        Outcome, Records, Refusal, Results, RevocationReason, UnfitDevice,
        embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
        journal::Scan,
        verify::{VerifyOptions, verify},
    },
    pattern::Pattern,
    serial::SerialNumber,
};

/// Small, so that everything sinks into the index and is read from there.
const SETTINGS: Settings = Settings { segment_size: 4096, flush_at: 4, min_free: 0, mirror: None, boot_id: None };

const ORDERS: [&str; 2] = ["wide", "narrow"];
const DEVICES: u8 = 6;

/// One gets all when it is issued, one a part when it is confirmed, one changes between both.
const DESTINATIONS: [&str; 3] = ["all", "wide", "moving"];

fn open(folder: &Path) -> (EmbeddedLedger, EmbeddedRecords) {
    EmbeddedLedger::open(folder, Timestamp::now(), &SETTINGS).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Issue {
        device: u8,
        order: usize,
    },
    Confirm {
        device: u8,
    },
    Scrap {
        device: u8,
    },
    Revoke {
        device: u8,
    },
    /// What is to be cut is read, to be committed later.
    Read {
        destination: usize,
    },
    Commit {
        destination: usize,
    },
    Acknowledge {
        destination: usize,
        batch: usize,
        failed: usize,
    },
    /// The third destination's filter changes.
    Move,
    /// The platforms take more, or less.
    Strict,
    Crash,
    LoseIndex,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..DEVICES, 0..2_usize).prop_map(|(device, order)| Step::Issue { device, order }),
        5 => (0..DEVICES).prop_map(|device| Step::Confirm { device }),
        3 => (0..DEVICES).prop_map(|device| Step::Scrap { device }),
        2 => (0..DEVICES).prop_map(|device| Step::Revoke { device }),
        5 => (0..3_usize).prop_map(|destination| Step::Read { destination }),
        5 => (0..3_usize).prop_map(|destination| Step::Commit { destination }),
        3 => (0..3_usize, 0..100_usize, 0..100_usize)
            .prop_map(|(destination, batch, failed)| Step::Acknowledge { destination, batch, failed }),
        1 => Just(Step::Move),
        1 => Just(Step::Strict),
        1 => Just(Step::Crash),
        1 => Just(Step::LoseIndex),
    ]
}

/// What happened, as far as batches are concerned.
enum Happened {
    Issued(SerialNumber),
    Confirmed(SerialNumber),
    Ended(SerialNumber),
    Failed(usize, SerialNumber),
}

struct Known {
    device: u8,
    order: usize,
    confirmed: bool,
    scrapped: bool,
    revoked: bool,
}

impl Known {
    fn is_live(&self) -> bool {
        !self.scrapped && !self.revoked
    }
}

/// A batch as it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Expected {
    certificates: Vec<SerialNumber>,
    unfit: BTreeSet<SerialNumber>,
    again: Vec<SerialNumber>,
    /// With the number of the batch that each went out in.
    withdrawals: BTreeMap<SerialNumber, u32>,
}

#[derive(Default)]
struct Destination {
    /// How much of what happened was looked at.
    end: usize,
    /// What was a candidate once.
    handled: BTreeSet<SerialNumber>,
    /// The last batch in which something went out.
    out: BTreeMap<SerialNumber, u32>,
    retry: BTreeSet<SerialNumber>,
    batches: Vec<(Expected, bool)>,
    /// What was read: as it must be, up to where, and the terms.
    read: Option<(Expected, usize, Arc<BatchTerms>)>,
}

struct Model {
    known: BTreeMap<SerialNumber, Known>,
    newest: BTreeMap<u8, SerialNumber>,
    happened: Vec<Happened>,
    destinations: [Destination; 3],
    moved: bool,
    strict: bool,
    keys: u32,
}

impl Model {
    fn filter(&self, destination: usize) -> Filter {
        let confirmed = destination == 1 || (destination == 2 && self.moved);
        let orders = if destination == 1 { vec![Pattern::new("wide")] } else { vec![] };
        let moment = if confirmed { Moment::Confirmed } else { Moment::Issued };
        Filter { profiles: vec![Pattern::new("p*")], orders, moment }
    }

    fn is_unfit(&self, device: u8) -> bool {
        self.strict && device.is_multiple_of(3)
    }

    /// What the next batch must be, if it is cut now.
    fn expect(&self, destination: usize) -> Expected {
        let (of, filter) = (&self.destinations[destination], self.filter(destination));
        let live = |serial: &SerialNumber| self.known[serial].is_live();
        let mut expected = Expected::default();
        let mut concerned = BTreeSet::new();
        for happened in &self.happened[of.end..] {
            let candidate = match happened {
                Happened::Issued(serial) if filter.moment == Moment::Issued => serial,
                Happened::Confirmed(serial) if filter.moment == Moment::Confirmed => serial,
                Happened::Ended(serial) => {
                    concerned.insert(*serial);
                    continue;
                }
                Happened::Failed(failed, serial) if *failed == destination => {
                    concerned.insert(*serial);
                    continue;
                }
                _ => continue,
            };
            let known = &self.known[candidate];
            if !filter.matches("p", ORDERS[known.order]) || !live(candidate) || of.handled.contains(candidate) {
                continue;
            }
            if self.is_unfit(known.device) {
                expected.unfit.insert(*candidate);
            } else {
                expected.certificates.push(*candidate);
            }
        }
        for serial in of.retry.iter().filter(|serial| live(serial)) {
            if self.is_unfit(self.known[serial].device) {
                expected.unfit.insert(*serial);
            } else {
                expected.again.push(*serial);
            }
        }
        let withdrawn = concerned.into_iter().filter(|serial| !live(serial));
        expected.withdrawals = withdrawn.filter_map(|serial| Some((serial, *of.out.get(&serial)?))).collect();
        expected
    }

    fn end(&mut self, serial: SerialNumber) {
        self.happened.push(Happened::Ended(serial));
        for of in &mut self.destinations {
            of.retry.remove(&serial);
        }
    }

    /// What was read is cut.
    fn cut(&mut self, destination: usize, expected: Expected, to: usize) {
        let known = &self.known;
        let of = &mut self.destinations[destination];
        let number = of.batches.len() as u32 + 1;
        of.end = to;
        of.handled.extend(expected.certificates.iter().chain(&expected.unfit));
        for serial in expected.certificates.iter().chain(&expected.again) {
            of.out.insert(*serial, number);
        }
        of.retry.retain(|serial| !expected.again.contains(serial));
        of.retry.extend(expected.unfit.iter().filter(|serial| known[serial].is_live()));
        of.batches.push((expected, false));
    }
}

fn one(ledger: &mut EmbeddedLedger, action: Action) -> Outcome {
    let operation = Operation { actor: Actor("operator:anna".into()), action };
    ledger.commit(Timestamp::now(), &[operation]).unwrap().remove(0)
}

fn issue(ledger: &mut EmbeddedLedger, model: &mut Model, device: u8, order: usize) {
    let before = model.newest.get(&device).copied();
    if before.is_some_and(|before| model.known[&before].is_live()) {
        return;
    }
    model.keys += 1;
    let holder = Holder {
        device: format!("d{device}"),
        key_hash: sha256(&model.keys.to_be_bytes()),
        order: ORDERS[order].into(),
        profile: "p".into(),
        issuer: "i".into(),
        issuer_id: 0,
    };
    let action = if before.is_some() { Action::Reissue(holder) } else { Action::Reserve(holder) };
    let Outcome::Reserved(serial_number) = one(ledger, action) else { panic!("it is free") };
    let certificate = serial_number.to_string().into();
    assert!(matches!(one(ledger, Action::Record { serial_number, certificate }), Outcome::Recorded));
    model.known.insert(serial_number, Known { device, order, confirmed: false, scrapped: false, revoked: false });
    model.newest.insert(device, serial_number);
    model.happened.push(Happened::Issued(serial_number));
}

/// Confirms, scraps or revokes the newest certificate of a device, if that may be.
fn change(ledger: &mut EmbeddedLedger, model: &mut Model, step: &Step) {
    let (Step::Confirm { device } | Step::Scrap { device } | Step::Revoke { device }) = step else { return };
    let Some(serial_number) = model.newest.get(device).copied() else { return };
    let Some(known) = model.known.get_mut(&serial_number) else { return };
    let (may, action) = match step {
        Step::Confirm { .. } => {
            (known.is_live() && !known.confirmed, Action::Confirm { serial_number, device: None, profiles: None })
        }
        Step::Scrap { .. } => (known.is_live(), Action::Scrap { serial_number, reason: "a test".into() }),
        _ => (!known.revoked, Action::Revoke { serial_number, reason: RevocationReason::Superseded }),
    };
    if !may {
        return;
    }
    match step {
        Step::Confirm { .. } => known.confirmed = true,
        Step::Scrap { .. } => known.scrapped = true,
        _ => known.revoked = true,
    }
    assert!(matches!(one(ledger, action), Outcome::Changed { retry: false }));
    match step {
        Step::Confirm { .. } => model.happened.push(Happened::Confirmed(serial_number)),
        _ => model.end(serial_number),
    }
}

/// Reads what the next batch is, as whoever cuts one does.
fn read(records: &EmbeddedRecords, model: &Model, destination: usize) -> (Expected, Arc<BatchTerms>) {
    let filter = model.filter(destination);
    let mut next = records.next_batch(DESTINATIONS[destination], &filter).unwrap();
    let mut found = Expected::default();
    let device = |serial: &SerialNumber| model.known[serial].device;
    while let Some(page) = next.content.page().unwrap() {
        for member in page {
            let serial = member.record.serial_number;
            assert_eq!(member.confirmed_at.is_some(), filter.moment == Moment::Confirmed);
            match model.is_unfit(device(&serial)) {
                true => {
                    found.unfit.insert(serial);
                }
                false => found.certificates.push(serial),
            }
        }
    }
    for serial in &next.destination.retry {
        match next.content.member(serial).unwrap() {
            Some(_) if model.is_unfit(device(serial)) => {
                found.unfit.insert(*serial);
            }
            Some(_) => found.again.push(*serial),
            None => {}
        }
    }
    for serial in next.content.withdrawals().unwrap() {
        found.withdrawals.insert(serial, next.content.withdrawal(&serial).unwrap().batch);
    }
    let end = next.content.end();
    let unfit = found.unfit.iter().map(|serial| UnfitDevice {
        serial_number: *serial,
        device: format!("d{}", device(serial)),
        reason: "a test".into(),
    });
    let terms = BatchTerms {
        id: next.id,
        first: end.first,
        end: end.end,
        end_place: end.place,
        filter,
        settings: "{}".into(),
        unfit: unfit.collect(),
        again: found.again.clone(),
        certificates: (found.certificates.len() + found.again.len()) as u64,
        withdrawn: found.withdrawals.len() as u64,
        chain: end.chain,
    };
    (found, Arc::new(terms))
}

fn acknowledge(ledger: &mut EmbeddedLedger, model: &mut Model, destination: usize, batch: usize, failed: usize) {
    let count = model.destinations[destination].batches.len();
    let Some(at) = batch.checked_rem(count) else { return };
    let (expected, acknowledged) = model.destinations[destination].batches[at].clone();
    let all: Vec<_> = expected.certificates.iter().chain(&expected.again).chain(expected.withdrawals.keys()).collect();
    let failed = failed.checked_rem(all.len() + 1).and_then(|at| all.get(at)).map(|serial| **serial);
    let certificate = |serial_number| FailedCertificate { serial_number, code: "E".into(), message: "a test".into() };
    let results = Results {
        sha256: sha256(format!("{failed:?}").as_bytes()),
        registered: 0,
        already: 0,
        withdrawn: 0,
        failed: failed.map(certificate).into_iter().collect(),
    };
    let id = BatchId { destination: DESTINATIONS[destination].into(), number: at as u32 + 1 };
    let action = Action::AcknowledgeBatch { id, results: Some(Arc::new(results)) };
    let (first, again) = (one(ledger, action.clone()), one(ledger, action));
    if acknowledged {
        return; // With other results, or the same.
    }
    assert!(matches!((&first, &again), (Outcome::Batch(first), Outcome::Batch(again)) if first == again));
    let of = &mut model.destinations[destination];
    of.batches[at].1 = true;
    if let Some(serial) = failed {
        if model.known[&serial].is_live() {
            of.retry.insert(serial);
        }
        model.happened.push(Happened::Failed(destination, serial));
    }
}

/// The ledger has the batches that there must be, and nothing in two of them but what was tried again.
fn check(records: &EmbeddedRecords, model: &Model) {
    for (name, of) in DESTINATIONS.iter().zip(&model.destinations) {
        let mut seen = BTreeSet::new();
        for (index, (expected, acknowledged)) in of.batches.iter().enumerate() {
            let id = BatchId { destination: (*name).into(), number: index as u32 + 1 };
            let mut found = records.batch_content(&id).unwrap().unwrap();
            assert_eq!(found.batch.acknowledged.is_some(), *acknowledged);
            let left_out: BTreeSet<_> = found.terms.unfit.iter().map(|unfit| unfit.serial_number).collect();
            let mut certificates = Vec::new();
            while let Some(page) = found.content.page().unwrap() {
                certificates.extend(page.iter().map(|member| member.record.serial_number));
            }
            certificates.retain(|serial| !left_out.contains(serial));
            let end = found.content.end();
            assert_eq!((end.end, end.chain), (found.terms.end, found.terms.chain), "{id}");
            let again = found.terms.again.clone();
            assert!(again.iter().all(|serial| found.content.member(serial).unwrap().is_some()), "{id}");
            let withdrawn = found.content.withdrawals().unwrap();
            let number = |serial: &SerialNumber| found.content.withdrawal(serial).unwrap().batch;
            let withdrawals = withdrawn.iter().map(|serial| (*serial, number(serial))).collect();
            assert_eq!(Expected { certificates, unfit: left_out, again, withdrawals }, *expected, "{id}");
            assert!(expected.certificates.iter().all(|serial| seen.insert(*serial)), "twice in {name}");
        }
        let known = records.destinations().into_iter().find(|known| known.name == *name);
        let unacknowledged = of.batches.iter().filter(|(_, acknowledged)| !acknowledged).count();
        let oldest = of.batches.iter().position(|(_, acknowledged)| !acknowledged).unwrap_or(of.batches.len());
        if let Some(known) = known {
            assert_eq!((known.unacknowledged as usize, &known.retry), (unacknowledged, &of.retry), "{name}");
            assert_eq!(known.oldest_unacknowledged as usize, oldest + 1, "{name}");
        }
    }
}

fn run(steps: &[Step]) {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, mut records) = open(folder.path());
    for order in ORDERS {
        assert!(matches!(one(&mut ledger, Action::CreateOrder(OrderTerms::new(order, "p", 1000))), Outcome::Order(_)));
    }
    let mut model = Model {
        known: BTreeMap::new(),
        newest: BTreeMap::new(),
        happened: Vec::new(),
        destinations: Default::default(),
        moved: false,
        strict: true,
        keys: 0,
    };
    for step in steps {
        match step {
            Step::Issue { device, order } => issue(&mut ledger, &mut model, *device, *order),
            Step::Confirm { .. } | Step::Scrap { .. } | Step::Revoke { .. } => change(&mut ledger, &mut model, step),
            Step::Read { destination } => {
                let (found, terms) = read(&records, &model, *destination);
                let expected = model.expect(*destination);
                assert_eq!(found, expected, "{}", DESTINATIONS[*destination]);
                let to = model.happened.len();
                model.destinations[*destination].read = Some((expected, to, terms));
            }
            Step::Commit { destination } => {
                let Some((expected, to, terms)) = model.destinations[*destination].read.take() else { continue };
                assert!(matches!(one(&mut ledger, Action::CreateBatch(Arc::clone(&terms))), Outcome::Batch(_)));
                let again = one(&mut ledger, Action::CreateBatch(terms));
                assert!(matches!(again, Outcome::Refused(Refusal::BatchOvertaken(_))), "{again:?}");
                model.cut(*destination, expected, to);
            }
            Step::Acknowledge { destination, batch, failed } => {
                acknowledge(&mut ledger, &mut model, *destination, *batch, *failed);
                // What was read does not know of it, and may be committed all the same.
            }
            Step::Move => model.moved = !model.moved,
            Step::Strict => model.strict = !model.strict,
            Step::Crash | Step::LoseIndex => {
                drop((ledger, records));
                if matches!(step, Step::LoseIndex) {
                    fs::remove_dir_all(folder.path().join("index")).unwrap();
                }
                (ledger, records) = open(folder.path());
            }
        }
    }
    check(&records, &model);
    drop(records);
    ledger.close().unwrap();
    let verified = verify(Scan::open(folder.path()).unwrap(), &VerifyOptions::default(), &mut |_| {}).unwrap();
    let batches: usize = model.destinations.iter().map(|of| of.batches.len()).sum();
    assert_eq!(verified.counts.batches, batches as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each certificate goes out once to each destination, what was left out or refused comes again, and what went out and
    /// was scrapped or revoked is withdrawn once for each time: also when things happen between reading and cutting, after
    /// crashes, without the index, and when filters change.
    #[test]
    fn batches_are_what_a_simple_model_says(steps in prop::collection::vec(step(), 1..120)) {
        run(&steps);
    }
}
