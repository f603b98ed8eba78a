//! The `Stations` service: certificates of stations, operators and auditors.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use super::{
    access::Access,
    calls::Held,
    checks::Checks,
    limits::Limits,
    peer::Peer,
    request_error::RequestError,
    services::{Services, StationCertifier},
    status,
    text::check_text,
};
use crate::{
    committer::Committer,
    enroll::{self, Certified, EnrollError, Listed, StationCa, Subject},
    identity::{Identity, InvalidIdentity, Role},
    ledger::{Actor, EnrolledPeer, Enrolment, EnrolmentMethod, PeerCertificate, Records},
    limits::{ENROLMENT_LINES, STATION_REVOCATION_REASON},
    live::Live,
    proto,
    roles::Call,
    roster::Seen,
    security,
};

/// The longest life of a certificate, in days.
const LONGEST_LIFE: u32 = 36_525;

/// Answers whoever enrols, and stations that renew.
pub(super) struct Service {
    committer: Committer,
    records: Arc<dyn Records>,
    access: Arc<Access>,
    certifier: Arc<Live<StationCertifier>>,
    /// Whoever uses the CA's key holds it.
    one_at_a_time: Arc<Mutex<()>>,
    checks: Checks,
    limits: Arc<Limits>,
}

impl Service {
    pub(super) fn new(services: &Services, limits: Arc<Limits>) -> Self {
        let Services { committer, records, access, certifier, .. } = services.clone();
        let (one_at_a_time, checks) = (Arc::default(), Checks::new(services));
        Service { committer, records, access, certifier, one_at_a_time, checks, limits }
    }

    /// Has the station CA certify something, on a thread where waiting for the HSM delays nobody.
    async fn certify(
        &self,
        certify: impl FnOnce(&StationCa) -> Result<Certified, EnrollError> + Send + 'static,
    ) -> Result<Certified, Status> {
        let (certifier, one_at_a_time) = (self.certifier.get(), Arc::clone(&self.one_at_a_time));
        let certified = tokio::task::spawn_blocking(move || {
            let place = certifier.ca.as_ref().ok_or(EnrollError::NotConfigured)?;
            // One at a time: each opens a session of the HSM.
            let _one = one_at_a_time.lock();
            certify(&place.open()?)
        });
        let certified = certified.await.map_err(|_| status::failed_call(&RequestError::Internal))?;
        certified.map_err(|error| {
            tracing::warn!(%error, "nobody was enrolled");
            status::failed_call(&RequestError::Enroll(Arc::new(error)))
        })
    }

    /// Records a certificate; only then anybody may have it.
    async fn record(&self, actor: Actor, enrolment: Enrolment) -> Result<Arc<EnrolledPeer>, Status> {
        let (committer, access, by) = (self.committer.clone(), Arc::clone(&self.access), actor.clone());
        let peer = committer.enroll(actor, enrolment).await;
        let peer = peer.map_err(|error| status::failed_call(&error.into()))?;
        access.note(&peer);
        tracing::info!(target: security::TARGET, peer = %peer.name, %by, "enrolled");
        Ok(peer)
    }

    fn shown(&self, peer: &EnrolledPeer, seen: &HashMap<Arc<str>, Arc<Seen>>) -> proto::Station {
        let mut station = proto::Station {
            name: peer.name.to_string(),
            certificates: peer.certificates.iter().map(certificate).collect(),
            revoked: peer.is_revoked(),
            ..proto::Station::default()
        };
        if let Some(revocation) = &peer.revoked {
            station.revoked_at = Some(proto::timestamp(revocation.at));
            station.revoked_by = revocation.by.to_string();
            station.revocation_reason.clone_from(&revocation.reason);
        }
        self.show_seen(&mut station, seen);
        station
    }

    fn show_seen(&self, station: &mut proto::Station, seen: &HashMap<Arc<str>, Arc<Seen>>) {
        if let Some(seen) = seen.get(station.name.as_str()) {
            station.connected = seen.is_connected();
            station.last_seen = seen.last().map(proto::timestamp);
            (station.issued, station.rate) = (seen.issued(), seen.rate());
        }
    }
}

#[tonic::async_trait]
impl proto::stations_server::Stations for Service {
    async fn enroll(&self, request: Request<proto::EnrollRequest>) -> Result<Response<proto::EnrollReply>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::Enroll)?;
        let proto::EnrollRequest { identity, csr, days, key_made_here } = request.into_inner();
        let invalid = |message: String| status::failed_call(&RequestError::Invalid(message));
        if !(1..=LONGEST_LIFE).contains(&days) {
            return Err(invalid(format!("days must be 1 to {LONGEST_LIFE}")));
        }
        let identity: Identity = identity.parse().map_err(|error: InvalidIdentity| invalid(error.to_string()))?;
        let subject = Subject::peer(identity.clone()).map_err(|error| invalid(error.to_string()))?;
        let request = enroll::Request { subject, days, dns: Vec::new(), ip: Vec::new() };
        let certified = self.certify(move |ca| ca.certify(&request, &csr)).await?;
        let method = if key_made_here { EnrolmentMethod::Key } else { EnrolmentMethod::Csr };
        self.record(actor, certified.enrolment(&identity, method)).await?;
        Ok(Response::new(reply(&certified)))
    }

    async fn renew(&self, request: Request<proto::RenewRequest>) -> Result<Response<proto::EnrollReply>, Status> {
        let peer = Peer::from_request(&request)?;
        let actor = peer.actor(Call::Renew)?;
        let invalid = |message: &str| status::failed_call(&RequestError::Invalid(message.to_owned()));
        let without = || invalid("only who connects with a certificate can renew it");
        let (identity, certificate) = peer.identity().zip(peer.certificate()).ok_or_else(without)?;
        let life = certificate.not_before.zip(certificate.expires);
        let life = life.ok_or_else(|| invalid("the certificate does not expire, and is not renewed"))?;
        let (identity, csr) = (identity.clone(), request.get_ref().csr.clone());
        let renewed = identity.clone();
        let certified = self.certify(move |ca| ca.renew(renewed, life, &csr)).await?;
        self.record(actor, certified.enrolment(&identity, EnrolmentMethod::Renewal)).await?;
        Ok(Response::new(reply(&certified)))
    }

    async fn supersede(&self, request: Request<proto::SupersedeRequest>) -> Result<Response<proto::Station>, Status> {
        let peer = Peer::from_request(&request)?;
        let actor = peer.actor(Call::Supersede)?;
        let known = self.records.peers().into_iter().find(|known| known.name == actor);
        let recorded = known.zip(peer.certificate()).and_then(|(known, own)| {
            known
                .admitted()
                .find(|certificate| certificate.sha256 == own.sha256)
                .map(|certificate| certificate.key_hash)
        });
        let keep = recorded.ok_or_else(|| {
            let message = "the certificate of this connection is not recorded, so that nothing can take its place";
            status::failed_call(&RequestError::Invalid(message.to_owned()))
        })?;
        let (committer, access) = (self.committer.clone(), Arc::clone(&self.access));
        // Whether the peer is still connected or not.
        let superseded = tokio::spawn(async move {
            let peer = committer.supersede_peer(actor.clone(), actor, keep).await?;
            access.note(&peer);
            tracing::info!(peer = %peer.name, "has a new key: its certificates with another one are taken no more");
            Ok::<_, RequestError>(peer)
        });
        let superseded = superseded.await.map_err(|_| RequestError::Internal).flatten();
        let peer = superseded.map_err(|error| status::failed_call(&error))?;
        Ok(Response::new(self.shown(&peer, &self.limits.seen())))
    }

    async fn import(&self, request: Request<proto::ImportRequest>) -> Result<Response<proto::ImportReply>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::Import)?;
        let lines = request.into_inner().lines;
        let invalid = |message: String| status::failed_call(&RequestError::Invalid(message));
        if lines.len() > ENROLMENT_LINES {
            return Err(invalid(format!("{} lines; at most {ENROLMENT_LINES} are allowed", lines.len())));
        }
        let (certifier, mut enrolments) = (self.certifier.get(), Vec::with_capacity(lines.len()));
        for (index, line) in lines.iter().enumerate() {
            let read = Listed::read(line, &certifier.client_cas);
            enrolments.push(read.map_err(|error| invalid(format!("line {}: {error}", index + 1)))?);
        }
        let recorded = u32::try_from(enrolments.len()).unwrap_or(u32::MAX);
        for enrolment in enrolments {
            self.record(actor.clone(), enrolment).await?;
        }
        Ok(Response::new(proto::ImportReply { recorded }))
    }

    async fn list(
        &self,
        request: Request<proto::ListStationsRequest>,
    ) -> Result<Response<proto::ListStationsReply>, Status> {
        let peer = Peer::from_request(&request)?;
        peer.require(Call::ListStations)?;
        let counted = peer.limits()?.record_stream()?;
        let wanted = request.into_inner().name;
        let is_wanted = |name: &str| wanted.is_empty() || name == wanted;
        let seen = self.limits.seen();
        let recorded = self.records.peers().into_iter().filter(|peer| is_wanted(&peer.name.0));
        let mut stations: BTreeMap<_, _> =
            recorded.map(|peer| (peer.name.to_string(), self.shown(&peer, &seen))).collect();
        // Those whose certificates were never recorded here, but for users of the Unix socket.
        let is_enrolled = |name: &str| is_wanted(name) && is_name(name) && !name.contains(":local-");
        for name in seen.keys().filter(|name| is_enrolled(name)) {
            stations.entry(name.to_string()).or_insert_with(|| {
                let mut station = proto::Station { name: name.to_string(), ..proto::Station::default() };
                self.show_seen(&mut station, &seen);
                station
            });
        }
        let mut reply = Response::new(proto::ListStationsReply { stations: stations.into_values().collect() });
        reply.extensions_mut().insert(Held::new(counted));
        Ok(reply)
    }

    async fn check(&self, request: Request<proto::CheckRequest>) -> Result<Response<proto::CheckReply>, Status> {
        let peer = Peer::from_request(&request)?.clone();
        peer.require(Call::Check)?;
        self.checks.check(&peer, request.into_inner()).await.map(Response::new)
    }

    async fn revoke(&self, request: Request<proto::RevokeStationRequest>) -> Result<Response<proto::Station>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::RevokeStation)?;
        let proto::RevokeStationRequest { name, reason } = request.into_inner();
        check_text("reason", &reason, STATION_REVOCATION_REASON).map_err(|error| status::failed_call(&error))?;
        if !is_name(&name) {
            let message = format!(
                "{} is no station:<line>/<station>, operator:<name> or auditor:<name>",
                crate::quote::quoted(&name)
            );
            return Err(status::failed_call(&RequestError::Invalid(message)));
        }
        let (committer, access) = (self.committer.clone(), Arc::clone(&self.access));
        // Whether the operator is still connected or not.
        let revoked = tokio::spawn(async move {
            let peer = committer.revoke_peer(actor.clone(), Actor(name.into()), reason).await?;
            access.note(&peer);
            tracing::warn!(target: security::TARGET, peer = %peer.name, by = %actor, "revoked: its connections are closed, and it gets no other");
            Ok::<_, RequestError>(peer)
        });
        let revoked = revoked.await.map_err(|_| RequestError::Internal).flatten();
        let peer = revoked.map_err(|error| status::failed_call(&error))?;
        Ok(Response::new(self.shown(&peer, &self.limits.seen())))
    }
}

/// Whether this can be the name of a station, an operator or an auditor, as actors are written.
fn is_name(name: &str) -> bool {
    let parts = name.split_once(':').and_then(|(role, name)| {
        let role = Role::ALL.into_iter().find(|known| known.as_str() == role)?;
        Identity::new(role, name).ok()
    });
    parts.is_some()
}

fn certificate(certificate: &PeerCertificate) -> proto::StationCertificate {
    let time = |time: Timestamp| Some(proto::timestamp(time));
    proto::StationCertificate {
        serial_number: certificate.serial_number.clone().into(),
        sha256: certificate.sha256.to_vec().into(),
        not_before: time(certificate.not_before),
        not_after: time(certificate.not_after),
        enrolled_at: time(certificate.enrolled_at),
        enrolled_by: certificate.enrolled_by.to_string(),
        method: certificate.method.as_str().to_owned(),
        revoked: certificate.revoked,
    }
}

fn reply(certified: &Certified) -> proto::EnrollReply {
    proto::EnrollReply {
        certificate: certified.der().to_vec().into(),
        ca: certified.ca().to_vec().into(),
        not_after: Some(proto::timestamp(certified.end())),
        serial_number: certified.serial_number().to_vec().into(),
    }
}
