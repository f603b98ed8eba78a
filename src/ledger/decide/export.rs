//! Exports: batches of an order's certificates, and a platform's acknowledgement.

use jiff::Timestamp;

use super::decision::{Decision, refuse};
use crate::ledger::{
    actor::Actor,
    entry::Event,
    error::LedgerError,
    export::{Export, ExportId},
    operation::Outcome,
    overlay::OrderLocation,
    refusal::Refusal,
    view::View,
};

pub(super) fn create(view: &View<'_>, now: Timestamp, actor: &Actor, order: &str) -> Result<Decision, LedgerError> {
    let Some(OrderLocation { exports, unexported: certificates, .. }) = view.order(order)? else {
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

pub(super) fn acknowledge(
    view: &View<'_>,
    now: Timestamp,
    actor: &Actor,
    id: &ExportId,
) -> Result<Decision, LedgerError> {
    match view.export(id)?.map(|location| location.export) {
        None => refuse(Refusal::ExportUnknown(id.clone())),
        Some(export) if export.acknowledged.is_some() => Ok((Outcome::Export(export), None)),
        Some(export) => {
            let export = Export { acknowledged: Some((now, actor.clone())), ..export };
            Ok((Outcome::Export(export), Some(Event::ExportAcknowledged { id: id.clone() })))
        }
    }
}
