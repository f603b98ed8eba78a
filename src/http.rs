//! Metrics and health over plain HTTP, for ops: `/metrics` (Prometheus text), `/livez`, `/readyz`; and for everybody the
//! revocation lists and CA certificates (`http/lists.rs`).
//!
//! A connection serves one request. It has ten seconds for it, and takes the answer at a least rate, so that a list of
//! many megabytes reaches a slow reader and a silent one is left. Idle connections make room for new ones
//! (`connections.rs`).

mod lists;

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
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::io::InspectWriter;

use crate::{
    connections::{Activity, Reason, Seat, Seats, source},
    crl::Directory,
    metrics,
    readiness::Readiness,
};

/// How often the histograms' samples are put into their buckets.
const UPKEEP: Duration = Duration::from_secs(1);

/// How long a connection may take for its request, and for each [`LEAST_TAKEN`] of the answer.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// How many octets of an answer a connection must take in each [`TIME_LIMIT`].
const LEAST_TAKEN: u64 = 64 * 1024;

#[derive(Clone)]
struct Shared {
    readiness: Arc<Readiness>,
    prometheus: PrometheusHandle,
}

/// Serves until the task is aborted, at most `limit` connections at a time.
pub(crate) async fn serve(
    listener: TcpListener,
    limit: usize,
    readiness: Arc<Readiness>,
    prometheus: PrometheusHandle,
    directory: Option<Arc<Directory>>,
) {
    let shared = Shared { readiness, prometheus };
    tokio::spawn(upkeep(shared.clone()));
    let router = Router::new()
        .route("/metrics", get(render))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(shared)
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
    let taken = AtomicU64::new(0);
    let stream = InspectWriter::new(stream, |octets: &[u8]| {
        taken.fetch_add(octets.len() as u64, Ordering::Relaxed);
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        biased;
        // An error means that the client is gone.
        _ = connection => {}
        () = seat.told_to_leave() => seat.refused(Reason::Crowded, || address),
        () = stalled(&taken, TIME_LIMIT) => seat.refused(Reason::Silent, || address),
    }
}

/// Returns when less than [`LEAST_TAKEN`] was taken in a `limit`.
async fn stalled(taken: &AtomicU64, limit: Duration) {
    let mut before = 0;
    loop {
        tokio::time::sleep(limit).await;
        let now = taken.load(Ordering::Relaxed);
        if now - before < LEAST_TAKEN {
            return;
        }
        before = now;
    }
}

async fn render(State(shared): State<Shared>) -> impl IntoResponse {
    metrics::ready(shared.readiness.obstacles().is_empty());
    let text = shared.prometheus.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let obstacles = shared.readiness.obstacles();
    if obstacles.is_empty() {
        let warnings = shared.readiness.warnings().into_iter().map(|warning| format!("degraded: {warning}\n"));
        (StatusCode::OK, ["ready\n".to_owned()].into_iter().chain(warnings).collect())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, obstacles.join("\n") + "\n")
    }
}

/// Without it, samples would pile up in memory between two looks at `/metrics`.
async fn upkeep(shared: Shared) {
    let mut interval = tokio::time::interval(UPKEEP);
    loop {
        interval.tick().await;
        shared.prometheus.run_upkeep();
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
        stalled(&AtomicU64::new(0), limit).await;
        let taken = AtomicU64::new(0);
        let begun = std::time::Instant::now();
        let reader = async {
            while begun.elapsed() < 10 * limit {
                taken.fetch_add(LEAST_TAKEN, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stalled(&taken, limit) => {}
            () = reader => {}
        }
        assert!(begun.elapsed() >= 10 * limit, "{:?}", begun.elapsed());
    }
}
