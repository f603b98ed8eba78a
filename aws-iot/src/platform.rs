//! AWS IoT, as it is used here: each call in its API's turn, tried again for as long as that may help.

mod authorities;
mod certificates;
mod connection;
mod things;

pub use self::{
    authorities::{Authority, Mode, NewAuthority, Provisioning},
    certificates::{Certificate, Listed, Page, Status},
    connection::{ConnectError, Platform, Settings, sdk_config},
    things::Thing,
};
