//! `/metrics`, `/livez` and `/readyz` of the activator, over plain HTTP.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use super::activator::{Activator, locked};

#[derive(Clone)]
struct Shared {
    activator: Arc<Activator>,
    prometheus: PrometheusHandle,
}

pub(super) async fn serve(listener: TcpListener, activator: Arc<Activator>, prometheus: PrometheusHandle) {
    let router = Router::new()
        .route("/metrics", get(render))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(Shared { activator, prometheus });
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!("metrics and readiness are served no more: {error}");
    }
}

async fn render(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.prometheus.render())
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let (obstacles, warnings) = shared.activator.health();
    let warnings = warnings.into_iter().map(|warning| format!("degraded: {warning}\n")).collect::<String>();
    if obstacles.is_empty() {
        (StatusCode::OK, format!("ready\n{warnings}"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, obstacles.join("\n") + "\n" + &warnings)
    }
}

impl Activator {
    /// What keeps devices waiting, and what keeps some of them waiting.
    fn health(&self) -> (Vec<String>, Vec<String>) {
        let health = locked(&self.health);
        let mut obstacles = Vec::new();
        if self.platform.is_away() {
            obstacles.push("AWS does not take calls".to_owned());
        }
        obstacles.extend(health.error.clone());
        let late = self.options.interval.as_secs() * 3 + 60;
        match health.swept {
            _ if !health.swept_fully => obstacles.push("the first sweep is not done yet".to_owned()),
            Some(at) if Timestamp::now().as_second() - at.as_second() > i64::try_from(late).unwrap_or(i64::MAX) => {
                obstacles.push(format!("the last sweep was at {at:.0}"));
            }
            _ => {}
        }
        let mut warnings = health.refused.clone();
        if health.bundles == 0 {
            warnings.push(format!("there are no bundles in {}", self.options.bundles.display()));
        }
        let absent = |ca: &String| format!("the CA {ca} is not registered in {}", self.platform.region());
        warnings.extend(health.absent.iter().map(absent));
        (obstacles, warnings)
    }
}
