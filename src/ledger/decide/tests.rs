//! The decisions, by a real ledger with a small index, against a model that knows nothing of how they are made.

use std::{fs, path::Path, time::Duration};

use birthmark_bench::postgres::{Place, Server};
use jiff::Timestamp;
use proptest::prelude::*;

use crate::{
    ledger::{
        Action, Actor, Holder, Ledger, Operation, OrderTerms, Outcome, RecordState, Records, Refusal, RevocationReason,
        embedded::{EmbeddedLedger, EmbeddedRecords, Guards, Settings},
        journal::Scan,
        shared::{DatabaseSettings, Owner, SharedLedger},
        verify::{VerifyOptions, verify},
    },
    pattern::Pattern,
    serial::SerialNumber,
};

/// Small, so that everything sinks into the index and is read from there.
const SETTINGS: Settings = Settings { segment_size: 4096, flush_at: 4, min_free: 0, mirror: None, boot_id: None };

fn open(folder: &Path) -> (EmbeddedLedger, EmbeddedRecords) {
    EmbeddedLedger::open(folder, Timestamp::now(), &SETTINGS).unwrap()
}

/// A kind of ledger, which the model knows nothing of.
enum Kind {
    Embedded,
    /// On PostgreSQL, with sessions of this isolation level.
    Shared(Place, &'static str),
}

enum AnyLedger {
    Embedded(Box<EmbeddedLedger>),
    Shared(Box<SharedLedger>),
}

impl Kind {
    fn shared(isolation: &'static str) -> Kind {
        let place = Server::shared().place().unwrap();
        Owner::connect(&settings(&place.owner)).unwrap().create(&place.role, None).unwrap();
        Kind::Shared(place, isolation)
    }

    fn open(&self, folder: &Path) -> (AnyLedger, EmbeddedRecords) {
        match self {
            Kind::Embedded => {
                let (ledger, records) = open(folder);
                (AnyLedger::Embedded(Box::new(ledger)), records)
            }
            Kind::Shared(place, isolation) => {
                let (now, guards) = (Timestamp::now(), Guards::default());
                let opened = SharedLedger::open(folder, now, &SETTINGS, &guards, &settings(&place.at(isolation)));
                let (ledger, records) = opened.unwrap();
                (AnyLedger::Shared(Box::new(ledger)), records)
            }
        }
    }
}

fn settings(url: &str) -> DatabaseSettings {
    let (url, folder, daemon) = (url.to_owned(), ".".into(), "model".to_owned());
    let (lease, patience) = (Duration::from_secs(60), Duration::from_secs(20));
    DatabaseSettings { url, password: None, folder, daemon, copies: 1, lease, patience }
}

impl AnyLedger {
    fn commit(&mut self, operations: &[Operation]) -> Vec<Outcome> {
        let now = Timestamp::now();
        match self {
            AnyLedger::Embedded(ledger) => ledger.commit(now, operations),
            AnyLedger::Shared(ledger) => ledger.commit(now, operations),
        }
        .unwrap()
    }

    fn close(self) {
        match self {
            AnyLedger::Embedded(ledger) => ledger.close(),
            AnyLedger::Shared(ledger) => ledger.close(),
        }
        .unwrap();
    }
}

const STATIONS: [&str; 2] = ["station:line1/t1", "station:line2/t2"];
const OPERATOR: &str = "operator:anna";

/// Two orders, the second for line1 only, and certificates without an order.
const ORDERS: [&str; 3] = ["wide", "line1", ""];
const QUANTITIES: [u64; 2] = [5, 3];

fn terms(order: usize) -> OrderTerms {
    let stations = if order == 1 { vec![Pattern::new("line1/*")] } else { vec![] };
    OrderTerms { stations, ..OrderTerms::new(ORDERS[order], "p", QUANTITIES[order]) }
}

fn holder(device: u8, key: u8, order: usize) -> Holder {
    let order = ORDERS[order].to_owned();
    Holder {
        device: format!("d{device}"),
        key_hash: [key; 32],
        order,
        profile: "p".into(),
        issuer: "i".into(),
        issuer_id: 0,
    }
}

fn operation(actor: &str, action: Action) -> Operation {
    Operation { actor: Actor(actor.into()), action }
}

/// An outcome in a word: `Reserved`, or the name of a refusal.
fn word(outcome: &Outcome) -> String {
    let text = match outcome {
        Outcome::Refused(refusal) => format!("{refusal:?}"),
        Outcome::Changed { retry: true } => "Retry".into(),
        outcome => format!("{outcome:?}"),
    };
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

/// What somebody does. Numbers of certificates are taken modulo how many there are.
#[derive(Clone, Debug)]
enum Step {
    Reserve { device: u8, key: u8, order: usize, station: usize, reissue: bool },
    Finish { certificate: usize, abandon: bool },
    Confirm { certificate: usize, actor: usize },
    Scrap { certificate: usize },
    Revoke { certificate: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let some = || 0..1000_usize;
    prop_oneof![
        5 => (0..4_u8, 0..10_u8, 0..3_usize, 0..2_usize, any::<bool>()).prop_map(
            |(device, key, order, station, reissue)| Step::Reserve { device, key, order, station, reissue }
        ),
        6 => (some(), 0..5_u8).prop_map(|(certificate, one)| Step::Finish { certificate, abandon: one == 0 }),
        3 => (some(), 0..3_usize).prop_map(|(certificate, actor)| Step::Confirm { certificate, actor }),
        2 => some().prop_map(|certificate| Step::Scrap { certificate }),
        1 => some().prop_map(|certificate| Step::Revoke { certificate }),
    ]
}

/// Steps that share a batch, and what happens then.
#[derive(Clone, Debug)]
struct Batch {
    steps: Vec<Step>,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    GoOn,
    Crash,
    LoseIndex,
}

fn batch() -> impl Strategy<Value = Batch> {
    let then = prop_oneof![8 => Just(Then::GoOn), 1 => Just(Then::Crash), 1 => Just(Then::LoseIndex)];
    (prop::collection::vec(step(), 1..6), then).prop_map(|(steps, then)| Batch { steps, then })
}

/// A certificate, or a reservation, as the model knows it.
#[derive(Clone, Debug)]
struct Known {
    serial_number: SerialNumber,
    device: u8,
    key: u8,
    order: usize,
    station: usize,
    state: RecordState,
    replaces: Option<SerialNumber>,
    /// Scrapped, and perhaps revoked afterwards.
    scrapped: bool,
    /// Its certificate came in the batch that is decided now.
    fresh: bool,
}

/// All that happened, in the order of the certificates' serial numbers.
#[derive(Debug, Default)]
struct Model {
    known: Vec<Known>,
    /// Certificates in the order of issue.
    issued: Vec<usize>,
}

impl Model {
    /// What must come of a request.
    fn reserve(&self, device: u8, key: u8, order: usize, station: usize, reissue: bool) -> &'static str {
        if order == 1 && station == 1 {
            return "StationRefused";
        }
        let valid = || self.known.iter().rev().filter(|known| known.state != RecordState::Abandoned);
        let ended = |known: &Known| matches!(known.state, RecordState::Scrapped | RecordState::Revoked);
        if let Some(found) = valid().find(|known| known.key == key) {
            return match found {
                found if found.device != device => "KeyReused",
                found if ended(found) => "KeyBlocked",
                found if found.order != order => "DeviceHasCertificate",
                found if reissue && found.replaces.is_none() => "DeviceHasCertificate",
                found if found.state == RecordState::Reserved || found.fresh => "InProgress",
                _ => "Replay",
            };
        }
        match valid().find(|known| known.device == device) {
            Some(found) if !ended(found) => return "DeviceHasCertificate",
            Some(_) if !reissue => return "ReissueRequired",
            None if reissue => return "ReissueRefused",
            _ => {}
        }
        if order < 2 && self.count(order, |_| true) == QUANTITIES[order] {
            return "OrderExhausted";
        }
        "Reserved"
    }

    /// How many of an order's are neither abandoned nor scrapped, and fit.
    fn count(&self, order: usize, fits: impl Fn(&Known) -> bool) -> u64 {
        let charged = |known: &&Known| known.state != RecordState::Abandoned && !known.scrapped;
        self.known.iter().filter(|known| known.order == order).filter(charged).filter(|known| fits(known)).count()
            as u64
    }

    fn change(&mut self, certificate: usize, wanted: RecordState) -> &'static str {
        let known = &mut self.known[certificate];
        match known.state {
            state if state == wanted => "Retry",
            _ if known.fresh && wanted != RecordState::Confirmed => "StateRefused",
            RecordState::Issued | RecordState::Confirmed => {
                known.state = wanted;
                known.scrapped = wanted == RecordState::Scrapped;
                "Changed"
            }
            RecordState::Scrapped if wanted == RecordState::Revoked => {
                known.state = wanted;
                "Changed"
            }
            _ => "StateRefused",
        }
    }

    fn confirm(&mut self, certificate: usize, actor: usize) -> &'static str {
        match (&self.known[certificate], actor) {
            (Known { order: 1, .. }, 1) => "StationRefused",
            (Known { order: 2, station, .. }, 0 | 1) if *station != actor => "ConfirmRefused",
            _ => self.change(certificate, RecordState::Confirmed),
        }
    }

    /// The operation of a step, and the word that must come of it. None if there is nothing that it could be done to.
    fn plan(&mut self, step: &Step, known_before: usize) -> Option<(Operation, &'static str)> {
        let of = |number: &usize| (known_before > 0).then(|| number % known_before);
        Some(match step {
            Step::Reserve { device, key, order, station, reissue } => {
                let holder = holder(*device, *key, *order);
                let action = if *reissue { Action::Reissue(holder) } else { Action::Reserve(holder) };
                let word = self.reserve(*device, *key, *order, *station, *reissue);
                if word == "Reserved" {
                    let last = |known: &&Known| known.device == *device && known.state != RecordState::Abandoned;
                    self.known.push(Known {
                        serial_number: SerialNumber::sample(), // Told by the outcome.
                        device: *device,
                        key: *key,
                        order: *order,
                        station: *station,
                        state: RecordState::Reserved,
                        replaces: self.known.iter().rev().find(last).map(|known| known.serial_number),
                        scrapped: false,
                        fresh: false,
                    });
                }
                (operation(STATIONS[*station], action), word)
            }
            Step::Finish { certificate, abandon } => {
                let number = of(certificate)?;
                let known = &mut self.known[number];
                let serial_number = known.serial_number;
                let action = match abandon {
                    true => Action::Abandon { serial_number, reason: "a test".into() },
                    false => Action::Record { serial_number, certificate: serial_number.to_string().into() },
                };
                let word = match (known.state, abandon) {
                    (RecordState::Reserved, true) => {
                        known.state = RecordState::Abandoned;
                        "Abandoned"
                    }
                    (RecordState::Reserved, false) => {
                        known.state = RecordState::Issued;
                        known.fresh = true;
                        self.issued.push(number);
                        "Recorded"
                    }
                    (RecordState::Abandoned, false) => "ReservationLost",
                    _ => "NotReserved",
                };
                (operation("daemon", action), word)
            }
            Step::Confirm { certificate, actor } => {
                let number = of(certificate)?;
                let serial_number = self.known[number].serial_number;
                let name = [STATIONS[0], STATIONS[1], OPERATOR][*actor];
                (
                    operation(name, Action::Confirm { serial_number, device: None, profiles: None }),
                    self.confirm(number, *actor),
                )
            }
            Step::Scrap { certificate } => {
                let number = of(certificate)?;
                let serial_number = self.known[number].serial_number;
                let action = Action::Scrap { serial_number, reason: "a test".into() };
                (operation(OPERATOR, action), self.change(number, RecordState::Scrapped))
            }
            Step::Revoke { certificate } => {
                let number = of(certificate)?;
                let (serial_number, reason) = (self.known[number].serial_number, RevocationReason::Superseded);
                let revoke = Action::Revoke { serial_number, reason };
                (operation(OPERATOR, revoke), self.change(number, RecordState::Revoked))
            }
        })
    }

    /// Nobody is left who works on a reservation.
    fn restart(&mut self) {
        for known in &mut self.known {
            if known.state == RecordState::Reserved {
                known.state = RecordState::Abandoned;
            }
        }
    }

    /// The ledger tells the same.
    fn check(&self, records: &EmbeddedRecords) {
        for known in &self.known {
            let record = records.by_serial_number(&known.serial_number).unwrap().unwrap();
            assert_eq!((record.state, record.replaces), (known.state, known.replaces), "{known:?}");
            assert_eq!(record.holder, holder(known.device, known.key, known.order));
            assert_eq!(record.issued.is_some(), !matches!(known.state, RecordState::Reserved | RecordState::Abandoned));
        }
        for device in 0..4 {
            let last = |known: &&Known| known.device == device && known.state != RecordState::Abandoned;
            let newest = self.known.iter().rev().find(last).map(|known| known.serial_number);
            let found = records.by_device(&format!("d{device}")).unwrap();
            assert_eq!(found.map(|record| record.serial_number), newest, "d{device}");
        }
        for (number, id) in ORDERS.iter().enumerate().take(2) {
            let order = records.order(id).unwrap().unwrap();
            let is = |state| move |known: &Known| known.state == state;
            assert_eq!(order.reserved, self.count(number, is(RecordState::Reserved)));
            assert_eq!(order.issued, self.count(number, |known| known.state != RecordState::Reserved));
            assert_eq!(order.confirmed, self.count(number, is(RecordState::Confirmed)));
            assert_eq!(order.revoked, self.count(number, is(RecordState::Revoked)));
            let scrapped = |known: &&Known| known.order == number && known.scrapped;
            assert_eq!(order.scrapped, self.known.iter().filter(scrapped).count() as u64);
            assert_eq!(order.left(), QUANTITIES[number] - order.issued - order.reserved);

            let of_order = self.issued.iter().map(|at| &self.known[*at]).filter(|known| known.order == number);
            let expected: Vec<_> = of_order.map(|known| (known.serial_number, known.state)).collect();
            let found = records.issued_under(id).unwrap().map(Result::unwrap);
            assert_eq!(found.map(|record| (record.serial_number, record.state)).collect::<Vec<_>>(), expected);
        }
    }
}

fn run(kind: &Kind, batches: &[Batch]) {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, mut records) = kind.open(folder.path());
    let create = |order| operation(OPERATOR, Action::CreateOrder(terms(order)));
    ledger.commit(&[create(0), create(1)]);
    let mut model = Model::default();
    for Batch { steps, then } in batches {
        let known_before = model.known.len();
        let planned: Vec<_> = steps.iter().filter_map(|step| model.plan(step, known_before)).collect();
        let (operations, words): (Vec<_>, Vec<_>) = planned.into_iter().unzip();
        let outcomes = ledger.commit(&operations);
        assert_eq!(outcomes.iter().map(word).collect::<Vec<_>>(), words, "{steps:?}");
        let given = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Reserved(serial_number) => Some(*serial_number),
            _ => None,
        });
        for (known, serial_number) in model.known[known_before..].iter_mut().zip(given) {
            known.serial_number = serial_number;
        }
        model.known.iter_mut().for_each(|known| known.fresh = false);
        if !matches!(then, Then::GoOn) {
            drop((ledger, records));
            if matches!(then, Then::LoseIndex) {
                fs::remove_dir_all(folder.path().join("index")).unwrap();
            }
            (ledger, records) = kind.open(folder.path());
            model.restart();
        }
        model.check(&records);
    }
    drop(records);
    ledger.close();
    let verified = verify(Scan::open(folder.path()).unwrap(), &VerifyOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(verified.counts.issued, model.issued.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every outcome, every record and every count is what the model says, also after crashes and without
    /// the index; and the second opinion of the audit finds nothing wrong with the journal.
    #[test]
    fn ledger_does_what_a_simple_model_does(batches in prop::collection::vec(batch(), 1..40)) {
        run(&Kind::Embedded, &batches);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same of the ledger that several daemons share, whatever its sessions' isolation.
    #[test]
    fn shared_ledger_does_what_a_simple_model_does(batches in prop::collection::vec(batch(), 1..25)) {
        for isolation in ["read committed", "repeatable read", "serializable"] {
            run(&Kind::shared(isolation), &batches);
        }
    }
}

/// A ledger with a certificate that was issued to `d0` under the order `wide`.
struct Scene {
    _folder: tempfile::TempDir,
    ledger: EmbeddedLedger,
    records: EmbeddedRecords,
    serial_number: SerialNumber,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, records) = open(folder.path());
        ledger.commit(Timestamp::now(), &[operation(OPERATOR, Action::CreateOrder(terms(0)))]).unwrap();
        let mut scene = Scene { _folder: folder, ledger, records, serial_number: SerialNumber::sample() };
        scene.serial_number = scene.issue(Action::Reserve(holder(0, 0, 0)));
        scene
    }

    fn ask(&mut self, action: Action) -> Outcome {
        self.ledger.commit(Timestamp::now(), &[operation(OPERATOR, action)]).unwrap().remove(0)
    }

    fn refused(&mut self, action: Action) -> Refusal {
        match self.ask(action) {
            Outcome::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn issue(&mut self, reserve: Action) -> SerialNumber {
        let reserved = self.ask(reserve);
        let Outcome::Reserved(serial_number) = reserved else { panic!("{reserved:?}") };
        let certificate = serial_number.to_string().into();
        assert!(matches!(self.ask(Action::Record { serial_number, certificate }), Outcome::Recorded));
        serial_number
    }

    fn scrap(&mut self) {
        let action = Action::Scrap { serial_number: self.serial_number, reason: "broken".into() };
        assert!(matches!(self.ask(action), Outcome::Changed { .. }));
    }
}

#[test]
fn refusal_names_the_state_and_what_to_do() {
    let mut scene = Scene::new();
    let serial_number = scene.serial_number;
    let nothing = scene.refused(Action::Reissue(holder(1, 1, 0))).to_string();
    assert!(nothing.contains("\"d1\" has never had a certificate"), "{nothing}");
    scene.scrap();
    let says = [
        (
            scene.refused(Action::Confirm { serial_number, device: None, profiles: None }),
            "is scrapped; only an issued certificate can be confirmed",
        ),
        (scene.refused(Action::Reserve(holder(0, 0, 0))), "which is scrapped; it is never accepted again"),
        (scene.refused(Action::Reissue(holder(0, 0, 0))), "which is scrapped; it is never accepted again"),
        (scene.refused(Action::Reserve(holder(0, 1, 0))), "is scrapped; a request for a new one must say so"),
        (
            scene.refused(Action::Confirm { serial_number: SerialNumber::sample(), device: None, profiles: None }),
            "no record of the serial number",
        ),
    ];
    for (refusal, says) in says {
        assert!(refusal.to_string().contains(says), "{refusal}");
    }
}

/// What was scrapped can be revoked afterwards: the order got its unit back and keeps it.
#[test]
fn scrapped_certificate_is_revoked_at_no_cost_to_its_order() {
    let mut scene = Scene::new();
    let serial_number = scene.serial_number;
    scene.scrap();
    let before = scene.records.order("wide").unwrap().unwrap();
    let revoke = Action::Revoke { serial_number, reason: RevocationReason::KeyCompromise };
    assert!(matches!(scene.ask(revoke.clone()), Outcome::Changed { retry: false }));
    assert!(matches!(scene.ask(revoke), Outcome::Changed { retry: true }));
    assert_eq!(scene.records.order("wide").unwrap().unwrap(), before);
    let record = scene.records.by_serial_number(&serial_number).unwrap().unwrap();
    assert_eq!(record.changed.unwrap().revocation_reason, Some(RevocationReason::KeyCompromise));
    let scrap = scene.refused(Action::Scrap { serial_number, reason: "late".into() }).to_string();
    assert!(scrap.contains("is revoked; only an issued or confirmed certificate can be scrapped"), "{scrap}");
}

#[test]
fn retry_keeps_the_first_reason_and_writes_nothing() {
    let mut scene = Scene::new();
    let serial_number = scene.serial_number;
    scene.scrap();
    let entries = scene.records.head().sequence;
    let again = scene.ask(Action::Scrap { serial_number, reason: "another".into() });
    assert!(matches!(again, Outcome::Changed { retry: true }), "{again:?}");
    assert_eq!(scene.records.head().sequence, entries);
    let change = scene.records.by_serial_number(&serial_number).unwrap().unwrap().changed.unwrap();
    assert_eq!((change.scrap_reason.as_str(), change.by), ("broken", Actor(OPERATOR.into())));
}

#[test]
fn reissue_asked_for_again_is_a_retry() {
    let mut scene = Scene::new();
    scene.scrap();
    let second = scene.issue(Action::Reissue(holder(0, 1, 0)));
    for again in [Action::Reissue(holder(0, 1, 0)), Action::Reserve(holder(0, 1, 0))] {
        let outcome = scene.ask(again);
        assert!(matches!(&outcome, Outcome::Replay { serial_number, .. } if *serial_number == second), "{outcome:?}");
    }
    let record = scene.records.by_device("d0").unwrap().unwrap();
    assert_eq!((record.serial_number, record.replaces), (second, Some(scene.serial_number)));
    assert!(matches!(scene.refused(Action::Reissue(holder(0, 2, 0))), Refusal::DeviceHasCertificate { .. }));
}
