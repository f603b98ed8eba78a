//! The edge: who may call what, streams, and the only mapping from errors to gRPC statuses.

pub mod admin;
mod calls;
mod hsm;
pub mod issuance;
mod limits;
pub mod listener;
pub mod peer;
mod records;
mod request_error;
pub mod status;

use std::{io, sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt, sync::watch};
use tokio_stream::{Stream, StreamExt};
use tonic::{service::Routes, transport::Server};

pub use self::hsm::Signers;
use self::{calls::Limited, limits::Limits, listener::Connection, records::Reader};
use crate::{
    committer::Committer,
    issuer::Issuance,
    ledger::Records,
    metrics,
    profile::Profiles,
    proto::{self, admin_server::AdminServer, issuance_server::IssuanceServer},
};

/// The largest message that is read, in bytes. What is larger than a CSR may be, but within this, is refused in its
/// reply and the stream lives on; what is beyond it ends the stream.
pub const MAX_MESSAGE: usize = 1 << 20;

/// What the services work with.
#[derive(Clone)]
pub struct Services {
    /// Issues certificates.
    pub issuer: Arc<Issuance>,
    /// Changes the ledger.
    pub committer: Committer,
    /// Reads the ledger.
    pub records: Arc<dyn Records>,
    /// What stations may ask for.
    pub profiles: Arc<Profiles>,
    /// What signs, by the issuers' names and `audit`, for operators who have seen to a token.
    pub signers: Signers,
    /// How many unanswered requests one stream, and one station over all of its streams, may have.
    pub window: usize,
    /// A stream whose peer takes no reply for so long is ended.
    pub stall_limit: Duration,
    /// True when nothing new is to be accepted.
    pub draining: watch::Receiver<bool>,
}

/// Serves until `draining` becomes true and every open call has ended.
///
/// # Errors
/// Those of the transport.
pub async fn serve(
    services: Services,
    incoming: impl Stream<Item = io::Result<Connection>>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let issuance_service = issuance::Service::new(&services);
    let Services { committer, records, profiles, signers, window, stall_limit, mut draining, .. } = services;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<IssuanceServer<issuance::Service>>().await;
    health.set_serving::<AdminServer<admin::Service>>().await;
    let reflection_service = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;

    let admin_service = admin::Service::new(committer, profiles, Reader::new(records, stall_limit), signers);
    let routes = Routes::new(health_service)
        .add_service(reflection_service)
        .add_service(IssuanceServer::new(issuance_service).max_decoding_message_size(MAX_MESSAGE))
        .add_service(AdminServer::new(admin_service).max_decoding_message_size(MAX_MESSAGE));
    let limits = Limits::new(window);
    let admitted = incoming.filter_map(|connection| match connection {
        Ok(connection) => admit(connection, &limits).map(Ok),
        Err(error) => Some(Err(error)),
    });
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        // Enough for a full window of requests, and no more: what a station sends ahead waits at the station.
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
        // A peer that goes on opening streams after it was told the limit is disconnected.
        .http2_max_local_error_reset_streams(Some(1024))
        .serve_with_incoming_shutdown(Limited(routes.prepare()), admitted, async move {
            // An error means that the daemon itself is gone.
            let _ = draining.wait_for(|draining| *draining).await;
            health.set_not_serving::<IssuanceServer<issuance::Service>>().await;
        })
        .await?;
    Ok(())
}

/// Lets a connection in, unless its peer has too many.
fn admit(mut connection: Connection, limits: &Limits) -> Option<Connection> {
    let peer = connection.peer_mut();
    match limits.connect(peer) {
        Some(admission) => {
            peer.admit(admission);
            Some(connection)
        }
        None => {
            metrics::refusal("TOO_MANY_CONNECTIONS");
            // Counted; a line for each would let a peer fill the log.
            tracing::debug!(%peer, "refused a connection: the peer has too many");
            tokio::spawn(turn_away(connection));
            None
        }
    }
}

/// How long a connection that is not let in may take to hear why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Tells a client, in HTTP/2's words, that it has too many connections: an empty SETTINGS frame, which must be the
/// first, and GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 section 6.8), which gRPC clients take for RESOURCE_EXHAUSTED.
async fn turn_away(mut connection: Connection) {
    const REASON: &[u8] = b"TOO_MANY_CONNECTIONS";
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8 + REASON.len() as u8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
    let farewell = [&SETTINGS[..], &GOAWAY, REASON].concat();
    // It may be gone already.
    let _ = tokio::time::timeout(FAREWELL, async {
        connection.write_all(&farewell).await?;
        connection.shutdown().await
    })
    .await;
}
