//! The port: accepting connections, and their end.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{
    codes::Codes,
    connection, request,
    shared::{Est, Shared},
};
use crate::connections::{Activity, Seats, source};

/// How many enrolments may be under way; more wait at the clients (invariant 9).
const AT_ONCE: usize = 256;

/// How long connections may take to finish when the daemon shuts down.
const DRAIN: Duration = Duration::from_secs(10);

/// A port that listens.
pub(crate) struct Port {
    /// Where.
    pub(crate) listener: TcpListener,
    /// How many connections it may have.
    pub(crate) connections: usize,
}

/// Serves until `draining` becomes true and the connections have finished.
pub(crate) async fn serve(est: Est, port: Port, mut draining: watch::Receiver<bool>) {
    let Port { listener, connections: limit } = port;
    let in_progress = Arc::new(Semaphore::new(AT_ONCE));
    let shared = Arc::new(Shared { est, codes: Codes::new(), in_progress, draining: draining.clone() });
    let seats = Seats::of_tls("est", limit, limit.div_ceil(2));
    let mut open = JoinSet::new();
    request::prepare_metrics();
    loop {
        seats.settle().await;
        let accepted = tokio::select! {
            biased;
            // An error means that the daemon itself is gone.
            _ = draining.wait_for(|draining| *draining) => break,
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let activity = Activity::new();
                // When every connection has an open request, the new one is closed: its client tries again.
                let Ok(seat) = seats.take(source(address.ip()), Arc::clone(&activity)) else { continue };
                let (shared, settings) = (Arc::clone(&shared), shared.est.settings.get());
                open.spawn(connection::serve(shared, settings, (stream, address), seat, activity));
            }
            Err(error) => seats.cannot_accept(&error).await,
        }
    }
    // What is reserved is recorded in any case; a client that waits for its answer asks again.
    let _ = tokio::time::timeout(DRAIN, async { while open.join_next().await.is_some() {} }).await;
}
