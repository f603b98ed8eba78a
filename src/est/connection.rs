//! One connection: the handshake, who is at the other end, and HTTP/1.1 or 2 on it.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{body::Body, http::Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::server::TlsStream;

use super::{
    enroll::Caller,
    request,
    shared::{Settings, Shared},
};
use crate::{
    connections::{Activity, Handshake, Reason, Seat},
    handshake::handshake,
};

/// A client that takes longer for the head of a request is none.
const HEAD: Duration = Duration::from_secs(10);

/// How long a connection may be without a request.
const IDLE: Duration = Duration::from_secs(60);

/// HTTP/2 streams of one connection.
const STREAMS: u32 = 32;

/// Serves a connection until it ends, has been idle for too long, or has to make room for another one.
pub(super) async fn serve(
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    (stream, address): (TcpStream, SocketAddr),
    mut seat: Seat<IpAddr>,
    activity: Arc<Activity>,
) {
    let config = || Arc::clone(&settings.tls.config);
    if let Some(stream) = handshake(stream, address, config, &mut seat, &activity).await {
        seat.shook_hands(Handshake::Ok);
        answer_requests(shared, settings, (stream, address), seat, activity).await;
    }
}

async fn answer_requests(
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    (stream, address): (TlsStream<TcpStream>, SocketAddr),
    mut seat: Seat<IpAddr>,
    activity: Arc<Activity>,
) {
    activity.hear();
    let caller = Arc::new(Caller::of(&settings.tls, stream.get_ref().1.peer_certificates().unwrap_or_default()));
    tracing::debug!(%address, %caller, "connected to EST");
    let here = caller.actor().map(|name| shared.est.roster.enter(&name));
    let mut draining = shared.draining.clone();
    let service = {
        let (activity, here) = (Arc::clone(&activity), Arc::new(here));
        service_fn(move |request: axum::http::Request<Incoming>| {
            let (shared, caller) = (Arc::clone(&shared), Arc::clone(&caller));
            let open = activity.begin_call();
            if let Some(here) = &*here {
                here.call();
            }
            async move {
                let response: Response<Body> = request::answer(&shared, &caller, address, request.map(Body::new)).await;
                drop(open);
                Ok::<_, Infallible>(response)
            }
        })
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).keep_alive_interval(IDLE);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let idle = async {
        loop {
            let quiet = activity.quiet_since().map_or(Duration::ZERO, |since| since.elapsed());
            if quiet >= IDLE {
                return;
            }
            tokio::time::sleep((IDLE - quiet).max(Duration::from_millis(100))).await;
        }
    };
    tokio::select! {
        biased;
        // An error means that the client is gone.
        _ = connection.as_mut() => return,
        () = seat.told_to_leave() => return seat.refused(Reason::Crowded, || address.to_string()),
        () = idle => {}
        // An error means that the daemon itself is gone.
        _ = draining.wait_for(|draining| *draining) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(HEAD, connection).await;
}
