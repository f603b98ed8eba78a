//! Certificate revocation lists as the ledger knows them.

use jiff::Timestamp;

use super::revoked::CaId;

/// A certificate revocation list, as it is recorded before it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlIssued {
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// The CA.
    pub ca: CaId,
    /// Which of its shards, counted from 0, and how many there are.
    pub shard: (u16, u16),
    /// CRLNumber (RFC 5280 section 5.2.3): greater than that of every list of the CA before.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// Until when there is a newer one.
    pub next_update: Timestamp,
    /// How many certificates are on it.
    pub entries: u64,
    /// SHA-256 of its DER.
    pub sha256: [u8; 32],
}
