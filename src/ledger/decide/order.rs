//! Orders: their beginning, their end, and whom they allow what.

use jiff::Timestamp;

use super::decision::{Decision, refuse};
use crate::{
    ledger::{
        actor::Actor,
        entry::Event,
        error::LedgerError,
        operation::Outcome,
        order::{Order, OrderTerms},
        overlay::OrderLocation,
        record::Holder,
        refusal::Refusal,
        view::View,
    },
    pattern,
};

pub(super) fn create_order(view: &View<'_>, now: Timestamp, terms: &OrderTerms) -> Result<Decision, LedgerError> {
    match view.order(&terms.id)? {
        Some(OrderLocation { order, .. }) if order.terms == *terms && !order.closed => {
            Ok((Outcome::Order(order), None))
        }
        Some(OrderLocation { order, .. }) => refuse(Refusal::OrderExists(terms.id.clone(), difference(&order, terms))),
        None => Ok((Outcome::Order(Order::new(terms.clone(), now)), Some(Event::OrderCreated(terms.clone())))),
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
        _ => "with other attributes",
    }
}

pub(super) fn close_order(view: &View<'_>, id: &str) -> Result<Decision, LedgerError> {
    match view.order(id)? {
        None => refuse(Refusal::OrderUnknown(id.to_owned())),
        Some(OrderLocation { order, .. }) if order.closed => Ok((Outcome::Order(order), None)),
        Some(OrderLocation { order, .. }) => {
            Ok((Outcome::Order(Order { closed: true, ..order }), Some(Event::OrderClosed { id: id.to_owned() })))
        }
    }
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
    if not_before.is_some_and(|from| now < from) || not_after.is_some_and(|until| now >= until) {
        let from = not_before.map(|from| format!("from {from}"));
        let until = not_after.map(|until| format!("until {until}"));
        let window = from.into_iter().chain(until).collect::<Vec<_>>().join(" ");
        return Some(Refusal::OrderOutOfWindow { order: id.clone(), window, now });
    }
    // No over-production (invariant 5).
    if order.left() == 0 {
        return Some(Refusal::OrderExhausted { order: id.clone(), quantity: *quantity });
    }
    None
}
