//! The decisions: which operation may happen, on what is known, as pure functions without I/O of their own.
//!
//! Each takes a [`View`] and gives the outcome and the event that makes it so. The order of the checks is
//! the order in which a person would want to hear of what is wrong: who asks, then whether it is a retry, then key
//! and device, then what is left of the order. What may happen to a certificate after its issue is in [`lifecycle`].

mod approval;
mod batch;
mod decision;
mod device;
mod issuer;
mod lifecycle;
mod order;
mod peer;
mod proof;
mod recovery;
mod refused;
mod reserve;
#[cfg(test)]
mod tests;
mod vending;

use jiff::Timestamp;

use self::{
    decision::{Decision, refuse},
    device::ReserveKind,
};
use super::{
    entry::Event,
    error::LedgerError,
    operation::{Action, Operation, Outcome},
    record::RecordState,
    refusal::Refusal,
    view::View,
};
use crate::serial::SerialNumbers;

/// Decides an operation.
#[expect(clippy::too_many_lines, reason = "one arm for each action")]
pub(super) fn decide(
    view: &View<'_>,
    now: Timestamp,
    serial_numbers: &mut SerialNumbers,
    operation: &Operation,
) -> Result<Decision, LedgerError> {
    match &operation.action {
        Action::Reserve(holder) => {
            reserve::reserve(view, now, serial_numbers, &operation.actor, holder, ReserveKind::First)
        }
        Action::Reissue(holder) => {
            reserve::reserve(view, now, serial_numbers, &operation.actor, holder, ReserveKind::Reissue)
        }
        Action::Redeem(holder) => {
            reserve::reserve(view, now, serial_numbers, &operation.actor, holder, ReserveKind::ByCode)
        }
        Action::CreateVendingCodes(terms) => vending::create(view, now, terms),
        Action::CancelVendingCode { device } => vending::cancel(view, device),
        Action::Record { serial_number, certificate } => match view.location(serial_number)? {
            Some(location) if location.state == RecordState::Reserved => {
                let event = Event::Issued { serial_number: *serial_number, certificate: certificate.clone() };
                Ok((Outcome::Recorded, Some(event)))
            }
            // The others gave this daemon up, and its reservations with it.
            Some(location) if location.state == RecordState::Abandoned => {
                refuse(Refusal::ReservationLost(*serial_number))
            }
            _ => refuse(Refusal::NotReserved(*serial_number)),
        },
        Action::Abandon { serial_number, reason } => {
            let is_reserved = view.proof_reservation(serial_number)?.is_some()
                || view.location(serial_number)?.is_some_and(|location| location.state == RecordState::Reserved);
            if !is_reserved {
                return refuse(Refusal::NotReserved(*serial_number));
            }
            let event = Event::Abandoned { serial_number: *serial_number, reason: reason.clone() };
            Ok((Outcome::Abandoned, Some(event)))
        }
        Action::ReserveProof(terms) => proof::reserve(view, now, serial_numbers, terms),
        Action::RecordProof { serial_number, certificate } => proof::record(view, *serial_number, certificate),
        Action::Confirm { serial_number, device, profiles } => {
            // Which record it is does not matter: the view knows where it is then.
            device.as_deref().map(|device| view.by_device(device)).transpose()?;
            lifecycle::confirm(view, &operation.actor, serial_number, profiles.as_deref())
        }
        Action::Scrap { serial_number, reason } => lifecycle::scrap(view, serial_number, reason),
        Action::Revoke { serial_number, reason } => lifecycle::revoke(view, serial_number, *reason),
        Action::CreateBatch(terms) => batch::create(view, now, &operation.actor, terms),
        Action::SealBatch { id, seal } => batch::seal(view, id, seal),
        Action::AcknowledgeBatch { id, results } => {
            batch::acknowledge(view, now, &operation.actor, id, results.as_ref())
        }
        Action::IssueCrl(list) => match view.crl_number(&list.ca)? {
            newest if newest >= list.number => {
                refuse(Refusal::CrlNumberUsed { issuer: list.issuer.clone(), number: list.number, newest })
            }
            _ => Ok((Outcome::CrlIssued, Some(Event::CrlIssued(list.clone())))),
        },
        Action::Checkpoint { note, earlier_checkpoints_lost } => {
            let event = Event::Checkpoint { note: note.clone(), earlier_checkpoints_lost: *earlier_checkpoints_lost };
            Ok((Outcome::Checkpointed, Some(event)))
        }
        Action::Recover(recovery) => {
            serial_numbers.pass(&recovery.serial_number);
            recovery::recover(view, recovery)
        }
        Action::NoteRefused(noted) => refused::note(view, noted),
        Action::Start { version, configuration } => {
            let event = Event::Started { version: version.clone(), configuration: *configuration };
            Ok((Outcome::Noted, Some(event)))
        }
        Action::Stop { reason } => Ok((Outcome::Noted, Some(Event::Stopped { reason: reason.clone() }))),
        Action::LoadConfiguration { sha256, text } => {
            let retry = view.configuration()? == Some(*sha256);
            let event = (!retry).then(|| Event::ConfigurationLoaded { sha256: *sha256, text: text.clone() });
            Ok((Outcome::Changed { retry }, event))
        }
        Action::OpenEpoch { daemon } => {
            let epoch = view.next_epoch();
            serial_numbers.set_epoch(epoch);
            Ok((Outcome::Noted, Some(Event::Opened { epoch, daemon: daemon.clone() })))
        }
        Action::EndEpoch { epoch } => {
            let open = view.epochs().any(|known| known.number == *epoch && known.is_open());
            let ends = open && view.reservations_of(*epoch)?.is_empty();
            Ok((Outcome::Changed { retry: !ends }, ends.then_some(Event::Ended { epoch: *epoch })))
        }
        Action::AddIssuer(terms) => Ok(issuer::add(view, now, terms)),
        Action::ListDevices(list) => order::list_devices(view, list),
        Action::AskApproval { what } => Ok(approval::ask(view, now, &operation.actor, what)),
        Action::GrantApproval { number } => approval::grant(view, now, &operation.actor, *number),
        Action::Enroll(enrolment) => peer::enroll(view, now, &operation.actor, enrolment),
        Action::RevokePeer { peer, reason, keep } => {
            Ok(peer::revoke(view, now, &operation.actor, (peer, keep.as_ref()), reason))
        }
        Action::CreateOrder(terms) => order::create_order(view, now, &operation.actor, terms),
        Action::ChangeQuantity { id, quantity, reason } => {
            order::change_quantity(view, now, &operation.actor, (id, *quantity, reason))
        }
        Action::PauseOrder { id, reason } => order::pause(view, now, &operation.actor, (id, reason)),
        Action::ResumeOrder { id } => order::resume(view, id),
        Action::CloseOrder { id } => order::close_order(view, now, &operation.actor, id),
    }
}
