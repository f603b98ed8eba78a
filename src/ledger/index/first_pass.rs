//! How first-pass yields and refused devices are stored.

use std::{collections::BTreeMap, sync::Arc};

use super::{Index, database::Pair, error::IndexError};
use crate::ledger::{
    first_pass::{ByStation, FirstPass, RefusedDevice, RefusedKey},
    overlay::Overlay,
};

/// The key of the yields of an order.
fn passes_key(order: &str) -> Vec<u8> {
    [b"y", order.as_bytes()].concat()
}

/// The key of a device that was refused.
fn refused_key(key: &RefusedKey) -> Vec<u8> {
    [&b"r"[..], key].concat()
}

/// Whether it has passed since, and the station.
fn encode_refused(device: &RefusedDevice) -> Vec<u8> {
    [&[u8::from(device.passed)], device.station.as_bytes()].concat()
}

fn decode_refused(value: &[u8]) -> Option<RefusedDevice> {
    let (passed, station) = value.split_first()?;
    let station = Arc::from(std::str::from_utf8(station).ok()?);
    (*passed < 2).then_some(RefusedDevice { station, passed: *passed == 1 })
}

impl Index {
    /// The yields of an order by stations.
    pub(in crate::ledger) fn passes(&self, order: &str) -> Result<ByStation, IndexError> {
        let decode = |value: &[u8]| {
            let stations: BTreeMap<String, FirstPass> = serde_json::from_slice(value).ok()?;
            Some(stations.into_iter().map(|(station, passes)| (Arc::from(station), passes)).collect())
        };
        Ok(self.value(&passes_key(order), "a first-pass yield", decode)?.unwrap_or_default())
    }

    /// A device that was refused under an order.
    pub(in crate::ledger) fn refused(&self, key: &RefusedKey) -> Result<Option<RefusedDevice>, IndexError> {
        self.value(&refused_key(key), "a refused device", decode_refused)
    }

    /// What is written of yields and refused devices. The yields of an order are one value: what is there stays in it.
    pub(super) fn pass_pairs(&self, settled: &Overlay) -> Result<Vec<Pair>, IndexError> {
        let mut pairs = Vec::with_capacity(settled.passes.len() + settled.refused.len());
        for (order, stations) in &settled.passes {
            let mut all = self.passes(order)?;
            all.extend(stations.iter().map(|(station, passes)| (Arc::clone(station), *passes)));
            let all: BTreeMap<&str, FirstPass> = all.iter().map(|(station, passes)| (&**station, *passes)).collect();
            // Plain data with string keys: JSON takes it always.
            pairs.push((passes_key(order), serde_json::to_vec(&all).unwrap_or_default()));
        }
        pairs.extend(settled.refused.iter().map(|(key, device)| (refused_key(key), encode_refused(device))));
        Ok(pairs)
    }
}
