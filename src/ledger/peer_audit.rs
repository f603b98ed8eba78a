//! The rules of stations' enrolments and revocations, for the audit of a journal.

use std::collections::{HashMap, HashSet};

use super::{actor::Actor, peer::Enrolment, record::KeyHash};

/// What is known of stations, operators and auditors, by their names.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: HashMap<Actor, Peer>,
    enrolments: u64,
    revocations: u64,
}

#[derive(Debug, Default)]
struct Peer {
    /// The hashes of its certificates.
    certificates: HashSet<[u8; 32]>,
    /// The keys of those that were revoked, and of those that are not.
    revoked_keys: HashSet<KeyHash>,
    keys: HashSet<KeyHash>,
}

/// The rule that an enrolment breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BrokenEnrolment {
    #[error("a certificate of {0} is enrolled twice")]
    Twice(Actor),
    #[error("the key {} of {peer} was revoked, and is in a certificate again", hex::encode(.key_hash))]
    KeyRevoked { peer: Actor, key_hash: KeyHash },
}

impl Peers {
    /// How many certificates were enrolled, and how often peers were revoked.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.enrolments, self.revocations)
    }

    pub(super) fn enroll(&mut self, enrolment: &Enrolment) -> Result<(), BrokenEnrolment> {
        let peer = self.known.entry(enrolment.peer.clone()).or_default();
        if !peer.certificates.insert(crate::hash::sha256(&enrolment.certificate)) {
            return Err(BrokenEnrolment::Twice(enrolment.peer.clone()));
        }
        if peer.revoked_keys.contains(&enrolment.key_hash) {
            let (peer, key_hash) = (enrolment.peer.clone(), enrolment.key_hash);
            return Err(BrokenEnrolment::KeyRevoked { peer, key_hash });
        }
        peer.keys.insert(enrolment.key_hash);
        self.enrolments += 1;
        Ok(())
    }

    pub(super) fn revoke(&mut self, peer: &Actor, keep: Option<&KeyHash>) {
        let peer = self.known.entry(peer.clone()).or_default();
        peer.revoked_keys.extend(peer.keys.extract_if(|key| Some(key) != keep));
        self.revocations += 1;
    }
}
