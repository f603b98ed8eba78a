//! Why the index could not do what was asked. All of it can be put right without an operator: the index is rebuilt
//! from the journal.

use std::io;

use crate::ledger::error::LedgerError;

/// Why the index gives no answer, or takes nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    /// A file of the index cannot be read.
    #[error("the index file {path} cannot be read: {cause}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// What is stored is not what was written.
    #[error("the index file {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// Which check failed.
        what: String,
    },
    /// It takes nothing at present; what it has is whole, and a later attempt may succeed.
    #[error("the index cannot be written: {0}")]
    Write(io::Error),
    /// The database of orders and exports failed.
    #[error("the index's database failed: {0}")]
    Database(String),
    /// What the index states cannot be true together with the journal.
    #[error("the index contradicts the journal: {0}")]
    Contradiction(String),
    /// It failed before, and is rebuilt from the journal.
    #[error("the index is being rebuilt from the journal ({0}); try again")]
    Rebuilding(String),
}

impl IndexError {
    /// Whether what the index holds is in doubt, so that it must be rebuilt.
    pub(crate) fn is_damage(&self) -> bool {
        !matches!(self, IndexError::Write(_) | IndexError::Rebuilding(_))
    }

    /// The notice for a peer; the log has the rest.
    fn for_peers(&self) -> &'static str {
        match self {
            IndexError::Write(_) => "the index cannot be written at present",
            _ => "the index is being rebuilt from the journal",
        }
    }
}

/// Why an index that is there is not used: it is set aside and rebuilt.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnusableIndex {
    #[error("it does not say whether it was closed in order, or is of an older version")]
    NoMark,
    #[error("it was open when the machine went down")]
    OpenInAnotherBoot,
    #[error("the last attempt to open it ended the process")]
    OpeningEndedProcess,
    #[error("it failed before")]
    FailedBefore,
    #[error("it belongs to another journal")]
    OtherJournal,
    #[error("it is ahead of the journal")]
    AheadOfJournal,
    /// Its mark cannot be written.
    #[error(transparent)]
    Mark(#[from] io::Error),
    /// A check of its content failed.
    #[error(transparent)]
    Content(#[from] IndexError),
}

impl From<IndexError> for LedgerError {
    fn from(error: IndexError) -> Self {
        LedgerError::Unavailable { notice: error.for_peers(), cause: Box::new(error) }
    }
}
