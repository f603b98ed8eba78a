//! The operations of the committer's callers, each tied to the one type of outcome that answers it.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use crate::{
    ledger::{
        self, Action, Actor, Approval, Batch, BatchId, BatchTerms, CrlIssued, DevicesListed, EnrolledPeer, Enrolment,
        Holder, IssuerTerms, KeyHash, Order, OrderTerms, Outcome, ProofTerms, RecordedIssuer, RequestsRefused, Results,
        RevocationReason, Seal, VendingTerms,
    },
    serial::SerialNumber,
};

/// An operation whose caller gets a `T`. An action and the reader of its outcome are joined here and nowhere else, so a
/// caller cannot ask for one thing and wait for another.
pub(super) struct Typed<T> {
    pub(super) action: Action,
    /// Gives the outcome back if it is not one of this action: a bug of the ledger.
    pub(super) read: fn(Outcome) -> Result<T, Outcome>,
}

/// What a request to reserve finds.
pub(super) enum Found {
    /// A serial number of its own.
    Reserved(SerialNumber),
    /// What the same request got before.
    Replay { serial_number: SerialNumber, certificate: Bytes, issuer: String, issuer_id: u32 },
}

/// Whether a certificate's state changed; a retry changes nothing.
pub(super) struct Changed(pub(super) bool);

pub(super) fn reserve(holder: Holder, reissue: bool) -> Typed<Found> {
    Typed { action: if reissue { Action::Reissue(holder) } else { Action::Reserve(holder) }, read: found }
}

fn found(outcome: Outcome) -> Result<Found, Outcome> {
    match outcome {
        Outcome::Reserved(serial_number) => Ok(Found::Reserved(serial_number)),
        Outcome::Replay { serial_number, certificate, issuer, issuer_id } => {
            Ok(Found::Replay { serial_number, certificate, issuer, issuer_id })
        }
        other => Err(other),
    }
}

pub(super) fn redeem(holder: Holder) -> Typed<Found> {
    Typed { action: Action::Redeem(holder), read: found }
}

pub(super) fn create_vending_codes(terms: VendingTerms) -> Typed<u32> {
    Typed {
        action: Action::CreateVendingCodes(terms),
        read: |outcome| match outcome {
            Outcome::VendingBatch(number) => Ok(number),
            other => Err(other),
        },
    }
}

pub(super) fn cancel_vending_code(device: String) -> Typed<Changed> {
    Typed { action: Action::CancelVendingCode { device }, read: changed }
}

/// What a request for a proof of possession finds.
pub(super) enum FoundProof {
    /// A serial number of its own.
    Reserved(SerialNumber),
    /// The one that is still good.
    Existing(ledger::FoundProof),
}

pub(super) fn reserve_proof(terms: ProofTerms) -> Typed<FoundProof> {
    Typed {
        action: Action::ReserveProof(terms),
        read: |outcome| match outcome {
            Outcome::Reserved(serial_number) => Ok(FoundProof::Reserved(serial_number)),
            Outcome::Proof(found) => Ok(FoundProof::Existing(found)),
            other => Err(other),
        },
    }
}

pub(super) fn record_proof(serial_number: SerialNumber, certificate: Bytes) -> Typed<()> {
    Typed { action: Action::RecordProof { serial_number, certificate }, read: recorded }
}

pub(super) fn record(serial_number: SerialNumber, certificate: Bytes) -> Typed<()> {
    Typed { action: Action::Record { serial_number, certificate }, read: recorded }
}

pub(super) fn confirm(
    serial_number: SerialNumber,
    device: Option<String>,
    profiles: Option<Arc<BTreeSet<String>>>,
) -> Typed<Changed> {
    Typed { action: Action::Confirm { serial_number, device, profiles }, read: changed }
}

pub(super) fn scrap(serial_number: SerialNumber, reason: String) -> Typed<Changed> {
    Typed { action: Action::Scrap { serial_number, reason }, read: changed }
}

pub(super) fn revoke(serial_number: SerialNumber, reason: RevocationReason) -> Typed<Changed> {
    Typed { action: Action::Revoke { serial_number, reason }, read: changed }
}

pub(super) fn create_order(terms: OrderTerms) -> Typed<Order> {
    Typed { action: Action::CreateOrder(terms), read: order }
}

pub(super) fn close_order(id: String) -> Typed<Order> {
    Typed { action: Action::CloseOrder { id }, read: order }
}

pub(super) fn change_quantity(id: String, quantity: u64, reason: String) -> Typed<Order> {
    Typed { action: Action::ChangeQuantity { id, quantity, reason }, read: order }
}

pub(super) fn pause_order(id: String, reason: String) -> Typed<Order> {
    Typed { action: Action::PauseOrder { id, reason }, read: order }
}

pub(super) fn resume_order(id: String) -> Typed<Order> {
    Typed { action: Action::ResumeOrder { id }, read: order }
}

pub(super) fn list_devices(list: DevicesListed) -> Typed<Order> {
    Typed { action: Action::ListDevices(list), read: order }
}

pub(super) fn ask_approval(what: String) -> Typed<Arc<Approval>> {
    Typed { action: Action::AskApproval { what }, read: approval }
}

pub(super) fn grant_approval(number: u64) -> Typed<Arc<Approval>> {
    Typed { action: Action::GrantApproval { number }, read: approval }
}

fn approval(outcome: Outcome) -> Result<Arc<Approval>, Outcome> {
    match outcome {
        Outcome::Approval(approval) => Ok(approval),
        other => Err(other),
    }
}

pub(super) fn enroll(enrolment: Enrolment) -> Typed<Arc<EnrolledPeer>> {
    Typed { action: Action::Enroll(enrolment), read: peer }
}

pub(super) fn revoke_peer(name: Actor, reason: String, keep: Option<KeyHash>) -> Typed<Arc<EnrolledPeer>> {
    Typed { action: Action::RevokePeer { peer: name, reason, keep }, read: peer }
}

pub(super) fn create_batch(terms: Arc<BatchTerms>) -> Typed<Batch> {
    Typed { action: Action::CreateBatch(terms), read: batch }
}

pub(super) fn seal_batch(id: BatchId, seal: Seal) -> Typed<Seal> {
    Typed {
        action: Action::SealBatch { id, seal },
        read: |outcome| match outcome {
            Outcome::Sealed(seal) => Ok(seal),
            other => Err(other),
        },
    }
}

pub(super) fn acknowledge_batch(id: BatchId, results: Option<Arc<Results>>) -> Typed<Batch> {
    Typed { action: Action::AcknowledgeBatch { id, results }, read: batch }
}

pub(super) fn add_issuer(terms: IssuerTerms) -> Typed<(Arc<RecordedIssuer>, Changed)> {
    Typed {
        action: Action::AddIssuer(terms),
        read: |outcome| match outcome {
            Outcome::Issuer { issuer, retry } => Ok((issuer, Changed(!retry))),
            other => Err(other),
        },
    }
}

pub(super) fn checkpoint(note: String, earlier_checkpoints_lost: bool) -> Typed<()> {
    Typed {
        action: Action::Checkpoint { note, earlier_checkpoints_lost },
        read: |outcome| match outcome {
            Outcome::Checkpointed => Ok(()),
            other => Err(other),
        },
    }
}

pub(super) fn load_configuration(sha256: [u8; 32], text: String) -> Typed<Changed> {
    Typed { action: Action::LoadConfiguration { sha256, text }, read: changed }
}

pub(super) fn start(version: String, configuration: [u8; 32]) -> Typed<()> {
    Typed { action: Action::Start { version, configuration }, read: noted }
}

pub(super) fn note_refused(refused: RequestsRefused) -> Typed<()> {
    Typed { action: Action::NoteRefused(refused), read: noted }
}

pub(super) fn stop(reason: String) -> Typed<()> {
    Typed { action: Action::Stop { reason }, read: noted }
}

fn noted(outcome: Outcome) -> Result<(), Outcome> {
    match outcome {
        Outcome::Noted => Ok(()),
        other => Err(other),
    }
}

fn recorded(outcome: Outcome) -> Result<(), Outcome> {
    match outcome {
        Outcome::Recorded => Ok(()),
        other => Err(other),
    }
}

pub(super) fn issue_crl(list: CrlIssued) -> Typed<()> {
    Typed {
        action: Action::IssueCrl(list),
        read: |outcome| match outcome {
            Outcome::CrlIssued => Ok(()),
            other => Err(other),
        },
    }
}

fn changed(outcome: Outcome) -> Result<Changed, Outcome> {
    match outcome {
        Outcome::Changed { retry } => Ok(Changed(!retry)),
        other => Err(other),
    }
}

fn order(outcome: Outcome) -> Result<Order, Outcome> {
    match outcome {
        Outcome::Order(order) => Ok(order),
        other => Err(other),
    }
}

fn peer(outcome: Outcome) -> Result<Arc<EnrolledPeer>, Outcome> {
    match outcome {
        Outcome::Peer(peer) => Ok(peer),
        other => Err(other),
    }
}

fn batch(outcome: Outcome) -> Result<Batch, Outcome> {
    match outcome {
        Outcome::Batch(batch) => Ok(batch),
        other => Err(other),
    }
}
