//! The stations of a snapshot: those of the ledger, and those that were here since the start.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::{
    snapshot::{Listed, Refused, Station, Stations},
    sources::Sources,
};
use crate::ledger::{Actor, EnrolledPeer};

/// How many stations a snapshot has, those that were seen last; the others are summed.
pub(super) const STATIONS: usize = 256;

/// When the newest certificate of a peer expires that it may connect with.
pub(super) fn newest_end(peer: &EnrolledPeer) -> Option<Timestamp> {
    peer.certificates.iter().filter(|certificate| !certificate.revoked).map(|certificate| certificate.not_after).max()
}

/// All stations: those that were seen last are listed, by their names. One that was revoked is left out without being counted,
/// unless it was here. One whose certificates have expired stays until it is revoked: it cannot connect, which somebody has to see.
pub(super) fn listed(sources: &Sources, peers: &[Arc<EnrolledPeer>]) -> Listed<Station, Stations> {
    let mut stations: HashMap<Arc<str>, Station> = HashMap::new();
    for peer in peers {
        let Some(name) = peer.name.station() else { continue };
        let (expires, revoked) = (newest_end(peer), peer.is_revoked());
        let station = Station { name: name.into(), certificate_expires: expires, revoked, ..Station::default() };
        stations.insert(Arc::clone(&peer.name.0), station);
    }
    for (actor, seen) in sources.roster.all() {
        let Some(name) = actor.strip_prefix("station:") else { continue };
        let new = || Station { name: name.into(), ..Station::default() };
        let station = stations.entry(Arc::clone(&actor)).or_insert_with(new);
        (station.connected, station.last_seen) = (seen.is_connected(), seen.last());
        (station.issued, station.rate) = (seen.issued(), seen.rate());
        sources.refusals.expect(&Actor(actor));
    }
    for (actor, reasons) in sources.refusals.by_station() {
        let Some(name) = actor.station() else { continue };
        let new = || Station { name: name.into(), ..Station::default() };
        let station = stations.entry(Arc::clone(&actor.0)).or_insert_with(new);
        let refused = |(reason, (number, last))| Refused { reason, number, last };
        station.refusals = reasons.into_iter().map(refused).collect();
        station.refusals.sort_by_key(|refused| (Reverse(refused.last), refused.reason));
    }
    let was_here = |station: &Station| station.last_seen.is_some() || !station.refusals.is_empty();
    let mut all: Vec<_> = stations.into_values().filter(|station| !station.revoked || was_here(station)).collect();
    all.sort_unstable_by(|left, right| {
        let key = |station: &Station| Reverse((station.connected, station.last_seen));
        key(left).cmp(&key(right)).then_with(|| left.name.cmp(&right.name))
    });
    let rest = all.split_off(all.len().min(STATIONS));
    all.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    let mut others = Stations::default();
    for station in &rest {
        others.connected += usize::from(station.connected);
        others.issued += station.issued;
        others.rate += station.rate;
        others.refused += station.refused();
    }
    Listed { listed: all, left_out: rest.len(), others }
}
