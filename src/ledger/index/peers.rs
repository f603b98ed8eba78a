//! How stations, operators and auditors are stored, and requests for an approval.

use jiff::Timestamp;

use crate::ledger::{
    actor::Actor,
    approval::Approval,
    peer::{EnrolledPeer, EnrolmentMethod, PeerCertificate, PeerRevocation},
};

/// The key of a peer.
pub(super) fn key(number: u32) -> Vec<u8> {
    [&b"s"[..], &number.to_be_bytes()].concat()
}

/// The parts of a peer that the key does not hold; octets in hex.
#[derive(serde::Serialize, serde::Deserialize)]
struct PeerValue {
    name: String,
    certificates: Vec<CertificateValue>,
    revoked: Option<(Timestamp, String, String)>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct CertificateValue {
    sha256: String,
    serial_number: String,
    key_sha256: String,
    not_before: Timestamp,
    not_after: Timestamp,
    enrolled_at: Timestamp,
    enrolled_by: String,
    method: EnrolmentMethod,
    revoked: bool,
}

pub(super) fn encode(peer: &EnrolledPeer) -> Vec<u8> {
    let certificate = |certificate: &PeerCertificate| CertificateValue {
        sha256: hex::encode(certificate.sha256),
        serial_number: hex::encode(&certificate.serial_number),
        key_sha256: hex::encode(certificate.key_hash),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        enrolled_at: certificate.enrolled_at,
        enrolled_by: certificate.enrolled_by.to_string(),
        method: certificate.method,
        revoked: certificate.revoked,
    };
    let revoked = peer.revoked.as_ref();
    let revoked = revoked.map(|PeerRevocation { at, by, reason }| (*at, by.to_string(), reason.clone()));
    let certificates = peer.certificates.iter().map(certificate).collect();
    // Plain data with string keys: JSON takes it always.
    serde_json::to_vec(&PeerValue { name: peer.name.to_string(), certificates, revoked }).unwrap_or_default()
}

pub(super) fn decode(number: u32, value: &[u8]) -> Option<EnrolledPeer> {
    let PeerValue { name, certificates, revoked } = serde_json::from_slice(value).ok()?;
    let octets = |text: &str| hex::decode(text).ok()?.try_into().ok();
    let certificate = |value: CertificateValue| {
        Some(PeerCertificate {
            sha256: octets(&value.sha256)?,
            serial_number: hex::decode(&value.serial_number).ok()?,
            key_hash: octets(&value.key_sha256)?,
            not_before: value.not_before,
            not_after: value.not_after,
            enrolled_at: value.enrolled_at,
            enrolled_by: Actor(value.enrolled_by.into()),
            method: value.method,
            revoked: value.revoked,
        })
    };
    Some(EnrolledPeer {
        number,
        name: Actor(name.into()),
        certificates: certificates.into_iter().map(certificate).collect::<Option<_>>()?,
        revoked: revoked.map(|(at, by, reason)| PeerRevocation { at, by: Actor(by.into()), reason }),
    })
}

/// The key of a request for an approval.
pub(super) fn approval_key(number: u64) -> Vec<u8> {
    [&b"a"[..], &number.to_be_bytes()].concat()
}

type Who = (Timestamp, String);

/// What was asked for, by whom, who agreed, and who has done it.
type ApprovalValue = (String, Who, Option<Who>, Option<Who>);

pub(super) fn encode_approval(approval: &Approval) -> Vec<u8> {
    let who = |(at, by): &(Timestamp, Actor)| (*at, by.to_string());
    let Approval { number: _, what, requested, granted, used } = approval;
    let value: ApprovalValue = (what.clone(), who(requested), granted.as_ref().map(who), used.as_ref().map(who));
    // Plain data: JSON takes it always.
    serde_json::to_vec(&value).unwrap_or_default()
}

pub(super) fn decode_approval(number: u64, value: &[u8]) -> Option<Approval> {
    let (what, requested, granted, used): ApprovalValue = serde_json::from_slice(value).ok()?;
    let who = |(at, by): Who| (at, Actor(by.into()));
    Some(Approval { number, what, requested: who(requested), granted: granted.map(who), used: used.map(who) })
}
