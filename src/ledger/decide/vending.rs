//! Vending codes: who gets one, and what it opens.

use std::collections::HashSet;

use jiff::Timestamp;

use super::{
    decision::{Decision, refuse},
    device::{ReserveKind, decide_by_device},
};
use crate::{
    ledger::{
        entry::Event,
        error::LedgerError,
        operation::Outcome,
        overlay::OrderLocation,
        record::{Holder, RecordState},
        refusal::Refusal,
        vending::{CreatedCodes, HashedCode, VendingCode, VendingTerms},
        view::View,
    },
    serial::SerialNumber,
};

/// A batch is created whole or not at all. Asked for again with the same hashes it is a retry.
pub(super) fn create(view: &View<'_>, now: Timestamp, terms: &VendingTerms) -> Result<Decision, LedgerError> {
    let Some(OrderLocation { order, .. }) = view.order(&terms.order)? else {
        return refuse(Refusal::OrderUnknown(terms.order.clone()));
    };
    if order.closed {
        return refuse(Refusal::OrderClosed(terms.order.clone()));
    }
    let refused = |device: &str, why: String| refuse(Refusal::CodeRefused { device: device.to_owned(), why });
    let first = terms.codes.first().map_or("", |code| code.device.as_str());
    if terms.codes.is_empty() || terms.expires <= now {
        return refused(first, "a batch has one code at least, and expires in the future".into());
    }
    let (mut devices, mut replaces, mut known) = (HashSet::new(), Vec::with_capacity(terms.codes.len()), 0);
    let mut batch = view.vending_batches()? + 1;
    for code in &terms.codes {
        if !devices.insert(&code.device) {
            return refused(&code.device, "it is named twice".into());
        }
        let before = view.vending_code(&code.device)?;
        if let Some(before) = before.as_ref().filter(|before| before.code == *code && before.order == terms.order) {
            (known, batch) = (known + 1, before.batch);
            replaces.push(before.replaces);
            continue;
        }
        // A code that would open nothing is refused here, and not to the device.
        if order.terms.list.is_some() {
            if order.unlisted() > 0 || view.lists_devices() {
                return refuse(Refusal::ListIncomplete {
                    order: terms.order.clone(),
                    missing: order.unlisted().max(1),
                });
            }
            if view.listed(&terms.order, &code.device)?.is_none() {
                let (order, device) = (terms.order.clone(), code.device.clone());
                return refuse(Refusal::DeviceNotOnOrder { order, device, what: "is not on the list" });
            }
        }
        match newest(view, code)? {
            (None, _) => replaces.push(None),
            (Some(serial_number), RecordState::Scrapped | RecordState::Revoked) => replaces.push(Some(serial_number)),
            (Some(serial_number), state) => {
                return refused(&code.device, format!("it has the certificate {serial_number}, which is {state}"));
            }
        }
        if before.is_some_and(|before| before.obstacle(now).is_none() && replaces.last() == Some(&before.replaces)) {
            return refused(&code.device, "it has a code that can still be used; cancel that one first".into());
        }
    }
    if known > 0 && known < terms.codes.len() {
        return refused(first, "some of these codes were created before, and others were not".into());
    }
    if known > 0 {
        return Ok((Outcome::VendingBatch(batch), None));
    }
    let created = CreatedCodes { batch, terms: terms.clone(), replaces };
    Ok((Outcome::VendingBatch(batch), Some(Event::VendingCodesCreated(Box::new(created)))))
}

/// The device's newest certificate, or reservation.
fn newest(view: &View<'_>, code: &HashedCode) -> Result<(Option<SerialNumber>, RecordState), LedgerError> {
    let Some(serial_number) = view.by_device(&code.device)? else { return Ok((None, RecordState::Abandoned)) };
    Ok(match view.location(&serial_number)?.map(|location| location.state) {
        None | Some(RecordState::Abandoned) => (None, RecordState::Abandoned),
        Some(state) => (Some(serial_number), state),
    })
}

pub(super) fn cancel(view: &View<'_>, device: &str) -> Result<Decision, LedgerError> {
    match view.vending_code(device)? {
        None => refuse(Refusal::CodeUnknown(device.to_owned())),
        Some(code) if code.cancelled => Ok((Outcome::Changed { retry: true }, None)),
        Some(_) => {
            let event = Event::VendingCodeCancelled { device: device.to_owned() };
            Ok((Outcome::Changed { retry: false }, Some(event)))
        }
    }
}

/// What a certificate by the device's code replaces, if the code still gives one; otherwise why not. It gives one: when that
/// was recorded, the device's newest certificate is another than the one that the code was created for.
pub(super) fn redeem(
    view: &View<'_>,
    now: Timestamp,
    holder: &Holder,
) -> Result<Result<Option<SerialNumber>, Refusal>, LedgerError> {
    let refused = |why: String| Ok(Err(Refusal::CodeRefused { device: holder.device.clone(), why }));
    let Some(code) = view.vending_code(&holder.device)? else {
        return Ok(Err(Refusal::CodeUnknown(holder.device.clone())));
    };
    if let Some(why) = code.obstacle(now) {
        return refused(why);
    }
    let VendingCode { order, replaces, .. } = code;
    if order != holder.order {
        return refused(format!("it is for the order \"{order}\""));
    }
    let kind = if replaces.is_some() { ReserveKind::Reissue } else { ReserveKind::First };
    match decide_by_device(view, holder, kind)? {
        Ok(found) if found == replaces => Ok(Ok(found)),
        Ok(_) => refused("it was used before".into()),
        Err(Refusal::ReissueRequired { .. }) => refused("it was used before".into()),
        Err(refusal) => Ok(Err(refusal)),
    }
}
