//! The edge: who may call what, streams, and the only mapping from errors to gRPC statuses.

pub mod admin;
mod hsm;
pub mod issuance;
pub mod listener;
pub mod peer;
pub mod status;

use std::{io, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::transport::Server;

pub use self::hsm::Signers;
use self::listener::Connection;
use crate::{
    issuer::Issuance,
    ledger::Records,
    proto::{self, admin_server::AdminServer, issuance_server::IssuanceServer},
};

/// The largest message that is read, in bytes. What is larger than a CSR may be, but within this, is refused in its
/// reply and the stream lives on; what is beyond it ends the stream.
pub const MAX_MESSAGE: usize = 1 << 20;

/// What the services work with.
#[derive(Clone)]
pub struct Services {
    /// Issues certificates.
    pub issuance: Arc<Issuance>,
    /// Reads the ledger.
    pub records: Arc<dyn Records>,
    /// What signs, by the issuers' names and `audit`, for operators who have seen to a token.
    pub signers: Signers,
    /// How many unanswered requests one stream may have.
    pub window: usize,
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
    let Services { issuance, records, signers, window, mut draining } = services;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<IssuanceServer<issuance::Service>>().await;
    health.set_serving::<AdminServer<admin::Service>>().await;
    let reflection_service = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;

    let issuance_service = issuance::Service::new(Arc::clone(&issuance), window, draining.clone());
    let admin_service = admin::Service::new(issuance, records, signers);
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        // Enough for a full window of requests, and no more: what a station sends ahead waits at the station.
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .add_service(health_service)
        .add_service(reflection_service)
        .add_service(IssuanceServer::new(issuance_service).max_decoding_message_size(MAX_MESSAGE))
        .add_service(AdminServer::new(admin_service).max_decoding_message_size(MAX_MESSAGE))
        .serve_with_incoming_shutdown(incoming, async move {
            // An error means that the daemon itself is gone.
            let _ = draining.wait_for(|draining| *draining).await;
            health.set_not_serving::<IssuanceServer<issuance::Service>>().await;
        })
        .await?;
    Ok(())
}
