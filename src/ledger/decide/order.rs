//! Orders: their beginning, their end, and whom they allow what.

use jiff::Timestamp;

use super::decision::{Decision, refuse};
use crate::{
    ledger::{
        actor::Actor,
        device_list::DevicesListed,
        entry::Event,
        error::LedgerError,
        operation::Outcome,
        order::{Order, OrderPause, OrderTerms},
        overlay::OrderLocation,
        record::Holder,
        refusal::Refusal,
        view::View,
    },
    pattern,
};

pub(super) fn create_order(
    view: &View<'_>,
    now: Timestamp,
    actor: &Actor,
    terms: &OrderTerms,
) -> Result<Decision, LedgerError> {
    match view.order(&terms.id)? {
        Some(OrderLocation { order, .. }) if order.terms == *terms && !order.closed => {
            Ok((Outcome::Order(order), None))
        }
        Some(OrderLocation { order, .. }) => refuse(Refusal::OrderExists(terms.id.clone(), difference(&order, terms))),
        None => {
            let order = Order::new(terms.clone(), now, actor.clone());
            Ok((Outcome::Order(order), Some(Event::OrderCreated(terms.clone()))))
        }
    }
}

/// In what an order is not the one that is to be created.
fn difference(order: &Order, terms: &OrderTerms) -> &'static str {
    match &order.terms {
        _ if order.closed => "and is closed",
        there if there.profile != terms.profile => "for another profile",
        there if there.quantity != terms.quantity => "with another quantity",
        there if (there.not_before, there.not_after) != (terms.not_before, terms.not_after) => {
            "with another time window"
        }
        there if there.stations != terms.stations => "for other stations",
        there if there.list != terms.list => "with another list of devices",
        there if there.per_day != terms.per_day => "with another limit per day",
        _ => "with other attributes",
    }
}

pub(super) fn close_order(view: &View<'_>, now: Timestamp, actor: &Actor, id: &str) -> Result<Decision, LedgerError> {
    match view.order(id)? {
        None => refuse(Refusal::OrderUnknown(id.to_owned())),
        Some(OrderLocation { order, .. }) if order.closed => Ok((Outcome::Order(order), None)),
        Some(OrderLocation { order, .. }) => {
            let closed = Order { closed: true, closed_by: Some((now, actor.clone())), ..order };
            Ok((Outcome::Order(closed), Some(Event::OrderClosed { id: id.to_owned() })))
        }
    }
}

/// An order that is not closed.
fn open_order(view: &View<'_>, id: &str) -> Result<Result<Order, Refusal>, LedgerError> {
    Ok(match view.order(id)? {
        None => Err(Refusal::OrderUnknown(id.to_owned())),
        Some(OrderLocation { order, .. }) if order.closed => Err(Refusal::OrderClosed(id.to_owned())),
        Some(OrderLocation { order, .. }) => Ok(order),
    })
}

/// The quantity is never below what is issued and reserved (invariant 5).
pub(super) fn change_quantity(
    view: &View<'_>,
    now: Timestamp,
    actor: &Actor,
    (id, quantity, reason): (&str, u64, &str),
) -> Result<Decision, LedgerError> {
    let mut order = match open_order(view, id)? {
        Ok(order) => order,
        Err(refusal) => return refuse(refusal),
    };
    if order.terms.quantity == quantity {
        return Ok((Outcome::Order(order), None));
    }
    let used = order.issued.saturating_add(order.reserved);
    if quantity < used {
        return refuse(Refusal::QuantityBelowUsed { order: id.to_owned(), quantity, used });
    }
    order.terms.quantity = quantity;
    order.quantity_changed = Some((now, actor.clone()));
    let event = Event::OrderQuantityChanged { id: id.to_owned(), quantity, reason: reason.to_owned() };
    Ok((Outcome::Order(order), Some(event)))
}

pub(super) fn pause(
    view: &View<'_>,
    now: Timestamp,
    actor: &Actor,
    (id, reason): (&str, &str),
) -> Result<Decision, LedgerError> {
    let order = match open_order(view, id)? {
        Ok(order) => order,
        Err(refusal) => return refuse(refusal),
    };
    if order.paused.is_some() {
        return Ok((Outcome::Order(order), None));
    }
    let paused = Some(OrderPause { at: now, by: actor.clone(), reason: reason.to_owned() });
    let event = Event::OrderPaused { id: id.to_owned(), reason: reason.to_owned() };
    Ok((Outcome::Order(Order { paused, ..order }), Some(event)))
}

pub(super) fn resume(view: &View<'_>, id: &str) -> Result<Decision, LedgerError> {
    let order = match open_order(view, id)? {
        Ok(order) => order,
        Err(refusal) => return refuse(refusal),
    };
    if order.paused.is_none() {
        return Ok((Outcome::Order(order), None));
    }
    Ok((Outcome::Order(Order { paused: None, ..order }), Some(Event::OrderResumed { id: id.to_owned() })))
}

/// The devices of a list are taken in their order, so that a call that is made again finds what it has done.
pub(super) fn list_devices(view: &View<'_>, list: &DevicesListed) -> Result<Decision, LedgerError> {
    let mut order = match open_order(view, &list.order)? {
        Ok(order) => order,
        Err(refusal) => return refuse(refusal),
    };
    let (order_id, listed, devices) = (list.order.clone(), order.listed, list.devices.len() as u64);
    let whole = order.terms.list.map_or(0, |terms| terms.devices);
    let end = list.first.saturating_add(devices);
    if end <= listed {
        return Ok((Outcome::Order(order), None));
    }
    if list.first != listed || end > whole {
        return refuse(Refusal::ListOutOfOrder { order: order_id, listed, whole });
    }
    order.listed = end;
    Ok((Outcome::Order(order), Some(Event::OrderDevicesListed(list.clone()))))
}

/// The list's part: the device is on it, and has the key that it says.
pub(super) fn refuse_by_list(view: &View<'_>, order: &Order, holder: &Holder) -> Result<Option<Refusal>, LedgerError> {
    if order.terms.list.is_none() {
        return Ok(None);
    }
    // What this very batch takes in is not there yet.
    if order.unlisted() > 0 || view.lists_devices() {
        let (order, missing) = (order.terms.id.clone(), order.unlisted().max(1));
        return Ok(Some(Refusal::ListIncomplete { order, missing }));
    }
    let refusal =
        |what| Refusal::DeviceNotOnOrder { order: order.terms.id.clone(), device: holder.device.clone(), what };
    Ok(match view.listed(&order.terms.id, &holder.device)? {
        None => Some(refusal("is not on the list")),
        Some(listed) if listed.key_hash.is_some_and(|key| key != holder.key_hash) => {
            Some(refusal("has another key than the list says"))
        }
        Some(_) => None,
    })
}

/// The order's part of the one rule for which station may touch a certificate, when it is issued and afterwards: the
/// order and the profile must both allow the station.
pub(super) fn refuse_station(order: &Order, actor: &Actor) -> Option<Refusal> {
    let OrderTerms { id, stations, .. } = &order.terms;
    let allowed = pattern::allows(stations, actor.station().unwrap_or_default());
    (!allowed).then(|| Refusal::StationRefused { order: id.clone(), station: actor.to_string() })
}

pub(super) fn refuse_by_order(order: &Order, now: Timestamp, holder: &Holder) -> Option<Refusal> {
    let OrderTerms { id, profile, quantity, not_before, not_after, .. } = &order.terms;
    if *profile != holder.profile {
        let (expected, found) = (profile.clone(), holder.profile.clone());
        return Some(Refusal::ProfileRefused { order: id.clone(), expected, found });
    }
    if order.closed {
        return Some(Refusal::OrderClosed(id.clone()));
    }
    if let Some(pause) = &order.paused {
        return Some(Refusal::OrderPaused { order: id.clone(), since: pause.at, reason: pause.reason.clone() });
    }
    if not_before.is_some_and(|from| now < from) || not_after.is_some_and(|until| now >= until) {
        let from = not_before.map(|from| format!("from {from}"));
        let until = not_after.map(|until| format!("until {until}"));
        let window = from.into_iter().chain(until).collect::<Vec<_>>().join(" ");
        return Some(Refusal::OrderOutOfWindow { order: id.clone(), window, now });
    }
    if let Some(limit) = order.terms.per_day.filter(|limit| order.reserved_on_day(now) >= *limit) {
        return Some(Refusal::DayExhausted { order: id.clone(), limit });
    }
    // No over-production (invariant 5).
    if order.left() == 0 {
        return Some(Refusal::OrderExhausted { order: id.clone(), quantity: *quantity });
    }
    None
}
