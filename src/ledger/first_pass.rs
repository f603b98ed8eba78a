//! First-pass yield: how many devices got their certificate without having been refused before.
//!
//! A device counts once for an order, at the station that tried it first. Who was refused for the order's, the profile's or
//! the daemon's sake was not tried. Certificates without an order, replacements and what was recovered count nowhere.

use std::{collections::BTreeMap, sync::Arc};

use super::actor::Actor;

/// How devices of an order fared that a station tried first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct FirstPass {
    /// Those that got their first certificate, and were not refused before.
    pub first: u64,
    /// Those that were refused before they got one.
    pub later: u64,
    /// Those that were refused, and have none.
    pub refused: u64,
}

impl FirstPass {
    /// How many there are.
    pub fn tried(&self) -> u64 {
        self.first + self.later + self.refused
    }

    /// Of several stations.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a FirstPass>) -> FirstPass {
        all.into_iter().fold(FirstPass::default(), |sum, one| FirstPass {
            first: sum.first + one.first,
            later: sum.later + one.later,
            refused: sum.refused + one.refused,
        })
    }
}

/// By stations, `station:<line>/<station>`; empty: devices that asked by themselves.
pub(super) type ByStation = BTreeMap<Arc<str>, FirstPass>;

/// In place of an order's id, of which it cannot be one: all orders together.
pub(super) const ALL_ORDERS: &str = "*";

/// How many refused devices of one order are told apart; what comes after is in no yield.
pub(super) const REFUSED_DEVICES: u64 = 65_536;

/// How the index knows a device that was refused under an order: as one of its list.
pub(super) type RefusedKey = [u8; 16];

/// A device that was refused under an order before it had a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedDevice {
    /// The station that it was refused at first.
    pub(super) station: Arc<str>,
    /// It has one since.
    pub(super) passed: bool,
}

/// At which station a device counts.
pub(super) fn station_of(actor: &Actor) -> Arc<str> {
    match actor.station() {
        Some(_) => Arc::clone(&actor.0),
        None => Arc::from(""),
    }
}

#[cfg(test)]
mod tests;
