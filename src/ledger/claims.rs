//! What the entries of a batch claim: keys and devices for a serial number, and units of orders. A shared ledger's database keeps
//! these beside the journal, and refuses by itself what would break them.

use std::collections::BTreeMap;

use super::{
    entry::{Entry, Event},
    error::LedgerError,
    order::Order,
    record::{Holder, KeyHash},
    recovery::Recovery,
    view::View,
};
use crate::serial::SerialNumber;

/// A key or a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Key(KeyHash),
    Device(String),
}

/// What a name stands for before a batch, and after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NameChange {
    pub(super) before: Option<SerialNumber>,
    pub(super) after: Option<SerialNumber>,
}

/// What a batch changes of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OrderChange {
    /// The batch creates it.
    pub(super) created: bool,
    /// How many more units are used after it.
    pub(super) used: i64,
    /// Its quantity.
    pub(super) most: u64,
    /// A certificate that was lost is charged, whatever the quantity.
    pub(super) beyond: bool,
}

/// What a batch claims and frees.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) names: BTreeMap<Name, NameChange>,
    pub(super) orders: BTreeMap<String, OrderChange>,
    /// Epochs that begin, each with its daemon.
    pub(super) opened: Vec<(u64, String)>,
    /// Epochs that end.
    pub(super) ended: Vec<u64>,
}

impl Claims {
    /// Notes an entry, before it is applied to what is known.
    ///
    /// # Errors
    /// Those of the storage.
    pub(super) fn note(&mut self, view: &View<'_>, entry: &Entry) -> Result<(), LedgerError> {
        match &entry.event {
            Event::Reserved { serial_number, holder, replaces } => {
                self.bind(holder, *serial_number, *replaces);
                self.order(view, &holder.order, |order| order.used += 1)?;
            }
            Event::Abandoned { serial_number, .. } => {
                let Some(location) = view.location(serial_number)? else { return Ok(()) };
                let (holder, replaces) = view.holder(&location)?;
                self.free(&holder, *serial_number, replaces);
                self.order(view, &holder.order, |order| order.used -= 1)?;
            }
            Event::Scrapped { serial_number, .. } => self.give_back(view, serial_number)?,
            Event::Recovered(Recovery { serial_number, holder, replaces, .. }) => {
                if let Some(replaced) = replaces
                    && view.location(replaced)?.is_some_and(|location| location.state.is_live())
                {
                    self.give_back(view, replaced)?;
                }
                self.bind(holder, *serial_number, view.by_device(&holder.device)?);
                self.order(view, &holder.order, |order| (order.used, order.beyond) = (order.used + 1, true))?;
            }
            Event::OrderCreated(terms) => {
                let change = OrderChange { created: true, most: terms.quantity, ..OrderChange::default() };
                self.orders.insert(terms.id.clone(), change);
            }
            Event::OrderQuantityChanged { id, quantity, .. } => self.order(view, id, |order| order.most = *quantity)?,
            Event::Opened { epoch, daemon } => self.opened.push((*epoch, daemon.clone())),
            Event::Ended { epoch } => self.ended.push(*epoch),
            _ => {}
        }
        Ok(())
    }

    /// Key and device of a holder become a serial number's; the device may have had another.
    pub(super) fn bind(&mut self, holder: &Holder, serial_number: SerialNumber, before: Option<SerialNumber>) {
        self.set(Name::Key(holder.key_hash), None, Some(serial_number));
        self.set(Name::Device(holder.device.clone()), before, Some(serial_number));
    }

    /// A reservation has ended: its key is free, and its device has again what it had before.
    pub(super) fn free(&mut self, holder: &Holder, serial_number: SerialNumber, before: Option<SerialNumber>) {
        self.set(Name::Key(holder.key_hash), Some(serial_number), None);
        self.set(Name::Device(holder.device.clone()), Some(serial_number), before);
    }

    fn set(&mut self, name: Name, before: Option<SerialNumber>, after: Option<SerialNumber>) {
        self.names.entry(name).or_insert(NameChange { before, after }).after = after;
    }

    /// Changes what is claimed of an order; a holder without an order counts nowhere.
    fn order(&mut self, view: &View<'_>, id: &str, change: impl FnOnce(&mut OrderChange)) -> Result<(), LedgerError> {
        if id.is_empty() {
            return Ok(());
        }
        if !self.orders.contains_key(id) {
            // Certificates that were lost and found again may have exceeded the quantity.
            let most = |order: &Order| order.terms.quantity.max(order.issued + order.reserved);
            let most = view.order(id)?.map_or(0, |location| most(&location.order));
            self.orders.insert(id.to_owned(), OrderChange { most, ..OrderChange::default() });
        }
        if let Some(order) = self.orders.get_mut(id) {
            change(order);
        }
        Ok(())
    }

    /// The unit of a live certificate is its order's again.
    fn give_back(&mut self, view: &View<'_>, serial_number: &SerialNumber) -> Result<(), LedgerError> {
        let Some(location) = view.location(serial_number)? else { return Ok(()) };
        let (holder, _) = view.holder(&location)?;
        self.order(view, &holder.order, |order| order.used -= 1)
    }
}
