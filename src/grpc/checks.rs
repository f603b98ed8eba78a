//! What a station asks at the start of a shift.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tonic::Status;

use super::{
    order_message::{order, sees},
    peer::Peer,
    records::Reader,
    request_error::RequestError,
    services::Services,
    status,
};
use crate::{identity::Role, issuer::Policy, live::Live, profile::Profile, proto, readiness::Readiness};

/// What the issuer's key signs: no certificate begins so.
const MESSAGE: &[u8] = b"birthmark: does this key sign?";

/// What is asked.
pub(super) struct Checks {
    policy: Arc<Live<Policy>>,
    readiness: Arc<Readiness>,
    reader: Reader,
    /// One at a time, so that no station takes the HSM from the others by asking.
    signing: Semaphore,
}

impl Checks {
    pub(super) fn new(services: &Services) -> Self {
        let Services { policy, readiness, records, stall_limit, .. } = services.clone();
        Checks { policy, readiness, reader: Reader::new(records, stall_limit), signing: Semaphore::new(1) }
    }

    /// Answers everything at once: an order that there is not is one line among the others.
    ///
    /// # Errors
    /// Those of the storage.
    pub(super) async fn check(&self, peer: &Peer, request: proto::CheckRequest) -> Result<proto::CheckReply, Status> {
        let identity = peer.identity().ok_or_else(|| status::failed_call(&RequestError::Internal))?;
        let station = (identity.role() == Role::Station).then(|| Arc::clone(identity.name()));
        let policy = self.policy.get();
        let usable: Vec<_> = policy
            .profiles
            .values()
            .filter(|profile| station.as_ref().is_none_or(|station| profile.allows_station(station)))
            .collect();
        let (id, mut profile) = (request.order, request.profile);
        let found = if id.is_empty() {
            None
        } else {
            let found = self.reader.read(peer.limits()?, move |records| records.order(&id)).await?;
            found.filter(|order| sees(station.as_ref(), order))
        };
        if let Some(order) = found.as_ref().filter(|_| profile.is_empty()) {
            profile.clone_from(&order.terms.profile);
        }
        let mut reply = proto::CheckReply {
            name: identity.actor(),
            certificate_not_before: peer.certificate().and_then(|own| own.not_before).map(proto::timestamp),
            certificate_not_after: peer.certificate().and_then(|own| own.expires).map(proto::timestamp),
            obstacles: self.readiness.obstacles(),
            warnings: self.readiness.warnings(),
            profiles: usable.iter().map(|profile| profile.name().to_owned()).collect(),
            order: found.map(order),
            ..proto::CheckReply::default()
        };
        if let Some(profile) = usable.into_iter().find(|found| found.name() == profile) {
            match self.sign(profile).await {
                Ok(taken) => reply.hsm_round_trip = prost_types::Duration::try_from(taken).ok(),
                Err(failure) => reply.hsm_failure = failure,
            }
        }
        // Last, so that what took long does not make the clocks differ.
        reply.time = Some(proto::timestamp(Timestamp::now()));
        Ok(reply)
    }

    async fn sign(&self, profile: &Profile) -> Result<std::time::Duration, String> {
        let _one = self.signing.acquire().await.map_err(|error| error.to_string())?;
        let issuer = profile.issuer_at(Timestamp::now());
        if !issuer.signer().can_sign() {
            return Err(format!("no token of the issuer {} signs now", issuer.name()));
        }
        let begun = Instant::now();
        issuer.signer().sign(MESSAGE.to_vec()).await.map(|_| begun.elapsed()).map_err(|error| error.to_string())
    }
}
