//! What goes into runs of the settled records, as their entries.

use super::{lookup_key::LookupKey, place::Place, values};
use crate::{
    ledger::{
        journal::Position,
        overlay::{Overlay, RecordLocation, StateChange},
    },
    serial::SerialNumber,
};

/// The number of bytes of the journal that may have to be read to find a reservation: some dozens of certificates.
pub(crate) const SAMPLE: u32 = 48 << 10;

/// Keys and devices whose newest record is among the settled ones, as entries of a run.
pub(super) fn names(settled: &Overlay) -> Vec<u8> {
    let location = |serial: &Option<SerialNumber>| settled.records.get(serial.as_ref()?).map(Place::of);
    let keys = settled.keys.iter().filter_map(|(key, serial)| Some((LookupKey::from_key(key), location(serial)?)));
    let devices =
        settled.devices.iter().filter_map(|(device, serial)| Some((LookupKey::from_device(device), location(serial)?)));
    let listed = settled
        .listed
        .iter()
        .map(|(hash, position)| (LookupKey::from_listed(hash), Place::without_certificate(*position)));
    let mut names: Vec<_> = keys.chain(devices).chain(listed).collect();
    names.sort_unstable_by_key(|(name, _)| *name);
    names.iter().flat_map(|(name, place)| name.as_bytes().iter().copied().chain(place.encode())).collect()
}

/// What became of certificates, as entries of a run.
pub(super) fn states(settled: &Overlay) -> Vec<u8> {
    let encode = |(serial, state_change): (&SerialNumber, &StateChange)| {
        Some((*serial, values::encode_state_change(state_change)?))
    };
    let mut states: Vec<_> = settled.state_changes.iter().filter_map(encode).collect();
    states.sort_unstable_by_key(|(serial, _)| *serial);
    states.iter().flat_map(|(serial, value)| serial.as_bytes().iter().copied().chain(*value)).collect()
}

/// What may stand on a revocation list, as entries of a run.
pub(super) fn revoked(settled: &Overlay) -> Vec<u8> {
    settled.revoked.iter().flat_map(|(key, value)| key.as_bytes().iter().copied().chain(*value)).collect()
}

/// Where what was scrapped or revoked was so first, and was confirmed before, as entries of a run.
pub(super) fn ended(settled: &Overlay) -> Vec<u8> {
    settled.ended.iter().flat_map(|(key, position)| key.0.iter().copied().chain(position.to_bytes())).collect()
}

/// Where certificates are that were found again, as entries of a run.
pub(super) fn recovered(settled: &Overlay) -> Vec<u8> {
    let entry = |(serial, position): (&SerialNumber, &Position)| {
        serial.as_bytes().iter().copied().chain(position.to_bytes()).collect::<Vec<_>>()
    };
    settled.recovered.iter().flat_map(entry).collect()
}

/// Where some of the settled records were reserved, as entries of a run: each record has one of them before it, and
/// near.
pub(super) fn samples(settled: &Overlay) -> Vec<u8> {
    let in_order = |(serial, _): &(&SerialNumber, &RecordLocation)| !settled.recovered.contains_key(serial);
    let mut records: Vec<_> = settled.records.iter().filter(in_order).collect();
    records.sort_unstable_by_key(|(serial, _)| **serial);
    let mut samples = Vec::new();
    let mut sampled: Option<Position> = None;
    for (serial, RecordLocation { reserved, .. }) in records {
        if !sampled.is_some_and(|sampled| sampled.is_within(SAMPLE, *reserved)) {
            samples.extend_from_slice(serial.as_bytes());
            samples.extend_from_slice(&reserved.to_bytes());
            sampled = Some(*reserved);
        }
    }
    samples
}
