//! Whether a certificate that was found outside of the ledger is one that it has lost.
//!
//! It exists, so neither the order's quantity nor its window keeps it out. What does is something that the ledger knows
//! to be otherwise: then the device may have either certificate, and a person must look.

use super::decision::{Decision, refuse};
use crate::{
    ledger::{
        entry::Event, error::LedgerError, operation::Outcome, record::RecordState, recovery::Recovery,
        refusal::Refusal, view::View,
    },
    serial::SerialNumber,
};

pub(super) fn recover(view: &View<'_>, recovery: &Recovery) -> Result<Decision, LedgerError> {
    let Recovery { serial_number, certificate, holder, .. } = recovery;
    let conflict = |what: String| refuse(Refusal::RecoveryConflict { serial_number: *serial_number, what });
    match view.location(serial_number)? {
        Some(location) if location.state == RecordState::Reserved => {
            return conflict("its certificate is being made".into());
        }
        Some(location) if location.state != RecordState::Abandoned => {
            let recorded = match location.issued.filter(|_| view.is_durable(serial_number)) {
                Some(position) => Some(view.certificate_at(position)?.certificate),
                None => None,
            };
            return match recorded.is_none_or(|recorded| recorded == *certificate) {
                true => Ok((Outcome::Changed { retry: true }, None)),
                false => conflict("the ledger has another certificate with this serial number".into()),
            };
        }
        _ => {}
    }
    if let Some(refusal) = unfit_order(view, recovery)? {
        return refuse(refusal);
    }
    if let Some(other) = view.by_key(&holder.key_hash)? {
        return conflict(format!("its key is that of the certificate {other}"));
    }
    let replaces = match view.by_device(&holder.device)? {
        None => None,
        Some(other) => match replaced(view, &other, serial_number)? {
            Ok(replaces) => replaces,
            Err(state) => {
                return conflict(format!(
                    "the ledger has the newer certificate {other} of the device \"{}\", which is {state}: it may have \
                     either; revoke the one that it does not have",
                    holder.device
                ));
            }
        },
    };
    let event = Event::Recovered(Recovery { replaces, ..recovery.clone() });
    Ok((Outcome::Changed { retry: false }, Some(event)))
}

/// The device's certificate before, if it is one; the state of one that is newer.
fn replaced(
    view: &View<'_>,
    other: &SerialNumber,
    recovered: &SerialNumber,
) -> Result<Result<Option<SerialNumber>, RecordState>, LedgerError> {
    let state = view.location(other)?.map_or(RecordState::Abandoned, |location| location.state);
    Ok(match state {
        RecordState::Abandoned => Ok(None),
        state if other > recovered || state == RecordState::Reserved => Err(state),
        _ => Ok(Some(*other)),
    })
}

fn unfit_order(view: &View<'_>, Recovery { holder, .. }: &Recovery) -> Result<Option<Refusal>, LedgerError> {
    if holder.order.is_empty() {
        return Ok(None);
    }
    let Some(location) = view.order(&holder.order)? else {
        return Ok(Some(Refusal::OrderUnknown(holder.order.clone())));
    };
    let (order, expected, found) = (holder.order.clone(), location.order.terms.profile, holder.profile.clone());
    Ok((expected != found).then_some(Refusal::ProfileRefused { order, expected, found }))
}
