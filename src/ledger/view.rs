//! What the ledger knows: what one batch changes lies over what is in memory ([`MemTable`]), which lies over the index.
//!
//! A batch is decided on an overlay of its own. When the batch is durable the overlay is merged into memory; when it is
//! not, it is dropped, and nothing has happened.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;

use parking_lot::RwLockReadGuard;

use super::{
    actor::Actor,
    approval::Approval,
    batch::Destination,
    device_list::{ListedDevice, listed_hash},
    entry::{Entry, EntryHead, Event},
    epoch::{Epoch, tag, tag_of},
    error::LedgerError,
    export::{Export, ExportId},
    first_pass::{ByStation, FirstPass, RefusedDevice, RefusedKey},
    index::{Index, IndexError, LookupKey},
    issuer::RecordedIssuer,
    journal::{JournalError, Position, ReadFrame, Reader},
    memtable::MemTable,
    order::Order,
    overlay::{
        BatchLocation, Detour, EndedKey, ExportLocation, OrderLocation, Overlay, ProofLocation, RecordLocation,
        StateChange, device_hash,
    },
    peer::EnrolledPeer,
    proof::ProofId,
    record::{Change, Holder, IssuedCertificate, KeyHash, Record, RecordState},
    recovery::Recovery,
    revoked::{CaId, RevokedKey, RevokedValue},
    vending::{VendingBatch, VendingCode},
};
use crate::serial::SerialNumber;

/// What is known: a batch's overlay over memory over the index.
pub(super) struct View<'a> {
    /// What this batch changes; empty for those who only read.
    pub(super) draft: Overlay,
    pub(super) memory: RwLockReadGuard<'a, MemTable>,
    pub(super) journal: &'a Reader,
    /// Where records are that were looked up: what is decided about one is applied next.
    located: RefCell<HashMap<SerialNumber, RecordLocation>>,
    /// What the index knows of their states, likewise.
    states: RefCell<HashMap<SerialNumber, Option<StateChange>>>,
    /// Entries that were read, likewise.
    entries: RefCell<HashMap<Position, Arc<Entry>>>,
}

impl<'a> View<'a> {
    /// What is known, with this overlay for what a batch changes.
    pub(super) fn new(draft: Overlay, memory: RwLockReadGuard<'a, MemTable>, journal: &'a Reader) -> View<'a> {
        let (located, states, entries) = (RefCell::default(), RefCell::default(), RefCell::default());
        View { draft, memory, journal, located, states, entries }
    }

    /// An entry at a place that the index gave.
    fn entry(&self, position: Position) -> Result<Arc<Entry>, JournalError> {
        if let Some(entry) = self.entries.borrow().get(&position) {
            return Ok(Arc::clone(entry));
        }
        let entry = Arc::new(self.journal.entry(position)?);
        self.entries.borrow_mut().insert(position, Arc::clone(&entry));
        Ok(entry)
    }
}

impl View<'_> {
    /// The serial number to which a key is bound.
    pub(super) fn by_key(&self, key: &KeyHash) -> Result<Option<SerialNumber>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.keys.get(key)) {
            Some(found) => Ok(*found),
            None => self.by_lookup_key(&LookupKey::from_key(key)),
        }
    }

    /// A device's newest record.
    pub(super) fn by_device(&self, device: &str) -> Result<Option<SerialNumber>, LedgerError> {
        let hash = device_hash(device);
        match self.overlays().find_map(|overlay| overlay.devices.get(&hash)) {
            Some(found) => Ok(*found),
            None => self.by_lookup_key(&LookupKey::from_device(&hash)),
        }
    }

    /// Whether this batch takes in devices of lists: they cannot be read yet.
    pub(super) fn lists_devices(&self) -> bool {
        !self.draft.listed.is_empty()
    }

    /// A device of an order's list, if it is on it.
    pub(super) fn listed(&self, order: &str, device: &str) -> Result<Option<ListedDevice>, LedgerError> {
        let hash = listed_hash(order, device);
        let found = match self.overlays().find_map(|overlay| overlay.listed.get(&hash)) {
            Some(position) => Some(*position),
            None => {
                let place = self.index().by_lookup_key(&self.memory.runs, &LookupKey::from_listed(&hash))?;
                place.map(|place| place.position)
            }
        };
        let Some(position) = found else { return Ok(None) };
        // The devices of one list that a batch reserves for have one entry.
        match &self.entry(position)?.event {
            Event::OrderDevicesListed(list) if list.order == order => {
                let found = list.devices.iter().find(|listed| listed.id == device).cloned();
                found.map(Some).ok_or_else(|| self.contradicted(format!("the device is not listed at {position}")))
            }
            _ => Err(self.contradicted(format!("there is no list of devices at {position}"))),
        }
    }

    fn by_lookup_key(&self, key: &LookupKey) -> Result<Option<SerialNumber>, LedgerError> {
        let Some(place) = self.index().by_lookup_key(&self.memory.runs, key)? else { return Ok(None) };
        match &self.entry(place.position)?.event {
            Event::Reserved { serial_number, holder, .. }
            | Event::Recovered(Recovery { serial_number, holder, .. })
                if [LookupKey::from_key(&holder.key_hash), LookupKey::from_device(&device_hash(&holder.device))]
                    .contains(key) =>
            {
                if let Some(issued) = place.issued {
                    self.note_issued(*serial_number, place.position, issued)?;
                }
                Ok(Some(*serial_number))
            }
            _ => Err(self.contradicted(format!("there is another reservation at {}", place.position))),
        }
    }

    /// Remembers where a record is, once its certificate is seen there.
    fn note_issued(&self, serial: SerialNumber, reserved: Position, issued: Position) -> Result<(), LedgerError> {
        let mut located = self.located.borrow_mut();
        if located.contains_key(&serial) {
            return Ok(());
        }
        match &self.entry(issued)?.event {
            Event::Issued { serial_number, .. } if *serial_number == serial => {
                located.insert(serial, RecordLocation::issued(reserved, issued));
                Ok(())
            }
            _ => Err(self.contradicted(format!("the certificate {serial} is not at {issued}"))),
        }
    }

    fn index(&self) -> &Index {
        &self.memory.index
    }

    /// The index states something that the journal shows not to be so: it fails.
    pub(super) fn contradicted(&self, what: String) -> LedgerError {
        let error = IndexError::Contradiction(what);
        self.index().fail(&error.to_string());
        error.into()
    }

    /// Where the record of a serial number lies.
    pub(super) fn location(&self, serial: &SerialNumber) -> Result<Option<RecordLocation>, LedgerError> {
        let location = match self.overlays().find_map(|overlay| overlay.records.get(serial)) {
            Some(location) => Some(location.clone()),
            None => match self.index().recovered(&self.memory.runs, serial)? {
                Some(position) => Some(RecordLocation::recovered(position)),
                None => self.located_in_journal(serial)?,
            },
        };
        match location {
            Some(location) if location.state == RecordState::Issued => Ok(Some(match self.state_change(serial)? {
                Some(StateChange { state, changed }) => RecordLocation { state, changed: Some(changed), ..location },
                None => location,
            })),
            location => Ok(location),
        }
    }

    /// What became of an issued certificate, if anything did.
    pub(super) fn state_change(&self, serial: &SerialNumber) -> Result<Option<StateChange>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.state_changes.get(serial)) {
            Some(state_change) => Ok(Some(*state_change)),
            None => self.indexed_state(serial),
        }
    }

    fn indexed_state(&self, serial: &SerialNumber) -> Result<Option<StateChange>, LedgerError> {
        if let Some(known) = self.states.borrow().get(serial) {
            return Ok(*known);
        }
        let found = self.index().state_change(&self.memory.runs, serial)?;
        self.states.borrow_mut().insert(*serial, found);
        Ok(found)
    }

    fn located_in_journal(&self, serial: &SerialNumber) -> Result<Option<RecordLocation>, LedgerError> {
        if let Some(location) = self.located.borrow().get(serial) {
            return Ok(Some(location.clone()));
        }
        let found = self.location_in_journal(serial)?;
        if let Some(location) = &found {
            self.located.borrow_mut().insert(*serial, location.clone());
        }
        Ok(found)
    }

    /// Reads the journal from a place that is not far before the reservation.
    fn location_in_journal(&self, serial: &SerialNumber) -> Result<Option<RecordLocation>, LedgerError> {
        let Some(start) = self.index().before(&self.memory.runs, serial)? else { return Ok(None) };
        let mut reserved = None;
        for frame in self.journal.heads(start, self.memory.index.end()) {
            let ReadFrame { position, entry, .. } = frame?;
            match (entry, reserved) {
                (EntryHead::Reserved(found), None) if found == *serial => reserved = Some(position),
                // Serial numbers rise along the journal: this one was never given.
                (EntryHead::Reserved(found), None) if found > *serial => return Ok(None),
                // Nor to a device, if a proof of possession has it.
                (EntryHead::ProofReserved(found), None) if found >= *serial => return Ok(None),
                (EntryHead::Issued(found), Some(reserved)) if found == *serial => {
                    return Ok(Some(RecordLocation::issued(reserved, position)));
                }
                (EntryHead::Abandoned(found), Some(reserved)) if found == *serial => {
                    let state = RecordState::Abandoned;
                    return Ok(Some(RecordLocation { state, reserved, issued: None, changed: None, pending: None }));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    pub(super) fn order(&self, id: &str) -> Result<Option<OrderLocation>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.orders.get(id)) {
            Some(order) => Ok(Some(order.clone())),
            None => Ok(self.index().order(id)?),
        }
    }

    /// The overlays, the newest first.
    fn overlays(&self) -> impl Iterator<Item = &Overlay> {
        std::iter::once(&self.draft).chain(self.memory.overlays())
    }

    /// All orders, sorted by id.
    pub(super) fn orders(&self) -> Result<Vec<Order>, LedgerError> {
        let mut orders: std::collections::BTreeMap<_, _> = self
            .index()
            .orders()?
            .into_iter()
            .map(|location| (location.order.terms.id.clone(), location.order))
            .collect();
        let overlays: Vec<_> = self.overlays().collect();
        for overlay in overlays.into_iter().rev() {
            orders.extend(overlay.orders.iter().map(|(id, location)| (id.clone(), location.order.clone())));
        }
        Ok(orders.into_values().collect())
    }

    pub(super) fn export(&self, id: &ExportId) -> Result<Option<ExportLocation>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.exports.get(id)) {
            Some(export) => Ok(Some(export.clone())),
            None => Ok(self.index().export(id)?),
        }
    }

    /// All issuers, in the order of their ids.
    pub(super) fn issuers(&self) -> impl DoubleEndedIterator<Item = &Arc<RecordedIssuer>> + Clone {
        // Ids rise: what this batch adds comes after what was there.
        self.memory.issuers.values().chain(self.draft.issuers.values())
    }

    /// All requests for the agreement of a second operator, in their order.
    pub(super) fn approvals(&self) -> impl Iterator<Item = &Arc<Approval>> + Clone {
        let before = self.memory.approvals.iter().filter(|(number, _)| !self.draft.approvals.contains_key(number));
        before.chain(&self.draft.approvals).map(|(_, approval)| approval)
    }

    /// All epochs, in their order.
    pub(super) fn epochs(&self) -> impl Iterator<Item = &Arc<Epoch>> + Clone {
        let before = self.memory.epochs.iter().filter(|(number, _)| !self.draft.epochs.contains_key(number));
        before.chain(&self.draft.epochs).map(|(_, epoch)| epoch)
    }

    /// The number of the epoch that begins next.
    pub(super) fn next_epoch(&self) -> u64 {
        // The draft may have no more than the end of an older one.
        let newest =
            [&self.memory.epochs, &self.draft.epochs].into_iter().filter_map(|epochs| epochs.keys().next_back());
        newest.max().map_or(1, |newest| newest + 1)
    }

    /// What is reserved in an epoch.
    pub(super) fn reservations_of(&self, epoch: u64) -> Result<Vec<SerialNumber>, LedgerError> {
        let records = self.draft.records.keys().chain(self.draft.proofs.values().map(|proof| &proof.serial_number));
        let new = records.copied().filter(|serial| tag_of(serial) == tag(epoch));
        let known: std::collections::BTreeSet<_> = self.memory.reservations_of(epoch).chain(new).collect();
        let mut reserved = Vec::new();
        for serial in known {
            let is_reserved = self.proof_reservation(&serial)?.is_some()
                || self.location(&serial)?.is_some_and(|location| location.state == RecordState::Reserved);
            if is_reserved {
                reserved.push(serial);
            }
        }
        Ok(reserved)
    }

    /// A destination that has a batch.
    pub(super) fn destination(&self, name: &str) -> Option<&Arc<Destination>> {
        self.draft.destinations.get(name).or_else(|| self.memory.destinations.get(name))
    }

    /// A batch, by its destination's number and its own.
    pub(super) fn batch(&self, of: (u32, u32)) -> Result<Option<BatchLocation>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.batches.get(&of)) {
            Some(batch) => Ok(Some(batch.clone())),
            None => Ok(self.index().batch(of)?),
        }
    }

    /// How a certificate reached a destination, if it did not simply go out with the batch of its time.
    pub(super) fn detour(&self, of: &(u32, SerialNumber)) -> Result<Option<Detour>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.detours.get(of)) {
            Some(detour) => Ok(Some(detour.clone())),
            None => Ok(self.index().detour(of)?),
        }
    }

    /// Where a certificate that was scrapped or revoked was so first, or was confirmed before.
    pub(super) fn ended(&self, key: &EndedKey) -> Result<Option<Position>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.ended.get(key)) {
            Some(position) => Ok(Some(*position)),
            None => Ok(self.index().ended(&self.memory.runs, key)?),
        }
    }

    /// A station, operator or auditor that was enrolled or revoked.
    pub(super) fn peer(&self, name: &Actor) -> Option<&Arc<EnrolledPeer>> {
        self.draft.peers.get(&name.0).or_else(|| self.memory.peers.get(&name.0))
    }

    /// The same, or the next new one.
    pub(super) fn peer_or_new(&self, name: &Actor) -> Arc<EnrolledPeer> {
        let new = || {
            // Peers are never forgotten: their numbers are without gaps.
            let added = self.draft.peers.keys().filter(|name| !self.memory.peers.contains_key(*name)).count();
            let number = u32::try_from(self.memory.peers.len() + added + 1).unwrap_or(u32::MAX);
            Arc::new(EnrolledPeer::new(number, name.clone()))
        };
        self.peer(name).cloned().unwrap_or_else(new)
    }

    /// The exports of an order, the oldest first.
    pub(super) fn exports(&self, order: &str) -> Result<Vec<Export>, LedgerError> {
        let exports = self.order(order)?.map_or(0, |location| location.exports);
        let ids = (1..=exports).map(|number| ExportId { order: order.to_owned(), number });
        let missing = |id: &ExportId| self.contradicted(format!("it has lost the export {id}"));
        ids.map(|id| Ok(self.export(&id)?.ok_or_else(|| missing(&id))?.export)).collect()
    }

    /// The newest proof of possession of a CA and a code.
    pub(super) fn proof(&self, id: &ProofId) -> Result<Option<ProofLocation>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.proofs.get(id)) {
            Some(proof) => Ok(Some(proof.clone())),
            None => Ok(self.index().proof(id)?),
        }
    }

    /// The reservation of a proof of possession.
    pub(super) fn proof_reservation(
        &self,
        serial: &SerialNumber,
    ) -> Result<Option<(ProofId, ProofLocation)>, LedgerError> {
        if let Some((id, proof)) = self.draft.proof_reservation(serial) {
            return Ok(Some((id.clone(), proof.clone())));
        }
        let Some((_, id)) = self.memory.pending_proofs.get(serial) else { return Ok(None) };
        let reserved = |proof: &ProofLocation| proof.is_reserved() && proof.serial_number == *serial;
        Ok(self.proof(id)?.filter(reserved).map(|proof| (id.clone(), proof)))
    }

    /// Whether what is known of a proof can be read in the journal, not only in this batch.
    pub(super) fn is_durable_proof(&self, id: &ProofId) -> bool {
        !self.draft.proofs.contains_key(id)
    }

    /// What is known of a certificate that may stand on a revocation list.
    pub(super) fn revoked(&self, key: &RevokedKey) -> Result<Option<RevokedValue>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.revoked.get(key)) {
            Some(value) => Ok(Some(*value)),
            None => Ok(self.index().revoked(&self.memory.runs, key)?),
        }
    }

    /// The number of a CA's newest revocation list; 0 if it has none.
    pub(super) fn crl_number(&self, ca: &CaId) -> Result<u64, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.crl_numbers.get(ca)) {
            Some(number) => Ok(*number),
            None => Ok(self.index().crl_number(ca)?.unwrap_or(0)),
        }
    }

    /// A device's newest vending code.
    pub(super) fn vending_code(&self, device: &str) -> Result<Option<VendingCode>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.vending_codes.get(device)) {
            Some(code) => Ok(Some(code.clone())),
            None => Ok(self.index().vending_code(device)?),
        }
    }

    /// A batch of vending codes.
    pub(super) fn vending_batch(&self, number: u32) -> Result<Option<VendingBatch>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.vending_batches.get(&number)) {
            Some(batch) => Ok(Some(batch.clone())),
            None => Ok(self.index().vending_batch(number)?),
        }
    }

    /// How many batches of vending codes there are.
    pub(super) fn vending_batches(&self) -> Result<u32, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.vending_batches.last_key_value()) {
            Some((number, _)) => Ok(*number),
            None => Ok(self.index().vending_batches()?),
        }
    }

    /// The first-pass yield of a station under an order, or under all.
    pub(super) fn first_pass(&self, order: &str, station: &str) -> Result<FirstPass, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.passes.get(order)?.get(station)) {
            Some(passes) => Ok(*passes),
            None => Ok(self.index().passes(order)?.get(station).copied().unwrap_or_default()),
        }
    }

    /// The first-pass yields of all stations under an order, or under all.
    pub(super) fn first_passes(&self, order: &str) -> Result<ByStation, LedgerError> {
        let mut passes = self.index().passes(order)?;
        let changed: Vec<_> = self.overlays().filter_map(|overlay| overlay.passes.get(order)).collect();
        for stations in changed.into_iter().rev() {
            passes.extend(stations.iter().map(|(station, passes)| (Arc::clone(station), *passes)));
        }
        Ok(passes)
    }

    /// A device that was refused under an order.
    pub(super) fn refused_device(&self, key: &RefusedKey) -> Result<Option<RefusedDevice>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.refused.get(key)) {
            Some(device) => Ok(Some(device.clone())),
            None => Ok(self.index().refused(key)?),
        }
    }

    /// SHA-256 of the newest configuration; none if none is recorded.
    pub(super) fn configuration(&self) -> Result<Option<[u8; 32]>, LedgerError> {
        match self.overlays().find_map(|overlay| overlay.configuration) {
            Some(sha256) => Ok(Some(sha256)),
            None => Ok(self.index().configuration()?),
        }
    }

    /// What the batch changes.
    pub(super) fn into_draft(self) -> Overlay {
        self.draft
    }

    /// Whether what is known of a serial number can be read in the journal, not only in this batch.
    pub(super) fn is_durable(&self, serial: &SerialNumber) -> bool {
        !self.draft.records.contains_key(serial)
    }

    /// For whom a serial number is, and what it replaces.
    pub(super) fn holder(&self, location: &RecordLocation) -> Result<(Holder, Option<SerialNumber>), LedgerError> {
        match &location.pending {
            Some(pending) => Ok((pending.holder.clone(), pending.replaces)),
            None => self.reserved(location).map(|reserved| (reserved.holder, reserved.replaces)),
        }
    }

    /// The reservation of a serial number; it must be durable.
    pub(super) fn reserved(&self, location: &RecordLocation) -> Result<ReservedEntry, LedgerError> {
        let position = location.reserved;
        let Entry { time, actor, event } = &*self.entry(position)?;
        match event {
            Event::Reserved { holder, replaces, .. } | Event::Recovered(Recovery { holder, replaces, .. }) => {
                Ok(ReservedEntry { time: *time, actor: actor.clone(), holder: holder.clone(), replaces: *replaces })
            }
            _ => Err(self.journal.contradiction(position, "the index says that a reservation is here").into()),
        }
    }

    /// The certificate whose entry is at `position`.
    pub(super) fn certificate_at(&self, position: Position) -> Result<IssuedCertificate, LedgerError> {
        let Entry { time, event, .. } = &*self.entry(position)?;
        match event {
            Event::Issued { certificate, .. } | Event::Recovered(Recovery { certificate, .. }) => {
                Ok(IssuedCertificate { at: *time, certificate: certificate.clone() })
            }
            _ => Err(self.journal.contradiction(position, "the index says that a certificate is here").into()),
        }
    }

    /// All that is known of a serial number.
    pub(super) fn record(&self, serial_number: &SerialNumber) -> Result<Option<Record>, LedgerError> {
        let Some(location) = self.location(serial_number)? else { return Ok(None) };
        let reserved = self.reserved(&location)?;
        let issued = match location.issued {
            Some(position) => Some(self.certificate_at(position)?),
            None => None,
        };
        let changed = match location.changed {
            Some(position) => Some(self.change(serial_number, position)?),
            None => None,
        };
        Ok(Some(Record {
            serial_number: *serial_number,
            state: location.state,
            holder: reserved.holder,
            actor: reserved.actor,
            reserved_at: reserved.time,
            issued,
            replaces: reserved.replaces,
            changed,
        }))
    }

    /// What the entry at `changed` states about a certificate.
    pub(super) fn change(&self, serial: &SerialNumber, changed: Position) -> Result<Change, LedgerError> {
        let Entry { time: at, actor: by, event } = self.journal.entry(changed)?;
        let (of, scrap_reason, revocation_reason) = match event {
            Event::Confirmed { serial_number, .. } => (serial_number, String::new(), None),
            Event::Scrapped { serial_number, reason } => (serial_number, reason, None),
            Event::Revoked { serial_number, reason } => (serial_number, String::new(), Some(reason)),
            Event::Recovered(Recovery { replaces: Some(replaced), serial_number, .. }) => {
                (replaced, format!("its device has the newer certificate {serial_number}, which was recovered"), None)
            }
            _ => return Err(self.contradicted(format!("no certificate changed at {changed}"))),
        };
        if of != *serial {
            return Err(self.contradicted(format!("another certificate than {serial} changed at {changed}")));
        }
        Ok(Change { at, by, scrap_reason, revocation_reason })
    }
}

/// An entry that gave a serial number to a device.
pub(super) struct ReservedEntry {
    pub(super) time: Timestamp,
    pub(super) actor: Actor,
    pub(super) holder: Holder,
    pub(super) replaces: Option<SerialNumber>,
}

/// The certificate of the proof of possession whose entry is at `position`.
pub(super) fn proof_at(journal: &Reader, position: Position) -> Result<Bytes, JournalError> {
    match journal.entry(position)?.event {
        Event::ProofIssued { certificate, .. } => Ok(certificate),
        _ => Err(journal.contradiction(position, "the index says that a proof of possession is here")),
    }
}
