//! Stations, operators and auditors, as the ledger knows them: which certificates of the station CA were made for them,
//! by whom, and whether they were revoked.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    actor::Actor,
    record::KeyHash,
    wire::{self, ImpossibleTime, from_micros, to_micros},
};
use crate::hash::sha256;

/// Where the key of a peer's certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnrolmentMethod {
    /// It was made where the certificate was.
    Key,
    /// A CSR came with it.
    Csr,
    /// The peer asked for it with the certificate that it had.
    Renewal,
}

impl EnrolmentMethod {
    const ALL: [EnrolmentMethod; 3] = [EnrolmentMethod::Key, EnrolmentMethod::Csr, EnrolmentMethod::Renewal];

    /// As people and programs read it.
    pub fn as_str(self) -> &'static str {
        match self {
            EnrolmentMethod::Key => "key",
            EnrolmentMethod::Csr => "csr",
            EnrolmentMethod::Renewal => "renewal",
        }
    }

    /// The method of this name.
    pub fn of_name(name: &str) -> Option<EnrolmentMethod> {
        EnrolmentMethod::ALL.into_iter().find(|method| method.as_str() == name)
    }

    fn code(self) -> i32 {
        let code = match self {
            EnrolmentMethod::Key => wire::EnrolmentMethod::Key,
            EnrolmentMethod::Csr => wire::EnrolmentMethod::Csr,
            EnrolmentMethod::Renewal => wire::EnrolmentMethod::Renewal,
        };
        code.into()
    }
}

/// A certificate of the station CA that was made for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// For whom: `station:<line>/<station>`, `operator:<name>` or `auditor:<name>`.
    pub peer: Actor,
    /// The certificate, DER.
    pub certificate: Bytes,
    /// The content octets of its serial number.
    pub serial_number: Vec<u8>,
    /// Its public key.
    pub key_hash: KeyHash,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// Where its key comes from.
    pub method: EnrolmentMethod,
    /// Of an imported list: when and by whom it was enrolled.
    pub listed: Option<(Timestamp, Actor)>,
}

/// A peer that was enrolled or revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolledPeer {
    /// Counts the ledger's peers from 1.
    pub number: u32,
    /// Who it is, as the ledger's actors are written.
    pub name: Actor,
    /// Its certificates, the newest last; those that expired before the newest was enrolled are left out.
    pub certificates: Vec<PeerCertificate>,
    /// Its newest revocation.
    pub revoked: Option<PeerRevocation>,
}

/// A certificate of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// SHA-256 of its DER.
    pub sha256: [u8; 32],
    /// The content octets of its serial number.
    pub serial_number: Vec<u8>,
    /// Its public key.
    pub key_hash: KeyHash,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    /// By whom.
    pub enrolled_by: Actor,
    /// Where its key comes from.
    pub method: EnrolmentMethod,
    /// Whether it was revoked with its peer.
    pub revoked: bool,
}

/// That a peer may not connect with any of the certificates that it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRevocation {
    /// Since when.
    pub at: Timestamp,
    /// By whom.
    pub by: Actor,
    /// Why, for people.
    pub reason: String,
}

impl EnrolledPeer {
    /// One that nothing is known of yet.
    pub(super) fn new(number: u32, name: Actor) -> Self {
        EnrolledPeer { number, name, certificates: Vec::new(), revoked: None }
    }

    /// The certificate with this SHA-256.
    pub(super) fn certificate(&self, sha256: &[u8; 32]) -> Option<&PeerCertificate> {
        self.certificates.iter().find(|certificate| certificate.sha256 == *sha256)
    }

    /// Whether a key was that of a certificate that was revoked.
    pub(super) fn has_revoked_key(&self, key_hash: &KeyHash) -> bool {
        self.certificates.iter().any(|certificate| certificate.revoked && certificate.key_hash == *key_hash)
    }

    /// Whether it was revoked and has no certificate since: it may not connect.
    pub fn is_revoked(&self) -> bool {
        self.revoked.is_some() && self.certificates.iter().all(|certificate| certificate.revoked)
    }

    /// The certificates with which it may connect although it was revoked.
    pub fn admitted(&self) -> impl Iterator<Item = &PeerCertificate> {
        self.certificates.iter().filter(|certificate| !certificate.revoked)
    }

    /// With a certificate more, enrolled at `time` by `actor`. Those that have expired go, but for their revoked keys.
    pub(super) fn enrolled(&self, enrolment: &Enrolment, time: Timestamp, actor: &Actor) -> EnrolledPeer {
        let mut peer = self.clone();
        peer.certificates.retain(|certificate| certificate.revoked || certificate.not_after > time);
        let (enrolled_at, enrolled_by) = enrolment.listed.clone().unwrap_or((time, actor.clone()));
        // A list from before the revocation brings nobody back.
        let revoked = self.revoked.as_ref().is_some_and(|revocation| enrolled_at <= revocation.at);
        peer.certificates.push(PeerCertificate {
            sha256: sha256(&enrolment.certificate),
            serial_number: enrolment.serial_number.clone(),
            key_hash: enrolment.key_hash,
            not_before: enrolment.not_before,
            not_after: enrolment.not_after,
            enrolled_at,
            enrolled_by,
            method: enrolment.method,
            revoked,
        });
        peer
    }

    /// Revoked, with all certificates that it has, but for those of the key to keep.
    pub(super) fn revoke(&self, at: Timestamp, by: &Actor, reason: &str, keep: Option<&KeyHash>) -> EnrolledPeer {
        let mut peer = self.clone();
        let others = peer.certificates.iter_mut().filter(|certificate| Some(&certificate.key_hash) != keep);
        others.for_each(|certificate| certificate.revoked = true);
        peer.revoked = Some(PeerRevocation { at, by: by.clone(), reason: reason.to_owned() });
        peer
    }
}

/// Why an entry is no enrolment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEnrolment {
    /// Not a SHA-256.
    #[error("a key hash that is not 32 octets")]
    KeyHash,
    /// Not a method that is known.
    #[error("the enrolment method {0}, which this daemon does not know")]
    Method(i32),
    /// Not a time.
    #[error(transparent)]
    Time(#[from] ImpossibleTime),
}

impl From<&Enrolment> for wire::StationEnrolled {
    fn from(enrolment: &Enrolment) -> Self {
        let (listed_at, listed_by) = match &enrolment.listed {
            Some((at, by)) => (to_micros(*at), by.to_string()),
            None => (0, String::new()),
        };
        wire::StationEnrolled {
            peer: enrolment.peer.to_string(),
            certificate: enrolment.certificate.to_vec(),
            serial_number: enrolment.serial_number.clone(),
            key_sha256: enrolment.key_hash.to_vec(),
            not_before: to_micros(enrolment.not_before),
            not_after: to_micros(enrolment.not_after),
            method: enrolment.method.code(),
            listed_by,
            listed_at,
        }
    }
}

impl TryFrom<wire::StationEnrolled> for Enrolment {
    type Error = InvalidEnrolment;

    fn try_from(entry: wire::StationEnrolled) -> Result<Self, InvalidEnrolment> {
        let method = EnrolmentMethod::ALL.into_iter().find(|method| method.code() == entry.method);
        let listed = match entry.listed_by.as_str() {
            "" => None,
            by => Some((from_micros(entry.listed_at)?, Actor(by.into()))),
        };
        Ok(Enrolment {
            peer: Actor(Arc::from(entry.peer)),
            certificate: entry.certificate.into(),
            serial_number: entry.serial_number,
            key_hash: entry.key_sha256.as_slice().try_into().map_err(|_| InvalidEnrolment::KeyHash)?,
            not_before: from_micros(entry.not_before)?,
            not_after: from_micros(entry.not_after)?,
            method: method.ok_or(InvalidEnrolment::Method(entry.method))?,
            listed,
        })
    }
}
