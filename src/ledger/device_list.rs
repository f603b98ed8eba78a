//! The list of an order's devices: only those may have its certificates.
//!
//! It is as long as the order, up to millions, so it is written in entries of [`PIECE`] devices each, and found by the hash of
//! order and device as a device's newest record is.

use std::fmt::Write;

use super::{
    record::KeyHash,
    wire::{self, OrderDevicesListed},
};
use crate::hash::sha256;

/// How many devices an entry has at most: one of them is read with each reservation.
pub const PIECE: usize = 64;

/// A key hash of an entry that stands for any key.
const ANY: KeyHash = [0; 32];

/// A device of a list, and the key that it must have if the list says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedDevice {
    /// Its id.
    pub id: String,
    /// SHA-256 of the DER SubjectPublicKeyInfo.
    pub key_hash: Option<KeyHash>,
}

impl ListedDevice {
    /// Its line of the list, over which the list's hash is.
    pub fn line(&self) -> String {
        let mut line = self.id.clone();
        if let Some(key) = &self.key_hash {
            // Writing to a String cannot fail.
            let _ = write!(line, " {}", hex::encode(key));
        }
        line.push('\n');
        line
    }
}

/// A page of an order's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// In their order.
    pub devices: Vec<ListedDevice>,
    /// Where the next page begins; none: this is the last one.
    pub next: Option<[u8; 8]>,
}

/// How long an order's list is, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceList {
    /// How many devices there are.
    pub devices: u64,
    /// SHA-256 of their lines.
    pub sha256: [u8; 32],
}

/// How the index knows a device of an order's list.
pub(super) fn listed_hash(order: &str, device: &str) -> [u8; 16] {
    let mut hash = [0; 16];
    // An order's id has no zero octet.
    hash.copy_from_slice(&sha256(format!("order\0{order}\0{device}").as_bytes())[..16]);
    hash
}

/// The next devices of an order's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicesListed {
    /// The order's id.
    pub order: String,
    /// How many were listed before.
    pub first: u64,
    /// At most [`PIECE`].
    pub devices: Vec<ListedDevice>,
}

impl From<&DevicesListed> for wire::OrderDevicesListed {
    fn from(listed: &DevicesListed) -> Self {
        let has_keys = listed.devices.iter().any(|device| device.key_hash.is_some());
        let keys = listed.devices.iter().filter(|_| has_keys);
        OrderDevicesListed {
            id: listed.order.clone(),
            first: listed.first,
            devices: listed.devices.iter().map(|device| device.id.clone()).collect(),
            keys_sha256: keys.flat_map(|device| device.key_hash.unwrap_or(ANY)).collect(),
        }
    }
}

/// An entry whose keys are not those of its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a list of {devices} devices with {octets} octets of key hashes")]
pub struct InvalidList {
    devices: usize,
    octets: usize,
}

impl TryFrom<wire::OrderDevicesListed> for DevicesListed {
    type Error = InvalidList;

    fn try_from(entry: OrderDevicesListed) -> Result<Self, InvalidList> {
        let (keys, rest) = entry.keys_sha256.as_chunks::<32>();
        let fits = rest.is_empty() && (keys.is_empty() || keys.len() == entry.devices.len());
        if !fits {
            return Err(InvalidList { devices: entry.devices.len(), octets: entry.keys_sha256.len() });
        }
        let mut keys = keys.iter();
        let devices = entry.devices.into_iter().map(|id| {
            let key_hash = keys.next().copied().filter(|key| *key != ANY);
            ListedDevice { id, key_hash }
        });
        Ok(DevicesListed { order: entry.id, first: entry.first, devices: devices.collect() })
    }
}
