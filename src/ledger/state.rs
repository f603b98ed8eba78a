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
    Holder, IssuedCertificate, KeyHash, LedgerError, Order, Record, RecordState,
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
    /// What a reservation still needs; only while it is one.
    pub(super) pending: Option<Arc<Pending>>,
}

/// What a reservation still needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) holder: Holder,
    /// The device's newest record before this one.
    pub(super) previous: Option<SerialNumber>,
}

/// Changes to what lies below.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) records: HashMap<SerialNumber, Place>,
    /// None: the key is free (again).
    pub(super) keys: HashMap<KeyHash, Option<SerialNumber>>,
    /// The device's newest record; none: it has none (any more).
    pub(super) devices: HashMap<DeviceHash, Option<SerialNumber>>,
    pub(super) orders: HashMap<String, OrderPlace>,
}

/// An order and where in the journal it begins: nothing was issued under it before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OrderPlace {
    pub(super) order: Order,
    pub(super) created: Position,
}

impl Layer {
    /// Frees the key and the device of a reservation.
    pub(super) fn release(&mut self, pending: &Pending) {
        self.keys.insert(pending.holder.key_hash, None);
        self.devices.insert(device_hash(&pending.holder.device), pending.previous);
    }

    /// Lays `upper` on this layer for good.
    pub(super) fn absorb(&mut self, upper: Layer) {
        self.records.extend(upper.records);
        self.keys.extend(upper.keys);
        self.devices.extend(upper.devices);
        self.orders.extend(upper.orders);
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

    /// How many settled records wait to sink.
    pub(super) fn settled(&self) -> usize {
        self.recent.records.len() - self.pending.len()
    }

    /// Begins to sink all that is settled: reservations, and what they hold, stay behind, and so do the orders, which
    /// are few and looked at with every reservation.
    pub(super) fn begin_to_sink(&mut self) -> Arc<Layer> {
        let mut settled = std::mem::take(&mut self.recent);
        self.recent.orders = settled.orders.clone();
        for serial_number in self.pending.keys() {
            let Some(place) = settled.records.remove(serial_number) else { continue };
            if let Some(Pending { holder, .. }) = place.pending.as_deref() {
                let device = device_hash(&holder.device);
                settled.keys.remove(&holder.key_hash);
                settled.devices.remove(&device);
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
        match self.layers().find_map(|layer| layer.records.get(serial)) {
            Some(place) => Ok(Some(place.clone())),
            None => self.place_in_journal(serial),
        }
    }

    /// Reads the journal from a place that is at most some dozens of reservations before this one.
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
                    let state = self.index.later_state(serial)?.unwrap_or(RecordState::Issued);
                    return Ok(Some(Place { state, reserved, issued: Some(position), pending: None }));
                }
                (Event::Abandoned { serial_number, .. }, Some(reserved)) if serial_number == *serial => {
                    return Ok(Some(Place { state: RecordState::Abandoned, reserved, issued: None, pending: None }));
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

    /// Ends the look and gives what the batch changes.
    pub(super) fn into_draft(self) -> Layer {
        self.draft
    }

    /// Whether what is known of a serial number can be read in the journal, not only in this batch.
    pub(super) fn is_durable(&self, serial: &SerialNumber) -> bool {
        !self.draft.records.contains_key(serial)
    }

    /// For whom a serial number is.
    pub(super) fn holder(&self, place: &Place) -> Result<Holder, LedgerError> {
        match &place.pending {
            Some(pending) => Ok(pending.holder.clone()),
            None => Ok(reserved_at(self.journal, place)?.holder),
        }
    }

    /// All that is known of a serial number.
    pub(super) fn record(&self, serial_number: &SerialNumber) -> Result<Option<Record>, LedgerError> {
        let Some(place) = self.place(serial_number)? else { return Ok(None) };
        let reserved = reserved_at(self.journal, &place)?;
        let issued = match place.issued {
            Some(position) => Some(certificate_at(self.journal, position)?),
            None => None,
        };
        Ok(Some(Record {
            serial_number: *serial_number,
            state: place.state,
            holder: reserved.holder,
            actor: reserved.actor,
            reserved_at: reserved.time,
            issued,
        }))
    }

    /// Lets an entry happen. The same code serves live entries and those read at a start.
    ///
    /// # Errors
    /// Those of the storage, or a sentence if the entry does not fit what is known.
    pub(super) fn apply(&mut self, entry: &Entry, position: Position) -> Result<(), ApplyError> {
        match &entry.event {
            Event::Reserved { serial_number, holder } => {
                let previous = self.by_device(&holder.device)?;
                self.change_order(&holder.order, |order| order.reserved += 1)?;
                self.hold(*serial_number, position, holder.clone(), previous);
            }
            Event::Issued { serial_number, .. } => {
                let (mut place, pending) = self.reservation(serial_number)?;
                self.change_order(&pending.holder.order, |order| {
                    order.reserved -= 1;
                    order.issued += 1;
                })?;
                place.state = RecordState::Issued;
                place.issued = Some(position);
                place.pending = None;
                self.draft.records.insert(*serial_number, place);
            }
            Event::Abandoned { serial_number, .. } => {
                let (mut place, pending) = self.reservation(serial_number)?;
                self.change_order(&pending.holder.order, |order| order.reserved -= 1)?;
                self.draft.release(&pending);
                place.pending = None;
                place.state = RecordState::Abandoned;
                self.draft.records.insert(*serial_number, place);
            }
            Event::OrderCreated(terms) => {
                let order =
                    Order { terms: terms.clone(), closed: false, issued: 0, reserved: 0, created_at: entry.time };
                self.draft.orders.insert(terms.id.clone(), OrderPlace { order, created: position });
            }
            Event::OrderClosed { id } => self.change_order(id, |order| order.closed = true)?,
            Event::Checkpoint { .. } => {}
        }
        Ok(())
    }

    /// Binds key and device to a reservation, without counting it.
    pub(super) fn hold(
        &mut self,
        serial_number: SerialNumber,
        position: Position,
        holder: Holder,
        previous: Option<SerialNumber>,
    ) {
        self.draft.keys.insert(holder.key_hash, Some(serial_number));
        self.draft.devices.insert(device_hash(&holder.device), Some(serial_number));
        let pending = Some(Arc::new(Pending { holder, previous }));
        let place = Place { state: RecordState::Reserved, reserved: position, issued: None, pending };
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

    /// Changes an order's counts; a holder without an order counts nowhere.
    fn change_order(&mut self, id: &str, change: impl FnOnce(&mut Order)) -> Result<(), ApplyError> {
        if id.is_empty() {
            return Ok(());
        }
        if !self.draft.orders.contains_key(id) {
            let order = self.order(id)?.ok_or_else(|| ApplyError::Misfit(format!("there is no order \"{id}\"")))?;
            self.draft.orders.insert(id.to_owned(), order);
        }
        if let Some(place) = self.draft.orders.get_mut(id) {
            change(&mut place.order);
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

struct ReservedEntry {
    time: Timestamp,
    actor: super::Actor,
    holder: Holder,
}

fn reserved_at(journal: &Reader, place: &Place) -> Result<ReservedEntry, JournalError> {
    let Entry { time, actor, event } = journal.entry(place.reserved)?;
    match event {
        Event::Reserved { holder, .. } => Ok(ReservedEntry { time, actor, holder }),
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
