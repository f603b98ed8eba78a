//! The gRPC server: its services, and the bounds of HTTP/2.

use std::{io, sync::Arc, time::Duration};

use tokio_stream::{Stream, StreamExt};
use tonic::{service::Routes, transport::Server};

use super::{
    admin, approvals, audit,
    calls::Limited,
    connection::Connection,
    issuance,
    limits::{Limits, STREAMS_PER_CONNECTION},
    records::Reader,
    services::Services,
    stations, vending,
};
use crate::{
    limits,
    proto::{
        admin_server::AdminServer, approvals_server::ApprovalsServer, audit_server::AuditServer,
        issuance_server::IssuanceServer, stations_server::StationsServer, vending_server::VendingServer,
    },
    roster::Roster,
};

/// The protocol's definitions in their binary form, as gRPC reflection serves them.
const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/protocol.binpb"));

/// Serves until `draining` becomes true and every open call is finished.
///
/// # Errors
/// Those of the transport.
pub(crate) async fn serve(
    services: Services,
    incoming: impl Stream<Item = io::Result<Connection>>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let limits = Arc::new(Limits::new(services.window, Arc::clone(&services.roster)));
    tokio::spawn(Roster::watch(Arc::downgrade(&services.roster)));
    let issuance_service = issuance::Service::new(&services);
    let approvals_service = approvals::Service::new(&services);
    let stations_service = stations::Service::new(&services, Arc::clone(&limits));
    let Services { records, stall_limit, mut draining, .. } = services.clone();
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<IssuanceServer<issuance::Service>>().await;
    health.set_serving::<AdminServer<admin::Service>>().await;
    health.set_serving::<VendingServer<vending::Service>>().await;
    health.set_serving::<StationsServer<stations::Service>>().await;
    health.set_serving::<ApprovalsServer<approvals::Service>>().await;
    health.set_serving::<AuditServer<audit::Service>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };

    let reader = Reader::new(Arc::clone(&records), stall_limit);
    let vending_service = vending::Service::new(&services, reader.clone());
    let audit_service = audit::Service::new(reader);
    let limited_records = Arc::clone(&records);
    let admin_service = admin::Service::new(&services, Reader::new(records, stall_limit));
    let routes = Routes::new(health_service)
        // Clients know one of the two versions: grpcurl the first, Python's the second.
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(VendingServer::new(vending_service).max_decoding_message_size(limits::MESSAGE))
        .add_service(IssuanceServer::new(issuance_service).max_decoding_message_size(limits::MESSAGE))
        .add_service(AdminServer::new(admin_service).max_decoding_message_size(limits::MESSAGE))
        .add_service(StationsServer::new(stations_service).max_decoding_message_size(limits::MESSAGE))
        .add_service(ApprovalsServer::new(approvals_service))
        .add_service(AuditServer::new(audit_service));
    let incoming = incoming.map(|connection| {
        connection.map(|mut connection: Connection| {
            let peer = connection.peer_mut();
            peer.count_among(limits.peer(&peer.name()));
            connection
        })
    });
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        // Enough for a full window of requests, and no more: what a station sends ahead waits at the station.
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        // A peer that goes on opening streams after it was told the limit is disconnected.
        .http2_max_local_error_reset_streams(Some(1024))
        .serve_with_incoming_shutdown(
            Limited { routes: routes.prepare(), records: limited_records },
            incoming,
            async move {
                // An error means that the daemon itself is gone.
                let _ = draining.wait_for(|draining| *draining).await;
                health.set_not_serving::<IssuanceServer<issuance::Service>>().await;
            },
        )
        .await?;
    Ok(())
}
