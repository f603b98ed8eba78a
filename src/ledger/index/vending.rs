//! How vending codes and their batches are stored.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::database::Pair;
use crate::ledger::{
    actor::Actor,
    vending::{Cost, HashedCode, VendingBatch, VendingCode},
};

/// The key of the number of batches.
pub(super) const BATCHES: &[u8] = b"V";

/// The key of a device's code.
pub(super) fn code_key(device: &str) -> Vec<u8> {
    [b"v", device.as_bytes()].concat()
}

/// The key of a batch.
pub(super) fn batch_key(number: u32) -> Vec<u8> {
    [&b"w"[..], &number.to_be_bytes()].concat()
}

/// The parts of a code that the key does not hold; octets in hex.
#[derive(serde::Serialize, serde::Deserialize)]
struct CodeValue {
    salt: String,
    hash: String,
    cost: Cost,
    batch: u32,
    order: String,
    expires: Timestamp,
    replaces: Option<String>,
    cancelled: bool,
}

/// The parts of a batch that the key does not hold.
#[derive(serde::Serialize, serde::Deserialize)]
struct BatchValue {
    order: String,
    created_at: Timestamp,
    created_by: String,
    devices: Vec<String>,
}

/// What is written of codes and batches, the number of the newest batch included.
pub(super) fn pairs(codes: &HashMap<String, VendingCode>, batches: &BTreeMap<u32, VendingBatch>) -> Vec<Pair> {
    let number = batches.last_key_value().map(|(number, _)| (BATCHES.to_vec(), number.to_be_bytes().to_vec()));
    let codes = codes.iter().map(|(device, code)| (code_key(device), encode_code(code)));
    let batches = batches.iter().map(|(number, batch)| (batch_key(*number), encode_batch(batch)));
    codes.chain(batches).chain(number).collect()
}

fn encode_code(known: &VendingCode) -> Vec<u8> {
    let VendingCode { code, cost, batch, order, expires, replaces, cancelled } = known;
    // Plain data with string keys: JSON takes it always.
    serde_json::to_vec(&CodeValue {
        salt: hex::encode(code.salt),
        hash: hex::encode(code.hash),
        cost: *cost,
        batch: *batch,
        order: order.clone(),
        expires: *expires,
        replaces: replaces.map(|replaced| replaced.to_string()),
        cancelled: *cancelled,
    })
    .unwrap_or_default()
}

pub(super) fn decode_code(device: &str, value: &[u8]) -> Option<VendingCode> {
    let CodeValue { salt, hash, cost, batch, order, expires, replaces, cancelled } =
        serde_json::from_slice(value).ok()?;
    let (mut salt_octets, mut hash_octets) = ([0; 16], [0; 32]);
    hex::decode_to_slice(salt, &mut salt_octets).ok()?;
    hex::decode_to_slice(hash, &mut hash_octets).ok()?;
    let replaces = replaces.map(|text| text.parse()).transpose().ok()?;
    let code = HashedCode { device: device.to_owned(), salt: salt_octets, hash: hash_octets };
    Some(VendingCode { code, cost, batch, order, expires, replaces, cancelled })
}

fn encode_batch(batch: &VendingBatch) -> Vec<u8> {
    let VendingBatch { number: _, order, created_at, created_by, devices } = batch;
    serde_json::to_vec(&BatchValue {
        order: order.clone(),
        created_at: *created_at,
        created_by: created_by.to_string(),
        devices: devices.clone(),
    })
    .unwrap_or_default()
}

pub(super) fn decode_batch(number: u32, value: &[u8]) -> Option<VendingBatch> {
    let BatchValue { order, created_at, created_by, devices } = serde_json::from_slice(value).ok()?;
    Some(VendingBatch { number, order, created_at, created_by: Actor(created_by.into()), devices })
}
