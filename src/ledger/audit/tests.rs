//! The audit against lifecycles that keep the rules and such that break one.

use super::*;
use std::sync::Arc;

use crate::ledger::{Actor, BatchId, Enrolment, EnrolmentMethod, Filter, Moment, Place, RevocationReason, Seal};

fn serial(number: u8) -> SerialNumber {
    let mut octets = [1; SerialNumber::LENGTH];
    octets[7] = number;
    SerialNumber::try_from(octets.as_slice()).unwrap()
}

fn reserved(number: u8, device: &str, replaces: Option<u8>) -> Event {
    let text = |text: &str| text.to_owned();
    let holder = Holder {
        device: device.into(),
        key_hash: [number; 32],
        order: text("o"),
        profile: text("p"),
        issuer: text("i"),
        issuer_id: 0,
    };
    Event::Reserved { serial_number: serial(number), holder, replaces: replaces.map(serial) }
}

fn issued(number: u8) -> Event {
    Event::Issued { serial_number: serial(number), certificate: "c".into() }
}

fn confirmed(number: u8, order: &str) -> Event {
    Event::Confirmed { serial_number: serial(number), order: order.into() }
}

fn scrapped(number: u8) -> Event {
    Event::Scrapped { serial_number: serial(number), reason: "a test".into() }
}

fn revoked(number: u8) -> Event {
    Event::Revoked { serial_number: serial(number), reason: RevocationReason::Unspecified }
}

fn export(number: u32, certificates: u64) -> Event {
    Event::ExportCreated { id: ExportId { order: "o".into(), number }, certificates }
}

fn acknowledged(number: u32) -> Event {
    Event::ExportAcknowledged { id: ExportId { order: "o".into(), number } }
}

fn batch(number: u32, first: u64, end: u64, certificates: u64) -> Event {
    let terms = BatchTerms {
        id: BatchId { destination: "cloud".into(), number },
        first,
        end,
        end_place: Place::from_number(0),
        filter: Filter { profiles: Vec::new(), orders: Vec::new(), moment: Moment::Issued },
        settings: "{}".into(),
        unfit: Vec::new(),
        again: Vec::new(),
        certificates,
        withdrawn: 0,
        chain: [0; 32],
    };
    Event::BatchCreated(Arc::new(terms))
}

fn again(number: u8) -> Event {
    let Event::BatchCreated(terms) = batch(1, 0, 3, 1) else { unreachable!() };
    Event::BatchCreated(Arc::new(BatchTerms { again: vec![serial(number)], ..BatchTerms::clone(&terms) }))
}

fn sealed(number: u32) -> Event {
    let id = BatchId { destination: "cloud".into(), number };
    Event::BatchSealed { id, seal: Seal { manifest_sha256: [0; 32], jws: "a..b".into() } }
}

fn taken(number: u32) -> Event {
    Event::BatchAcknowledged { id: BatchId { destination: "cloud".into(), number }, results: None }
}

fn issuer(id: u32, name: &str, generation: u32, chain: &'static [u8]) -> Event {
    let terms = IssuerTerms { name: name.into(), chain: vec![chain.into()], crl_shards: 0 };
    Event::IssuerAdded { id, generation, terms }
}

/// A reservation for the issuer "i" by its id.
fn reserved_for(issuer_id: u32) -> Event {
    let Event::Reserved { serial_number, holder, replaces } = reserved(1, "a", None) else { unreachable!() };
    Event::Reserved { serial_number, holder: Holder { issuer_id, ..holder }, replaces }
}

/// What the audit says about these events, after an order of two certificates.
fn say(events: impl IntoIterator<Item = Event>) -> Result<Counts, BrokenRule> {
    let mut audit = Audit::default();
    let terms = OrderTerms::new("o", "p", 2);
    for event in std::iter::once(Event::OrderCreated(terms)).chain(events) {
        audit.apply(&Entry { time: Timestamp::UNIX_EPOCH, actor: Actor::daemon(), event })?;
    }
    Ok(audit.counts())
}

#[test]
fn lifecycle_by_the_rules_passes() {
    let counts = say([
        reserved(1, "a", None),
        issued(1),
        reserved(2, "b", None),
        issued(2),
        confirmed(1, "o"),
        confirmed(2, "o"),
        export(1, 2),
        scrapped(1),
        acknowledged(1),
        // Abandoned, and asked for again.
        reserved(3, "a", Some(1)),
        Event::Abandoned { serial_number: serial(3), reason: "a test".into() },
        reserved(4, "a", Some(1)),
        issued(4),
        revoked(2),
        export(2, 1),
        scrapped(4),
    ]);
    let expected = Counts {
        refused: 0,
        issued: 3,
        recovered: 0,
        abandoned: 1,
        reserved: 0,
        confirmed: 0,
        scrapped: 2,
        revoked: 1,
        proofs: 0,
        orders: 1,
        exports: 2,
        batches: 0,
        crls: 0,
        checkpoints: 0,
        issuers: 0,
        enrolments: 0,
        stations_revoked: 0,
    };
    assert_eq!(counts, Ok(expected));
}

fn enrolled(certificate: &'static str, key: u8) -> Event {
    Event::StationEnrolled(Enrolment {
        peer: Actor("station:l/1".into()),
        certificate: certificate.into(),
        serial_number: vec![1],
        key_hash: [key; 32],
        not_before: Timestamp::UNIX_EPOCH,
        not_after: Timestamp::UNIX_EPOCH,
        method: EnrolmentMethod::Csr,
        listed: None,
    })
}

#[test]
fn enrolment_and_order_change_that_break_a_rule_are_named() {
    let revoke = || Event::StationRevoked { peer: Actor("station:l/1".into()), reason: "x".into(), keep: None };
    let quantity = |quantity| Event::OrderQuantityChanged { id: "o".into(), quantity, reason: String::new() };
    let pause = || Event::OrderPaused { id: "o".into(), reason: String::new() };
    let resume = || Event::OrderResumed { id: "o".into() };
    let counts = say(vec![
        enrolled("a", 1),
        enrolled("b", 1),
        revoke(),
        enrolled("c", 2),
        quantity(1),
        reserved(1, "a", None),
        issued(1),
        quantity(2),
        pause(),
        resume(),
        reserved(2, "b", None),
    ])
    .unwrap();
    assert_eq!((counts.enrolments, counts.stations_revoked), (3, 1));
    for (events, says) in [
        (vec![enrolled("a", 1), enrolled("a", 1)], "is enrolled twice"),
        (vec![enrolled("a", 1), revoke(), enrolled("b", 1)], "was revoked, and is in a certificate again"),
        (vec![reserved(1, "a", None), issued(1), quantity(0)], "becomes 0, and 1 of it are used"),
        (vec![pause(), reserved(1, "a", None)], "is paused"),
        (vec![pause(), pause()], "is paused"),
        (vec![resume()], "is not paused"),
        (vec![Event::ApprovalRequested { number: 2, what: "x".into() }], "the next one is number 1"),
        (vec![Event::ApprovalGranted { number: 1 }], "could not be"),
        (
            vec![
                Event::ApprovalRequested { number: 1, what: "x".into() },
                // By the same actor.
                Event::ApprovalGranted { number: 1 },
            ],
            "which is its own",
        ),
    ] {
        let told = say(events).unwrap_err().to_string();
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn entry_that_breaks_a_rule_is_named() {
    let one = || [reserved(1, "a", None), issued(1)];
    let then = |events: Vec<Event>| one().into_iter().chain(events).collect::<Vec<_>>();
    for (events, says) in [
        (vec![reserved(1, "a", None), confirmed(1, "o")], "which is reserved, becomes confirmed"),
        (vec![scrapped(1)], "which was never given, becomes scrapped"),
        (then(vec![scrapped(1), confirmed(1, "o")]), "which is scrapped, becomes confirmed"),
        (then(vec![scrapped(1), revoked(1), revoked(1)]), "which is revoked, becomes revoked"),
        (then(vec![confirmed(1, "o"), confirmed(1, "o")]), "which is confirmed, becomes confirmed"),
        (then(vec![confirmed(1, "other")]), "is not of the order \"other\""),
        (then(vec![reserved(2, "a", Some(1))]), "has a live certificate"),
        (then(vec![scrapped(1), reserved(2, "a", None)]), "replaces no certificate of the device \"a\""),
        (then(vec![reserved(2, "b", Some(1))]), "of the device \"b\", which had none before"),
        (
            then(vec![revoked(1), reserved(2, "a", Some(1)), issued(2), reserved(3, "b", None)]),
            "is exceeded: its quantity is 2",
        ),
        (then(vec![export(2, 1)]), "the next one is number 1"),
        (then(vec![export(1, 2)]), "counts 2 certificates; 1 were to be exported"),
        (then(vec![scrapped(1), export(1, 1)]), "counts 1 certificates; 0 were to be exported"),
        (then(vec![export(1, 1), export(2, 1)]), "counts 1 certificates; 0 were to be exported"),
        (then(vec![acknowledged(1)]), "there is no export o.0001"),
        (then(vec![batch(2, 0, 3, 1)]), "the batch cloud.0002 is cut, and the next one is number 1"),
        (then(vec![batch(1, 1, 3, 1)]), "begins after entry 1, and the one before it ended after 0"),
        (then(vec![batch(1, 0, 4, 1)]), "ends after entry 4, and there are 3 before it"),
        (then(vec![batch(1, 0, 3, 2)]), "has 2 certificates, and 1 were issued"),
        (then(vec![batch(1, 0, 3, 1), batch(2, 2, 3, 1)]), "begins after entry 2"),
        (then(vec![again(9)]), "a batch has again"),
        (then(vec![sealed(1)]), "there is no batch cloud.0001"),
        (then(vec![batch(1, 0, 3, 1), sealed(1), sealed(1)]), "is sealed twice"),
        (then(vec![batch(1, 0, 3, 1), taken(1), taken(1)]), "is acknowledged twice"),
        (then(vec![export(1, 1), acknowledged(1), acknowledged(1)]), "acknowledged twice"),
    ] {
        let error = say(events).unwrap_err().to_string();
        assert!(error.contains(says), "{says:?} is not in {error:?}");
    }
    for (events, says) in [
        (vec![issuer(2, "i", 1, b"x")], "the issuer 2 is added, and the next one is number 1"),
        (vec![issuer(1, "i", 2, b"x")], "as its generation 2, and the next one is 1"),
        (vec![issuer(1, "i", 1, b"x"), issuer(2, "i", 1, b"y")], "as its generation 1, and the next one is 2"),
        (vec![issuer(1, "i", 1, b"x"), issuer(2, "i", 2, b"x")], "with a chain that it has already"),
        (vec![reserved_for(1)], "for the issuer \"i\" with the id 1, which is not one of that name"),
        (vec![issuer(1, "other", 1, b"x"), reserved_for(1)], "which is not one of that name"),
    ] {
        let error = say(events).unwrap_err().to_string();
        assert!(error.contains(says), "{says:?} is not in {error:?}");
    }
    let renewed = [issuer(1, "i", 1, b"x"), issuer(2, "i", 2, b"y"), reserved_for(1), issuer(3, "j", 1, b"x")];
    assert_eq!(say(renewed).map(|counts| counts.issuers), Ok(3));
    // The key of what was scrapped stays bound.
    let Event::Reserved { holder, .. } = reserved(1, "a", None) else { return };
    let again = Event::Reserved { serial_number: serial(2), holder, replaces: Some(serial(1)) };
    let error = say(then(vec![scrapped(1), again])).unwrap_err().to_string();
    assert!(error.contains("is bound already"), "{error}");
}
