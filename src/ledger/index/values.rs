//! How orders, exports, issuers and states are stored.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;

use super::database::ORDER;
use crate::{
    ledger::{
        actor::Actor,
        device_list::DeviceList,
        epoch::Epoch,
        export::{Export, ExportId},
        issuer::RecordedIssuer,
        journal::Position,
        order::{Order, OrderPause, OrderTerms},
        overlay::{ExportLocation, OrderLocation, ProofLocation, ProofState, StateChange},
        proof::ProofId,
        record::RecordState,
        revoked::CaId,
    },
    pattern::Pattern,
    serial::SerialNumber,
};

/// The key of an order.
pub(super) fn order_key(id: &str) -> Vec<u8> {
    [&[ORDER], id.as_bytes()].concat()
}

/// The key of an export. An order's id has no 0, so no order's exports lie among another's.
pub(super) fn export_key(ExportId { order, number }: &ExportId) -> Vec<u8> {
    [b"e", order.as_bytes(), &[0], &number.to_be_bytes()].concat()
}

/// The key of the number of a CA's newest revocation list.
pub(super) fn crl_number_key(ca: &CaId) -> Vec<u8> {
    [b"c", &ca.0[..]].concat()
}

/// The key of the hash of the newest configuration.
pub(super) fn configuration_key() -> Vec<u8> {
    b"s".to_vec()
}

/// The key of an epoch.
pub(super) fn epoch_key(number: u64) -> Vec<u8> {
    [&b"l"[..], &number.to_be_bytes()].concat()
}

/// An epoch as it is stored.
pub(super) fn encode_epoch(epoch: &Epoch) -> Vec<u8> {
    // Plain data: JSON takes it always.
    serde_json::to_vec(epoch).unwrap_or_default()
}

/// The key of an issuer.
pub(super) fn issuer_key(id: u32) -> Vec<u8> {
    [&b"i"[..], &id.to_be_bytes()].concat()
}

/// The parts of an issuer that the key does not hold; certificates in hex.
#[derive(serde::Serialize, serde::Deserialize)]
struct IssuerValue {
    name: String,
    generation: u32,
    chain: Vec<String>,
    crl_shards: u32,
    added_at: Timestamp,
}

pub(super) fn encode_issuer(issuer: &RecordedIssuer) -> Vec<u8> {
    let RecordedIssuer { id: _, name, generation, chain, crl_shards, added_at } = issuer;
    // Plain data with string keys: JSON takes it always.
    serde_json::to_vec(&IssuerValue {
        name: name.clone(),
        generation: *generation,
        chain: chain.iter().map(hex::encode).collect(),
        crl_shards: *crl_shards,
        added_at: *added_at,
    })
    .unwrap_or_default()
}

pub(super) fn decode_issuer(id: u32, value: &[u8]) -> Option<RecordedIssuer> {
    let IssuerValue { name, generation, chain, crl_shards, added_at } = serde_json::from_slice(value).ok()?;
    let chain =
        chain.iter().map(|certificate| hex::decode(certificate).ok().map(Bytes::from)).collect::<Option<_>>()?;
    Some(RecordedIssuer { id, name, generation, chain, crl_shards, added_at })
}

/// The states that come after the certificate's issue, with how they are stored.
const LATER: [(RecordState, u8); 3] =
    [(RecordState::Confirmed, 1), (RecordState::Scrapped, 2), (RecordState::Revoked, 3)];

/// None for other states, which are in the journal.
pub(super) fn encode_state_change(state_change: &StateChange) -> Option<[u8; 9]> {
    let (_, code) = LATER.into_iter().find(|(state, _)| *state == state_change.state)?;
    let mut value = [code; 9];
    value[1..].copy_from_slice(&state_change.changed.to_bytes());
    Some(value)
}

pub(super) fn decode_state_change(value: &[u8]) -> Option<StateChange> {
    let (code, changed) = value.split_first()?;
    let (state, _) = LATER.into_iter().find(|(_, known)| known == code)?;
    Some(StateChange { state, changed: Position::from_bytes(*changed.first_chunk()?) })
}

/// The parts of an order that the key does not hold.
#[derive(serde::Serialize, serde::Deserialize)]
struct OrderValue {
    profile: String,
    quantity: u64,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    stations: Vec<Pattern>,
    attributes: BTreeMap<String, String>,
    closed: bool,
    issued: u64,
    reserved: u64,
    confirmed: u64,
    scrapped: u64,
    revoked: u64,
    created_at: Timestamp,
    created: [u8; 8],
    exports: u32,
    exported: [u8; 8],
    unexported: u64,
    list: Option<(u64, String)>,
    per_day: Option<u64>,
    refused: (u64, u64),
    listed: u64,
    listed_at: [u8; 8],
    day: (i64, u64),
    created_by: String,
    closed_by: Option<(Timestamp, String)>,
    paused: Option<(Timestamp, String, String)>,
    quantity_changed: Option<(Timestamp, String)>,
}

pub(super) fn encode_order(location: &OrderLocation) -> Vec<u8> {
    let Order { terms, closed, issued, reserved, confirmed, scrapped, revoked, created_at, .. } =
        location.order.clone();
    let Order { created_by, closed_by, paused, quantity_changed, .. } = &location.order;
    let who = |(at, by): &(Timestamp, Actor)| (*at, by.to_string());
    let OrderTerms { id: _, profile, quantity, not_before, not_after, stations, attributes, list, per_day } = terms;
    // Plain data with string keys: JSON takes it always.
    serde_json::to_vec(&OrderValue {
        profile,
        quantity,
        not_before,
        not_after,
        stations,
        attributes,
        closed,
        issued,
        reserved,
        confirmed,
        scrapped,
        revoked,
        created_at,
        created: location.created.to_bytes(),
        exports: location.exports,
        exported: location.exported.to_bytes(),
        unexported: location.unexported,
        list: list.map(|list| (list.devices, hex::encode(list.sha256))),
        per_day,
        refused: (location.order.refused, location.order.refused_ever),
        listed: location.order.listed,
        listed_at: location.listed.to_bytes(),
        day: location.order.day,
        created_by: created_by.to_string(),
        closed_by: closed_by.as_ref().map(who),
        paused: paused.as_ref().map(|pause| (pause.at, pause.by.to_string(), pause.reason.clone())),
        quantity_changed: quantity_changed.as_ref().map(who),
    })
    .unwrap_or_default()
}

pub(super) fn decode_order(id: &str, value: &[u8]) -> Option<OrderLocation> {
    let value: OrderValue = serde_json::from_slice(value).ok()?;
    let terms = OrderTerms {
        id: id.to_owned(),
        profile: value.profile,
        quantity: value.quantity,
        not_before: value.not_before,
        not_after: value.not_after,
        stations: value.stations,
        attributes: value.attributes,
        list: match value.list {
            None => None,
            Some((devices, sha256)) => Some(DeviceList { devices, sha256: hex::decode(sha256).ok()?.try_into().ok()? }),
        },
        per_day: value.per_day,
    };
    let OrderValue { closed, issued, reserved, confirmed, scrapped, revoked, created_at, .. } = value;
    let who = |(at, by): (Timestamp, String)| (at, Actor(by.into()));
    let order = Order {
        terms,
        closed,
        issued,
        reserved,
        confirmed,
        scrapped,
        revoked,
        refused: value.refused.0,
        refused_ever: value.refused.1,
        listed: value.listed,
        day: value.day,
        created_at,
        created_by: Actor(value.created_by.into()),
        closed_by: value.closed_by.map(who),
        paused: value.paused.map(|(at, by, reason)| OrderPause { at, by: Actor(by.into()), reason }),
        quantity_changed: value.quantity_changed.map(who),
    };
    Some(OrderLocation {
        order,
        created: Position::from_bytes(value.created),
        listed: Position::from_bytes(value.listed_at),
        exports: value.exports,
        exported: Position::from_bytes(value.exported),
        unexported: value.unexported,
    })
}

/// The parts of an export that the key does not hold.
#[derive(serde::Serialize, serde::Deserialize)]
struct ExportValue {
    certificates: u64,
    created_at: Timestamp,
    created_by: String,
    acknowledged: Option<(Timestamp, String)>,
    position: [u8; 8],
}

pub(super) fn encode_export(ExportLocation { export, position }: &ExportLocation) -> Vec<u8> {
    let Export { id: _, certificates, created_at, created_by, acknowledged } = export;
    // Plain data with string keys: JSON takes it always.
    serde_json::to_vec(&ExportValue {
        certificates: *certificates,
        created_at: *created_at,
        created_by: created_by.to_string(),
        acknowledged: acknowledged.as_ref().map(|(at, by)| (*at, by.to_string())),
        position: position.to_bytes(),
    })
    .unwrap_or_default()
}

pub(super) fn decode_export(id: &ExportId, value: &[u8]) -> Option<ExportLocation> {
    let ExportValue { certificates, created_at, created_by, acknowledged, position } =
        serde_json::from_slice(value).ok()?;
    let export = Export {
        id: id.clone(),
        certificates,
        created_at,
        created_by: Actor(created_by.into()),
        acknowledged: acknowledged.map(|(at, by)| (at, Actor(by.into()))),
    };
    Some(ExportLocation { export, position: Position::from_bytes(position) })
}

/// The key of a proof of possession.
pub(super) fn proof_key(ProofId { issuer_id, code }: &ProofId) -> Vec<u8> {
    [&b"p"[..], &issuer_id.to_be_bytes(), code.as_bytes()].concat()
}

/// The parts of a proof that the key does not hold.
#[derive(serde::Serialize, serde::Deserialize)]
struct ProofValue {
    serial_number: String,
    reserved: [u8; 8],
    not_after: Timestamp,
    issued: Option<[u8; 8]>,
    abandoned: bool,
}

pub(super) fn encode_proof(proof: &ProofLocation) -> Vec<u8> {
    let issued = match proof.state {
        ProofState::Issued(position) => Some(position.to_bytes()),
        ProofState::Reserved | ProofState::Abandoned => None,
    };
    // Plain data with string keys: JSON takes it always.
    serde_json::to_vec(&ProofValue {
        serial_number: proof.serial_number.to_string(),
        reserved: proof.reserved.to_bytes(),
        not_after: proof.not_after,
        issued,
        abandoned: proof.state == ProofState::Abandoned,
    })
    .unwrap_or_default()
}

pub(super) fn decode_proof(value: &[u8]) -> Option<ProofLocation> {
    let ProofValue { serial_number, reserved, not_after, issued, abandoned } = serde_json::from_slice(value).ok()?;
    let state = match (issued, abandoned) {
        (Some(position), false) => ProofState::Issued(Position::from_bytes(position)),
        (None, true) => ProofState::Abandoned,
        // Reservations stay in memory.
        _ => return None,
    };
    let serial_number: SerialNumber = serial_number.parse().ok()?;
    Some(ProofLocation { serial_number, reserved: Position::from_bytes(reserved), not_after, state })
}
