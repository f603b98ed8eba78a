//! Records: all that is known about a serial number.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;

use super::{actor::Actor, revocation::RevocationReason};
use crate::serial::SerialNumber;

/// SHA-256 of a DER SubjectPublicKeyInfo.
pub type KeyHash = [u8; 32];

/// For whom a serial number is. The same holder again is a retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The device's id.
    pub device: String,
    /// Its public key.
    pub key_hash: KeyHash,
    /// The order it is charged to; empty if to none, which only some profiles allow.
    pub order: String,
    /// The profile that determines the content of the certificate.
    pub profile: String,
    /// The issuing CA's name in the configuration.
    pub issuer: String,
    /// The [recorded issuer](super::RecordedIssuer) by its id; 0 in records from before issuers were recorded.
    pub issuer_id: u32,
}

/// Where a serial number is in its lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// Written down; its certificate is being made.
    Reserved,
    /// Signed and recorded.
    Issued,
    /// Never issued, never used again.
    Abandoned,
    /// Taken by its device.
    Confirmed,
    /// Its device is scrap.
    Scrapped,
    /// Not to be trusted any more.
    Revoked,
}

impl RecordState {
    /// Whether a certificate in this state counts as the one that its device has.
    pub fn is_live(self) -> bool {
        matches!(self, RecordState::Issued | RecordState::Confirmed)
    }
}

impl fmt::Display for RecordState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordState::Reserved => "reserved",
            RecordState::Issued => "issued",
            RecordState::Abandoned => "abandoned",
            RecordState::Confirmed => "confirmed",
            RecordState::Scrapped => "scrapped",
            RecordState::Revoked => "revoked",
        })
    }
}

/// All that is known about a serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The serial number.
    pub serial_number: SerialNumber,
    /// Where it is in its lifecycle.
    pub state: RecordState,
    /// For whom it is.
    pub holder: Holder,
    /// Who asked for it.
    pub actor: Actor,
    /// When it was reserved.
    pub reserved_at: Timestamp,
    /// Its certificate, once issued.
    pub issued: Option<IssuedCertificate>,
    /// The device's certificate before, in whose place it came.
    pub replaces: Option<SerialNumber>,
    /// What happened to the certificate last, once it is confirmed, scrapped or revoked.
    pub changed: Option<Change>,
}

/// What happened to a certificate after its issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// Who caused it.
    pub by: Actor,
    /// Why it was scrapped; empty unless it was.
    pub scrap_reason: String,
    /// Why it was revoked, if it was.
    pub revocation_reason: Option<RevocationReason>,
}

/// A recorded certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// When it was recorded.
    pub at: Timestamp,
    /// DER.
    pub certificate: Bytes,
}
