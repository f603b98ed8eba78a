//! What a journal tells without an index of those who may connect, and of the configuration that it was used with.

use std::collections::HashMap;

use super::{
    actor::Actor,
    entry::Event,
    journal::{JournalError, Scan},
    peer::EnrolledPeer,
};

/// What a whole journal states.
#[derive(Debug, Default)]
pub struct RecordedPeers {
    /// Everybody who was enrolled or revoked.
    pub peers: Vec<EnrolledPeer>,
    /// The text of the newest configuration.
    pub configuration: Option<String>,
    /// Where the reading ended, if not at the journal's end.
    pub damage: Option<JournalError>,
}

impl RecordedPeers {
    /// Reads the whole journal, as far as it can be read.
    pub fn read(scan: Scan) -> RecordedPeers {
        let mut peers: HashMap<Actor, EnrolledPeer> = HashMap::new();
        let mut recorded = RecordedPeers::default();
        for frame in scan {
            let entry = match frame {
                Ok(frame) => frame.entry,
                Err(damage) => {
                    recorded.damage = Some(damage);
                    break;
                }
            };
            match &entry.event {
                Event::StationEnrolled(enrolment) => {
                    let peer = peer(&mut peers, &enrolment.peer);
                    *peer = peer.enrolled(enrolment, entry.time, &entry.actor);
                }
                Event::StationRevoked { peer: name, reason, keep } => {
                    let peer = peer(&mut peers, name);
                    *peer = peer.revoke(entry.time, &entry.actor, reason, keep.as_ref());
                }
                Event::ConfigurationLoaded { text, .. } => recorded.configuration = Some(text.clone()),
                _ => {}
            }
        }
        recorded.peers = peers.into_values().collect();
        recorded
    }
}

fn peer<'a>(peers: &'a mut HashMap<Actor, EnrolledPeer>, name: &Actor) -> &'a mut EnrolledPeer {
    let number = u32::try_from(peers.len() + 1).unwrap_or(u32::MAX);
    peers.entry(name.clone()).or_insert_with(|| EnrolledPeer::new(number, name.clone()))
}
