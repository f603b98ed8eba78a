//! The entries of a ledger on this machine, with memory and index above them: what every kind of ledger decides on and reads
//! from. Where an entry becomes durable, and who may write, is the ledger's.

mod batch;
mod batch_history;
mod batch_scan;
mod batches;
mod catalog;
mod certificates;
mod checkpoint_file;
mod disk_space;
mod follow;
mod history;
mod measured;
mod open;
mod rebuild;
mod records;
mod settings;
mod state;

pub(in crate::ledger) use self::{
    batch::{Written, to_microseconds},
    checkpoint_file::{CheckpointFault, check_against_checkpoint, check_against_expected},
    follow::FollowError,
    open::{Indexed, LedgerCopy},
    state::Away,
};
pub use self::{
    checkpoint_file::checkpoint_file,
    records::CopyRecords,
    settings::{Guards, Settings},
};
