//! The station client: streams CSRs to the daemon and writes the certificates that come back.
//!
//! ```text
//!           items               outcomes
//! source ─────────────► sign ─────────────► output
//! thread: files, lines  │  ▲               thread: certificates, report
//!               requests▼  │replies
//!                      daemon
//! ```
//!
//! Every arrow is a bounded channel (the window), so whoever is slow slows the others and memory stays as it is.
//!
//! [`confirm`] is a conversation of its own: it says which devices have taken what they got.
//!
//! [`source`] reads, [`sign`] speaks with the daemon, [`output`] writes, [`progress`] tells a person. Nothing is kept
//! between runs but the certificates themselves: a device whose certificate is there is done, every other one is asked
//! for again, because a retry is free at the daemon.

pub mod confirm;
pub mod hold;
pub mod output;
pub mod places;
pub mod progress;
pub mod sign;
pub mod source;

mod fields;
mod refusal;
#[cfg(test)]
#[allow(clippy::disallowed_methods)] // A test ends before its files matter.
mod tests;
