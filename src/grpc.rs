//! The edge: who may call what, streams, and the only mapping from errors to gRPC statuses.

mod admin;
mod calls;
mod checkpoints;
mod confirmation;
mod connection;
mod farewell;
mod hsm;
mod issuance;
mod issuers;
mod limits;
pub(crate) mod listener;
mod peer;
mod possession;
mod records;
mod reload;
mod request_error;
mod server;
mod services;
mod status;
pub(crate) mod tls;
mod transport;

pub(crate) use self::{
    hsm::Signers,
    reload::{Reload, Reloaded},
    server::serve,
    services::Services,
};
