//! Batches: what a destination, a platform that is to know the devices, is told of.

use std::{fmt, str::FromStr};

use jiff::Timestamp;

use super::{actor::Actor, head::ChainHash};
use crate::{
    pattern::{Pattern, allows},
    serial::SerialNumber,
};

/// The longest name of a destination, in characters.
const LONGEST_NAME: usize = 63;

/// Whether a destination may have this name: 1 to 63 characters of `a-z 0-9 -`, the first a letter or digit.
pub fn is_destination(name: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= LONGEST_NAME
        && name.bytes().next().is_some_and(part)
        && name.bytes().all(|byte| part(byte) || byte == b'-')
}

/// A batch's id: `<destination>.<number>`, the number with at least four digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// The destination's name.
    pub destination: String,
    /// Counts the destination's batches from 1.
    pub number: u32,
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04}", self.destination, self.number)
    }
}

impl FromStr for BatchId {
    type Err = ParseBatchIdError;

    fn from_str(text: &str) -> Result<Self, ParseBatchIdError> {
        let parse = || {
            let (destination, number) = text.rsplit_once('.')?;
            let id = BatchId { destination: destination.to_owned(), number: number.parse().ok()? };
            // Each has one id only.
            (is_destination(destination) && id.number > 0 && id.to_string() == text).then_some(id)
        };
        parse().ok_or_else(|| ParseBatchIdError(text.to_owned()))
    }
}

/// The text is not the id of a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is not the id of a batch, which is <destination>.<number> with at least four digits, such as aws.0001",
    crate::quote::quoted(.0)
)]
pub struct ParseBatchIdError(String);

/// When a certificate goes out to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// When it is issued.
    Issued,
    /// When its device has taken it.
    Confirmed,
}

/// Which certificates a destination is told of.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Filter {
    /// The profiles; all if empty.
    pub profiles: Vec<Pattern>,
    /// The orders; all if empty, and certificates without one.
    pub orders: Vec<Pattern>,
    /// When.
    pub moment: Moment,
}

impl Filter {
    /// Whether a certificate of this profile and order is meant.
    pub fn matches(&self, profile: &str, order: &str) -> bool {
        allows(&self.profiles, profile) && allows(&self.orders, order)
    }
}

/// A place in the ledger's journal, between two entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

impl Place {
    /// As entries have it.
    pub fn to_number(self) -> u64 {
        self.0
    }

    /// As entries have it.
    pub fn from_number(number: u64) -> Self {
        Place(number)
    }
}

/// A batch as it is cut. Its content follows from this and from the entries before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchTerms {
    /// Its id.
    pub id: BatchId,
    /// How many entries the batch before had looked at.
    pub first: u64,
    /// How many entries this one has looked at.
    pub end: u64,
    /// Where those end.
    pub end_place: Place,
    /// Which certificates are meant.
    pub filter: Filter,
    /// How its files are written.
    pub settings: String,
    /// What is left out.
    pub unfit: Vec<UnfitDevice>,
    /// What an earlier batch left out, or its platform refused, and is in this one; ascending.
    pub again: Vec<SerialNumber>,
    /// How many certificates it has.
    pub certificates: u64,
    /// How many withdrawals it has.
    pub withdrawn: u64,
    /// The chain hash after entry `end`.
    pub chain: ChainHash,
}

/// A device that a platform would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfitDevice {
    /// Its certificate.
    pub serial_number: SerialNumber,
    /// Its id.
    pub device: String,
    /// Why.
    pub reason: String,
}

/// What the audit key signed about the files of a batch.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Seal {
    /// SHA-256 of the manifest.
    pub manifest_sha256: [u8; 32],
    /// A JWS without its payload, which is the manifest (RFC 7515 appendix F).
    pub jws: String,
}

/// What a platform said about a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results {
    /// SHA-256 of what it said.
    pub sha256: [u8; 32],
    /// How many certificates it registered.
    pub registered: u64,
    /// How many it had already.
    pub already: u64,
    /// How many withdrawals it carried out.
    pub withdrawn: u64,
    /// What it refused.
    pub failed: Vec<FailedCertificate>,
}

/// What a platform refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCertificate {
    /// The certificate.
    pub serial_number: SerialNumber,
    /// The platform's code.
    pub code: String,
    /// The platform's words.
    pub message: String,
}

/// A batch as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// How many entries the batch before had looked at.
    pub first: u64,
    /// How many entries this one has looked at.
    pub end: u64,
    /// How many certificates it has.
    pub certificates: u64,
    /// How many withdrawals it has.
    pub withdrawn: u64,
    /// How many devices it leaves out.
    pub unfit: u64,
    /// When it was cut.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: Actor,
    /// What its files are, once they were written.
    pub seal: Option<Seal>,
    /// That its platform has it, once that was said.
    pub acknowledged: Option<Acknowledged>,
}

/// That a platform has a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// When that was said.
    pub at: Timestamp,
    /// By whom.
    pub by: Actor,
    /// What the platform said, if that came back.
    pub results: Option<ResultCounts>,
}

/// What a platform said about a batch, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct ResultCounts {
    /// SHA-256 of what it said.
    pub sha256: [u8; 32],
    /// Certificates registered.
    pub registered: u64,
    /// Certificates that it had already.
    pub already: u64,
    /// Withdrawals carried out.
    pub withdrawn: u64,
    /// What it refused.
    pub failed: u64,
}

impl From<&Results> for ResultCounts {
    fn from(results: &Results) -> Self {
        let Results { sha256, registered, already, withdrawn, failed } = results;
        let (registered, already, withdrawn, failed) = (*registered, *already, *withdrawn, failed.len() as u64);
        ResultCounts { sha256: *sha256, registered, already, withdrawn, failed }
    }
}

/// A destination as its batches have made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its number in the ledger, from 1 on.
    pub(super) id: u32,
    /// Its name.
    pub name: String,
    /// How many batches it has.
    pub batches: u32,
    /// How many entries the newest of them had looked at.
    pub end: u64,
    /// Where those end.
    pub(super) end_place: Place,
    /// Which certificates were meant, from which place on; by place.
    pub(super) eras: Vec<(Place, Filter)>,
    /// Live certificates that a batch has left out, or a platform refused, since they were last in a batch.
    pub retry: std::collections::BTreeSet<SerialNumber>,
    /// How many batches are not acknowledged.
    pub unacknowledged: u32,
    /// The oldest of them; the next batch if there are none.
    pub oldest_unacknowledged: u32,
}

impl Destination {
    /// A destination without a batch.
    pub(super) fn new(id: u32, name: &str) -> Self {
        Destination {
            id,
            name: name.to_owned(),
            batches: 0,
            end: 0,
            end_place: Place(0),
            eras: Vec::new(),
            retry: std::collections::BTreeSet::new(),
            unacknowledged: 0,
            oldest_unacknowledged: 1,
        }
    }

    /// Which certificates were meant at a place that a batch has looked at.
    pub(super) fn filter_at(&self, place: Place) -> Option<&Filter> {
        let after = self.eras.partition_point(|(from, _)| *from <= place);
        self.eras.get(after.checked_sub(1)?).map(|(_, filter)| filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_id_has_one_text() {
        for (text, destination, number) in [("aws.0001", "aws", 1), ("a-1.10000", "a-1", 10_000)] {
            assert_eq!(text.parse(), Ok(BatchId { destination: destination.into(), number }));
        }
        for text in ["", "aws", "aws.1", "aws.0000", "A.0001", ".0001", "a.b.0001", "-a.0001", "a:b.0001", "../x.0001"]
        {
            assert!(text.parse::<BatchId>().is_err(), "{text}");
        }
        assert!(!is_destination(&"a".repeat(64)) && is_destination(&"a".repeat(63)));
    }
}
