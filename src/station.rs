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
//! Every arrow is a bounded channel (the window), so a slow part slows the others and memory stays flat (invariant 9).
//!
//! `source` reads, [`sign`] speaks with the daemon, [`output`] writes, [`progress`] informs a person; `item` is what
//! flows between them. [`confirm`] is a separate call: it reports which devices have installed their certificates.
//!
//! Nothing is kept between runs but the certificates themselves: a device whose certificate is there is done, every other
//! one is requested again, because a retry is free at the daemon (invariant 4).

pub mod confirm;
pub mod input;
pub mod output;
pub mod progress;
pub mod renew;
pub mod sign;

mod chain;
mod fields;
mod hold;
mod item;
mod places;
mod refusal;
mod source;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]
mod tests;
