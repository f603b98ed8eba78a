//! The `Issuance` service: stations' streams and single calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tonic::{Request, Response, Status, Streaming};

use super::{
    calls::Held,
    confirmation::{Confirmations, Named},
    issuers::issuer_message,
    limits::{PeerLimits, Permit},
    peer::Peer,
    refused,
    request_error::RequestError,
    services::Services,
    status::{self, RefusedItem},
};
use crate::{
    config::OrderRequirement,
    hash::sha256,
    id::OrderId,
    identity::Role,
    issuer::{Issuance, IssueRequest, IssuedBy, Policy},
    ledger::{Actor, Records},
    limits::{CONFIRM_SERIAL_NUMBERS, REQUEST_ID},
    live::Live,
    metrics::OpenStream,
    proto,
    roles::Call,
};

/// Replies that a stream holds ready for a station that does not read them yet.
const REPLIES: usize = 32;

/// Answers stations.
pub(super) struct Service {
    issuer: Arc<Issuance>,
    policy: Arc<Live<Policy>>,
    records: Arc<dyn Records>,
    confirmations: Confirmations,
    window: usize,
    stall_limit: Duration,
    draining: watch::Receiver<bool>,
}

impl Service {
    pub(super) fn new(services: &Services) -> Self {
        let Services { issuer, committer, policy, records, window, stall_limit, draining, .. } = services.clone();
        let confirmations = Confirmations::new(committer, Arc::clone(&records));
        Service { issuer, policy, records, confirmations, window, stall_limit, draining }
    }

    /// The profiles that a station may use: it is issued no certificate of the others, and may not confirm theirs.
    fn usable_profiles(&self, station: &str) -> Arc<BTreeSet<String>> {
        let policy = self.policy.get();
        let usable = policy.profiles.values().filter(|profile| profile.allows_station(station));
        Arc::new(usable.map(|profile| profile.name().to_owned()).collect())
    }

    /// An issuer of the ledger, which the configuration need not name any more.
    fn recorded_issuer(&self, name: &str, generation: u32) -> Result<proto::Issuer, RequestError> {
        if generation == 0 {
            let message = "name the issuer's generation, from 1 on, as the reply or record has it".to_owned();
            return Err(RequestError::Invalid(message));
        }
        let issuers = self.records.issuers();
        let found = issuers.iter().find(|issuer| issuer.name == name && issuer.generation == generation);
        let unknown = || RequestError::IssuerUnknown { name: name.to_owned(), generation };
        found.map(|issuer| issuer_message(issuer)).ok_or_else(unknown)
    }
}

#[tonic::async_trait]
impl proto::issuance_server::Issuance for Service {
    type IssueStream = Gathered;

    async fn issue(
        &self,
        request: Request<Streaming<proto::IssueRequest>>,
    ) -> Result<Response<Self::IssueStream>, Status> {
        let peer = Peer::from_request(&request)?;
        let identity = peer.require(Call::Issue)?;
        let limits = peer.limits()?;
        let stream = Stream {
            peer: peer.clone(),
            issuer: Arc::clone(&self.issuer),
            station: Arc::clone(identity.name()),
            actor: Actor(identity.actor().into()),
            _counted: limits.issue_stream()?,
            limits: Arc::clone(limits),
            window: self.window,
            stall_limit: self.stall_limit,
            draining: self.draining.clone(),
            _open: OpenStream::new(),
        };
        // One slot more, for the stream's status.
        let (replies, receiver) = mpsc::channel(REPLIES + 1);
        tokio::spawn(stream.run(request.into_inner(), replies));
        Ok(Response::new(Gathered { replies: receiver, slept: false }))
    }

    async fn issue_one(&self, request: Request<proto::IssueRequest>) -> Result<Response<proto::IssueReply>, Status> {
        let peer = Peer::from_request(&request)?;
        let identity = peer.require(Call::IssueOne)?;
        if *self.draining.borrow() {
            return Err(status::failed_call(&RequestError::Draining));
        }
        let (actor, station) = (Actor(identity.actor().into()), Arc::clone(identity.name()));
        // Taken before the task begins: calls that were given up leave no more tasks behind than there are permits.
        let permit = peer.limits()?.request().await;
        let limits = Arc::clone(peer.limits()?);
        let issuer = Arc::clone(&self.issuer);
        // What was begun is finished, whatever becomes of the call.
        let answered = tokio::spawn(async move {
            let _permit = permit;
            answer(&issuer, &limits, (station, actor), request.into_inner()).await
        });
        answered.await.map(Response::new).map_err(|_| status::failed_call(&RequestError::Internal))
    }

    async fn confirm(&self, request: Request<proto::ConfirmRequest>) -> Result<Response<proto::ConfirmReply>, Status> {
        let peer = Peer::from_request(&request)?;
        let identity = peer.require(Call::Confirm)?;
        let (actor, limits) = (Actor(identity.actor().into()), Arc::clone(peer.limits()?));
        let profiles = (identity.role() == Role::Station).then(|| self.usable_profiles(identity.name()));
        let named = Named::all(request.into_inner());
        if named.len() > CONFIRM_SERIAL_NUMBERS {
            let message = format!("{} certificates; at most {CONFIRM_SERIAL_NUMBERS} are allowed", named.len());
            return Err(status::failed_call(&RequestError::Invalid(message)));
        }
        let counted = limits.confirmations(u32::try_from(named.len()).unwrap_or(u32::MAX))?;
        let results = self.confirmations.confirm(&limits, &actor, profiles.as_ref(), named).await;
        let mut reply = Response::new(proto::ConfirmReply { results });
        reply.extensions_mut().insert(Held::new(counted));
        Ok(reply)
    }

    async fn get_issuer(
        &self,
        request: Request<proto::GetIssuerRequest>,
    ) -> Result<Response<proto::GetIssuerReply>, Status> {
        let peer = Peer::from_request(&request)?.clone();
        let identity = peer.require(Call::GetIssuer)?;
        let (role, name) = (identity.role(), identity.name());
        let proto::GetIssuerRequest { issuer, generation } = request.into_inner();
        if !issuer.is_empty() {
            let found = self.recorded_issuer(&issuer, generation).map_err(|error| status::failed_call(&error))?;
            return Ok(Response::new(proto::GetIssuerReply { issuers: vec![found], profiles: Vec::new() }));
        }
        let policy = self.policy.get();
        let profiles = policy.profiles.values();
        let usable: Vec<_> = profiles.filter(|profile| role != Role::Station || profile.allows_station(name)).collect();
        let now = Timestamp::now();
        let all = usable.iter().flat_map(|profile| profile.issuers());
        let issuers: BTreeMap<_, _> = all.map(|(_, issuer)| (issuer.name(), issuer)).collect();
        let issuers = issuers.into_iter().map(|(name, issuer)| match issuer.recorded() {
            Some(recorded) => issuer_message(recorded),
            None => proto::Issuer {
                name: name.to_owned(),
                chain: issuer.chain().iter().map(|certificate| certificate.clone().into()).collect(),
                ..proto::Issuer::default()
            },
        });
        let profiles = usable.iter().map(|profile| proto::Profile {
            name: profile.name().to_owned(),
            issuer: profile.issuer_at(now).name().to_owned(),
            order_requirement: order_requirement(profile.order_requirement()).into(),
            key_types: profile.keys().iter().map(|key| key.as_str().to_owned()).collect(),
        });
        Ok(Response::new(proto::GetIssuerReply { issuers: issuers.collect(), profiles: profiles.collect() }))
    }
}

/// A stream's replies. A batch of the committer lets many requests go on at once: a reply that finds the connection
/// asleep has it wait until every task that can run has run, so that their replies leave in one frame, one TLS record
/// and one system call.
#[derive(Debug)]
pub(super) struct Gathered {
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

/// One station's stream. Each request is a task of its own, so that what has begun is finished, whatever becomes of the
/// stream. A request is read when the stream's window has a permit left, which is free again when its reply is handed
/// over: a station that does not read is not read from (invariant 9), and after a while its stream is terminated. A
/// request that was read begins with a permit of the window that the station's streams share.
struct Stream {
    peer: Peer,
    issuer: Arc<Issuance>,
    station: Arc<str>,
    actor: Actor,
    limits: Arc<PeerLimits>,
    window: usize,
    stall_limit: Duration,
    draining: watch::Receiver<bool>,
    _counted: Permit,
    _open: OpenStream,
}

type Reply = Result<proto::IssueReply, Status>;

/// Where a stream's replies go.
struct Replies {
    sender: mpsc::Sender<Reply>,
    stall_limit: Duration,
    /// Notified when one was not taken for that long.
    stalled: Notify,
}

impl Replies {
    async fn send(&self, reply: proto::IssueReply) {
        // A station that hung up asks again and gets the same certificate; so does one that does not read.
        let Err(mpsc::error::TrySendError::Full(reply)) = self.sender.try_send(Ok(reply)) else { return };
        if tokio::time::timeout(self.stall_limit, self.sender.send(reply)).await.is_err() {
            self.stalled.notify_one();
        }
    }
}

impl Stream {
    async fn run(mut self, mut requests: Streaming<proto::IssueRequest>, sender: mpsc::Sender<Reply>) {
        let Ok(last) = sender.clone().try_reserve_owned() else { return };
        let replies = Arc::new(Replies { sender, stall_limit: self.stall_limit, stalled: Notify::new() });
        let window = Arc::new(Semaphore::new(self.window));
        let result = tokio::select! {
            biased;
            result = self.read(&mut requests, &window, &replies) => result,
            () = replies.stalled.notified() => Err(status::stalled(self.stall_limit)),
        };
        // The last replies go out before the stream's status.
        let _ = window.acquire_many(u32::try_from(self.window).unwrap_or(u32::MAX)).await;
        if let Err(error) = result {
            tracing::debug!(station = %self.station, %error, "stream ended");
            last.send(Err(error));
        }
    }

    /// Reads requests and begins them, until the station closes the stream or it has to be terminated.
    async fn read(
        &mut self,
        requests: &mut Streaming<proto::IssueRequest>,
        window: &Arc<Semaphore>,
        replies: &Arc<Replies>,
    ) -> Result<(), Status> {
        let mut ended = std::pin::pin!(self.peer.clone().ended());
        loop {
            let Ok(permit) = Arc::clone(window).acquire_owned().await else { return Ok(()) };
            let request = tokio::select! {
                biased;
                _ = self.draining.wait_for(|draining| *draining) => return Err(status::failed_call(&RequestError::Draining)),
                ended = &mut ended => return Err(ended.status),
                // Reading a message may be interrupted: what has arrived of it stays in the stream.
                request = requests.message() => request.map_err(status::unreadable)?,
            };
            let Some(request) = request else { return Ok(()) };
            // The station does not take replies any more.
            if replies.sender.is_closed() {
                return Ok(());
            }
            let shared_permit = self.limits.request().await;
            let (issuer, replies) = (Arc::clone(&self.issuer), Arc::clone(replies));
            let (station, actor) = (Arc::clone(&self.station), self.actor.clone());
            let limits = Arc::clone(&self.limits);
            tokio::spawn(async move {
                let reply = answer(&issuer, &limits, (station, actor), request).await;
                // What other streams of the station may begin does not wait for this one's replies to be read.
                drop(shared_permit);
                replies.send(reply).await;
                drop(permit);
            });
        }
    }
}

async fn answer(
    issuer: &Issuance,
    limits: &PeerLimits,
    (station, actor): (Arc<str>, Actor),
    mut request: proto::IssueRequest,
) -> proto::IssueReply {
    let mut request_id = std::mem::take(&mut request.request_id);
    let with_chain = request.with_chain;
    let result = if request_id.len() > REQUEST_ID {
        let message = format!("request_id has {} bytes; at most {REQUEST_ID} are allowed", request_id.len());
        request_id.truncate(request_id.floor_char_boundary(REQUEST_ID));
        Err(RequestError::Invalid(message))
    } else {
        issue(issuer, station, &actor, request).await
    };
    match result {
        Ok(issued) => {
            limits.seen().issue();
            let result = Some(proto::issue_reply::Result::Issued(certificate(&issued, with_chain)));
            proto::IssueReply { request_id, result, ..proto::IssueReply::default() }
        }
        Err(error) => {
            let RefusedItem { status, reason, retry_after } = status::refused_item(&error);
            limits.refused(reason, &status.message);
            let result = Some(proto::issue_reply::Result::Error(status));
            proto::IssueReply { request_id, result, reason: reason.to_owned(), retry_after }
        }
    }
}

async fn issue(
    issuer: &Issuance,
    station: Arc<str>,
    actor: &Actor,
    request: proto::IssueRequest,
) -> Result<IssuedBy, RequestError> {
    let proto::IssueRequest { device_id, order, profile, csr, reissue, .. } = request;
    let ids = || {
        let device = device_id.try_into().map_err(RequestError::id("device_id"))?;
        let order = Some(order).filter(|order| !order.is_empty()).map(OrderId::try_from);
        Ok((device, order.transpose().map_err(RequestError::id("order"))?))
    };
    let (device, order) = ids().inspect_err(|error| refused::note_nameless(issuer, actor, error))?;
    let request = IssueRequest { station, actor: actor.clone(), device, order, profile, csr, reissue, by_code: false };
    refused::issue(issuer, &request).await
}

fn order_requirement(requirement: OrderRequirement) -> proto::OrderRequirement {
    match requirement {
        OrderRequirement::Required => proto::OrderRequirement::Required,
        OrderRequirement::Optional => proto::OrderRequirement::Optional,
    }
}

fn certificate(IssuedBy { issued, issuer }: &IssuedBy, with_chain: bool) -> proto::IssuedCertificate {
    let chain = issuer.as_ref().filter(|_| with_chain).map_or(&[][..], |issuer| issuer.chain.as_slice());
    proto::IssuedCertificate {
        certificate: issued.certificate().clone(),
        serial_number: issued.serial_number().as_bytes().to_vec().into(),
        certificate_id: hex::encode(sha256(issued.certificate())),
        issuer: issued.issuer().to_owned(),
        replay: issued.replay(),
        issuer_generation: issuer.as_ref().map_or(0, |issuer| issuer.generation),
        chain: chain.to_vec(),
    }
}
