//! The rules that the entries of every journal keep, checked entry by entry, without index and without the decisions
//! that made the entries: a second opinion on them.
//!
//! Memory: 70 to 130 bytes for each certificate (its state, and its device and key, each known by 8 octets of its
//! hash), most of them just after the tables have grown, so about 700 MB for ten million; reservations without a
//! certificate, orders and exports besides. Two of ten million devices or keys have the same 8 octets with a
//! probability of 1 in 180,000; then a journal without fault is called contradictory.

mod broken_rule;
mod counts;
mod orders;

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

pub(crate) use self::broken_rule::BrokenRule;
pub use self::counts::Counts;
use super::{
    approval_audit::Approvals,
    batch::{BatchTerms, Results},
    batch_audit::Batches,
    crl_issued::CrlIssued,
    entry::{Entry, Event},
    epoch_audit::Epochs,
    export::ExportId,
    issuer::IssuerTerms,
    order::OrderTerms,
    peer_audit::Peers,
    proof::ProofTerms,
    proof_audit::Proofs,
    record::{Holder, RecordState},
    recovery::Recovery,
    refused::RequestsRefused,
    revoked::CaId,
    vending_audit::Codes,
};
use crate::serial::SerialNumber;

/// What is known after the entries so far.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    newest_time: Timestamp,
    newest_serial: Option<SerialNumber>,
    /// Reservations whose certificate is still to come.
    reserved: HashMap<SerialNumber, Reservation>,
    /// All serial numbers, as they rise.
    given: Vec<SerialState>,
    /// Those that were lost and found again, which do not rise.
    recovered: HashMap<u64, SerialState>,
    /// The newest reservation or certificate of each device.
    devices: HashMap<u64, u64>,
    /// Keys that are bound to a device.
    keys: HashSet<u64>,
    orders: Vec<Order>,
    order_numbers: HashMap<String, u32>,
    /// The number of each CA's newest revocation list.
    crl_numbers: HashMap<CaId, u64>,
    /// The chains of all issuers with their names, in the order of their ids, each chain by its hash.
    issuers: Vec<(String, [u8; 32])>,
    proofs: Proofs,
    batches: Batches,
    /// How many entries there were.
    entries: u64,
    codes: Codes,
    peers: Peers,
    approvals: Approvals,
    epochs: Epochs,
    counts: Counts,
}

#[derive(Debug)]
struct Reservation {
    holder: Holder,
    /// What the device had before: the first octets of its serial number.
    replaces: Option<u64>,
}

/// What became of a serial number.
#[derive(Debug)]
struct SerialState {
    /// Its first 8 octets, which no two of a ledger share.
    serial: u64,
    /// Where in `orders` its order is, if it has one.
    order: Option<u32>,
    /// The export that it is part of, or will be.
    export: u32,
    state: RecordState,
}

#[derive(Debug)]
struct Order {
    terms: OrderTerms,
    closed: bool,
    paused: bool,
    /// How many devices of its list are listed.
    listed: u64,
    /// Certificates and reservations: never more than the quantity.
    used: u64,
    /// Its exports, each with whether it is acknowledged.
    exports: Vec<bool>,
    /// Live certificates recorded since the newest of them.
    unexported: u64,
}

impl Order {
    /// The number of the export that a certificate recorded now will be part of.
    fn next_export(&self) -> u32 {
        self.exports.len() as u32 + 1
    }
}

impl Audit {
    /// The counts so far.
    pub(crate) fn counts(&self) -> Counts {
        let reserved = (self.reserved.len() + self.proofs.reserved()) as u64;
        let (orders, issuers, proofs) = (self.orders.len() as u64, self.issuers.len() as u64, self.proofs.issued());
        let (enrolments, stations_revoked) = self.peers.counts();
        let batches = self.batches.created();
        Counts { reserved, orders, issuers, proofs, enrolments, stations_revoked, batches, ..self.counts }
    }

    /// Each order with how many units of it are used, and its quantity.
    pub(crate) fn orders(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.orders.iter().map(|order| (order.terms.id.as_str(), order.used, order.terms.quantity))
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<(), BrokenRule> {
        if entry.time < self.newest_time && !matches!(entry.event, Event::ClockAccepted { .. }) {
            return Err(BrokenRule::TimeBackwards { time: entry.time, before: self.newest_time });
        }
        self.newest_time = entry.time;
        self.entries += 1;
        match &entry.event {
            Event::Reserved { serial_number, holder, replaces } => {
                self.reserve(*serial_number, holder, replaces.as_ref(), entry.time)
            }
            Event::Issued { serial_number, .. } => self.issue(serial_number),
            Event::Abandoned { serial_number, .. } => self.abandon(serial_number),
            Event::Confirmed { serial_number, order } => self.confirm(serial_number, order),
            Event::Scrapped { serial_number, .. } => self.scrap(serial_number),
            Event::Revoked { serial_number, .. } => self.revoke(serial_number),
            Event::ProofReserved { serial_number, terms } => self.reserve_proof(*serial_number, terms, entry.time),
            Event::ProofIssued { serial_number, .. } => Ok(self.proofs.issue(serial_number)?),
            Event::OrderCreated(terms) => self.create_order(terms),
            Event::OrderClosed { id } => self.close_order(id),
            Event::OrderQuantityChanged { id, quantity, .. } => self.change_quantity(id, *quantity),
            Event::OrderDevicesListed(list) => self.list_devices(list),
            Event::OrderPaused { id, .. } => self.pause(id, true),
            Event::OrderResumed { id } => self.pause(id, false),
            Event::ApprovalRequested { number, .. } => Ok(self.approvals.request(*number, &entry.actor)?),
            Event::ApprovalGranted { number } => Ok(self.approvals.grant(*number, &entry.actor)?),
            Event::ApprovalUsed { number } => Ok(self.approvals.use_up(*number)?),
            Event::StationEnrolled(enrolment) => Ok(self.peers.enroll(enrolment)?),
            Event::StationRevoked { peer, keep, .. } => {
                self.peers.revoke(peer, keep.as_ref());
                Ok(())
            }
            Event::ExportCreated { id, certificates } => self.create_export(id, *certificates),
            Event::ExportAcknowledged { id } => self.acknowledge_export(id),
            Event::BatchCreated(terms) => self.create_batch(terms),
            Event::BatchSealed { id, .. } => Ok(self.batches.seal(id)?),
            Event::BatchAcknowledged { id, results } => {
                self.batches.acknowledge(id)?;
                results.as_deref().map_or(Ok(()), |results| self.check_failed(results))
            }
            Event::CrlIssued(list) => self.issue_crl(list),
            Event::IssuerAdded { id, generation, terms } => self.add_issuer(*id, *generation, terms),
            // `verify` compares it with the chain.
            Event::Checkpoint { .. } => {
                self.counts.checkpoints += 1;
                Ok(())
            }
            Event::VendingCodesCreated(created) => {
                let order = &created.terms.order;
                if !self.order_numbers.contains_key(order) {
                    return Err(BrokenRule::OrderUnknown(order.clone()));
                }
                Ok(self.codes.create(created, entry.time)?)
            }
            Event::VendingCodeCancelled { device } => Ok(self.codes.cancel(device)?),
            Event::RequestsRefused(refused) => self.note_refused(refused),
            Event::Recovered(recovery) => self.recover(recovery),
            Event::Opened { epoch, .. } => Ok(self.epochs.open(*epoch)?),
            Event::Ended { epoch } => {
                let reserved = self.reserved.keys().chain(self.proofs.reservations());
                Ok(self.epochs.end(*epoch, reserved)?)
            }
            Event::LossAccepted { .. }
            | Event::ClockAccepted { .. }
            | Event::Started { .. }
            | Event::Stopped { .. }
            | Event::ConfigurationLoaded { .. } => Ok(()),
        }
    }

    fn note_refused(&mut self, refused: &RequestsRefused) -> Result<(), BrokenRule> {
        let RequestsRefused { order, count, devices, .. } = refused;
        if !order.is_empty() && !self.order_numbers.contains_key(order) {
            return Err(BrokenRule::OrderUnknown(order.clone()));
        }
        if *count < devices.len() as u64 {
            return Err(BrokenRule::RefusedCount { count: *count, devices: devices.len() });
        }
        self.counts.refused += count;
        Ok(())
    }

    fn issue(&mut self, serial: &SerialNumber) -> Result<(), BrokenRule> {
        let reservation = self.finish(serial, "a certificate", RecordState::Issued)?;
        if let Some(order) = self.order_mut(&reservation.holder.order) {
            order.unexported += 1;
        }
        self.counts.issued += 1;
        Ok(())
    }

    fn create_batch(&mut self, terms: &BatchTerms) -> Result<(), BrokenRule> {
        let issued = (self.given.len() + self.recovered.len()) as u64;
        self.batches.create(terms, self.entries - 1, issued)?;
        let mut unfit = terms.unfit.iter().map(|unfit| &unfit.serial_number);
        unfit.try_for_each(|serial| self.must_be_issued("a batch leaves out", serial))?;
        terms.again.iter().try_for_each(|serial| self.must_be_issued("a batch has again", serial))
    }

    fn check_failed(&self, results: &Results) -> Result<(), BrokenRule> {
        let mut failed = results.failed.iter().map(|failed| &failed.serial_number);
        failed.try_for_each(|serial| self.must_be_issued("a platform refused", serial))
    }

    fn must_be_issued(&self, what: &'static str, serial: &SerialNumber) -> Result<(), BrokenRule> {
        match self.state(short(serial)).map(|given| given.state) {
            None | Some(RecordState::Reserved | RecordState::Abandoned) => {
                Err(BrokenRule::NeverIssued { what, serial_number: *serial })
            }
            Some(_) => Ok(()),
        }
    }

    fn reserve_proof(&mut self, serial: SerialNumber, terms: &ProofTerms, time: Timestamp) -> Result<(), BrokenRule> {
        self.give(serial)?;
        Ok(self.proofs.reserve(serial, terms, time, self.issuers.len())?)
    }

    /// A serial number is given: each is greater than the one before.
    fn give(&mut self, serial: SerialNumber) -> Result<(), BrokenRule> {
        if let Some(newest) = self.newest_serial.filter(|newest| short(&serial) <= short(newest)) {
            return Err(BrokenRule::SerialOutOfOrder { serial_number: serial, newest });
        }
        self.newest_serial = Some(serial);
        Ok(self.epochs.give(&serial)?)
    }

    fn abandon(&mut self, serial: &SerialNumber) -> Result<(), BrokenRule> {
        if self.proofs.abandon(serial) {
            self.counts.abandoned += 1;
            return Ok(());
        }
        let Reservation { holder, replaces } =
            self.finish(serial, "the end of a reservation", RecordState::Abandoned)?;
        match replaces {
            Some(before) => self.devices.insert(device(&holder), before),
            None => self.devices.remove(&device(&holder)),
        };
        self.keys.remove(&key(&holder));
        if let Some(order) = self.order_mut(&holder.order) {
            order.used -= 1;
        }
        self.counts.abandoned += 1;
        Ok(())
    }

    fn confirm(&mut self, serial: &SerialNumber, order: &str) -> Result<(), BrokenRule> {
        let (number, _) = self.change(serial, RecordState::Confirmed)?;
        let found = number.map(|number| self.orders[number as usize].terms.id.as_str());
        if found.unwrap_or_default() != order {
            return Err(BrokenRule::OtherOrder { serial_number: *serial, order: order.to_owned() });
        }
        self.counts.confirmed += 1;
        Ok(())
    }

    fn scrap(&mut self, serial: &SerialNumber) -> Result<(), BrokenRule> {
        self.end(serial, RecordState::Scrapped, |order| order.used -= 1)?;
        self.counts.scrapped += 1;
        Ok(())
    }

    fn revoke(&mut self, serial: &SerialNumber) -> Result<(), BrokenRule> {
        match self.state(short(serial)).map(|given| given.state) {
            // The order was given its unit back before, and has nothing more to do with it.
            Some(RecordState::Scrapped) => self.change(serial, RecordState::Revoked).map(drop)?,
            _ => self.end(serial, RecordState::Revoked, |_| {})?,
        }
        self.counts.revoked += 1;
        Ok(())
    }

    fn issue_crl(&mut self, list: &CrlIssued) -> Result<(), BrokenRule> {
        let newest = self.crl_numbers.insert(list.ca, list.number).unwrap_or(0);
        if list.number <= newest {
            return Err(BrokenRule::CrlNumber { issuer: list.issuer.clone(), number: list.number, newest });
        }
        self.counts.crls += 1;
        Ok(())
    }

    fn add_issuer(&mut self, id: u32, generation: u32, terms: &IssuerTerms) -> Result<(), BrokenRule> {
        let IssuerTerms { name, chain, .. } = terms;
        let next = self.issuers.len() as u32 + 1;
        if id != next {
            return Err(BrokenRule::IssuerNumber { id, next });
        }
        let of_the_name = self.issuers.iter().filter(|(found, _)| found == name);
        let next = of_the_name.clone().count() as u32 + 1;
        if generation != next {
            return Err(BrokenRule::IssuerGeneration { name: name.clone(), generation, next });
        }
        if chain.is_empty() {
            return Err(BrokenRule::IssuerEmpty(name.clone()));
        }
        let each: Vec<_> = chain.iter().flat_map(|certificate| crate::hash::sha256(certificate)).collect();
        let chain = crate::hash::sha256(&each);
        if of_the_name.into_iter().any(|(_, found)| *found == chain) {
            return Err(BrokenRule::IssuerTwice(name.clone()));
        }
        self.issuers.push((name.clone(), chain));
        Ok(())
    }

    /// The issuer that a reservation names must be recorded; those of earlier versions named none.
    fn check_issuer(&self, holder: &Holder) -> Result<(), BrokenRule> {
        let Holder { issuer: name, issuer_id: id, .. } = holder;
        let Some(index) = (*id as usize).checked_sub(1) else { return Ok(()) };
        match self.issuers.get(index) {
            Some((found, _)) if found == name => Ok(()),
            _ => Err(BrokenRule::IssuerUnknown { name: name.clone(), id: *id }),
        }
    }

    fn acknowledge_export(&mut self, id: &ExportId) -> Result<(), BrokenRule> {
        let order = self.order_mut(&id.order);
        let acknowledged = order.and_then(|order| order.exports.get_mut((id.number as usize).checked_sub(1)?));
        match acknowledged.map(|acknowledged| std::mem::replace(acknowledged, true)) {
            Some(false) => Ok(()),
            Some(true) => Err(BrokenRule::AcknowledgedTwice(id.clone())),
            None => Err(BrokenRule::ExportUnknown(id.clone())),
        }
    }

    fn reserve(
        &mut self,
        serial: SerialNumber,
        holder: &Holder,
        replaces: Option<&SerialNumber>,
        time: Timestamp,
    ) -> Result<(), BrokenRule> {
        self.give(serial)?;
        self.check_issuer(holder)?;
        // A profile may issue without an order; then none is charged.
        let order = match holder.order.as_str() {
            "" => None,
            _ => Some(self.charge(holder, time)?),
        };
        if !self.keys.insert(key(holder)) {
            return Err(BrokenRule::KeyBound(holder.key_hash));
        }
        let before = self.devices.insert(device(holder), short(&serial));
        if let Some(SerialState {
            state: RecordState::Reserved | RecordState::Issued | RecordState::Confirmed, ..
        }) = before.and_then(|before| self.state(before))
        {
            return Err(BrokenRule::DeviceLive(holder.device.clone()));
        }
        if before != replaces.map(short) {
            return Err(BrokenRule::WrongPredecessor {
                replaces: replaces.copied(),
                device: holder.device.clone(),
                had_one: before.is_some(),
            });
        }
        self.reserved.insert(serial, Reservation { holder: holder.clone(), replaces: before });
        self.given.push(SerialState { serial: short(&serial), order, export: 0, state: RecordState::Reserved });
        Ok(())
    }

    /// Charges a reservation to its order, whose number it gives.
    fn charge(&mut self, holder: &Holder, time: Timestamp) -> Result<u32, BrokenRule> {
        let id = &holder.order;
        let number = *self.order_numbers.get(id).ok_or_else(|| BrokenRule::OrderUnknown(id.clone()))?;
        let order = &mut self.orders[number as usize];
        let OrderTerms { quantity, not_before, not_after, profile, .. } = &order.terms;
        if order.closed {
            return Err(BrokenRule::OrderClosed(id.clone()));
        }
        if order.paused {
            return Err(BrokenRule::OrderPaused(id.clone()));
        }
        if order.terms.list.is_some_and(|list| order.listed != list.devices) {
            return Err(BrokenRule::ListIncomplete(id.clone()));
        }
        if order.used >= *quantity {
            return Err(BrokenRule::OrderExceeded { order: id.clone(), quantity: *quantity });
        }
        if not_before.is_some_and(|from| time < from) || not_after.is_some_and(|until| time >= until) {
            return Err(BrokenRule::OrderOutsideWindow { order: id.clone(), time });
        }
        if *profile != holder.profile {
            return Err(BrokenRule::OrderProfile {
                order: id.clone(),
                expected: profile.clone(),
                found: holder.profile.clone(),
            });
        }
        order.used += 1;
        Ok(number)
    }

    /// A reservation ends, as a certificate or without one.
    fn finish(
        &mut self,
        serial: &SerialNumber,
        what: &'static str,
        state: RecordState,
    ) -> Result<Reservation, BrokenRule> {
        let not_reserved = || BrokenRule::NotReserved { what, serial_number: *serial };
        let reservation = self.reserved.remove(serial).ok_or_else(not_reserved)?;
        let order = self.state(short(serial)).ok_or_else(not_reserved)?.order;
        let export = order.map_or(0, |number| self.orders[number as usize].next_export());
        if let Some(given) = self.state_mut(short(serial)) {
            (given.state, given.export) = (state, export);
        }
        Ok(reservation)
    }

    /// A certificate's state changes after its issue. Gives its order and export.
    fn change(&mut self, serial: &SerialNumber, wanted: RecordState) -> Result<(Option<u32>, u32), BrokenRule> {
        let never_given = BrokenRule::NeverGiven { serial_number: *serial, wanted };
        let Some(given) = self.state_mut(short(serial)) else { return Err(never_given) };
        let SerialState { state, order, export, .. } = *given;
        match (state, wanted) {
            (RecordState::Issued, _) | (RecordState::Scrapped, RecordState::Revoked) => {}
            (RecordState::Confirmed, RecordState::Scrapped | RecordState::Revoked) => {}
            _ => return Err(BrokenRule::WrongState { serial_number: *serial, state, wanted }),
        }
        given.state = wanted;
        self.counts.confirmed -= u64::from(state == RecordState::Confirmed);
        Ok((order, export))
    }

    /// A live certificate is scrapped or revoked; `count` is its order's.
    fn end(
        &mut self,
        serial: &SerialNumber,
        wanted: RecordState,
        count: impl FnOnce(&mut Order),
    ) -> Result<(), BrokenRule> {
        let (order, export) = self.change(serial, wanted)?;
        if let Some(number) = order {
            let order = &mut self.orders[number as usize];
            if export == order.next_export() {
                order.unexported -= 1;
            }
            count(order);
        }
        Ok(())
    }

    fn create_export(&mut self, id: &ExportId, certificates: u64) -> Result<(), BrokenRule> {
        let order = self.order_mut(&id.order).ok_or_else(|| BrokenRule::OrderUnknown(id.order.clone()))?;
        if id.number != order.next_export() {
            return Err(BrokenRule::ExportNumber { id: id.clone(), next: order.next_export() });
        }
        if certificates == 0 || certificates != order.unexported {
            return Err(BrokenRule::ExportCount { id: id.clone(), certificates, left: order.unexported });
        }
        order.unexported = 0;
        order.exports.push(false);
        self.counts.exports += 1;
        Ok(())
    }

    fn state(&self, serial: u64) -> Option<&SerialState> {
        self.recovered.get(&serial).or_else(|| self.given.get(self.place(serial)?))
    }

    fn state_mut(&mut self, serial: u64) -> Option<&mut SerialState> {
        if self.recovered.contains_key(&serial) {
            return self.recovered.get_mut(&serial);
        }
        let place = self.place(serial)?;
        self.given.get_mut(place)
    }

    /// Where in `given` a serial number is.
    fn place(&self, serial: u64) -> Option<usize> {
        self.given.binary_search_by_key(&serial, |given| given.serial).ok()
    }

    /// A certificate that was lost is there again: neither in the order of the serial numbers, nor within its order's limits.
    fn recover(
        &mut self,
        Recovery { serial_number: serial, holder, replaces, .. }: &Recovery,
    ) -> Result<(), BrokenRule> {
        if let Some(state) =
            self.state(short(serial)).map(|given| given.state).filter(|state| *state != RecordState::Abandoned)
        {
            return Err(BrokenRule::WrongState { serial_number: *serial, state, wanted: RecordState::Issued });
        }
        self.newest_serial = self.newest_serial.max(Some(*serial));
        self.check_issuer(holder)?;
        if !self.keys.insert(key(holder)) {
            return Err(BrokenRule::KeyBound(holder.key_hash));
        }
        let before = self.devices.insert(device(holder), short(serial));
        if before != replaces.as_ref().map(short) {
            let (replaces, device) = (*replaces, holder.device.clone());
            return Err(BrokenRule::WrongPredecessor { replaces, device, had_one: before.is_some() });
        }
        if let Some(replaced) = replaces
            && self.state(short(replaced)).is_some_and(|given| given.state.is_live())
        {
            self.scrap(replaced)?;
        }
        let order = match holder.order.as_str() {
            "" => None,
            id => Some(*self.order_numbers.get(id).ok_or_else(|| BrokenRule::OrderUnknown(id.to_owned()))?),
        };
        let mut export = 0;
        if let Some(order) = order.and_then(|number| self.orders.get_mut(number as usize)) {
            (order.used, order.unexported) = (order.used + 1, order.unexported + 1);
            export = order.next_export();
        }
        let given = SerialState { serial: short(serial), order, export, state: RecordState::Issued };
        self.recovered.insert(short(serial), given);
        (self.counts.issued, self.counts.recovered) = (self.counts.issued + 1, self.counts.recovered + 1);
        Ok(())
    }

    fn order_mut(&mut self, id: &str) -> Option<&mut Order> {
        let number = *self.order_numbers.get(id)?;
        self.orders.get_mut(number as usize)
    }
}

fn device(holder: &Holder) -> u64 {
    first_octets(&crate::hash::sha256(holder.device.as_bytes()))
}

fn key(holder: &Holder) -> u64 {
    first_octets(&holder.key_hash)
}

/// The octets that distinguish a ledger's serial numbers.
fn short(serial: &SerialNumber) -> u64 {
    first_octets(serial.as_bytes())
}

fn first_octets(octets: &[u8]) -> u64 {
    octets.first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests;
