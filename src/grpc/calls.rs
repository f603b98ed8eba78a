//! What every call goes through, whichever service it is for: it counts as one of its peer's until its reply is taken,
//! its request must arrive and be answered in time, it is terminated soon after its peer's certificate has expired and
//! at once when that is revoked,
//! while it is open its connection is not idle, what gRPC's own layer refuses gets a reason, and an answer
//! from a copy that cannot be brought up to date says of which moment it is.

use std::{
    any::Any,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    body::{Frame, SizeHint},
    header::HeaderValue,
};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    service::Routes,
};
use tonic_types::StatusExt;

use super::{
    limits::{PeerLimits, Permit},
    peer::{Ended, Peer},
    status,
};
use crate::{client::AS_OF, connections::OpenCall, ledger::Records};

/// How long a request may take to arrive and be answered; a stream, to be opened. Nothing of it waits for the HSM.
const ANSWERED: Duration = Duration::from_secs(60);

/// How much of a reply is handed to the connection at once: HTTP/2's usual frame.
const PIECE: usize = 16 << 10;

/// The services, within the limits of their peers.
#[derive(Clone)]
pub(super) struct Limited {
    pub(super) routes: Routes,
    pub(super) records: Arc<dyn Records>,
}

/// Something that a call holds until its reply is taken: a handler puts it into the extensions of its response.
#[derive(Clone)]
pub(super) struct Held {
    _kept: Arc<dyn Any + Send + Sync>,
}

impl Held {
    pub(super) fn new(kept: impl Any + Send + Sync) -> Self {
        Held { _kept: Arc::new(kept) }
    }
}

impl Service<http::Request<Body>> for Limited {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.routes, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let admitted = Peer::from_extensions(request.extensions()).and_then(|peer| {
            let limits = peer.limits()?;
            let permit = limits.call().inspect_err(|refused| note(limits, refused))?;
            Ok((peer.clone(), Arc::clone(limits), permit))
        });
        let (peer, limits, permit) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => return Box::pin(std::future::ready(Ok(refused.into_http()))),
        };
        let open = peer.activity().begin_call();
        let answer = self.routes.call(request);
        let records = Arc::clone(&self.records);
        Box::pin(async move {
            let Ok(answered) = tokio::time::timeout(ANSWERED, answer).await else {
                let refused = status::too_slow(ANSWERED);
                note(&limits, &refused);
                return Ok(refused.into_http());
            };
            let mut response = answered?;
            if let Some(refused) = Status::from_header_map(response.headers())
                && refused.code() != Code::Ok
            {
                let refused = status::unreadable(refused);
                note(&limits, &refused);
                return Ok(refused.into_http());
            }
            if let Some(moment) = records.as_of().and_then(|moment| HeaderValue::from_str(&format!("{moment:.0}")).ok())
            {
                response.headers_mut().insert(AS_OF, moment);
            }
            let held = response.extensions_mut().remove::<Held>();
            let ended = Box::pin(ended(peer));
            Ok(response.map(|body| {
                Body::new(Reply { body, rest: Bytes::new(), ended, limits, _held: held, _permit: permit, _open: open })
            }))
        })
    }
}

/// Notes for the log what a peer is refused. That the daemon goes down is no refusal of the peer's.
fn note(limits: &PeerLimits, refused: &Status) {
    let reason = refused.get_details_error_info().map(|info| info.reason);
    let reason = reason.as_deref().unwrap_or(refused.code().description());
    if reason != "DRAINING" {
        limits.refused(reason, refused.message());
    }
}

async fn ended(peer: Peer) -> Status {
    let Ended { status, grace } = peer.ended().await;
    if !grace.is_zero() {
        tokio::time::sleep(grace).await;
    }
    status
}

/// A reply on its way. It is handed over piece by piece: a peer that does not read holds up the rest of it here, where
/// the call still counts, and not in the connection's buffers.
struct Reply {
    body: Body,
    rest: Bytes,
    ended: Pin<Box<dyn Future<Output = Status> + Send>>,
    limits: Arc<PeerLimits>,
    _held: Option<Held>,
    _permit: Permit,
    _open: OpenCall,
}

impl hyper::body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = self.ended.as_mut().poll(context) {
            // The handler notices that its reply is not taken any more.
            (self.body, self.rest) = (Body::empty(), Bytes::new());
            note(&self.limits, &status);
            let mut trailers = http::HeaderMap::new();
            let written = status.add_header(&mut trailers);
            return Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))));
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => {
                        let status = trailers.trailers_ref().and_then(Status::from_header_map);
                        if let Some(refused) = status.filter(|status| status.code() != Code::Ok) {
                            note(&self.limits, &refused);
                        }
                        return Poll::Ready(Some(Ok(trailers)));
                    }
                },
                other => return Poll::Ready(other),
            }
        }
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
