//! What can be asked of a ledger, and what becomes of it.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{
    actor::Actor,
    approval::Approval,
    batch::{Batch, BatchId, BatchTerms, Results, Seal},
    crl_issued::CrlIssued,
    device_list::DevicesListed,
    error::LedgerError,
    issuer::{IssuerTerms, RecordedIssuer},
    order::{Order, OrderTerms},
    peer::{EnrolledPeer, Enrolment},
    proof::{FoundProof, ProofTerms},
    record::{Holder, KeyHash},
    recovery::Recovery,
    refusal::Refusal,
    refused::RequestsRefused,
    revocation::RevocationReason,
    vending::VendingTerms,
};
use crate::serial::SerialNumber;

/// An operation and who asks for it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who asks.
    pub actor: Actor,
    /// What is asked for.
    pub action: Action,
}

impl Operation {
    /// The reservation that it ends without a certificate.
    pub(super) fn abandoned(&self) -> Option<SerialNumber> {
        match self.action {
            Action::Abandon { serial_number, .. } => Some(serial_number),
            _ => None,
        }
    }
}

/// What can be asked of a ledger.
#[derive(Clone, Debug)]
pub enum Action {
    /// Give a serial number to a device that has had none.
    Reserve(Holder),
    /// Give a serial number to a device whose certificate was scrapped or revoked.
    Reissue(Holder),
    /// Give a serial number to a device whose vending code was shown.
    Redeem(Holder),
    /// Create vending codes.
    CreateVendingCodes(VendingTerms),
    /// Let a device's vending code be used no more.
    CancelVendingCode {
        /// The device.
        device: String,
    },
    /// Record the certificate of a reservation.
    Record {
        /// The reservation's serial number.
        serial_number: SerialNumber,
        /// DER.
        certificate: Bytes,
    },
    /// Abandon a reservation.
    Abandon {
        /// The reservation's serial number.
        serial_number: SerialNumber,
        /// Why, for people.
        reason: String,
    },
    /// The device has taken its certificate.
    Confirm {
        /// The certificate's serial number.
        serial_number: SerialNumber,
        /// The device that it is of, if that is known: the index has the place of each device's newest record.
        device: Option<String>,
        /// The profiles that the station that asks may use; `None`: all, for it is no station.
        profiles: Option<Arc<BTreeSet<String>>>,
    },
    /// The device is scrap: give back what its order was charged.
    Scrap {
        /// The certificate's serial number.
        serial_number: SerialNumber,
        /// Why, for people.
        reason: String,
    },
    /// The certificate is not to be trusted any more.
    Revoke {
        /// The certificate's serial number.
        serial_number: SerialNumber,
        /// Why.
        reason: RevocationReason,
    },
    /// Give a serial number to a proof of possession.
    ReserveProof(ProofTerms),
    /// Record the certificate of a proof's reservation.
    RecordProof {
        /// The reservation's serial number.
        serial_number: SerialNumber,
        /// DER.
        certificate: Bytes,
    },
    /// Create an order.
    CreateOrder(OrderTerms),
    /// Let nothing more be issued under an order.
    CloseOrder {
        /// The order's id.
        id: String,
    },
    /// Raise or lower an order's quantity.
    ChangeQuantity {
        /// The order's id.
        id: String,
        /// How many certificates may be issued from now on.
        quantity: u64,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// Let nothing be issued under an order until it is resumed.
    PauseOrder {
        /// The order's id.
        id: String,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// Let an order that was paused go on.
    ResumeOrder {
        /// The order's id.
        id: String,
    },
    /// Take in the next devices of an order's list.
    ListDevices(DevicesListed),
    /// Use the agreement of a second operator, or ask for it.
    AskApproval {
        /// What is to be done.
        what: String,
    },
    /// Agree to what another operator asks for.
    GrantApproval {
        /// Which request.
        number: u64,
    },
    /// Record a certificate of the station CA.
    Enroll(Enrolment),
    /// Let a station, an operator or an auditor connect no more.
    RevokePeer {
        /// Who, as actors are written.
        peer: Actor,
        /// Why, for people.
        reason: String,
        /// The key whose certificates stay.
        keep: Option<KeyHash>,
    },
    /// Cut the next batch of a destination.
    CreateBatch(Arc<BatchTerms>),
    /// Record what the audit key signed about a batch's files, unless they have a signature already.
    SealBatch {
        /// The batch.
        id: BatchId,
        /// What was signed.
        seal: Seal,
    },
    /// The platform that a batch was for has it.
    AcknowledgeBatch {
        /// The batch.
        id: BatchId,
        /// What the platform said, if that came back.
        results: Option<Arc<Results>>,
    },
    /// Record a certificate revocation list, before it is published.
    IssueCrl(CrlIssued),
    /// Record an issuer, unless the same chain has its name already.
    AddIssuer(IssuerTerms),
    /// Record a certificate that the ledger has lost and that was found again.
    Recover(Recovery),
    /// Record that requests were refused.
    NoteRefused(RequestsRefused),
    /// Record that the daemon was started.
    Start {
        /// Of birthmark.
        version: String,
        /// SHA-256 of its configuration file.
        configuration: [u8; 32],
    },
    /// Record that the daemon shut down in order.
    Stop {
        /// Why.
        reason: String,
    },
    /// Record the configuration that is in force, unless it is the one before.
    LoadConfiguration {
        /// SHA-256 of the file.
        sha256: [u8; 32],
        /// The whole file.
        text: String,
    },
    /// Begin to write into a ledger that several daemons share.
    OpenEpoch {
        /// The daemon's name.
        daemon: String,
    },
    /// End an epoch in which nothing is reserved any more, unless it has ended.
    EndEpoch {
        /// Which.
        epoch: u64,
    },
    /// Record what the audit key signed about the ledger.
    Checkpoint {
        /// The signed text; see [`super::checkpoint`].
        note: String,
        /// The checkpoints before it are gone.
        earlier_checkpoints_lost: bool,
    },
}

/// What became of an operation.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The serial number is the device's; the HSM may sign.
    Reserved(SerialNumber),
    /// The same request holds this serial number already and its certificate is being made.
    InProgress(SerialNumber),
    /// The same request was served before.
    Replay {
        /// The certificate's serial number.
        serial_number: SerialNumber,
        /// DER.
        certificate: Bytes,
        /// The issuing CA's name.
        issuer: String,
        /// The recorded issuer's id; 0: from before issuers were recorded.
        issuer_id: u32,
    },
    /// The proof of possession that was made before is still good.
    Proof(FoundProof),
    /// The certificate may leave.
    Recorded,
    /// The reservation is gone; its serial number will not be used again.
    Abandoned,
    /// The certificate is confirmed, scrapped, revoked or recovered, or the configuration recorded, as was asked for.
    Changed {
        /// It was so before.
        retry: bool,
    },
    /// The vending codes are recorded, in the batch of this number.
    VendingBatch(u32),
    /// The order as it is now.
    Order(Order),
    /// The batch as it is now.
    Batch(Batch),
    /// The seal that the batch's files have.
    Sealed(Seal),
    /// The station, operator or auditor as it is now.
    Peer(Arc<EnrolledPeer>),
    /// The request for an approval as it is now; what it is about may be done if it is used.
    Approval(Arc<Approval>),
    /// The revocation list is part of the ledger, and may be published.
    CrlIssued,
    /// The issuer as it is recorded.
    Issuer {
        /// Which it is.
        issuer: Arc<RecordedIssuer>,
        /// It was recorded before.
        retry: bool,
    },
    /// The checkpoint is part of the ledger.
    Checkpointed,
    /// The start or the end of a run, or what was refused, is part of the ledger.
    Noted,
    /// It may not be; nothing changed.
    Refused(Refusal),
    /// What is known could not be read (a record that it concerns is damaged, say); nothing changed.
    Failed(Arc<LedgerError>),
}

impl Outcome {
    /// The serial number that it has reserved.
    pub(crate) fn reserved(&self) -> Option<SerialNumber> {
        match self {
            Outcome::Reserved(serial_number) => Some(*serial_number),
            _ => None,
        }
    }
}
