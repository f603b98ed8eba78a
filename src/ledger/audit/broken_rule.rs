//! The rules that entries of a journal may break.

use jiff::Timestamp;

use crate::{
    ledger::{
        approval_audit::BrokenApproval,
        batch_audit::BrokenBatch,
        epoch_audit::BrokenEpoch,
        export::ExportId,
        peer_audit::BrokenEnrolment,
        proof_audit::BrokenProof,
        record::{KeyHash, RecordState},
        vending_audit::BrokenCode,
    },
    serial::SerialNumber,
};

/// The rule that an entry breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BrokenRule {
    #[error("its time, {time}, is before that of the entry before it, {before}")]
    TimeBackwards { time: Timestamp, before: Timestamp },
    #[error("the serial number {serial_number} is used again, or out of order: {newest} was given before")]
    SerialOutOfOrder { serial_number: SerialNumber, newest: SerialNumber },
    #[error("the key {} is bound already", hex::encode(.0))]
    KeyBound(KeyHash),
    #[error("the device \"{0}\" has a live certificate or a reservation already")]
    DeviceLive(String),
    #[error(
        "it replaces {} of the device \"{device}\", which had {} before",
        .replaces.map_or("no certificate".to_owned(), |replaced| format!("the certificate {replaced}")),
        if *.had_one { "another certificate" } else { "none" }
    )]
    WrongPredecessor { replaces: Option<SerialNumber>, device: String, had_one: bool },
    #[error("{what} for {serial_number}, which is not reserved")]
    NotReserved { what: &'static str, serial_number: SerialNumber },
    #[error("{serial_number}, which was never given, becomes {wanted}")]
    NeverGiven { serial_number: SerialNumber, wanted: RecordState },
    #[error("{serial_number}, which is {state}, becomes {wanted}")]
    WrongState { serial_number: SerialNumber, state: RecordState, wanted: RecordState },
    #[error("the certificate {serial_number} is not of the order \"{order}\"")]
    OtherOrder { serial_number: SerialNumber, order: String },
    #[error("there is no order \"{0}\"")]
    OrderUnknown(String),
    #[error("the order \"{0}\" is created twice")]
    OrderTwice(String),
    #[error("the order \"{0}\" is closed")]
    OrderClosed(String),
    #[error("the order \"{0}\" is paused")]
    OrderPaused(String),
    #[error("the order \"{order}\" has {listed} of its {whole} devices listed, and others than the next ones are")]
    ListOutOfOrder { order: String, listed: u64, whole: u64 },
    #[error("the list of devices of the order \"{0}\" is not whole")]
    ListIncomplete(String),
    #[error("the order \"{0}\" is not paused, and goes on")]
    OrderNotPaused(String),
    #[error("the quantity of the order \"{order}\" becomes {quantity}, and {used} of it are used")]
    QuantityBelowUsed { order: String, quantity: u64, used: u64 },
    #[error(transparent)]
    Approval(#[from] BrokenApproval),
    #[error(transparent)]
    Epoch(#[from] BrokenEpoch),
    #[error(transparent)]
    Enrolment(#[from] BrokenEnrolment),
    #[error("the order \"{order}\" is exceeded: its quantity is {quantity}")]
    OrderExceeded { order: String, quantity: u64 },
    #[error("the order \"{order}\" could not be used at {time}")]
    OrderOutsideWindow { order: String, time: Timestamp },
    #[error("the order \"{order}\" is for the profile \"{expected}\", not \"{found}\"")]
    OrderProfile { order: String, expected: String, found: String },
    #[error("there is no export {0}")]
    ExportUnknown(ExportId),
    #[error("the export {id} is created, and the next one is number {next}")]
    ExportNumber { id: ExportId, next: u32 },
    #[error("the export {id} counts {certificates} certificates; {left} were to be exported")]
    ExportCount { id: ExportId, certificates: u64, left: u64 },
    #[error(transparent)]
    Proof(#[from] BrokenProof),
    #[error(transparent)]
    Batch(#[from] BrokenBatch),
    #[error("{what} {serial_number}, which was never issued")]
    NeverIssued { what: &'static str, serial_number: SerialNumber },
    #[error("{count} requests were refused, and {devices} devices among them")]
    RefusedCount { count: u64, devices: usize },
    #[error(transparent)]
    Code(#[from] BrokenCode),
    #[error("the revocation list {number} of the issuer \"{issuer}\" is not newer than {newest}, which was before it")]
    CrlNumber { issuer: String, number: u64, newest: u64 },
    #[error("the export {0} is acknowledged twice")]
    AcknowledgedTwice(ExportId),
    #[error("the issuer {id} is added, and the next one is number {next}")]
    IssuerNumber { id: u32, next: u32 },
    #[error("the issuer \"{name}\" is added as its generation {generation}, and the next one is {next}")]
    IssuerGeneration { name: String, generation: u32, next: u32 },
    #[error("the issuer \"{0}\" is added without a certificate")]
    IssuerEmpty(String),
    #[error("the issuer \"{0}\" is added with a chain that it has already")]
    IssuerTwice(String),
    #[error("it is reserved for the issuer \"{name}\" with the id {id}, which is not one of that name")]
    IssuerUnknown { name: String, id: u32 },
}
