//! Files for the platforms that are to know the devices: a bundle for each batch, what signs and verifies it, and where it
//! goes. [`per_order`] reads what versions before there were destinations have cut.

pub mod bundle;
pub mod certificate;
pub mod download;
pub(crate) mod formats;
pub mod jws;
mod keys;
pub mod manifest;
pub mod per_order;
pub mod push;
#[cfg(test)]
mod sample;
pub mod settings;
pub mod sink;
mod template;
pub mod verify;
