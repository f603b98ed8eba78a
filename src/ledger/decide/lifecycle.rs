//! The lifecycle of a certificate after its issue.
//!
//! | from | confirm | scrap | revoke |
//! |---|---|---|---|
//! | issued | confirmed | scrapped | revoked |
//! | confirmed | a retry | scrapped | revoked |
//! | scrapped | refused | a retry | revoked |
//! | revoked | refused | refused | a retry |
//! | reserved, abandoned | refused | refused | refused |
//!
//! A scrapped certificate gave its unit back to its order; a revocation that follows takes nothing of the order again.

use std::collections::BTreeSet;

use super::{
    decision::{Decision, refuse},
    order::refuse_station,
};
use crate::{
    ledger::{
        actor::Actor,
        entry::Event,
        error::LedgerError,
        operation::Outcome,
        record::RecordState,
        refusal::Refusal,
        revocation::RevocationReason,
        view::{ReservedEntry, View},
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
    let Some(location) = view.location(&serial_number)? else { return refuse(Refusal::RecordUnknown(serial_number)) };
    let ReservedEntry { actor: asked, holder, .. } = view.reserved(&location)?;
    if actor.station().is_some() {
        if profiles.is_some_and(|profiles| !profiles.contains(&holder.profile)) {
            let (profile, station) = (holder.profile, actor.clone());
            return refuse(Refusal::ProfileStationRefused { serial_number, profile, station });
        }
        let refusal = match view.order(&holder.order)?.map(|location| location.order) {
            Some(order) => refuse_station(&order, actor),
            None if asked == *actor => None,
            None => Some(Refusal::ConfirmRefused { serial_number, holder: asked, station: actor.clone() }),
        };
        if let Some(refusal) = refusal {
            return refuse(refusal);
        }
    }
    let event = Event::Confirmed { serial_number, order: holder.order };
    change(serial_number, location.state, RecordState::Confirmed, event)
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
    match view.location(serial_number)? {
        // Nobody has seen a certificate whose record is not durable yet: from outside it is reserved.
        Some(location) if location.issued.is_some() && !view.is_durable(serial_number) => {
            change(*serial_number, RecordState::Reserved, wanted, event)
        }
        Some(location) => change(*serial_number, location.state, wanted, event),
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
    if state.is_live() || (state, wanted) == (RecordState::Scrapped, RecordState::Revoked) {
        return Ok((Outcome::Changed { retry: false }, Some(event)));
    }
    let allowed = match wanted {
        RecordState::Confirmed => "an issued certificate",
        RecordState::Revoked => "an issued, confirmed or scrapped certificate",
        _ => "an issued or confirmed certificate",
    };
    refuse(Refusal::StateRefused { serial_number, state, allowed, wanted })
}
