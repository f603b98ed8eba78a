//! Vending codes: each gives one device one certificate, over EST. Only their slow hashes are recorded.

use jiff::Timestamp;

use super::actor::Actor;
use crate::serial::SerialNumber;

/// A batch of codes that are created together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendingTerms {
    /// The order that the certificates are charged to, and whose profile they have.
    pub order: String,
    /// Until when the codes can be used.
    pub expires: Timestamp,
    /// How they are hashed.
    pub cost: Cost,
    /// The codes, at least one, each for another device.
    pub codes: Vec<HashedCode>,
}

/// What a hash costs (RFC 9106): Argon2id with one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

/// A code's hash.
#[derive(Clone, PartialEq, Eq)]
pub struct HashedCode {
    /// Whose it is.
    pub device: String,
    /// The salt.
    pub salt: [u8; 16],
    /// Argon2id of the code's octets.
    pub hash: [u8; 32],
}

impl std::fmt::Debug for HashedCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HashedCode").field("device", &self.device).finish_non_exhaustive()
    }
}

/// Codes as they are recorded: with the number of their batch, and what the certificate of each replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedCodes {
    /// Counts the ledger's batches from 1.
    pub batch: u32,
    /// What was asked for.
    pub terms: VendingTerms,
    /// For each code the device's scrapped or revoked certificate in whose place its one comes; none: the first.
    pub replaces: Vec<Option<SerialNumber>>,
}

/// What is known of a device's newest code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendingCode {
    /// The code.
    pub code: HashedCode,
    /// How it is hashed.
    pub cost: Cost,
    /// The number of its batch.
    pub batch: u32,
    /// The order that the certificate is charged to.
    pub order: String,
    /// Until when it can be used.
    pub expires: Timestamp,
    /// What its certificate replaces.
    pub replaces: Option<SerialNumber>,
    /// It can no longer be used.
    pub cancelled: bool,
}

impl VendingCode {
    /// Why it cannot be used at this moment, whether it has been or not.
    pub fn obstacle(&self, now: Timestamp) -> Option<String> {
        if self.cancelled {
            return Some("it was cancelled".into());
        }
        (now >= self.expires).then(|| format!("it expired at {}", self.expires))
    }
}

/// A batch, as lists of codes show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendingBatch {
    /// Counts the ledger's batches from 1.
    pub number: u32,
    /// The order of its codes.
    pub order: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: Actor,
    /// The devices that have codes of it.
    pub devices: Vec<String>,
}
