//! Makes a snapshot of what the daemon's parts know.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{
    history::Recorder,
    snapshot::{
        Backup, CertificateEnd, Checkpoint, Clock, Condition, Issuing, Ledger, RevocationList, Snapshot, Token, Waiting,
    },
    sources::Sources,
    stations,
    stored::Stored,
};
use crate::{
    checkpoint::Checkpoints,
    crl_publisher::Crls,
    expiry::Purpose,
    ledger::EnrolledPeer,
    signer::{Recoverable, TokenFigures},
};

/// What is known now.
pub(super) fn snapshot(sources: &Sources, stored: &Stored, recorder: &Recorder, started_at: Timestamp) -> Snapshot {
    let now = Timestamp::now();
    let peers = sources.records.peers();
    let (obstacles, warnings) = (sources.readiness.found_obstacles(), sources.readiness.found_warnings());
    let figures = sources.measured.figures(now);
    let minute = recorder.minute();
    let seconds = |quantile| minute.counted.quantile(quantile).map(|took| took.as_secs_f64());
    let counted = sources.throughput.counted();
    let stored = stored.get();
    Snapshot {
        at: now,
        version: crate::version::VERSION,
        started_at,
        ready: obstacles.is_empty(),
        obstacles: obstacles.into_iter().map(Condition::from).collect(),
        warnings: warnings.into_iter().map(Condition::from).collect(),
        issuing: Issuing {
            issued: counted.issued(),
            replayed: counted.replayed,
            refused: sources.refusals.counted(),
            rate: minute.rate(),
            median_seconds: seconds(0.5),
            p99_seconds: seconds(0.99),
        },
        stations: stations::listed(sources, &peers),
        orders: stored.orders.clone(),
        hsm: tokens(sources),
        destinations: waiting(sources),
        certificates: ends(sources, &peers, now),
        checkpoint: sources.checkpoints.as_deref().map(checkpoint),
        backup: stored.backup.map(|(at, entries)| Backup { at, entries }),
        revocation_lists: revocation_lists(sources),
        ledger: Ledger {
            entries: sources.records.head().sequence,
            certificates: figures.certificates,
            bytes: stored.bytes,
            index_lag: figures.index_lag,
            disk_free: figures.disk_free,
            disk_needed: figures.disk_needed,
            mirrored: figures.mirrored,
            as_of: sources.records.as_of(),
        },
        clock: Clock { at: now, implausible: figures.clock },
    }
}

impl From<crate::readiness::Found> for Condition {
    fn from(found: crate::readiness::Found) -> Self {
        Condition { component: found.component, cause: found.cause }
    }
}

fn tokens(sources: &Sources) -> Vec<Token> {
    let of = |(issuer, signer): (&String, &Arc<dyn Recoverable>)| {
        let issuer = issuer.clone();
        signer.figures().into_iter().map(move |figures| {
            let TokenFigures { token, working, wanted, busy, hung, queued, outage, needs_operator } = figures;
            Token { issuer: issuer.clone(), token, working, wanted, busy, hung, queued, outage, needs_operator }
        })
    };
    sources.signers.iter().flat_map(of).collect()
}

fn waiting(sources: &Sources) -> Vec<Waiting> {
    let counted = sources.destinations.figures.get();
    let of = |name: &String| {
        let figures = counted.get(name).cloned().unwrap_or_default();
        Waiting {
            destination: name.clone(),
            certificates: figures.certificates,
            since: figures.oldest,
            withdrawals: figures.withdrawals,
            unfit: figures.unfit,
            unacknowledged: figures.unacknowledged,
            unacknowledged_since: figures.oldest_unacknowledged,
            held: figures.held,
        }
    };
    sources.destinations.all.keys().map(of).collect()
}

fn ends(sources: &Sources, peers: &[Arc<EnrolledPeer>], now: Timestamp) -> Vec<CertificateEnd> {
    let left = |expires: Timestamp| expires.duration_since(now).as_secs();
    let monitored = sources.certificates.get();
    let own = monitored.iter().map(|certificate| {
        // What is too far away for a timestamp is as far as one can be.
        let until = SignedDuration::from_secs(certificate.not_after().since(now).as_secs());
        let expires = now.checked_add(until).unwrap_or(Timestamp::MAX);
        let expires = Timestamp::from_second(expires.as_second()).unwrap_or(expires);
        let purpose = certificate.purpose();
        let (kind, name) = match purpose {
            Purpose::Issuer(name) => ("issuer", Some(name.clone())),
            Purpose::StationCa => ("station_ca", None),
            Purpose::Server => ("server", None),
        };
        CertificateEnd { of: purpose.to_string(), kind, name, expires, left: left(expires) }
    });
    let usable = peers.iter().filter_map(|peer| {
        let expires = stations::newest_end(peer).filter(|expires| *expires > now)?;
        Some((expires, peer.name.station().filter(|_| !peer.is_revoked())?))
    });
    let station = usable.min().map(|(expires, name)| CertificateEnd {
        of: format!("station {name}"),
        kind: "station",
        name: Some(name.to_owned()),
        expires,
        left: left(expires),
    });
    let mut ends: Vec<_> = own.chain(station).collect();
    ends.sort_by_key(|end| end.expires);
    ends
}

fn checkpoint(checkpoints: &Checkpoints) -> Checkpoint {
    let figures = checkpoints.figures();
    Checkpoint { at: figures.at, entries: figures.entries, lag: figures.lag.as_secs_f64() }
}

fn revocation_lists(sources: &Sources) -> Vec<RevocationList> {
    let Some(publisher) = &sources.publisher else { return Vec::new() };
    let moment = |seconds| Timestamp::from_second(seconds).unwrap_or_default();
    let of = |(issuer, crls): (String, Crls)| RevocationList {
        issuer,
        made: moment(crls.times.0),
        expires: moment(crls.times.1),
        number: crls.number,
        entries: crls.entries,
        bytes: crls.bytes,
    };
    publisher.figures().into_iter().map(of).collect()
}
