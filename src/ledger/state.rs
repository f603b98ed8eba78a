//! What the ledger knows, in layers: what one batch changes lies on what is in memory, which lies on the index.
//!
//! A batch is decided on a layer of its own. When the batch is durable the layer sinks into memory, when it is not
//! it is dropped, and nothing has happened. From memory, settled records sink into the index many at a time.
//! Reservations without a certificate stay in memory; after a start they are found in the journal's tail.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLockReadGuard},
};

use jiff::Timestamp;

use super::{
    Change, Export, ExportId, Holder, IssuedCertificate, KeyHash, LedgerError, Order, Record, RecordState,
    entry::{Entry, Event},
    index::{Index, IndexError, LookupKey, Runs},
    journal::{JournalError, Position, ReadFrame, Reader},
    layer::{ExportPlace, Later, Layer, OrderPlace, Pending, Place, device_hash},
};
use crate::serial::SerialNumber;

/// What is in memory, and the index that lies below it.
#[derive(Debug)]
pub(super) struct Memory {
    /// The newest layer.
    pub(super) recent: Layer,
    /// The reservations without a certificate, all of which are in `recent`: the oldest is first, since serial numbers
    /// rise along the journal.
    pub(super) pending: BTreeMap<SerialNumber, Position>,
    /// The layer below, while it is written into the index.
    pub(super) sinking: Option<Arc<Layer>>,
    /// The index, below both, and its runs.
    pub(super) index: Arc<Index>,
    pub(super) runs: Runs,
    /// All of the journal before it is durable and applied.
    pub(super) end: Position,
}

impl Memory {
    pub(super) fn new(index: Arc<Index>, runs: Runs, end: Position) -> Self {
        Memory { recent: Layer::default(), pending: BTreeMap::new(), sinking: None, index, runs, end }
    }

    /// Lays `draft` on the newest layer for good.
    pub(super) fn absorb(&mut self, draft: Layer) {
        for (serial_number, place) in &draft.records {
            match place.state {
                RecordState::Reserved => self.pending.insert(*serial_number, place.reserved),
                _ => self.pending.remove(serial_number),
            };
        }
        self.recent.absorb(draft);
    }

    /// How much that is settled waits to sink: records, changes of their states, orders and exports.
    pub(super) fn settled(&self) -> usize {
        let Layer { records, later, orders, exports, .. } = &self.recent;
        records.len() - self.pending.len() + later.len() + orders.len() + exports.len()
    }

    /// Begins to sink all that is settled: reservations, and what they hold, stay behind.
    pub(super) fn begin_to_sink(&mut self) -> Arc<Layer> {
        let mut settled = std::mem::take(&mut self.recent);
        for serial_number in self.pending.keys() {
            let Some(place) = settled.records.remove(serial_number) else { continue };
            if let Some(Pending { holder, replaces }) = place.pending.as_deref() {
                let device = device_hash(&holder.device);
                settled.keys.remove(&holder.key_hash);
                // What the device had before may be settled, and must be found if the reservation is given up.
                settled.devices.insert(device, *replaces);
                self.recent.keys.insert(holder.key_hash, Some(*serial_number));
                self.recent.devices.insert(device, Some(*serial_number));
            }
            self.recent.records.insert(*serial_number, place);
        }
        let settled = Arc::new(settled);
        self.sinking = Some(Arc::clone(&settled));
        settled
    }

    /// The layers, the newest first.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.recent).chain(self.sinking.as_deref())
    }
}

/// A look through the layers.
pub(super) struct View<'a> {
    /// What this batch changes; empty for those who only read.
    pub(super) draft: Layer,
    pub(super) memory: RwLockReadGuard<'a, Memory>,
    pub(super) journal: &'a Reader,
}

impl View<'_> {
    /// The serial number to which a key is bound.
    pub(super) fn by_key(&self, key: &KeyHash) -> Result<Option<SerialNumber>, LedgerError> {
        match self.layers().find_map(|layer| layer.keys.get(key)) {
            Some(found) => Ok(*found),
            None => self.by_name(&LookupKey::from_key(key)),
        }
    }

    /// A device's newest record.
    pub(super) fn by_device(&self, device: &str) -> Result<Option<SerialNumber>, LedgerError> {
        let hash = device_hash(device);
        match self.layers().find_map(|layer| layer.devices.get(&hash)) {
            Some(found) => Ok(*found),
            None => self.by_name(&LookupKey::from_device(&hash)),
        }
    }

    fn by_name(&self, key: &LookupKey) -> Result<Option<SerialNumber>, LedgerError> {
        let Some(position) = self.index().by_name(&self.memory.runs, key)? else { return Ok(None) };
        match self.journal.entry(position)?.event {
            Event::Reserved { serial_number, holder, .. }
                if [LookupKey::from_key(&holder.key_hash), LookupKey::from_device(&device_hash(&holder.device))]
                    .contains(key) =>
            {
                Ok(Some(serial_number))
            }
            _ => Err(self.contradicted(format!("there is another reservation at {position:?}"))),
        }
    }

    fn index(&self) -> &Index {
        &self.memory.index
    }

    /// The index states something that the journal shows not to be so: it fails.
    fn contradicted(&self, what: String) -> LedgerError {
        let error = IndexError::Contradiction(what);
        self.index().fail(&error.to_string());
        error.into()
    }

    /// Where the record of a serial number lies.
    pub(super) fn place(&self, serial: &SerialNumber) -> Result<Option<Place>, LedgerError> {
        let place = match self.layers().find_map(|layer| layer.records.get(serial)) {
            Some(place) => Some(place.clone()),
            None => self.place_in_journal(serial)?,
        };
        match place {
            Some(place) if place.state == RecordState::Issued => Ok(Some(match self.later(serial)? {
                Some(Later { state, changed }) => Place { state, changed: Some(changed), ..place },
                None => place,
            })),
            place => Ok(place),
        }
    }

    /// What became of an issued certificate, if anything did.
    pub(super) fn later(&self, serial: &SerialNumber) -> Result<Option<Later>, LedgerError> {
        match self.layers().find_map(|layer| layer.later.get(serial)) {
            Some(later) => Ok(Some(*later)),
            None => Ok(self.index().later(&self.memory.runs, serial)?),
        }
    }

    /// Reads the journal from a place that is not far before the reservation.
    fn place_in_journal(&self, serial: &SerialNumber) -> Result<Option<Place>, LedgerError> {
        let Some(start) = self.index().before(&self.memory.runs, serial)? else { return Ok(None) };
        let mut reserved = None;
        for frame in self.journal.frames(start, self.memory.index.end()) {
            let ReadFrame { position, entry, .. } = frame?;
            match (entry.event, reserved) {
                (Event::Reserved { serial_number, .. }, None) if serial_number == *serial => reserved = Some(position),
                // Serial numbers rise along the journal: this one was never given.
                (Event::Reserved { serial_number, .. }, None) if serial_number > *serial => return Ok(None),
                (Event::Issued { serial_number, .. }, Some(reserved)) if serial_number == *serial => {
                    let (state, issued) = (RecordState::Issued, Some(position));
                    return Ok(Some(Place { state, reserved, issued, changed: None, pending: None }));
                }
                (Event::Abandoned { serial_number, .. }, Some(reserved)) if serial_number == *serial => {
                    let state = RecordState::Abandoned;
                    return Ok(Some(Place { state, reserved, issued: None, changed: None, pending: None }));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    pub(super) fn order(&self, id: &str) -> Result<Option<OrderPlace>, LedgerError> {
        match self.layers().find_map(|layer| layer.orders.get(id)) {
            Some(order) => Ok(Some(order.clone())),
            None => Ok(self.index().order(id)?),
        }
    }

    /// The layers, the newest first.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.draft).chain(self.memory.layers())
    }

    /// All orders, sorted by id.
    pub(super) fn orders(&self) -> Result<Vec<Order>, LedgerError> {
        let mut orders: std::collections::BTreeMap<_, _> =
            self.index().orders()?.into_iter().map(|place| (place.order.terms.id.clone(), place.order)).collect();
        let layers: Vec<_> = self.layers().collect();
        for layer in layers.into_iter().rev() {
            orders.extend(layer.orders.iter().map(|(id, place)| (id.clone(), place.order.clone())));
        }
        Ok(orders.into_values().collect())
    }

    pub(super) fn export(&self, id: &ExportId) -> Result<Option<ExportPlace>, LedgerError> {
        match self.layers().find_map(|layer| layer.exports.get(id)) {
            Some(export) => Ok(Some(export.clone())),
            None => Ok(self.index().export(id)?),
        }
    }

    /// The exports of an order, the oldest first.
    pub(super) fn exports(&self, order: &str) -> Result<Vec<Export>, LedgerError> {
        let exports = self.order(order)?.map_or(0, |place| place.exports);
        let ids = (1..=exports).map(|number| ExportId { order: order.to_owned(), number });
        let missing = |id: &ExportId| self.contradicted(format!("it has lost the export {id}"));
        ids.map(|id| Ok(self.export(&id)?.ok_or_else(|| missing(&id))?.export)).collect()
    }

    /// Ends the look and gives what the batch changes.
    pub(super) fn into_draft(self) -> Layer {
        self.draft
    }

    /// Whether what is known of a serial number can be read in the journal, not only in this batch.
    pub(super) fn is_durable(&self, serial: &SerialNumber) -> bool {
        !self.draft.records.contains_key(serial)
    }

    /// For whom a serial number is, and what it replaces.
    pub(super) fn holder(&self, place: &Place) -> Result<(Holder, Option<SerialNumber>), LedgerError> {
        match &place.pending {
            Some(pending) => Ok((pending.holder.clone(), pending.replaces)),
            None => self.reserved(place).map(|reserved| (reserved.holder, reserved.replaces)),
        }
    }

    /// The reservation of a serial number; it must be durable.
    pub(super) fn reserved(&self, place: &Place) -> Result<ReservedEntry, LedgerError> {
        Ok(reserved_at(self.journal, place)?)
    }

    /// All that is known of a serial number.
    pub(super) fn record(&self, serial_number: &SerialNumber) -> Result<Option<Record>, LedgerError> {
        let Some(place) = self.place(serial_number)? else { return Ok(None) };
        let reserved = reserved_at(self.journal, &place)?;
        let issued = match place.issued {
            Some(position) => Some(certificate_at(self.journal, position)?),
            None => None,
        };
        let changed = match place.changed {
            Some(position) => Some(self.change(serial_number, position)?),
            None => None,
        };
        Ok(Some(Record {
            serial_number: *serial_number,
            state: place.state,
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
            _ => return Err(self.contradicted(format!("no certificate changed at {changed:?}"))),
        };
        if of != *serial {
            return Err(self.contradicted(format!("another certificate than {serial} changed at {changed:?}")));
        }
        Ok(Change { at, by, scrap_reason, revocation_reason })
    }

    /// Lets an entry happen. The same code serves live entries and those read at a start.
    ///
    /// # Errors
    /// Those of the storage, or a sentence if the entry does not fit what is known.
    pub(super) fn apply(&mut self, entry: &Entry, position: Position) -> Result<(), ApplyError> {
        match &entry.event {
            Event::Reserved { serial_number, holder, replaces } => {
                self.change_order(&holder.order, |place| place.order.reserved += 1)?;
                self.hold(*serial_number, position, Pending { holder: holder.clone(), replaces: *replaces });
            }
            Event::Issued { serial_number, .. } => {
                let (mut place, pending) = self.reservation(serial_number)?;
                self.change_order(&pending.holder.order, |place| {
                    place.order.reserved -= 1;
                    place.order.issued += 1;
                    place.unexported += 1;
                })?;
                place.state = RecordState::Issued;
                place.issued = Some(position);
                place.pending = None;
                self.draft.records.insert(*serial_number, place);
            }
            Event::Abandoned { serial_number, .. } => {
                let (mut place, pending) = self.reservation(serial_number)?;
                self.change_order(&pending.holder.order, |place| place.order.reserved -= 1)?;
                self.draft.release(&pending);
                place.pending = None;
                place.state = RecordState::Abandoned;
                self.draft.records.insert(*serial_number, place);
            }
            Event::Confirmed { serial_number, order } => {
                self.change_order(order, |place| place.order.confirmed += 1)?;
                let later = Later { state: RecordState::Confirmed, changed: position };
                self.draft.later.insert(*serial_number, later);
            }
            Event::Scrapped { serial_number, .. } => {
                self.end_life(serial_number, RecordState::Scrapped, position, |order| {
                    order.issued -= 1;
                    order.scrapped += 1;
                })?;
            }
            Event::Revoked { serial_number, .. } => {
                self.end_life(serial_number, RecordState::Revoked, position, |order| order.revoked += 1)?;
            }
            Event::OrderCreated(terms) => {
                let order = Order::new(terms.clone(), entry.time);
                let place = OrderPlace { order, created: position, exports: 0, exported: position, unexported: 0 };
                self.draft.orders.insert(terms.id.clone(), place);
            }
            Event::OrderClosed { id } => self.change_order(id, |place| place.order.closed = true)?,
            Event::ExportCreated { id, certificates } => {
                self.change_order(&id.order, |place| {
                    place.exports = id.number;
                    place.exported = position;
                    place.unexported = 0;
                })?;
                let export = Export {
                    id: id.clone(),
                    certificates: *certificates,
                    created_at: entry.time,
                    created_by: entry.actor.clone(),
                    acknowledged: None,
                };
                self.draft.exports.insert(id.clone(), ExportPlace { export, position });
            }
            Event::ExportAcknowledged { id } => {
                let unknown = || ApplyError::Misfit(format!("there is no export \"{id}\""));
                let mut place = self.export(id)?.ok_or_else(unknown)?;
                place.export.acknowledged = Some((entry.time, entry.actor.clone()));
                self.draft.exports.insert(id.clone(), place);
            }
            Event::Checkpoint { .. } | Event::LossAccepted { .. } | Event::ClockAccepted { .. } => {}
        }
        Ok(())
    }

    /// Binds key and device to a reservation, without counting it.
    pub(super) fn hold(&mut self, serial_number: SerialNumber, position: Position, pending: Pending) {
        self.draft.keys.insert(pending.holder.key_hash, Some(serial_number));
        self.draft.devices.insert(device_hash(&pending.holder.device), Some(serial_number));
        let pending = Some(Arc::new(pending));
        let state = RecordState::Reserved;
        let place = Place { state, reserved: position, issued: None, changed: None, pending };
        self.draft.records.insert(serial_number, place);
    }

    fn reservation(&self, serial_number: &SerialNumber) -> Result<(Place, Arc<Pending>), ApplyError> {
        match self.place(serial_number)? {
            Some(place) if place.state == RecordState::Reserved => match place.pending.clone() {
                Some(pending) => Ok((place, pending)),
                None => Err(ApplyError::Misfit(format!("the reservation {serial_number} is not in memory"))),
            },
            _ => Err(ApplyError::Misfit(format!("the serial number {serial_number} is not reserved"))),
        }
    }

    /// A live certificate is scrapped or revoked; `count` is its order's.
    fn end_life(
        &mut self,
        serial_number: &SerialNumber,
        state: RecordState,
        changed: Position,
        count: impl FnOnce(&mut Order),
    ) -> Result<(), ApplyError> {
        let live = self.place(serial_number)?.filter(|place| place.state.is_live());
        let not_live = || ApplyError::Misfit(format!("the certificate {serial_number} is not live"));
        let place = live.ok_or_else(not_live)?;
        let (holder, _) = self.holder(&place)?;
        self.change_order(&holder.order, |order| {
            if place.state == RecordState::Confirmed {
                order.order.confirmed -= 1;
            }
            if place.issued > Some(order.exported) {
                order.unexported -= 1;
            }
            count(&mut order.order);
        })?;
        self.draft.later.insert(*serial_number, Later { state, changed });
        Ok(())
    }

    /// Changes what is known of an order; a holder without an order counts nowhere.
    fn change_order(&mut self, id: &str, change: impl FnOnce(&mut OrderPlace)) -> Result<(), ApplyError> {
        if id.is_empty() {
            return Ok(());
        }
        if !self.draft.orders.contains_key(id) {
            let order = self.order(id)?.ok_or_else(|| ApplyError::Misfit(format!("there is no order \"{id}\"")))?;
            self.draft.orders.insert(id.to_owned(), order);
        }
        if let Some(place) = self.draft.orders.get_mut(id) {
            change(place);
        }
        Ok(())
    }
}

/// Why an entry could not be applied.
#[derive(Debug)]
pub(super) enum ApplyError {
    Ledger(LedgerError),
    /// The entry contradicts what is known: the index, the journal, or this program is wrong.
    Misfit(String),
}

impl From<LedgerError> for ApplyError {
    fn from(error: LedgerError) -> Self {
        ApplyError::Ledger(error)
    }
}

/// An entry that gave a serial number to a device.
pub(super) struct ReservedEntry {
    pub(super) time: Timestamp,
    pub(super) actor: super::Actor,
    pub(super) holder: Holder,
    pub(super) replaces: Option<SerialNumber>,
}

fn reserved_at(journal: &Reader, place: &Place) -> Result<ReservedEntry, JournalError> {
    let Entry { time, actor, event } = journal.entry(place.reserved)?;
    match event {
        Event::Reserved { holder, replaces, .. } => Ok(ReservedEntry { time, actor, holder, replaces }),
        _ => Err(journal.misfit(place.reserved, "the index says that a reservation is here")),
    }
}

/// The certificate whose entry is at `position`.
pub(super) fn certificate_at(journal: &Reader, position: Position) -> Result<IssuedCertificate, JournalError> {
    let Entry { time, event, .. } = journal.entry(position)?;
    match event {
        Event::Issued { certificate, .. } => Ok(IssuedCertificate { at: time, certificate }),
        _ => Err(journal.misfit(position, "the index says that a certificate is here")),
    }
}
