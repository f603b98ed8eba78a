//! The edge: who may call what, streams, and the only mapping from errors to gRPC statuses.

mod access;
mod admin;
mod approvals;
mod audit;
mod batches;
mod calls;
mod checkpoints;
mod checks;
mod client_certificate;
mod client_verifier;
mod confirmation;
mod connection;
mod device_lists;
mod farewell;
mod hsm;
mod issuance;
mod issuers;
mod limits;
pub(crate) mod listener;
mod order_message;
mod order_terms;
mod peer;
mod possession;
mod records;
pub(crate) mod refused;
mod reload;
mod request_error;
mod revocations;
mod server;
mod services;
mod stations;
mod status;
mod text;
pub(crate) mod tls;
mod transport;
mod vending;
mod watch;

pub(crate) use self::{
    access::{Access, Listed},
    client_certificate::holder,
    client_verifier::{Judge, Judged},
    hsm::Signers,
    peer::Credentials,
    reload::{Reload, Reloaded},
    request_error::RequestError,
    server::serve,
    services::{ApprovalRules, RevocationLimit, Services, StationCertifier},
    status::{RefusedRequest, counted_reasons, refused_request},
};
