//! The `Issuance` service: stations' streams.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::{Request, Response, Status, Streaming};

use super::{
    peer::{self, Peer, Role},
    status,
};
use crate::{
    committer::Issued,
    config::OrderPolicy,
    issuer::{self, Issuance, IssueError},
    ledger::Actor,
    metrics::OpenStream,
    proto,
    serial::SerialNumber,
    signer::sha256,
};

/// Replies that a stream holds ready for a station that does not read them yet.
const REPLIES: usize = 32;

/// The longest `request_id`, in bytes.
const REQUEST_ID: usize = 64;

/// The most serial numbers that one call confirms.
const CONFIRMED: usize = 1000;

/// Answers stations.
#[derive(Debug)]
pub struct Service {
    issuance: Arc<Issuance>,
    window: usize,
    draining: watch::Receiver<bool>,
}

impl Service {
    pub(super) fn new(issuance: Arc<Issuance>, window: usize, draining: watch::Receiver<bool>) -> Self {
        Service { issuance, window, draining }
    }
}

impl Service {
    async fn confirm_one(
        &self,
        actor: &Actor,
        profiles: Option<Arc<BTreeSet<String>>>,
        serial_number: Bytes,
    ) -> proto::ConfirmResult {
        let confirmed = match SerialNumber::try_from(serial_number.as_ref()) {
            Ok(serial) => {
                let confirmed = self.issuance.committer().confirm(actor.clone(), serial, profiles).await;
                confirmed.map_err(IssueError::from)
            }
            Err(error) => Err(IssueError::RequestInvalid(error.to_string())),
        };
        proto::ConfirmResult { serial_number, error: confirmed.err().map(|error| status::refused_item(&error)) }
    }
}

#[tonic::async_trait]
impl proto::issuance_server::Issuance for Service {
    type IssueStream = Gathered;

    async fn issue(
        &self,
        request: Request<Streaming<proto::IssueRequest>>,
    ) -> Result<Response<Self::IssueStream>, Status> {
        let peer = Peer::of(&request)?;
        let (role, station) = peer.require(&[Role::Station])?;
        let stream = Stream {
            peer: peer.clone(),
            issuance: Arc::clone(&self.issuance),
            station: Arc::clone(station),
            actor: peer::actor(role, station),
            window: self.window,
            draining: self.draining.clone(),
            _open: OpenStream::new(),
        };
        let (replies, receiver) = mpsc::channel(REPLIES);
        tokio::spawn(stream.run(request.into_inner(), replies));
        Ok(Response::new(Gathered { replies: receiver, slept: false }))
    }

    async fn confirm(&self, request: Request<proto::ConfirmRequest>) -> Result<Response<proto::ConfirmReply>, Status> {
        let (role, name) = Peer::of(&request)?.require(&[Role::Station, Role::Operator])?;
        let actor = peer::actor(role, name);
        let serial_numbers = request.into_inner().serial_numbers;
        if serial_numbers.len() > CONFIRMED {
            let message = format!("{} serial numbers; at most {CONFIRMED} are allowed", serial_numbers.len());
            return Err(status::failed_call(&IssueError::RequestInvalid(message)));
        }
        // All at once, so that they share a sync of the journal.
        let profiles = self.issuance.profiles_of(&actor);
        let results = serial_numbers.into_iter().map(|octets| self.confirm_one(&actor, profiles.clone(), octets));
        let results = futures_util::future::join_all(results).await;
        Ok(Response::new(proto::ConfirmReply { results }))
    }

    async fn get_issuer(
        &self,
        request: Request<proto::GetIssuerRequest>,
    ) -> Result<Response<proto::GetIssuerReply>, Status> {
        let (role, name) = Peer::of(&request)?.require(&[Role::Station, Role::Operator, Role::Auditor])?;
        let profiles = self.issuance.profiles().values();
        let usable: Vec<_> = profiles.filter(|profile| role != Role::Station || profile.allows_station(name)).collect();
        let now = Timestamp::now();
        let all = usable.iter().flat_map(|profile| profile.issuers());
        let issuers: BTreeMap<_, _> = all.map(|(_, issuer)| (issuer.name(), issuer.chain())).collect();
        let issuers = issuers.into_iter().map(|(name, chain)| proto::Issuer {
            name: name.to_owned(),
            chain: chain.iter().map(|certificate| certificate.clone().into()).collect(),
        });
        let profiles = usable.iter().map(|profile| proto::Profile {
            name: profile.name().to_owned(),
            issuer: profile.issuer_at(now).name().to_owned(),
            order_optional: profile.order_policy() == OrderPolicy::Optional,
            key_types: profile.keys().iter().map(|key| key.as_str().to_owned()).collect(),
        });
        Ok(Response::new(proto::GetIssuerReply { issuers: issuers.collect(), profiles: profiles.collect() }))
    }
}

/// A stream's replies. A batch of the committer lets many requests go on at once: a reply that finds the connection asleep
/// has it wait until every task that can run has run, so that their replies leave in one frame, one TLS record and
/// one system call.
#[derive(Debug)]
pub struct Gathered {
    replies: mpsc::Receiver<Result<proto::IssueReply, Status>>,
    slept: bool,
}

impl tokio_stream::Stream for Gathered {
    type Item = Result<proto::IssueReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.slept) {
            // A task that wakes itself goes to the end of the queue.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = self.replies.poll_recv(context);
        self.slept = polled.is_pending();
        polled
    }
}

/// One station's stream. Each request is a task of its own, so that what has begun ends, whatever becomes of the
/// stream. A request is read when there is room in the window, and its room is free again when its reply is on its way:
/// a station that does not read is not read from.
struct Stream {
    peer: Peer,
    issuance: Arc<Issuance>,
    station: Arc<str>,
    actor: Actor,
    window: usize,
    draining: watch::Receiver<bool>,
    _open: OpenStream,
}

type Replies = mpsc::Sender<Result<proto::IssueReply, Status>>;

impl Stream {
    async fn run(mut self, mut requests: Streaming<proto::IssueRequest>, replies: Replies) {
        let window = Arc::new(Semaphore::new(self.window));
        let mut expired = std::pin::pin!(self.peer.clone().expired());
        let end = loop {
            let Ok(room) = Arc::clone(&window).acquire_owned().await else { break Ok(()) };
            let request = tokio::select! {
                biased;
                _ = self.draining.wait_for(|draining| *draining) => break Err(status::failed_call(&IssueError::Draining)),
                status = &mut expired => break Err(status),
                // Reading a message may be interrupted: what has arrived of it stays in the stream.
                request = requests.message() => request,
            };
            match request {
                // Nobody takes replies any more.
                Ok(Some(_)) if replies.is_closed() => break Ok(()),
                Ok(Some(request)) => {
                    let (issuance, replies) = (Arc::clone(&self.issuance), replies.clone());
                    let (station, actor) = (Arc::clone(&self.station), self.actor.clone());
                    tokio::spawn(async move {
                        let reply = answer(&issuance, station, actor, request).await;
                        // A station that hung up asks again and gets the same certificate.
                        let _ = replies.send(Ok(reply)).await;
                        drop(room);
                    });
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // The last replies go out before the stream ends.
        let _ = window.acquire_many(u32::try_from(self.window).unwrap_or(u32::MAX)).await;
        if let Err(error) = end {
            tracing::debug!(station = %self.station, %error, "stream ended");
            let _ = replies.send(Err(error)).await;
        }
    }
}

async fn answer(
    issuance: &Issuance,
    station: Arc<str>,
    actor: Actor,
    request: proto::IssueRequest,
) -> proto::IssueReply {
    let proto::IssueRequest { request_id, device_id, order, profile, csr, reissue } = request;
    let result = if request_id.len() > REQUEST_ID {
        let message = format!("request_id has {} bytes; at most {REQUEST_ID} are allowed", request_id.len());
        Err(IssueError::RequestInvalid(message))
    } else {
        issuance.issue(issuer::IssueRequest { station, actor, device: device_id, order, profile, csr, reissue }).await
    };
    let result = match result {
        Ok(issued) => proto::issue_reply::Result::Issued(certificate(&issued)),
        Err(error) => proto::issue_reply::Result::Error(status::refused_item(&error)),
    };
    proto::IssueReply { request_id, result: Some(result) }
}

fn certificate(issued: &Issued) -> proto::IssuedCertificate {
    proto::IssuedCertificate {
        certificate: issued.certificate().clone(),
        serial_number: issued.serial_number().as_bytes().to_vec().into(),
        certificate_id: hex::encode(sha256(issued.certificate())),
        issuer: issued.issuer().to_owned(),
        replay: issued.replay(),
    }
}
