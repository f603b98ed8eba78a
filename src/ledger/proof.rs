//! Proofs of possession: certificates that are no device's, each with a platform's code as its name.
//!
//! They have serial numbers like all certificates of the ledger, and nothing else: no device, no order, no export, no
//! state after the issue.

use bytes::Bytes;
use jiff::Timestamp;

use super::record::KeyHash;
use crate::serial::SerialNumber;

/// Which proof: a CA has one for each code, until that expires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProofId {
    /// The issuing CA: the id of its entry.
    pub issuer_id: u32,
    /// The platform's code.
    pub code: String,
}

/// A proof that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofTerms {
    /// Which.
    pub id: ProofId,
    /// SHA-256 of the DER SubjectPublicKeyInfo of the certificate, whose private key nobody has.
    pub key_hash: KeyHash,
    /// When it expires: from then on the same code is given a new one.
    pub not_after: Timestamp,
}

/// A proof that was made before and is still good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundProof {
    /// Its serial number.
    pub serial_number: SerialNumber,
    /// DER.
    pub certificate: Bytes,
}
