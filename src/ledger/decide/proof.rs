//! Who gets a proof of possession. The edge sees to it that only operators ask.

use jiff::Timestamp;

use super::decision::{Decision, refuse};
use crate::{
    ledger::{
        entry::Event,
        error::LedgerError,
        operation::Outcome,
        overlay::ProofState,
        proof::{FoundProof, ProofTerms},
        refusal::Refusal,
        view::{View, proof_at},
    },
    serial::{SerialNumber, SerialNumbers},
};

/// A CA has one valid proof for each code: asked for again, it is the same one (invariant 4).
pub(super) fn reserve(
    view: &View<'_>,
    now: Timestamp,
    serial_numbers: &mut SerialNumbers,
    terms: &ProofTerms,
) -> Result<Decision, LedgerError> {
    if let Some(known) = view.proof(&terms.id)? {
        let serial_number = known.serial_number;
        match known.state {
            ProofState::Reserved => return Ok((Outcome::InProgress(serial_number), None)),
            ProofState::Issued(position) if now <= known.not_after => {
                if !view.is_durable_proof(&terms.id) {
                    // Recorded by this very batch: it can be read when the batch is durable.
                    return Ok((Outcome::InProgress(serial_number), None));
                }
                let certificate = proof_at(view.journal, position)?;
                return Ok((Outcome::Proof(FoundProof { serial_number, certificate }), None));
            }
            ProofState::Issued(_) | ProofState::Abandoned => {}
        }
    }
    let serial_number = serial_numbers.next(now);
    let event = Event::ProofReserved { serial_number, terms: terms.clone() };
    Ok((Outcome::Reserved(serial_number), Some(event)))
}

pub(super) fn record(
    view: &View<'_>,
    serial_number: SerialNumber,
    certificate: &bytes::Bytes,
) -> Result<Decision, LedgerError> {
    match view.proof_reservation(&serial_number)? {
        Some(_) => {
            let event = Event::ProofIssued { serial_number, certificate: certificate.clone() };
            Ok((Outcome::Recorded, Some(event)))
        }
        // The others gave this daemon up, and its reservations with it.
        None if view.next_epoch() > 1 => refuse(Refusal::ReservationLost(serial_number)),
        None => refuse(Refusal::NotReserved(serial_number)),
    }
}
