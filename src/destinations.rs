//! Destinations: the platforms that are to know the devices. Their batches are cut from the ledger, written to files, and
//! acknowledged.
//!
//! A batch is a range of the journal, so nothing is marked as exported: what it has follows from its entry and from those
//! before it. Whoever cuts one reads the journal without a lock and without the committer, and only then asks the committer
//! for its entry; if another batch of the destination came between, it is cut again. The files are made from the entry and the
//! journal each time they are asked for, and compared with what was signed when they were made first.

mod acknowledge;
mod background;
mod backlog;
mod cut;
mod describe;
mod destination;
mod error;
mod figures;
mod render;
mod results;
mod unattended;

pub(crate) use self::{
    acknowledge::acknowledge,
    background::in_background,
    backlog::{Watch, watch},
    cut::{Cut, cut, plan},
    destination::{Destination, Destinations, ManifestSigner},
    error::BatchError,
    render::render,
    unattended::spawn_unattended,
};
