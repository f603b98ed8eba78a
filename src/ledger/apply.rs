//! What an entry of the journal changes. The same code serves the entries of a batch and those that are read at a
//! start.

mod batch;
mod epoch;
mod refused;

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    approval::Approval,
    device_list::listed_hash,
    entry::{Entry, Event},
    error::LedgerError,
    export::Export,
    issuer::{IssuerTerms, RecordedIssuer},
    journal::Position,
    order::{Order, OrderPause},
    overlay::{
        ExportLocation, OrderLocation, Pending, ProofLocation, ProofState, RecordLocation, StateChange, device_hash,
    },
    proof::ProofTerms,
    record::RecordState,
    recovery::Recovery,
    revoked::{self, CaId, RevokedCause, RevokedKey},
    vending::{CreatedCodes, VendingBatch, VendingCode},
    view::View,
};
use crate::{serial::SerialNumber, x509_time::Time};

/// Why an entry could not be applied.
#[derive(Debug)]
pub(super) enum ApplyError {
    Ledger(LedgerError),
    /// The entry contradicts what is known: the index, the journal, or this program is wrong.
    Contradiction(String),
}

impl From<LedgerError> for ApplyError {
    fn from(error: LedgerError) -> Self {
        ApplyError::Ledger(error)
    }
}

impl View<'_> {
    /// Applies an entry; live and at a start alike, so that the journal alone decides what is known (invariant 6).
    ///
    /// # Errors
    /// Those of the storage, or a sentence if the entry does not fit what is known.
    #[expect(clippy::too_many_lines, reason = "one arm for each event")]
    pub(super) fn apply(&mut self, entry: &Entry, position: Position) -> Result<(), ApplyError> {
        match &entry.event {
            Event::Reserved { serial_number, holder, replaces } => {
                self.give_in_epoch(serial_number)?;
                self.change_order(&holder.order, |location| {
                    location.order.reserved += 1;
                    location.order.count_day(serial_number.given_at());
                })?;
                self.hold(*serial_number, position, Pending { holder: holder.clone(), replaces: *replaces });
            }
            Event::Issued { serial_number, .. } => {
                let (mut location, pending) = self.reservation(serial_number)?;
                let mut refused = 0;
                self.change_order(&pending.holder.order, |location| {
                    location.order.reserved -= 1;
                    location.order.issued += 1;
                    location.unexported += 1;
                    refused = location.order.refused;
                })?;
                location.state = RecordState::Issued;
                location.issued = Some(position);
                location.pending = None;
                self.draft.records.insert(*serial_number, location);
                match pending.replaces {
                    Some(replaced) => self.replace_revoked(&replaced)?,
                    None => self.pass(&pending.holder, &entry.actor, refused)?,
                }
            }
            Event::Abandoned { serial_number, .. } => self.abandon(serial_number)?,
            Event::Confirmed { serial_number, order } => {
                self.change_order(order, |location| location.order.confirmed += 1)?;
                let state_change = StateChange { state: RecordState::Confirmed, changed: position };
                self.draft.state_changes.insert(*serial_number, state_change);
            }
            Event::Scrapped { serial_number, .. } => {
                self.list_revoked(serial_number, entry.time, RevokedCause::Scrapped)?;
                self.end_lifecycle(serial_number, RecordState::Scrapped, position, |order| {
                    order.issued -= 1;
                    order.scrapped += 1;
                })?;
            }
            Event::Revoked { serial_number, reason } => {
                self.list_revoked(serial_number, entry.time, RevokedCause::Revoked(*reason))?;
                self.end_lifecycle(serial_number, RecordState::Revoked, position, |order| order.revoked += 1)?;
            }
            Event::ProofReserved { serial_number, terms } => {
                self.give_in_epoch(serial_number)?;
                self.hold_proof(*serial_number, position, terms);
            }
            Event::Opened { epoch, daemon } => self.open_epoch(*epoch, daemon, entry.time)?,
            Event::Ended { epoch } => self.end_epoch(*epoch, entry.time)?,
            Event::ProofIssued { serial_number, .. } => {
                self.end_proof_reservation(serial_number, ProofState::Issued(position))?;
            }
            Event::OrderCreated(terms) => {
                let order = Order::new(terms.clone(), entry.time, entry.actor.clone());
                let location = OrderLocation {
                    order,
                    created: position,
                    listed: position,
                    exports: 0,
                    exported: position,
                    unexported: 0,
                };
                self.draft.orders.insert(terms.id.clone(), location);
            }
            Event::OrderClosed { id } => self.change_order(id, |location| {
                location.order.closed = true;
                location.order.closed_by = Some((entry.time, entry.actor.clone()));
            })?,
            Event::OrderQuantityChanged { id, quantity, .. } => self.change_order(id, |location| {
                location.order.terms.quantity = *quantity;
                location.order.quantity_changed = Some((entry.time, entry.actor.clone()));
            })?,
            Event::OrderPaused { id, reason } => self.change_order(id, |location| {
                let (by, reason) = (entry.actor.clone(), reason.clone());
                location.order.paused = Some(OrderPause { at: entry.time, by, reason });
            })?,
            Event::OrderResumed { id } => self.change_order(id, |location| location.order.paused = None)?,
            Event::OrderDevicesListed(list) => {
                for device in &list.devices {
                    self.draft.listed.insert(listed_hash(&list.order, &device.id), position);
                }
                self.change_order(&list.order, |location| {
                    location.order.listed += list.devices.len() as u64;
                    location.listed = position;
                })?;
            }
            Event::ApprovalRequested { number, what } => {
                let requested = (entry.time, entry.actor.clone());
                let asked = Approval { number: *number, what: what.clone(), requested, granted: None, used: None };
                self.draft.approvals.insert(*number, Arc::new(asked));
            }
            Event::ApprovalGranted { number } => {
                let by = (entry.time, entry.actor.clone());
                self.change_approval(*number, |approval| approval.granted = Some(by))?;
            }
            Event::ApprovalUsed { number } => {
                let by = (entry.time, entry.actor.clone());
                self.change_approval(*number, |approval| approval.used = Some(by))?;
            }
            Event::StationEnrolled(enrolment) => {
                let peer = self.peer_or_new(&enrolment.peer).enrolled(enrolment, entry.time, &entry.actor);
                self.draft.peers.insert(peer.name.0.clone(), Arc::new(peer));
            }
            Event::StationRevoked { peer, reason, keep } => {
                let peer = self.peer_or_new(peer).revoke(entry.time, &entry.actor, reason, keep.as_ref());
                self.draft.peers.insert(peer.name.0.clone(), Arc::new(peer));
            }
            Event::ExportCreated { id, certificates } => {
                self.change_order(&id.order, |location| {
                    location.exports = id.number;
                    location.exported = position;
                    location.unexported = 0;
                })?;
                let export = Export {
                    id: id.clone(),
                    certificates: *certificates,
                    created_at: entry.time,
                    created_by: entry.actor.clone(),
                    acknowledged: None,
                };
                self.draft.exports.insert(id.clone(), ExportLocation { export, position });
            }
            Event::ExportAcknowledged { id } => {
                let unknown = || ApplyError::Contradiction(format!("there is no export \"{id}\""));
                let mut location = self.export(id)?.ok_or_else(unknown)?;
                location.export.acknowledged = Some((entry.time, entry.actor.clone()));
                self.draft.exports.insert(id.clone(), location);
            }
            Event::BatchCreated(terms) => self.create_batch(terms, position, (entry.time, &entry.actor))?,
            Event::BatchSealed { id, seal } => self.seal_batch(id, seal)?,
            Event::BatchAcknowledged { id, results } => {
                self.acknowledge_batch(id, results.as_deref(), (entry.time, &entry.actor))?;
            }
            Event::CrlIssued(list) => {
                self.draft.crl_numbers.insert(list.ca, list.number);
            }
            Event::IssuerAdded { id, generation, terms } => self.add_issuer(*id, *generation, terms, entry.time)?,
            Event::VendingCodesCreated(created) => self.add_codes(created, entry)?,
            Event::RequestsRefused(refused) => self.refuse(refused, &entry.actor)?,
            Event::VendingCodeCancelled { device } => {
                let unknown = || ApplyError::Contradiction(format!("the device \"{device}\" has no vending code"));
                let code = self.vending_code(device)?.ok_or_else(unknown)?;
                self.draft.vending_codes.insert(device.clone(), VendingCode { cancelled: true, ..code });
            }
            Event::ConfigurationLoaded { sha256, .. } => self.draft.configuration = Some(*sha256),
            Event::Recovered(recovery) => self.recover(recovery, entry.time, position)?,
            Event::Checkpoint { .. }
            | Event::LossAccepted { .. }
            | Event::ClockAccepted { .. }
            | Event::Started { .. }
            | Event::Stopped { .. } => {}
        }
        Ok(())
    }

    fn add_codes(&mut self, created: &CreatedCodes, entry: &Entry) -> Result<(), ApplyError> {
        let CreatedCodes { batch: number, terms, replaces } = created;
        let next = self.vending_batches()? + 1;
        if *number != next {
            let what = format!("the batch {number} of vending codes is created, and the next is {next}");
            return Err(ApplyError::Contradiction(what));
        }
        for (code, replaces) in terms.codes.iter().zip(replaces) {
            let known = VendingCode {
                code: code.clone(),
                cost: terms.cost,
                batch: *number,
                order: terms.order.clone(),
                expires: terms.expires,
                replaces: *replaces,
                cancelled: false,
            };
            self.draft.vending_codes.insert(code.device.clone(), known);
        }
        let batch = VendingBatch {
            number: *number,
            order: terms.order.clone(),
            created_at: entry.time,
            created_by: entry.actor.clone(),
            devices: terms.codes.iter().map(|code| code.device.clone()).collect(),
        };
        self.draft.vending_batches.insert(*number, batch);
        Ok(())
    }

    fn change_approval(&mut self, number: u64, change: impl FnOnce(&mut Approval)) -> Result<(), ApplyError> {
        let found = self.approvals().find(|approval| approval.number == number).map(|found| Approval::clone(found));
        let unknown = || ApplyError::Contradiction(format!("there is no request {number} for an approval"));
        let mut approval = found.ok_or_else(unknown)?;
        change(&mut approval);
        self.draft.approvals.insert(number, Arc::new(approval));
        Ok(())
    }

    fn add_issuer(
        &mut self,
        id: u32,
        generation: u32,
        terms: &IssuerTerms,
        added_at: Timestamp,
    ) -> Result<(), ApplyError> {
        let next = self.issuers().next_back().map_or(1, |newest| newest.id + 1);
        if id != next {
            return Err(ApplyError::Contradiction(format!("the issuer {id} is added, and the next is {next}")));
        }
        let IssuerTerms { name, chain, crl_shards } = terms.clone();
        let issuer = RecordedIssuer { id, name, generation, chain, crl_shards, added_at };
        self.draft.issuers.insert(id, Arc::new(issuer));
        Ok(())
    }

    /// A certificate that was lost is there again: reserved and issued in one, in place of what the device had.
    fn recover(&mut self, recovery: &Recovery, time: Timestamp, position: Position) -> Result<(), ApplyError> {
        let Recovery { serial_number, holder, replaces, .. } = recovery;
        if self.location(serial_number)?.is_some_and(|location| location.state != RecordState::Abandoned) {
            let what = format!("the serial number {serial_number} is recovered, and was not lost");
            return Err(ApplyError::Contradiction(what));
        }
        if let Some(replaced) = replaces {
            let before = self.location(replaced)?;
            if before.is_some_and(|location| location.state.is_live()) {
                self.list_revoked(replaced, time, RevokedCause::Scrapped)?;
                self.end_lifecycle(replaced, RecordState::Scrapped, position, |order| {
                    order.issued -= 1;
                    order.scrapped += 1;
                })?;
            }
        }
        self.change_order(&holder.order, |location| {
            location.order.issued += 1;
            location.unexported += 1;
        })?;
        self.draft.keys.insert(holder.key_hash, Some(*serial_number));
        self.draft.devices.insert(device_hash(&holder.device), Some(*serial_number));
        self.draft.records.insert(*serial_number, RecordLocation::recovered(position));
        self.draft.recovered.insert(*serial_number, position);
        if let Some(replaced) = replaces {
            self.replace_revoked(replaced)?;
        }
        Ok(())
    }

    /// Binds key and device to a reservation, without counting it.
    pub(super) fn hold(&mut self, serial_number: SerialNumber, position: Position, pending: Pending) {
        self.draft.keys.insert(pending.holder.key_hash, Some(serial_number));
        self.draft.devices.insert(device_hash(&pending.holder.device), Some(serial_number));
        let pending = Some(Arc::new(pending));
        let state = RecordState::Reserved;
        let location = RecordLocation { state, reserved: position, issued: None, changed: None, pending };
        self.draft.records.insert(serial_number, location);
    }

    /// A reservation ends without a certificate: a device's, or that of a proof of possession.
    fn abandon(&mut self, serial_number: &SerialNumber) -> Result<(), ApplyError> {
        if self.proof_reservation(serial_number)?.is_some() {
            return self.end_proof_reservation(serial_number, ProofState::Abandoned);
        }
        let (mut location, pending) = self.reservation(serial_number)?;
        self.change_order(&pending.holder.order, |location| {
            location.order.reserved -= 1;
            location.order.uncount_day(serial_number.given_at());
        })?;
        self.draft.release(&pending);
        location.pending = None;
        location.state = RecordState::Abandoned;
        self.draft.records.insert(*serial_number, location);
        Ok(())
    }

    /// Notes the reservation of a proof of possession.
    pub(super) fn hold_proof(&mut self, serial_number: SerialNumber, reserved: Position, terms: &ProofTerms) {
        let (not_after, state) = (terms.not_after, ProofState::Reserved);
        self.draft.proofs.insert(terms.id.clone(), ProofLocation { serial_number, reserved, not_after, state });
    }

    fn end_proof_reservation(&mut self, serial_number: &SerialNumber, state: ProofState) -> Result<(), ApplyError> {
        let not_reserved =
            || ApplyError::Contradiction(format!("no proof of possession is reserved as {serial_number}"));
        let (id, location) = self.proof_reservation(serial_number)?.ok_or_else(not_reserved)?;
        self.draft.proofs.insert(id, ProofLocation { state, ..location });
        Ok(())
    }

    fn reservation(&self, serial_number: &SerialNumber) -> Result<(RecordLocation, Arc<Pending>), ApplyError> {
        match self.location(serial_number)? {
            Some(location) if location.state == RecordState::Reserved => match location.pending.clone() {
                Some(pending) => Ok((location, pending)),
                None => Err(ApplyError::Contradiction(format!("the reservation {serial_number} is not in memory"))),
            },
            _ => Err(ApplyError::Contradiction(format!("the serial number {serial_number} is not reserved"))),
        }
    }

    /// Puts a certificate among those that may stand on a revocation list.
    fn list_revoked(&mut self, serial: &SerialNumber, at: Timestamp, cause: RevokedCause) -> Result<(), ApplyError> {
        if let Some((ca, not_after)) = self.ca_and_end(serial)? {
            self.draft.revoked.insert(RevokedKey::new(&ca, serial), revoked::encode(at, cause, not_after));
        }
        Ok(())
    }

    /// The device of a scrapped certificate has another one.
    fn replace_revoked(&mut self, serial: &SerialNumber) -> Result<(), ApplyError> {
        let Some((ca, _)) = self.ca_and_end(serial)? else { return Ok(()) };
        let key = RevokedKey::new(&ca, serial);
        if let Some(replaced) = self.revoked(&key)?.and_then(|value| revoked::replaced(&value)) {
            self.draft.revoked.insert(key, replaced);
        }
        Ok(())
    }

    /// Whose certificate it is, and when it expires; `None` if what is recorded is no certificate, which no list can name.
    fn ca_and_end(&self, serial: &SerialNumber) -> Result<Option<(CaId, Time)>, ApplyError> {
        let Some(issued) = self.location(serial)?.and_then(|location| location.issued) else { return Ok(None) };
        let issued = self.certificate_at(issued)?;
        Ok(revoked::ca_and_end(&issued.certificate).ok())
    }

    /// A live certificate is scrapped or revoked; `count` is its order's. One that was scrapped, and is revoked, is none of
    /// its order any more.
    fn end_lifecycle(
        &mut self,
        serial_number: &SerialNumber,
        wanted: RecordState,
        changed: Position,
        count: impl FnOnce(&mut Order),
    ) -> Result<(), ApplyError> {
        let may =
            |state: RecordState| state.is_live() || (state, RecordState::Revoked) == (RecordState::Scrapped, wanted);
        let live = self.location(serial_number)?.filter(|location| may(location.state));
        let not_live = || ApplyError::Contradiction(format!("the certificate {serial_number} is not live"));
        let location = live.ok_or_else(not_live)?;
        self.draft.state_changes.insert(*serial_number, StateChange { state: wanted, changed });
        if location.state == RecordState::Scrapped {
            return Ok(());
        }
        self.note_end(serial_number, &location, changed);
        let (holder, _) = self.holder(&location)?;
        self.change_order(&holder.order, |order| {
            if location.state == RecordState::Confirmed {
                order.order.confirmed -= 1;
            }
            if location.issued > Some(order.exported) {
                order.unexported -= 1;
            }
            count(&mut order.order);
        })?;
        Ok(())
    }

    /// Changes what is known of an order; a holder without an order counts nowhere.
    fn change_order(&mut self, id: &str, change: impl FnOnce(&mut OrderLocation)) -> Result<(), ApplyError> {
        if id.is_empty() {
            return Ok(());
        }
        if !self.draft.orders.contains_key(id) {
            let order =
                self.order(id)?.ok_or_else(|| ApplyError::Contradiction(format!("there is no order \"{id}\"")))?;
            self.draft.orders.insert(id.to_owned(), order);
        }
        if let Some(location) = self.draft.orders.get_mut(id) {
            change(location);
        }
        Ok(())
    }
}
