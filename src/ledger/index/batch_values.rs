//! How destinations and their batches are stored.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::database::Pair;
use crate::{
    ledger::{
        actor::Actor,
        batch::{Acknowledged, Batch, BatchId, Destination, Filter, Place, ResultCounts, Seal},
        journal::Position,
        overlay::{BatchLocation, Detour, Overlay},
    },
    serial::SerialNumber,
};

/// The key of a destination.
pub(super) fn destination_key(id: u32) -> Vec<u8> {
    [&b"d"[..], &id.to_be_bytes()].concat()
}

/// The key of a batch, by its destination's number and its own.
pub(super) fn batch_key((destination, number): (u32, u32)) -> Vec<u8> {
    [&b"b"[..], &destination.to_be_bytes(), &number.to_be_bytes()].concat()
}

/// The key of a certificate that did not simply go out with the batch of its time.
pub(super) fn detour_key((destination, serial): &(u32, SerialNumber)) -> Vec<u8> {
    [&b"t"[..], &destination.to_be_bytes(), serial.as_bytes()].concat()
}

/// The parts of a destination that the key does not hold.
#[derive(serde::Serialize, serde::Deserialize)]
struct DestinationValue {
    name: String,
    batches: u32,
    end: u64,
    end_place: u64,
    eras: Vec<(u64, Filter)>,
    retry: Vec<String>,
    unacknowledged: u32,
    oldest_unacknowledged: u32,
}

pub(super) fn encode_destination(destination: &Destination) -> Vec<u8> {
    let Destination { id: _, name, batches, end, end_place, eras, retry, unacknowledged, oldest_unacknowledged } =
        destination;
    // Plain data with string keys: JSON takes it always.
    serde_json::to_vec(&DestinationValue {
        name: name.clone(),
        batches: *batches,
        end: *end,
        end_place: end_place.to_number(),
        eras: eras.iter().map(|(place, filter)| (place.to_number(), filter.clone())).collect(),
        retry: retry.iter().map(ToString::to_string).collect(),
        unacknowledged: *unacknowledged,
        oldest_unacknowledged: *oldest_unacknowledged,
    })
    .unwrap_or_default()
}

pub(super) fn decode_destination(id: u32, value: &[u8]) -> Option<Destination> {
    let DestinationValue { name, batches, end, end_place, eras, retry, unacknowledged, oldest_unacknowledged } =
        serde_json::from_slice(value).ok()?;
    Some(Destination {
        id,
        name,
        batches,
        end,
        end_place: Place::from_number(end_place),
        eras: eras.into_iter().map(|(place, filter)| (Place::from_number(place), filter)).collect(),
        retry: retry.iter().map(|serial| serial.parse().ok()).collect::<Option<BTreeSet<_>>>()?,
        unacknowledged,
        oldest_unacknowledged,
    })
}

/// The parts of a batch that the key does not hold.
#[derive(serde::Serialize, serde::Deserialize)]
struct BatchValue {
    destination: String,
    number: u32,
    first: u64,
    end: u64,
    certificates: u64,
    withdrawn: u64,
    unfit: u64,
    created_at: Timestamp,
    created_by: String,
    seal: Option<Seal>,
    acknowledged: Option<(Timestamp, String, Option<ResultCounts>)>,
    position: [u8; 8],
    end_place: [u8; 8],
}

pub(super) fn encode_batch(BatchLocation { batch, position, end_place }: &BatchLocation) -> Vec<u8> {
    let acknowledged = batch.acknowledged.as_ref();
    // Plain data with string keys: JSON takes it always.
    serde_json::to_vec(&BatchValue {
        destination: batch.id.destination.clone(),
        number: batch.id.number,
        first: batch.first,
        end: batch.end,
        certificates: batch.certificates,
        withdrawn: batch.withdrawn,
        unfit: batch.unfit,
        created_at: batch.created_at,
        created_by: batch.created_by.to_string(),
        seal: batch.seal.clone(),
        acknowledged: acknowledged.map(|Acknowledged { at, by, results }| (*at, by.to_string(), *results)),
        position: position.to_bytes(),
        end_place: end_place.to_bytes(),
    })
    .unwrap_or_default()
}

pub(super) fn decode_batch(value: &[u8]) -> Option<BatchLocation> {
    let value: BatchValue = serde_json::from_slice(value).ok()?;
    let acknowledged = value.acknowledged.map(|(at, by, results)| Acknowledged { at, by: Actor(by.into()), results });
    let batch = Batch {
        id: BatchId { destination: value.destination, number: value.number },
        first: value.first,
        end: value.end,
        certificates: value.certificates,
        withdrawn: value.withdrawn,
        unfit: value.unfit,
        created_at: value.created_at,
        created_by: Actor(value.created_by.into()),
        seal: value.seal,
        acknowledged,
    };
    let (position, end_place) = (Position::from_bytes(value.position), Position::from_bytes(value.end_place));
    Some(BatchLocation { batch, position, end_place })
}

pub(super) fn encode_detour(detour: &Detour) -> Vec<u8> {
    // Numbers: JSON takes them always.
    serde_json::to_vec(detour).unwrap_or_default()
}

pub(super) fn decode_detour(value: &[u8]) -> Option<Detour> {
    serde_json::from_slice(value).ok()
}

/// What the database keeps of these changes.
pub(super) fn pairs(settled: &Overlay) -> impl Iterator<Item = Pair> {
    let destinations = settled.destinations.values();
    let destinations = destinations.map(|found| (destination_key(found.id), encode_destination(found)));
    let batches = settled.batches.iter();
    let batches = batches.map(|(of, batch)| (batch_key(*of), encode_batch(batch)));
    let detours = settled.detours.iter();
    let detours = detours.map(|(of, detour)| (detour_key(of), encode_detour(detour)));
    destinations.chain(batches).chain(detours)
}
