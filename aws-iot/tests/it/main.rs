//! What a user sees: the `birthmark-aws` program against an emulator of AWS, with stock mosquitto clients as devices.
#![expect(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test ends by panicking")]

mod activate;
mod demo;
mod docs;
mod documents;
mod emulator;
mod interrupted;
mod maker;
mod manual;
mod namespace;
mod proxy;
mod register;
mod register_ca;
mod support;
