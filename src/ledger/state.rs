//! What the ledger knows, in layers: what one batch changes lies on what is in memory, which lies on the index.
//!
//! A batch is decided on a layer of its own. When the batch is durable the layer sinks into memory, when it is not
//! it is dropped, and nothing has happened. From memory, settled records sink into the index many at a time.
//! Reservations without a certificate stay in memory; after a start they are found in the journal's tail.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, RwLockReadGuard},
};

use jiff::Timestamp;

use super::{
    Change, Export, ExportId, Holder, IssuedCertificate, KeyHash, LedgerError, Order, Record, RecordState,
    entry::{Entry, Event},
    index::{Index, Name, Runs},
    journal::{JournalError, Position, ReadFrame, Reader},
};
use crate::serial::SerialNumber;

/// How the index and the memory know a device: the first 16 octets of SHA-256 of its id.
pub(super) type DeviceHash = [u8; 16];

pub(super) fn device_hash(device: &str) -> DeviceHash {
    let mut hash = [0; 16];
    hash.copy_from_slice(&crate::signer::sha256(device.as_bytes())[..16]);
    hash
}

/// Where a record lies in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) state: RecordState,
    pub(super) reserved: Position,
    /// Where its certificate is, once issued.
    pub(super) issued: Option<Position>,
    /// Where the entry is that changed its state last after that, once one has.
    pub(super) changed: Option<Position>,
    /// What a reservation still needs; only while it is one.
    pub(super) pending: Option<Arc<Pending>>,
}

/// What a reservation still needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) holder: Holder,
    /// The device's newest record before this one: one that was scrapped or revoked.
    pub(super) replaces: Option<SerialNumber>,
}

/// A state that comes after the certificate's issue, and the entry that made it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Later {
    pub(super) state: RecordState,
    pub(super) changed: Position,
}

/// Changes to what lies below.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// As they were when they were reserved, issued or abandoned.
    pub(super) records: HashMap<SerialNumber, Place>,
    /// What became of issued ones, which may lie further below.
    pub(super) later: HashMap<SerialNumber, Later>,
    /// None: the key is free (again).
    pub(super) keys: HashMap<KeyHash, Option<SerialNumber>>,
    /// The device's newest record; none: it has none (any more).
    pub(super) devices: HashMap<DeviceHash, Option<SerialNumber>>,
    pub(super) orders: HashMap<String, OrderPlace>,
    pub(super) exports: BTreeMap<ExportId, ExportPlace>,
}

/// An order, where in the journal it begins, and how far it is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OrderPlace {
    pub(super) order: Order,
    /// Nothing was issued under it before.
    pub(super) created: Position,
    /// How many exports it has.
    pub(super) exports: u32,
    /// Where the newest of them is; `created` if there is none.
    pub(super) exported: Position,
    /// Live certificates recorded behind that.
    pub(super) unexported: u64,
}

/// An export and where its entry is: no certificate behind it is part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExportPlace {
    pub(super) export: Export,
    pub(super) position: Position,
}

impl Layer {
    /// Frees the key and the device of a reservation.
    pub(super) fn release(&mut self, pending: &Pending) {
        self.keys.insert(pending.holder.key_hash, None);
        self.devices.insert(device_hash(&pending.holder.device), pending.replaces);
    }

    /// Lays `upper` on this layer for good.
    pub(super) fn absorb(&mut self, upper: Layer) {
        self.records.extend(upper.records);
        self.later.extend(upper.later);
        self.keys.extend(upper.keys);
        self.devices.extend(upper.devices);
        self.orders.extend(upper.orders);
        self.exports.extend(upper.exports);
    }

    /// Forgets that a reservation held its key and device; what lies below knows better.
    pub(super) fn forget(&mut self, pending: &Pending) {
        self.keys.remove(&pending.holder.key_hash);
        self.devices.remove(&device_hash(&pending.holder.device));
    }
}

/// What is in memory, and which runs lie below it.
#[derive(Debug)]
pub(super) struct Memory {
    /// The newest layer.
    pub(super) recent: Layer,
    /// The reservations without a certificate, all of which are in `recent`: the oldest is first, since serial numbers
    /// rise along the journal.
    pub(super) pending: BTreeMap<SerialNumber, Position>,
    /// The layer below, while it is written into the index.
    pub(super) sinking: Option<Arc<Layer>>,
    /// The runs of the index, below both.
    pub(super) runs: Runs,
    /// All of the journal before it is durable and applied.
    pub(super) end: Position,
}

impl Memory {
    pub(super) fn new(runs: Runs, end: Position) -> Self {
        Memory { recent: Layer::default(), pending: BTreeMap::new(), sinking: None, runs, end }
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
    pub(super) index: &'a Index,
    pub(super) journal: &'a Reader,
}

impl View<'_> {
    /// The serial number to which a key is bound.
    pub(super) fn by_key(&self, key: &KeyHash) -> Result<Option<SerialNumber>, LedgerError> {
        match self.layers().find_map(|layer| layer.keys.get(key)) {
            Some(found) => Ok(*found),
            None => self.by_name(&Name::of_key(key)),
        }
    }

    /// A device's newest record.
    pub(super) fn by_device(&self, device: &str) -> Result<Option<SerialNumber>, LedgerError> {
        let hash = device_hash(device);
        match self.layers().find_map(|layer| layer.devices.get(&hash)) {
            Some(found) => Ok(*found),
            None => self.by_name(&Name::of_device(&hash)),
        }
    }

    fn by_name(&self, name: &Name) -> Result<Option<SerialNumber>, LedgerError> {
        let Some(position) = self.index.by_name(&self.memory.runs, name)? else { return Ok(None) };
        match self.journal.entry(position)?.event {
            Event::Reserved { serial_number, .. } => Ok(Some(serial_number)),
            _ => Err(self.journal.misfit(position, "the index says that a reservation is here").into()),
        }
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
            None => Ok(self.index.later(serial)?),
        }
    }

    /// Reads the journal from a place that is not far before the reservation.
    fn place_in_journal(&self, serial: &SerialNumber) -> Result<Option<Place>, LedgerError> {
        let Some(start) = self.index.before(serial)? else { return Ok(None) };
        let mut reserved = None;
        for frame in self.journal.frames(start, self.memory.end) {
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
            None => Ok(self.index.order(id)?),
        }
    }

    /// The layers, the newest first.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.draft).chain(self.memory.layers())
    }

    /// All orders, sorted by id.
    pub(super) fn orders(&self) -> Result<Vec<Order>, LedgerError> {
        let mut orders: std::collections::BTreeMap<_, _> =
            self.index.orders()?.into_iter().map(|place| (place.order.terms.id.clone(), place.order)).collect();
        let layers: Vec<_> = self.layers().collect();
        for layer in layers.into_iter().rev() {
            orders.extend(layer.orders.iter().map(|(id, place)| (id.clone(), place.order.clone())));
        }
        Ok(orders.into_values().collect())
    }

    pub(super) fn export(&self, id: &ExportId) -> Result<Option<ExportPlace>, LedgerError> {
        match self.layers().find_map(|layer| layer.exports.get(id)) {
            Some(export) => Ok(Some(export.clone())),
            None => Ok(self.index.export(id)?),
        }
    }

    /// The exports of an order, the oldest first.
    pub(super) fn exports(&self, order: &str) -> Result<Vec<Export>, LedgerError> {
        let exports = self.order(order)?.map_or(0, |place| place.exports);
        let ids = (1..=exports).map(|number| ExportId { order: order.to_owned(), number });
        ids.filter_map(|id| self.export(&id).transpose()).map(|found| Ok(found?.export)).collect()
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
            Some(position) => Some(change_at(self.journal, position)?),
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
    /// The entry contradicts what is known: the journal, or this program, is wrong.
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

/// What the entry at `changed` says about a certificate.
pub(super) fn change_at(journal: &Reader, changed: Position) -> Result<Change, JournalError> {
    let Entry { time: at, actor: by, event } = journal.entry(changed)?;
    let (scrap_reason, revocation_reason) = match event {
        Event::Confirmed { .. } => (String::new(), None),
        Event::Scrapped { reason, .. } => (reason, None),
        Event::Revoked { reason, .. } => (String::new(), Some(reason)),
        _ => return Err(journal.misfit(changed, "the index says that a certificate changed here")),
    };
    Ok(Change { at, by, scrap_reason, revocation_reason })
}

/// The certificate whose entry is at `position`.
pub(super) fn certificate_at(journal: &Reader, position: Position) -> Result<IssuedCertificate, JournalError> {
    let Entry { time, event, .. } = journal.entry(position)?;
    match event {
        Event::Issued { certificate, .. } => Ok(IssuedCertificate { at: time, certificate }),
        _ => Err(journal.misfit(position, "the index says that a certificate is here")),
    }
}
