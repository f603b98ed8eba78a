//! Why what is in the journal is no entry.

use crate::{
    ledger::{
        device_list::InvalidList,
        export::{ExportId, ParseExportIdError},
        peer::InvalidEnrolment,
        revocation::ParseReasonError,
        wire::ImpossibleTime,
    },
    serial::InvalidSerialNumber,
};

/// Why the payload of a whole frame is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEntry {
    /// Its event is none that is known here, so a newer daemon wrote it.
    #[error("an event that this daemon does not know")]
    NewerEvent,
    /// It is no protobuf message of this type.
    #[error(transparent)]
    Encoding(#[from] prost::DecodeError),
    /// Not a serial number.
    #[error(transparent)]
    SerialNumber(#[from] InvalidSerialNumber),
    /// Not a SHA-256.
    #[error("a key hash that is not 32 octets")]
    KeyHash,
    /// Not a SHA-256.
    #[error("a hash that is not 32 octets")]
    Hash,
    /// Not a reason for which certificates are revoked.
    #[error(transparent)]
    RevocationReason(#[from] ParseReasonError),
    /// Not an export's id.
    #[error(transparent)]
    ExportId(#[from] ParseExportIdError),
    /// Not a vending code's hash.
    #[error("a vending code whose {0} cannot be")]
    VendingCode(&'static str),
    /// Not a revocation list.
    #[error("a revocation list whose {0} cannot be")]
    Crl(&'static str),
    /// Not a batch.
    #[error("a batch whose {0} cannot be")]
    Batch(&'static str),
    /// An export whose id is not made of its order and number.
    #[error("an export {0} that says that it is another")]
    ExportMismatch(ExportId),
    /// Not the hash of a list.
    #[error("a list's hash that is not 32 octets")]
    ListHash,
    /// Not a part of a list.
    #[error(transparent)]
    List(#[from] InvalidList),
    /// Not an enrolment.
    #[error(transparent)]
    Enrolment(#[from] InvalidEnrolment),
    /// Not a time, in microseconds since 1970.
    #[error(transparent)]
    Time(#[from] ImpossibleTime),
}
