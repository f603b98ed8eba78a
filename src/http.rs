//! Plain HTTP: metrics and health for ops (`/metrics`, Prometheus or OpenMetrics text; `/livez`, `/readyz`), the status page for the
//! line's people (`/`, `http/status.rs`), and for everybody the revocation lists and CA certificates (`http/lists.rs`).
//!
//! A connection serves one request. It has ten seconds for it, and takes the answer at a least rate, so that a list of
//! many megabytes reaches a slow reader and a silent one is left. Idle connections make room for new ones
//! (`connections.rs`).

mod lists;
mod patience;
mod status;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Request, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::io::InspectWriter;

use self::patience::Patience;
use crate::{
    connections::{Activity, Reason, Seat, Seats, source},
    crl::Directory,
    metrics::Exporter,
    readiness::Readiness,
    status::Status,
};

/// How often the histograms' samples are put into their buckets.
const UPKEEP: Duration = Duration::from_secs(1);

/// How long a connection may take for its request, and for each [`patience::LEAST_TAKEN`] of the answer.
const TIME_LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Shared {
    readiness: Arc<Readiness>,
    exporter: Exporter,
    status: Arc<Status>,
}

/// Serves until the task is aborted, at most `limit` connections at a time; the status with or without its page.
pub(crate) async fn serve(
    listener: TcpListener,
    limit: usize,
    readiness: Arc<Readiness>,
    exporter: Exporter,
    (status, page): (Arc<Status>, bool),
    directory: Option<Arc<Directory>>,
) {
    let shared = Shared { readiness, exporter, status: Arc::clone(&status) };
    tokio::spawn(upkeep(shared.clone()));
    let router = Router::new()
        .route("/metrics", get(render))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(shared)
        .merge(if page { status::routes(status) } else { Router::new() })
        .merge(directory.map(lists::routes).unwrap_or_default());
    let seats = Seats::new("http", limit, limit.div_ceil(2));
    loop {
        seats.settle().await;
        match listener.accept().await {
            Ok((stream, address)) => {
                // Without calls every connection makes room for another, so there always is a seat.
                if let Ok(seat) = seats.take(source(address.ip()), Activity::new()) {
                    tokio::spawn(answer(stream, address.to_string(), seat, router.clone()));
                }
            }
            Err(error) => seats.cannot_accept(&error).await,
        }
    }
}

async fn answer<S>(stream: TcpStream, address: String, mut seat: Seat<S>, router: Router)
where
    S: Clone + Eq + std::hash::Hash,
{
    let (taken, patience) = (AtomicU64::new(0), Patience::default());
    let stream = InspectWriter::new(stream, |octets: &[u8]| {
        taken.fetch_add(octets.len() as u64, Ordering::Relaxed);
    });
    let (router, own) = (TowerToHyperService::new(router), patience.clone());
    let answer = move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(own.clone());
        router.call(request)
    };
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service_fn(answer));
    tokio::select! {
        biased;
        // An error means that the client is gone.
        _ = connection => {}
        () = seat.told_to_leave() => seat.refused(Reason::Crowded, || address),
        () = stalled(&taken, &patience, TIME_LIMIT) => seat.refused(Reason::Silent, || address),
    }
}

/// Returns when less was taken in a `limit` than must be.
async fn stalled(taken: &AtomicU64, patience: &Patience, limit: Duration) {
    let mut before = 0;
    loop {
        tokio::time::sleep(limit).await;
        let now = taken.load(Ordering::Relaxed);
        if now - before < patience.least() {
            return;
        }
        before = now;
    }
}

async fn render(State(shared): State<Shared>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let snapshot = shared.status.fresh().await;
    let (kind, text) = shared.exporter.render(accept, || snapshot.set_metrics());
    ([(header::CONTENT_TYPE, kind)], text)
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let obstacles = shared.readiness.obstacles();
    let warnings = shared.readiness.warnings().into_iter().map(|warning| format!("degraded: {warning}"));
    let (status, first) = match obstacles.is_empty() {
        true => (StatusCode::OK, vec!["ready".to_owned()]),
        false => (StatusCode::SERVICE_UNAVAILABLE, obstacles),
    };
    (status, first.into_iter().chain(warnings).map(|line| line + "\n").collect::<String>())
}

/// Without it, samples would pile up in memory between two looks at `/metrics`.
async fn upkeep(shared: Shared) {
    let mut interval = tokio::time::interval(UPKEEP);
    loop {
        interval.tick().await;
        shared.exporter.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that takes its answer at the least rate keeps it for as long as it does; one that stops, or never began,
    /// is left.
    #[tokio::test]
    async fn answer_is_given_for_as_long_as_it_is_taken() {
        let limit = Duration::from_millis(20);
        let (patience, listener) = (Patience::default(), Patience::default());
        listener.take_little();
        stalled(&AtomicU64::new(0), &patience, limit).await;
        stalled(&AtomicU64::new(1), &patience, limit).await;
        stalled(&AtomicU64::new(0), &listener, limit).await;
        let taken = AtomicU64::new(0);
        let begun = std::time::Instant::now();
        let reader = async {
            while begun.elapsed() < 10 * limit {
                taken.fetch_add(patience::LEAST_TAKEN, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stalled(&taken, &patience, limit) => {}
            () = reader => {}
        }
        assert!(begun.elapsed() >= 10 * limit, "{:?}", begun.elapsed());
    }
}
