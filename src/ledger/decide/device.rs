//! What a device has, and so may get.

use crate::{
    ledger::{
        error::LedgerError,
        record::{Holder, RecordState},
        refusal::Refusal,
        view::View,
    },
    serial::SerialNumber,
};

/// Which certificate of the device is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReserveKind {
    /// Its first.
    First,
    /// A new one, in place of one that was scrapped or revoked.
    Reissue,
    /// What the device's vending code gives.
    ByCode,
}

/// A device has one live certificate at most (invariant 3). The certificate that a new one replaces, if the device
/// had one; or why it gets none.
pub(super) fn decide_by_device(
    view: &View<'_>,
    holder: &Holder,
    kind: ReserveKind,
) -> Result<Result<Option<SerialNumber>, Refusal>, LedgerError> {
    let newest = match view.by_device(&holder.device)? {
        Some(serial_number) => view.location(&serial_number)?.map(|location| (serial_number, location)),
        None => None,
    };
    let device = || holder.device.clone();
    Ok(match newest {
        Some((serial_number, location)) => match (location.state, kind) {
            (RecordState::Reserved | RecordState::Issued | RecordState::Confirmed, _) => {
                Err(device_has_certificate(view.holder(&location)?.0, serial_number))
            }
            (RecordState::Scrapped | RecordState::Revoked, ReserveKind::Reissue) => Ok(Some(serial_number)),
            (state @ (RecordState::Scrapped | RecordState::Revoked), ReserveKind::First | ReserveKind::ByCode) => {
                Err(Refusal::ReissueRequired { device: device(), serial_number, state })
            }
            (RecordState::Abandoned, _) => without_certificate(device(), kind),
        },
        None => without_certificate(device(), kind),
    })
}

fn without_certificate(device: String, kind: ReserveKind) -> Result<Option<SerialNumber>, Refusal> {
    match kind {
        ReserveKind::First | ReserveKind::ByCode => Ok(None),
        ReserveKind::Reissue => Err(Refusal::ReissueRefused { device }),
    }
}

/// The refusal of another certificate beside a live one.
pub(super) fn device_has_certificate(found: Holder, serial_number: SerialNumber) -> Refusal {
    Refusal::DeviceHasCertificate { device: found.device, serial_number, order: found.order, profile: found.profile }
}
