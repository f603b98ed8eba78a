//! Who gets a serial number.

use jiff::Timestamp;

use super::{
    decision::{Decision, refuse},
    device::{ReserveKind, decide_by_device, device_has_certificate},
    order::{refuse_by_list, refuse_by_order, refuse_station},
    vending,
};
use crate::{
    ledger::{
        actor::Actor,
        entry::Event,
        error::LedgerError,
        operation::Outcome,
        overlay::OrderLocation,
        record::{Holder, RecordState},
        refusal::Refusal,
        view::View,
    },
    serial::SerialNumbers,
};

pub(super) fn reserve(
    view: &View<'_>,
    now: Timestamp,
    serial_numbers: &mut SerialNumbers,
    actor: &Actor,
    holder: &Holder,
    kind: ReserveKind,
) -> Result<Decision, LedgerError> {
    // A holder without an order is charged to none; its profile allowed that.
    let order = match holder.order.as_str() {
        "" => None,
        id => match view.order(id)? {
            Some(OrderLocation { order, .. }) => Some(order),
            None => return refuse(Refusal::OrderUnknown(id.to_owned())),
        },
    };
    // Whoever created a code for the device has let it come by itself.
    let asks_at_a_station = kind != ReserveKind::ByCode;
    if let Some(refusal) = order.as_ref().filter(|_| asks_at_a_station).and_then(|order| refuse_station(order, actor)) {
        return refuse(refusal);
    }
    if let Some(decision) = decide_by_key(view, holder, kind)? {
        return Ok(decision);
    }
    let replaces = match kind {
        ReserveKind::ByCode => vending::redeem(view, now, holder)?,
        ReserveKind::First | ReserveKind::Reissue => decide_by_device(view, holder, kind)?,
    };
    let replaces = match replaces {
        Ok(replaces) => replaces,
        Err(refusal) => return refuse(refusal),
    };
    if let Some(order) = order {
        if let Some(refusal) = refuse_by_order(&order, now, holder) {
            return refuse(refusal);
        }
        if let Some(refusal) = refuse_by_list(view, &order, holder)? {
            return refuse(refusal);
        }
    }
    let serial_number = serial_numbers.next(now);
    let event = Event::Reserved { serial_number, holder: holder.clone(), replaces };
    Ok((Outcome::Reserved(serial_number), Some(event)))
}

/// A key that is known (invariants 3 and 4): either the same request again, or a key that may not be used.
fn decide_by_key(view: &View<'_>, holder: &Holder, kind: ReserveKind) -> Result<Option<Decision>, LedgerError> {
    let Some(serial_number) = view.by_key(&holder.key_hash)? else { return Ok(None) };
    let Some(location) = view.location(&serial_number)? else { return Ok(None) };
    let (found, replaces) = view.holder(&location)?;
    if found.device != holder.device {
        return refuse(Refusal::KeyReused { device: found.device, key_hash: holder.key_hash }).map(Some);
    }
    match location.state {
        // An abandoned reservation does not bind the key.
        RecordState::Abandoned => return Ok(None),
        state @ (RecordState::Scrapped | RecordState::Revoked) => {
            return refuse(Refusal::KeyBlocked { device: found.device, serial_number, state }).map(Some);
        }
        RecordState::Reserved | RecordState::Issued | RecordState::Confirmed => {}
    }
    // A device's first certificate does not answer a request for a replacement.
    let another = kind == ReserveKind::Reissue && replaces.is_none();
    if another || found.order != holder.order || found.profile != holder.profile {
        return refuse(device_has_certificate(found, serial_number)).map(Some);
    }
    Ok(Some(match location.issued {
        // Recorded by this very batch: it can be read when the batch is durable.
        Some(position) if view.is_durable(&serial_number) => {
            let certificate = view.certificate_at(position)?.certificate;
            let Holder { issuer, issuer_id, .. } = found;
            (Outcome::Replay { serial_number, certificate, issuer, issuer_id }, None)
        }
        _ => (Outcome::InProgress(serial_number), None),
    }))
}
