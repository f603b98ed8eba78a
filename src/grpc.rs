//! The edge: who may call what, streams, and the only mapping from errors to gRPC statuses.

mod admin;
mod calls;
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
mod request_error;
mod server;
mod services;
mod status;
pub(crate) mod tls;
mod transport;
mod vending;

pub(crate) use self::{
    hsm::Signers,
    peer::Credentials,
    request_error::RequestError,
    server::serve,
    services::Services,
    status::{Refused, refused},
};
