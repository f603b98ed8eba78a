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
use tokio::{net::TcpListener, sync::watch};

use crate::metrics;

/// How often the histograms' samples are put into their buckets, and `birthmark_ready` is set.
const UPKEEP: Duration = Duration::from_secs(1);

/// Tells whether a part of the daemon can do its work now, or why not.
pub type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Whether the daemon issues certificates now.
pub struct Readiness {
    draining: watch::Receiver<bool>,
    checks: Vec<(String, Check)>,
    warnings: Vec<(String, Check)>,
}

impl Readiness {
    /// Ready unless draining, or one of `checks` says otherwise. What `warnings` say is in the way of nothing, yet.
    pub fn new(draining: watch::Receiver<bool>, checks: Vec<(String, Check)>, warnings: Vec<(String, Check)>) -> Self {
        Readiness { draining, checks, warnings }
    }

    /// What is in the way of issuing, one line a part; empty if nothing is.
    pub fn obstacles(&self) -> Vec<String> {
        let draining = self.draining.borrow().then(|| "draining: the daemon is shutting down".to_owned());
        draining.into_iter().chain(failed(&self.checks)).collect()
    }
}

fn failed(checks: &[(String, Check)]) -> impl Iterator<Item = String> {
    checks.iter().filter_map(|(part, check)| Some(format!("{part}: {}", check().err()?)))
}

#[derive(Clone)]
struct Shared {
    readiness: Arc<Readiness>,
    prometheus: PrometheusHandle,
}

/// Serves until the task is ended.
///
/// # Errors
/// Those of the listener.
pub async fn serve(listener: TcpListener, readiness: Readiness, prometheus: PrometheusHandle) -> std::io::Result<()> {
    let shared = Shared { readiness: Arc::new(readiness), prometheus };
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
        let warnings = failed(&shared.readiness.warnings).map(|warning| format!("degraded: {warning}\n"));
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
