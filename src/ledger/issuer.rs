//! Issuers as the ledger knows them: what a record stands for, whatever the configuration says today.

use bytes::Bytes;
use jiff::Timestamp;

/// An issuer that was recorded before it issued: one generation of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedIssuer {
    /// Its number in the ledger, from 1 on.
    pub id: u32,
    /// Its name in the configuration.
    pub name: String,
    /// Which of the issuers that have had the name, from 1 on.
    pub generation: u32,
    /// DER, byte for byte as it came: the issuing CA first, then each certificate that issued the one before it.
    pub chain: Vec<Bytes>,
    /// Into how many shards its CRL is divided; 0: it is one.
    pub crl_shards: u32,
    /// When it was recorded.
    pub added_at: Timestamp,
}

/// What an issuer is in the configuration, to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerTerms {
    /// Its name.
    pub name: String,
    /// DER: the issuing CA first, then each certificate that issued the one before it.
    pub chain: Vec<Bytes>,
    /// Into how many shards its CRL is divided; 0: it is one.
    pub crl_shards: u32,
}
