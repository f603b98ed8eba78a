//! The decisions: which operation may happen, on what is known, as pure functions without I/O of their own.
//!
//! Each looks through a [`View`] and gives the outcome and the event that makes it so. The order of the checks is
//! the order in which a person would want to hear of what is wrong: who asks, then whether it is a retry, then key
//! and device, then what is left of the order. What may happen to a certificate after its issue is in [`life`].

mod life;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)] // A test ends by panicking.
mod tests;

use jiff::Timestamp;

use super::{
    Action, Actor, Holder, LedgerError, Operation, Order, OrderTerms, Outcome, RecordState, Refusal,
    entry::Event,
    layer::OrderPlace,
    state::{View, certificate_at},
};
use crate::{
    pattern,
    serial::{SerialNumber, SerialNumbers},
};

/// What follows from an operation: its outcome, and the event that must be recorded for it.
pub(super) type Decision = (Outcome, Option<Event>);

/// Decides an operation.
pub(super) fn decide(
    view: &View<'_>,
    now: Timestamp,
    serial_numbers: &mut SerialNumbers,
    operation: &Operation,
) -> Result<Decision, LedgerError> {
    match &operation.action {
        Action::Reserve(holder) => reserve(view, now, serial_numbers, &operation.actor, holder, Wish::First),
        Action::Reissue(holder) => reserve(view, now, serial_numbers, &operation.actor, holder, Wish::Reissue),
        Action::Record { serial_number, certificate } => match view.place(serial_number)? {
            Some(place) if place.state == RecordState::Reserved => {
                let event = Event::Issued { serial_number: *serial_number, certificate: certificate.clone() };
                Ok((Outcome::Recorded, Some(event)))
            }
            _ => refuse(Refusal::NotReserved(*serial_number)),
        },
        Action::Abandon { serial_number, reason } => match view.place(serial_number)? {
            Some(place) if place.state == RecordState::Reserved => {
                let event = Event::Abandoned { serial_number: *serial_number, reason: reason.clone() };
                Ok((Outcome::Abandoned, Some(event)))
            }
            _ => refuse(Refusal::NotReserved(*serial_number)),
        },
        Action::Confirm { serial_number, profiles } => {
            life::confirm(view, &operation.actor, serial_number, profiles.as_deref())
        }
        Action::Scrap { serial_number, reason } => life::scrap(view, serial_number, reason),
        Action::Revoke { serial_number, reason } => life::revoke(view, serial_number, *reason),
        Action::CreateExport { order } => life::create_export(view, now, &operation.actor, order),
        Action::AcknowledgeExport { id } => life::acknowledge_export(view, now, &operation.actor, id),
        Action::Checkpoint { note, begins_anew } => {
            let event = Event::Checkpoint { note: note.clone(), begins_anew: *begins_anew };
            Ok((Outcome::Checkpointed, Some(event)))
        }
        Action::CreateOrder(terms) => create_order(view, now, terms),
        Action::CloseOrder { id } => match view.order(id)? {
            None => refuse(Refusal::OrderUnknown(id.clone())),
            Some(OrderPlace { order, .. }) if order.closed => Ok((Outcome::Order(order), None)),
            Some(OrderPlace { order, .. }) => {
                Ok((Outcome::Order(Order { closed: true, ..order }), Some(Event::OrderClosed { id: id.clone() })))
            }
        },
    }
}

/// Which certificate of the device is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Its first.
    First,
    /// A new one, in place of one that was scrapped or revoked.
    Reissue,
}

fn reserve(
    view: &View<'_>,
    now: Timestamp,
    serial_numbers: &mut SerialNumbers,
    actor: &Actor,
    holder: &Holder,
    wish: Wish,
) -> Result<Decision, LedgerError> {
    // A holder without an order is charged to none; its profile allowed that.
    let order = match holder.order.as_str() {
        "" => None,
        id => match view.order(id)? {
            Some(OrderPlace { order, .. }) => Some(order),
            None => return refuse(Refusal::OrderUnknown(id.to_owned())),
        },
    };
    if let Some(refusal) = order.as_ref().and_then(|order| refuse_station(order, actor)) {
        return refuse(refusal);
    }
    if let Some(decision) = decide_by_key(view, holder, wish)? {
        return Ok(decision);
    }
    let replaces = match decide_by_device(view, holder, wish)? {
        Ok(replaces) => replaces,
        Err(refusal) => return refuse(refusal),
    };
    if let Some(refusal) = order.and_then(|order| refuse_by_order(&order, now, holder)) {
        return refuse(refusal);
    }
    let serial_number = serial_numbers.next(now);
    let event = Event::Reserved { serial_number, holder: holder.clone(), replaces };
    Ok((Outcome::Reserved(serial_number), Some(event)))
}

/// The order's part of the one rule for which station may touch a certificate, when it is issued and afterwards: the
/// order and the profile must both allow the station.
fn refuse_station(order: &Order, actor: &Actor) -> Option<Refusal> {
    let OrderTerms { id, stations, .. } = &order.terms;
    let allowed = pattern::allows(stations, actor.station().unwrap_or_default());
    (!allowed).then(|| Refusal::StationRefused { order: id.clone(), station: actor.to_string() })
}

/// A key that is known: either the same request again, or a key that may not be used.
fn decide_by_key(view: &View<'_>, holder: &Holder, wish: Wish) -> Result<Option<Decision>, LedgerError> {
    let Some(serial_number) = view.by_key(&holder.key_hash)? else { return Ok(None) };
    let Some(place) = view.place(&serial_number)? else { return Ok(None) };
    let (found, replaces) = view.holder(&place)?;
    if found.device != holder.device {
        return refuse(Refusal::KeyReused { device: found.device, key_hash: holder.key_hash }).map(Some);
    }
    match place.state {
        // An abandoned reservation does not bind the key.
        RecordState::Abandoned => return Ok(None),
        state @ (RecordState::Scrapped | RecordState::Revoked) => {
            return refuse(Refusal::KeyBlocked { device: found.device, serial_number, state }).map(Some);
        }
        RecordState::Reserved | RecordState::Issued | RecordState::Confirmed => {}
    }
    // A device's first certificate is no answer to who wants another one in its place.
    let another = wish == Wish::Reissue && replaces.is_none();
    if another || found.order != holder.order || found.profile != holder.profile {
        return refuse(device_has_certificate(found, serial_number)).map(Some);
    }
    Ok(Some(match place.issued {
        // Recorded by this very batch: it can be read when the batch is durable.
        Some(position) if view.is_durable(&serial_number) => {
            let certificate = certificate_at(view.journal, position)?.certificate;
            (Outcome::Replay { serial_number, certificate, issuer: found.issuer }, None)
        }
        _ => (Outcome::InProgress(serial_number), None),
    }))
}

/// The certificate that a new one replaces, if the device had one; or why it gets none.
fn decide_by_device(
    view: &View<'_>,
    holder: &Holder,
    wish: Wish,
) -> Result<Result<Option<SerialNumber>, Refusal>, LedgerError> {
    let newest = match view.by_device(&holder.device)? {
        Some(serial_number) => view.place(&serial_number)?.map(|place| (serial_number, place)),
        None => None,
    };
    let device = || holder.device.clone();
    Ok(match newest {
        Some((serial_number, place)) => match (place.state, wish) {
            (RecordState::Reserved | RecordState::Issued | RecordState::Confirmed, _) => {
                Err(device_has_certificate(view.holder(&place)?.0, serial_number))
            }
            (RecordState::Scrapped | RecordState::Revoked, Wish::Reissue) => Ok(Some(serial_number)),
            (state @ (RecordState::Scrapped | RecordState::Revoked), Wish::First) => {
                Err(Refusal::ReissueRequired { device: device(), serial_number, state })
            }
            (RecordState::Abandoned, _) => without_certificate(device(), wish),
        },
        None => without_certificate(device(), wish),
    })
}

fn without_certificate(device: String, wish: Wish) -> Result<Option<SerialNumber>, Refusal> {
    match wish {
        Wish::First => Ok(None),
        Wish::Reissue => Err(Refusal::ReissueRefused { device }),
    }
}

fn refuse_by_order(order: &Order, now: Timestamp, holder: &Holder) -> Option<Refusal> {
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
    if order.left() == 0 {
        return Some(Refusal::OrderExhausted { order: id.clone(), quantity: *quantity });
    }
    None
}

fn device_has_certificate(found: Holder, serial_number: SerialNumber) -> Refusal {
    Refusal::DeviceHasCertificate { device: found.device, serial_number, order: found.order, profile: found.profile }
}

fn create_order(view: &View<'_>, now: Timestamp, terms: &OrderTerms) -> Result<Decision, LedgerError> {
    match view.order(&terms.id)? {
        Some(OrderPlace { order, .. }) if order.terms == *terms && !order.closed => Ok((Outcome::Order(order), None)),
        Some(OrderPlace { order, .. }) => refuse(Refusal::OrderExists(terms.id.clone(), difference(&order, terms))),
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

fn refuse(refusal: Refusal) -> Result<Decision, LedgerError> {
    Ok((Outcome::Refused(refusal), None))
}
