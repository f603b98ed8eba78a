//! The ledger on this machine: journal and index in one data folder.
//!
//! ```text
//! DATA/lock              locked by the one daemon that uses the folder, as the journal's folder and newest file are
//! DATA/journal/*.journal the truth
//! DATA/place             which of these files the daemon wrote last
//! DATA/index/            where things are; may be deleted while no daemon runs
//! DATA/checkpoint        the newest checkpoint, if there is an audit key
//! ```
//!
//! What a start does when these do not agree:
//!
//! | the journal | and | then |
//! |---|---|---|
//! | has an unreadable end | the index or the checkpoint knows that it was durable | refused: it is damaged |
//! | has an unreadable end | nothing knows of it | cut off: a crash tore the last write |
//! | ends before what index or checkpoint know, or has other entries | | refused, until an operator accepts the loss |
//! | is fine | it is a copy: its files are not those that a daemon wrote last ([`crate::ledger::journal`]) | nothing is issued, until an operator says that nothing is missing |
//! | is fine | the checkpoint is not signed by the audit key | refused, until somebody moves the checkpoint away |
//!
//! A daemon that went on without what is lost would give devices a second certificate, and replace the only proof.

mod accept;
mod mirror;
mod open;
#[cfg(test)]
mod tests;

pub use self::open::{Claim, EmbeddedLedger};
pub use super::copy::{CopyRecords as EmbeddedRecords, Guards, Settings, checkpoint_file};
