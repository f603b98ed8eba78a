//! What a connection is told that gets no seat: its first call is answered with the reason, as any other refused call,
//! so that every client shows it. A connection that were just closed would be a "broken pipe" to its user.

use std::{convert::Infallible, future::ready, pin::pin, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::{Notify, Semaphore};
use tonic::{Status, body::Body, codegen::http};

use super::transport::Transport;

/// How long a client may take for its first call; one that connects for a call needs milliseconds.
const FIRST_CALL: Duration = Duration::from_secs(3);

/// How long it may take to read the answer.
const ANSWER: Duration = Duration::from_secs(1);

/// How many are told at a time. Connections beyond that are closed without a word: they hold descriptors and memory,
/// and must not be a way around the limit that they met (invariant 9).
static AT_ONCE: Semaphore = Semaphore::const_new(64);

/// Answers the first call with `status`, and closes the connection.
pub(super) fn begin(transport: Transport, status: Status) {
    let Ok(permit) = AT_ONCE.try_acquire() else { return };
    tokio::spawn(async move {
        say(transport, status).await;
        drop(permit);
    });
}

async fn say(transport: Transport, status: Status) {
    let answered = Arc::new(Notify::new());
    let service = {
        let answered = Arc::clone(&answered);
        service_fn(move |_: http::Request<Incoming>| {
            answered.notify_one();
            ready(Ok::<_, Infallible>(status.clone().into_http::<Body>()))
        })
    };
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(1)
            .serve_connection(TokioIo::new(transport), service)
    );
    tokio::select! {
        biased;
        // An error means that the client is gone.
        _ = connection.as_mut() => return,
        () = answered.notified() => {}
        () = tokio::time::sleep(FIRST_CALL) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(ANSWER, connection).await;
}
