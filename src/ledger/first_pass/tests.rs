//! Yields by a real ledger with a small index, against a model.

use std::{collections::BTreeMap, fs, path::Path};

use jiff::Timestamp;
use proptest::prelude::*;

use super::FirstPass;
use crate::ledger::{
    Action, Actor, Holder, Ledger, Operation, OrderTerms, Outcome, Records, RefusalScope, RequestsRefused,
    embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
    journal::Scan,
    verify::{VerifyOptions, verify},
};

/// Small, so that everything sinks into the index and is read from there.
const SETTINGS: Settings = Settings { segment_size: 4096, flush_at: 4, min_free: 0, mirror: None, boot_id: None };

fn open(folder: &Path) -> (EmbeddedLedger, EmbeddedRecords) {
    EmbeddedLedger::open(folder, Timestamp::now(), &SETTINGS).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Refuse { devices: Vec<u8>, station: u8, scope: RefusalScope, known: bool },
    Issue { device: u8, station: u8 },
    Crash,
    LoseIndex,
}

fn step() -> impl Strategy<Value = Step> {
    let scope =
        prop_oneof![4 => Just(RefusalScope::Device), 1 => Just(RefusalScope::Order), 1 => Just(RefusalScope::Daemon)];
    prop_oneof![
        8 => (prop::collection::vec(0..12_u8, 1..4), 0..3_u8, scope, prop::bool::weighted(0.9))
            .prop_map(|(devices, station, scope, known)| Step::Refuse { devices, station, scope, known }),
        8 => (0..12_u8, 0..3_u8).prop_map(|(device, station)| Step::Issue { device, station }),
        1 => Just(Step::Crash),
        1 => Just(Step::LoseIndex),
    ]
}

fn actor(station: u8) -> Actor {
    // The last one asks by itself.
    Actor(if station == 2 { "device:d".into() } else { format!("station:line1/t{station}").into() })
}

fn label(station: u8) -> String {
    if station == 2 { String::new() } else { actor(station).to_string() }
}

/// What became of a device, and where it was tried first.
#[derive(Clone, Copy)]
enum Known {
    Refused(u8),
    Later(u8),
    First(u8),
}

fn expected(known: &BTreeMap<u8, Known>) -> BTreeMap<String, FirstPass> {
    let mut passes: BTreeMap<String, FirstPass> = BTreeMap::new();
    for one in known.values() {
        let (station, first, later, refused) = match one {
            Known::First(station) => (station, 1, 0, 0),
            Known::Later(station) => (station, 0, 1, 0),
            Known::Refused(station) => (station, 0, 0, 1),
        };
        let sum = passes.entry(label(*station)).or_default();
        *sum = FirstPass::sum([*sum, FirstPass { first, later, refused }].iter());
    }
    passes
}

fn run(steps: &[Step]) {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, mut records) = open(folder.path());
    let create = Action::CreateOrder(OrderTerms::new("lot", "p", 1000));
    ledger.commit(Timestamp::now(), &[Operation { actor: actor(0), action: create }]).unwrap();
    let mut known: BTreeMap<u8, Known> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Refuse { devices, station, scope, known: named } => {
                let refused = RequestsRefused {
                    order: if *named { "lot".into() } else { "made-up".into() },
                    reason: "KEY_WEAK".into(),
                    scope: *scope,
                    count: 9,
                    devices: devices.iter().map(|device| format!("d{device}")).collect(),
                    since: Timestamp::now(),
                    dropped: 0,
                };
                let operation = Operation { actor: actor(*station), action: Action::NoteRefused(refused) };
                assert!(matches!(ledger.commit(Timestamp::now(), &[operation]).unwrap()[..], [Outcome::Noted]));
                if *named && *scope == RefusalScope::Device {
                    for device in devices {
                        known.entry(*device).or_insert(Known::Refused(*station));
                    }
                }
            }
            Step::Issue { device, station } => {
                if matches!(known.get(device), Some(Known::First(_) | Known::Later(_))) {
                    continue;
                }
                let holder = Holder {
                    device: format!("d{device}"),
                    key_hash: [*device; 32],
                    order: "lot".into(),
                    profile: "p".into(),
                    issuer: "i".into(),
                    issuer_id: 0,
                };
                let reserve = Operation { actor: actor(*station), action: Action::Reserve(holder) };
                let serial_number = match ledger.commit(Timestamp::now(), &[reserve]).unwrap()[..] {
                    [Outcome::Reserved(serial_number)] => serial_number,
                    ref other => panic!("{other:?}"),
                };
                let record = Action::Record { serial_number, certificate: "x".into() };
                ledger.commit(Timestamp::now(), &[Operation { actor: actor(*station), action: record }]).unwrap();
                let now = match known.get(device) {
                    Some(Known::Refused(first)) => Known::Later(*first),
                    _ => Known::First(*station),
                };
                known.insert(*device, now);
            }
            Step::Crash | Step::LoseIndex => {
                drop((ledger, records));
                if matches!(step, Step::LoseIndex) {
                    fs::remove_dir_all(folder.path().join("index")).unwrap();
                }
                (ledger, records) = open(folder.path());
            }
        }
        for order in [Some("lot"), None] {
            let passes = records.first_pass(order).unwrap();
            let nonzero = passes.iter().filter(|(_, passes)| passes.tried() > 0);
            let found: BTreeMap<_, _> = nonzero.map(|(station, passes)| (station.to_string(), *passes)).collect();
            assert_eq!(found, expected(&known), "{order:?} after {step:?}");
        }
        assert!(records.first_pass(Some("made-up")).unwrap().is_empty());
    }
    ledger.close().unwrap();
    verify(Scan::open(folder.path()).unwrap(), &VerifyOptions::default(), &mut |_| {}).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each device counts once, at the station that tried it first, whatever crashes or is rebuilt.
    #[test]
    fn first_pass_yield_is_that_of_a_simple_model(steps in prop::collection::vec(step(), 1..40)) {
        run(&steps);
    }
}
