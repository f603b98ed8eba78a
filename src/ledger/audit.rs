//! The rules that the entries of every journal keep, checked entry by entry, without index and without the decisions
//! that made the entries: a second opinion on them.
//!
//! Memory: about 30 bytes for each certificate (a device and a key, each known by 8 octets of its hash), so 300 MB for
//! ten million; reservations without a certificate and orders besides. Two of ten million devices or keys have the
//! same 8 octets with a probability of 1 in 180,000; then a journal without fault is called contradictory.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::{
    Holder, OrderTerms,
    entry::{Entry, Event},
};
use crate::serial::SerialNumber;

/// What is known after the entries so far.
#[derive(Debug, Default)]
pub struct Audit {
    newest_time: Timestamp,
    newest_serial: Option<SerialNumber>,
    /// Reservations whose certificate is still to come.
    reserved: HashMap<SerialNumber, Holder>,
    /// Devices with a reservation or a live certificate.
    devices: HashSet<u64>,
    /// Keys that are bound to a device.
    keys: HashSet<u64>,
    orders: HashMap<String, Order>,
    counts: Counts,
}

/// How many of what the entries told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Certificates recorded.
    pub issued: u64,
    /// Reservations given up.
    pub abandoned: u64,
    /// Reservations without a certificate yet.
    pub reserved: u64,
    /// Orders created.
    pub orders: u64,
    /// Checkpoints.
    pub checkpoints: u64,
}

#[derive(Debug)]
struct Order {
    terms: OrderTerms,
    closed: bool,
    /// Certificates and reservations: never more than the quantity.
    used: u64,
}

impl Audit {
    /// What was told so far.
    pub fn counts(&self) -> Counts {
        Counts { reserved: self.reserved.len() as u64, orders: self.orders.len() as u64, ..self.counts }
    }

    /// The time of the newest entry.
    pub fn newest_time(&self) -> Timestamp {
        self.newest_time
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// The rule that it breaks, as a sentence.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        if entry.time < self.newest_time {
            return Err(format!(
                "its time, {}, is before that of the entry before it, {}",
                entry.time, self.newest_time
            ));
        }
        self.newest_time = entry.time;
        match &entry.event {
            Event::Reserved { serial_number, holder } => self.reserve(*serial_number, holder, entry.time),
            Event::Issued { serial_number, .. } => {
                self.finish(serial_number, "a certificate")?;
                self.counts.issued += 1;
                Ok(())
            }
            Event::Abandoned { serial_number, .. } => {
                let holder = self.finish(serial_number, "the end of a reservation")?;
                self.devices.remove(&device(&holder));
                self.keys.remove(&key(&holder));
                if let Some(order) = self.orders.get_mut(&holder.order) {
                    order.used -= 1;
                }
                self.counts.abandoned += 1;
                Ok(())
            }
            Event::OrderCreated(terms) => {
                let order = Order { terms: terms.clone(), closed: false, used: 0 };
                match self.orders.insert(terms.id.clone(), order) {
                    None => Ok(()),
                    Some(_) => Err(format!("the order \"{}\" is created twice", terms.id)),
                }
            }
            Event::OrderClosed { id } => {
                let order = self.orders.get_mut(id).ok_or_else(|| format!("there is no order \"{id}\""))?;
                order.closed = true;
                Ok(())
            }
            // Held against the chain by who verifies the journal.
            Event::Checkpoint { .. } => {
                self.counts.checkpoints += 1;
                Ok(())
            }
        }
    }

    fn reserve(&mut self, serial: SerialNumber, holder: &Holder, time: Timestamp) -> Result<(), String> {
        if let Some(newest) = self.newest_serial.filter(|newest| serial <= *newest) {
            return Err(format!(
                "the serial number {serial} is used again, or out of order: {newest} was given before"
            ));
        }
        self.newest_serial = Some(serial);
        // A profile may issue without an order; then none is charged.
        if !holder.order.is_empty() {
            self.charge(holder, time)?;
        }
        if !self.keys.insert(key(holder)) {
            return Err(format!("the key {} is bound already", hex::encode(holder.key_hash)));
        }
        if !self.devices.insert(device(holder)) {
            return Err(format!("the device \"{}\" has a live certificate or a reservation already", holder.device));
        }
        self.reserved.insert(serial, holder.clone());
        Ok(())
    }

    /// Charges a reservation to its order.
    fn charge(&mut self, holder: &Holder, time: Timestamp) -> Result<(), String> {
        let id = &holder.order;
        let order = self.orders.get_mut(id).ok_or_else(|| format!("there is no order \"{id}\""))?;
        let OrderTerms { quantity, not_before, not_after, profile, .. } = &order.terms;
        if order.closed {
            return Err(format!("the order \"{id}\" is closed"));
        }
        if order.used >= *quantity {
            return Err(format!("the order \"{id}\" is exceeded: its quantity is {quantity}"));
        }
        if not_before.is_some_and(|from| time < from) || not_after.is_some_and(|until| time >= until) {
            return Err(format!("the order \"{id}\" could not be used at {time}"));
        }
        if *profile != holder.profile {
            return Err(format!("the order \"{id}\" is for the profile \"{profile}\", not \"{}\"", holder.profile));
        }
        order.used += 1;
        Ok(())
    }

    fn finish(&mut self, serial: &SerialNumber, what: &str) -> Result<Holder, String> {
        self.reserved.remove(serial).ok_or_else(|| format!("{what} for {serial}, which is not reserved"))
    }
}

fn device(holder: &Holder) -> u64 {
    first_octets(&crate::signer::sha256(holder.device.as_bytes()))
}

fn key(holder: &Holder) -> u64 {
    first_octets(&holder.key_hash)
}

fn first_octets(hash: &[u8; 32]) -> u64 {
    hash.first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets))
}
