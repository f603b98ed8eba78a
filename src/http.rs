//! Metrics and health over plain HTTP, for ops: `/metrics` (Prometheus text), `/livez`, `/readyz`.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::{metrics, readiness::Readiness};

/// How often the histograms' samples are put into their buckets.
const UPKEEP: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Shared {
    readiness: Arc<Readiness>,
    prometheus: PrometheusHandle,
}

/// Serves until the task is ended.
///
/// # Errors
/// Those of the listener.
pub async fn serve(listener: TcpListener, readiness: Arc<Readiness>, prometheus: PrometheusHandle) -> std::io::Result<()> {
    let shared = Shared { readiness, prometheus };
    tokio::spawn(upkeep(shared.clone()));
    let router = Router::new()
        .route("/metrics", get(render))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(shared);
    axum::serve(listener, router).await
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
