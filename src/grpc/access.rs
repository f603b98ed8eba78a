//! Which peers may not connect although their certificates are valid: those that were revoked, and those on a revocation
//! list of the station CA.
//!
//! It is asked in every handshake, at the beginning of every connection (a TLS session that is resumed has no handshake
//! with a certificate) and with every call; whoever has a connection is told when it has changed, and ends.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::client_certificate::ClientCertificate;
use crate::ledger::EnrolledPeer;

/// The certificates of revocation lists: their serial numbers, by the DER Name of their issuer.
pub(crate) type Listed = HashMap<Vec<u8>, HashSet<Vec<u8>>>;

/// Who may not connect.
#[derive(Debug)]
pub(crate) struct Access {
    /// By the names that the ledger's actors have.
    revoked: RwLock<HashMap<Arc<str>, Revoked>>,
    listed: RwLock<Listed>,
    changed: watch::Sender<()>,
}

/// A peer that was revoked.
#[derive(Debug)]
struct Revoked {
    at: Timestamp,
    /// SHA-256 of the certificates that it got afterwards.
    admitted: Vec<[u8; 32]>,
}

/// Why a peer may not connect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the client certificate expired at {0}; enroll again")]
    Expired(Timestamp),
    #[error("{name} was revoked at {at}, and may not connect with this certificate; an operator can enroll it again")]
    Revoked { name: String, at: Timestamp },
    #[error("the client certificate is on the revocation list of its CA; enroll again")]
    Listed,
}

impl Access {
    /// Everybody may connect whose certificate is valid.
    pub(crate) fn new() -> Arc<Access> {
        let (changed, _) = watch::channel(());
        Arc::new(Access { revoked: RwLock::default(), listed: RwLock::default(), changed })
    }

    /// Takes note of what the ledger knows of a peer now.
    pub(crate) fn note(&self, peer: &EnrolledPeer) {
        let Some(revocation) = &peer.revoked else { return };
        let admitted = peer.admitted().map(|certificate| certificate.sha256).collect();
        self.revoked.write().insert(Arc::clone(&peer.name.0), Revoked { at: revocation.at, admitted });
        self.changed.send_replace(());
    }

    /// From now on these certificates are on revocation lists.
    pub(crate) fn set_listed(&self, listed: Listed) {
        *self.listed.write() = listed;
        self.changed.send_replace(());
    }

    /// Notified when something has changed.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Why the holder of this certificate may not connect now, if it may not. `name`: as actors have it, if it has a role.
    ///
    /// # Errors
    /// The reason.
    pub(super) fn check(&self, name: Option<&str>, certificate: &ClientCertificate) -> Result<(), Refused> {
        if let Some(end) = certificate.expires.filter(|end| *end < Timestamp::now()) {
            return Err(Refused::Expired(end));
        }
        if let Some(name) = name
            && let Some(revoked) = self.revoked.read().get(name)
            && !revoked.admitted.contains(&certificate.sha256)
        {
            return Err(Refused::Revoked { name: name.to_owned(), at: revoked.at });
        }
        if self.listed.read().get(&certificate.issuer).is_some_and(|listed| listed.contains(&certificate.serial_number))
        {
            return Err(Refused::Listed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Actor, EnrolmentMethod, PeerCertificate, PeerRevocation};

    fn certificate(octet: u8) -> ClientCertificate {
        ClientCertificate {
            sha256: [octet; 32],
            issuer: b"ca".to_vec(),
            serial_number: vec![octet],
            not_before: None,
            expires: None,
        }
    }

    fn recorded(octet: u8, revoked: bool) -> PeerCertificate {
        let (time, name) = (Timestamp::UNIX_EPOCH, Actor("operator:anna".into()));
        PeerCertificate {
            sha256: [octet; 32],
            serial_number: vec![octet],
            key_hash: [octet; 32],
            not_before: time,
            not_after: time,
            enrolled_at: time,
            enrolled_by: name,
            method: EnrolmentMethod::Key,
            revoked,
        }
    }

    /// Also with a certificate that was never recorded; one that is enrolled afterwards is taken.
    #[test]
    fn access_of_a_revoked_peer_begins_with_its_next_enrolment() {
        let access = Access::new();
        let changes = access.changes();
        let name = "station:l/1";
        assert_eq!(access.check(Some(name), &certificate(1)), Ok(()));
        let revoked =
            PeerRevocation { at: Timestamp::UNIX_EPOCH, by: Actor("operator:anna".into()), reason: "x".into() };
        let mut peer = EnrolledPeer {
            number: 1,
            name: Actor(name.into()),
            certificates: vec![recorded(1, true)],
            revoked: Some(revoked),
        };
        access.note(&peer);
        assert!(changes.has_changed().unwrap());
        for octet in [1, 2] {
            assert!(matches!(access.check(Some(name), &certificate(octet)), Err(Refused::Revoked { .. })), "{octet}");
        }
        assert_eq!(access.check(Some("station:l/2"), &certificate(2)), Ok(()));
        peer.certificates.push(recorded(3, false));
        access.note(&peer);
        assert!(access.check(Some(name), &certificate(1)).is_err());
        assert_eq!(access.check(Some(name), &certificate(3)), Ok(()));
    }

    /// A serial number is one of its CA's alone, and who has no role is on a list as well.
    #[test]
    fn access_of_a_listed_certificate_is_refused() {
        let access = Access::new();
        access.set_listed(HashMap::from([(b"ca".to_vec(), HashSet::from([vec![1]]))]));
        assert_eq!(access.check(None, &certificate(1)), Err(Refused::Listed));
        assert_eq!(access.check(None, &certificate(2)), Ok(()));
        let other = ClientCertificate { issuer: b"other".to_vec(), ..certificate(1) };
        assert_eq!(access.check(Some("operator:anna"), &other), Ok(()));
        access.set_listed(HashMap::new());
        assert_eq!(access.check(None, &certificate(1)), Ok(()));
    }
}
