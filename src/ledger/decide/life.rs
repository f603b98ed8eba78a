//! The life of a certificate after its issue, and the exports that tell a platform of it.
//!
//! | from | confirm | scrap | revoke |
//! |---|---|---|---|
//! | issued | confirmed | scrapped | revoked |
//! | confirmed | a retry | scrapped | revoked |
//! | scrapped | refused | a retry | refused |
//! | revoked | refused | refused | a retry |
//! | reserved, abandoned | refused | refused | refused |

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Decision, refuse, refuse_station};
use crate::{
    ledger::{
        Actor, Export, ExportId, LedgerError, Outcome, RecordState, Refusal, RevocationReason,
        entry::Event,
        layer::OrderPlace,
        state::{ReservedEntry, View},
    },
    serial::SerialNumber,
};

/// A station that may use the certificate's profile and order, so that it could have been issued to it, may confirm it;
/// without an order, the one that asked for it. The edge sees to it that others are operators.
pub(super) fn confirm(
    view: &View<'_>,
    actor: &Actor,
    serial_number: &SerialNumber,
    profiles: Option<&BTreeSet<String>>,
) -> Result<Decision, LedgerError> {
    let serial_number = *serial_number;
    let Some(place) = view.place(&serial_number)? else { return refuse(Refusal::RecordUnknown(serial_number)) };
    let ReservedEntry { actor: asked, holder, .. } = view.reserved(&place)?;
    if actor.station().is_some() {
        if profiles.is_some_and(|profiles| !profiles.contains(&holder.profile)) {
            let (profile, station) = (holder.profile, actor.clone());
            return refuse(Refusal::ProfileStationRefused { serial_number, profile, station });
        }
        let refusal = match view.order(&holder.order)?.map(|place| place.order) {
            Some(order) => refuse_station(&order, actor),
            None if asked == *actor => None,
            None => Some(Refusal::ConfirmRefused { serial_number, holder: asked, station: actor.clone() }),
        };
        if let Some(refusal) = refusal {
            return refuse(refusal);
        }
    }
    let event = Event::Confirmed { serial_number, order: holder.order };
    change(serial_number, place.state, RecordState::Confirmed, event)
}

pub(super) fn scrap(view: &View<'_>, serial_number: &SerialNumber, reason: &str) -> Result<Decision, LedgerError> {
    let event = Event::Scrapped { serial_number: *serial_number, reason: reason.to_owned() };
    end(view, serial_number, RecordState::Scrapped, event)
}

pub(super) fn revoke(
    view: &View<'_>,
    serial_number: &SerialNumber,
    reason: RevocationReason,
) -> Result<Decision, LedgerError> {
    let event = Event::Revoked { serial_number: *serial_number, reason };
    end(view, serial_number, RecordState::Revoked, event)
}

fn end(
    view: &View<'_>,
    serial_number: &SerialNumber,
    wanted: RecordState,
    event: Event,
) -> Result<Decision, LedgerError> {
    match view.place(serial_number)? {
        Some(place) => change(*serial_number, place.state, wanted, event),
        None => refuse(Refusal::RecordUnknown(*serial_number)),
    }
}

/// The table above.
fn change(
    serial_number: SerialNumber,
    state: RecordState,
    wanted: RecordState,
    event: Event,
) -> Result<Decision, LedgerError> {
    if state == wanted {
        return Ok((Outcome::Changed { retry: true }, None));
    }
    if state.is_live() {
        return Ok((Outcome::Changed { retry: false }, Some(event)));
    }
    let allowed = match wanted {
        RecordState::Confirmed => "an issued certificate",
        _ => "an issued or confirmed certificate",
    };
    refuse(Refusal::StateRefused { serial_number, state, allowed, wanted })
}

pub(super) fn create_export(
    view: &View<'_>,
    now: Timestamp,
    actor: &Actor,
    order: &str,
) -> Result<Decision, LedgerError> {
    let Some(OrderPlace { exports, unexported: certificates, .. }) = view.order(order)? else {
        return refuse(Refusal::OrderUnknown(order.to_owned()));
    };
    if certificates == 0 {
        return refuse(Refusal::NothingToExport(order.to_owned()));
    }
    let id = ExportId { order: order.to_owned(), number: exports + 1 };
    let event = Event::ExportCreated { id: id.clone(), certificates };
    let export = Export { id, certificates, created_at: now, created_by: actor.clone(), acknowledged: None };
    Ok((Outcome::Export(export), Some(event)))
}

pub(super) fn acknowledge_export(
    view: &View<'_>,
    now: Timestamp,
    actor: &Actor,
    id: &ExportId,
) -> Result<Decision, LedgerError> {
    match view.export(id)?.map(|place| place.export) {
        None => refuse(Refusal::ExportUnknown(id.clone())),
        Some(export) if export.acknowledged.is_some() => Ok((Outcome::Export(export), None)),
        Some(export) => {
            let export = Export { acknowledged: Some((now, actor.clone())), ..export };
            Ok((Outcome::Export(export), Some(Event::ExportAcknowledged { id: id.clone() })))
        }
    }
}
