//! What holds for every call, whatever the service: while it is open its connection is not idle, and it ends soon after
//! its peer's certificate has expired.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
};

use super::peer::Peer;
use crate::connections::OpenCall;

/// How long after its peer's certificate a call may end by itself, so that what was begun is still answered.
const GRACE: Duration = Duration::from_secs(3);

/// A service whose calls are watched.
#[derive(Clone, Debug)]
pub(super) struct Watched<S>(pub(super) S);

impl<S, B> Service<http::Request<B>> for Watched<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().cloned();
        let open = peer.as_ref().map(|peer| peer.activity().begin_call());
        let response = self.0.call(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(response.map(|body| match peer {
                Some(peer) => Body::new(Reply { body, expired: Box::pin(expired(peer)), _open: open }),
                None => body,
            }))
        })
    }
}

async fn expired(peer: Peer) -> Status {
    let status = peer.expired().await;
    tokio::time::sleep(GRACE).await;
    status
}

/// A call's reply, until its end.
struct Reply {
    body: Body,
    expired: Pin<Box<dyn Future<Output = Status> + Send>>,
    _open: Option<OpenCall>,
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.body.is_end_stream() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = self.expired.as_mut().poll(context) {
            // What made the reply notices that nobody takes it any more.
            self.body = Body::empty();
            let mut trailers = http::HeaderMap::new();
            let written = status.add_header(&mut trailers);
            return Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
