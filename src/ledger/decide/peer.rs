//! Stations, operators and auditors: their certificates, and their end.

use std::sync::Arc;

use jiff::Timestamp;

use super::decision::{Decision, refuse};
use crate::{
    hash::sha256,
    ledger::{
        actor::Actor, entry::Event, error::LedgerError, operation::Outcome, peer::Enrolment, record::KeyHash,
        refusal::Refusal, view::View,
    },
};

/// The same certificate again is a retry. The key of a certificate that was revoked comes back in no other.
pub(super) fn enroll(
    view: &View<'_>,
    now: Timestamp,
    actor: &Actor,
    enrolment: &Enrolment,
) -> Result<Decision, LedgerError> {
    let peer = view.peer_or_new(&enrolment.peer);
    if peer.certificate(&sha256(&enrolment.certificate)).is_some() {
        return Ok((Outcome::Peer(peer), None));
    }
    if peer.has_revoked_key(&enrolment.key_hash) {
        return refuse(Refusal::PeerKeyRevoked { peer: enrolment.peer.clone(), key_hash: enrolment.key_hash });
    }
    let enrolled = Arc::new(peer.enrolled(enrolment, now, actor));
    Ok((Outcome::Peer(enrolled), Some(Event::StationEnrolled(enrolment.clone()))))
}

/// Whoever it is, also if it never was enrolled here: it may have a certificate that is not recorded. One that is revoked,
/// and has no certificate since, stays as it is. Where a key is to be kept, so does one that has no other.
pub(super) fn revoke(
    view: &View<'_>,
    now: Timestamp,
    actor: &Actor,
    (name, keep): (&Actor, Option<&KeyHash>),
    reason: &str,
) -> Decision {
    let peer = view.peer_or_new(name);
    let has_no_other = |keep: &KeyHash| peer.admitted().all(|certificate| certificate.key_hash == *keep);
    if peer.is_revoked() || keep.is_some_and(has_no_other) {
        return (Outcome::Peer(peer), None);
    }
    let revoked = Arc::new(peer.revoke(now, actor, reason, keep));
    let (peer, reason, keep) = (name.clone(), reason.to_owned(), keep.copied());
    (Outcome::Peer(revoked), Some(Event::StationRevoked { peer, reason, keep }))
}
