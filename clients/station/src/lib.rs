//! A station: streams CSRs to the daemon and writes the certificates that come back.
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
//! flows between them. [`confirm`] is a separate call: it reports which devices have installed their certificates;
//! [`confirm_folder`] does so for what comes into a folder.
//!
//! Nothing is kept between runs but the certificates themselves: a device whose certificate is there is done, every other
//! one is requested again, because a retry is free at the daemon (invariant 4).

pub mod cli;
pub mod confirm;
pub mod confirm_folder;
pub mod identity;
pub mod input;
pub mod output;
pub mod progress;
pub mod renew;
pub mod sign;

mod archive;
mod hold;
mod item;
mod places;
mod refusal;
mod source;
#[cfg(all(test, unix))]
#[expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]
mod tests;
mod unchanged;
