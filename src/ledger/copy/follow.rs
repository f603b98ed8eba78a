//! What others wrote is taken in.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{batch::BatchWriter, catalog::ReplayError, open::LedgerCopy, state::head};
use crate::ledger::{
    entry::Entry,
    error::LedgerError,
    journal::{Batch, ForeignError},
};

/// Why what others wrote cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub(in crate::ledger) enum FollowError {
    /// It does not continue the copy, or contradicts what is known.
    #[error("{0}")]
    Differs(String),
    /// The copy cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl LedgerCopy {
    /// Takes in a batch that others wrote, and is told of its entries.
    ///
    /// # Errors
    /// It does not fit what is here; the copy cannot be written, and is as it was; or, fatal, it is not known what it has.
    pub(in crate::ledger) fn follow(&mut self, batch: Batch<'_>, note: impl FnMut(&Entry)) -> Result<(), FollowError> {
        let BatchWriter { journal, serial_numbers, common, .. } = &mut self.writer;
        // What cannot be applied is not taken in.
        common.follower().flush_if_due(&common.catalog)?;
        journal.append(batch).map_err(|error| match error {
            ForeignError::Differs(what) => FollowError::Differs(what),
            ForeignError::Append(error) => FollowError::Ledger(error.into()),
        })?;
        let end = journal.end();
        let applied = common.catalog.apply(journal.reader(), end, &AtomicBool::new(false), note);
        applied.map_err(|error| match error {
            ReplayError::Contradiction(position, what) => {
                FollowError::Differs(format!("its entry at {position} contradicts those before it: {what}"))
            }
            // What is half taken in is read again at the next start.
            error => FollowError::Ledger(error.accuse(journal.reader()).into_fatal()),
        })?;
        let common = Arc::clone(common);
        let follower = common.follower();
        common.clock().wrote(follower.applied.newest_time);
        if let Some(newest) = &follower.applied.newest_serial {
            serial_numbers.pass(newest);
        }
        common.certificates.store(follower.applied.certificates, Ordering::Relaxed);
        drop(follower);
        *common.head.write() = head(journal);
        Ok(())
    }
}
