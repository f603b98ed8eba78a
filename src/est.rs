//! Enrollment over Secure Transport (RFC 7030, with the clarifications of RFC 8951) on a TLS port of its own: for devices
//! and test equipment that speak EST and not our protocol.
//!
//! | operation | who | what |
//! |---|---|---|
//! | `GET cacerts` | everybody | the chains of the label's issuers, certs-only CMS |
//! | `GET csrattrs` | everybody | the key types that the label's profile takes |
//! | `POST simpleenroll` | a station, as registration authority | a certificate for the device that the CSR names |
//! | the same | a device by its vending code, with HTTP Basic | its certificate, once |
//! | `POST simplereenroll` | a station, or the device by its live certificate | what it has; or, where the profile says so, a new one |
//!
//! A label (`/.well-known/est/LABEL/…`) is a profile's name, or `PROFILE~ORDER`. What is issued goes the path of every
//! certificate: same ledger, same rules, and a repeated enrolment with the same key is byte-identical (invariant 4).
//!
//! `server` accepts, `tls` finds out who asks, `connection` speaks HTTP/1.1 and 2, `request` takes a request apart, `codes` checks vending codes, `enroll` decides, `answer`
//! has the status codes, `message` the ASN.1.

mod answer;
mod codes;
mod connection;
mod enroll;
mod label;
mod message;
mod operation;
mod request;
mod server;
mod shared;
mod tls;

pub(crate) use self::{
    label::{InvalidLabel, Label},
    server::{Port, serve},
    shared::{Est, Settings},
    tls::configure,
};
