//! Why the ledger could not do what was asked. No variant names a storage engine or a file format: each kind of
//! ledger puts its own error into [`Cause`].

use std::{error::Error, io};

/// What an error comes from, in the words of the storage that met it.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why the ledger could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Another process uses the data folder.
    #[error(
        "another birthmark daemon uses the data folder {folder}{}; stop it, or give this one a folder of its own",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The data folder.
        folder: String,
        /// The other process, if the system tells.
        pid: Option<u32>,
    },
    /// The data folder cannot be used.
    #[error("the data folder {folder} cannot be used: {cause}; it must be a folder that this user may write")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        cause: io::Error,
    },
    /// What is recorded cannot be read any more: it is damaged, or contradicts itself. The message names the place.
    #[error(transparent)]
    Corrupt(Cause),
    /// What is recorded cannot be used here and now, and is not known to be damaged: it is of a newer version, or the
    /// system refused to read it.
    #[error(transparent)]
    Storage(Cause),
    /// Something that was kept knows entries that the ledger does not have. An operator may accept that.
    #[error("{cause}")]
    Lost {
        /// What is known, and by what.
        what: String,
        /// The whole sentence.
        #[source]
        cause: Cause,
    },
    /// What would vouch for the ledger is not to be trusted.
    #[error(transparent)]
    Untrusted(Cause),
    /// There is nothing that an operator would have to accept.
    #[error("there is nothing to accept: {0}")]
    NothingToAccept(String),
    /// Others agreed to something else than there is to accept.
    #[error("the statement does not fit: {0}; write a new one, and have it signed again")]
    AgreedOtherwise(String),
    /// The batch could not be written; nothing of it happened, and a later one may succeed.
    #[error("the journal could not be written: {0}")]
    NotWritten(#[source] Cause),
    /// What is settled has to be stored, and the disk has no room for that.
    #[error(
        "the ledger's disk has {} MiB free, and the index needs {} MiB for what is settled; make room",
        .free >> 20, .needed >> 20
    )]
    Full {
        /// Bytes.
        free: u64,
        /// Bytes.
        needed: u64,
    },
    /// What is derived from the entries gives no answer, or takes nothing, at present; it comes back by itself.
    #[error("{cause}")]
    Unavailable {
        /// The notice for a peer; the log has the rest.
        notice: &'static str,
        /// What happened.
        #[source]
        cause: Cause,
    },
    /// It is not known what is stored, or somebody else has changed it: the process must end, and start again from
    /// what is there.
    #[error(transparent)]
    Fatal(Cause),
    /// A bug; the log says where.
    #[error("the decision on an operation panicked; this is a bug")]
    Panicked,
}

impl LedgerError {
    /// Whether the ledger must not be used again: the process must end.
    pub fn is_fatal(&self) -> bool {
        matches!(self, LedgerError::Fatal(_))
    }

    /// For a ledger that must not be used again.
    pub(super) fn into_fatal(self) -> LedgerError {
        if self.is_fatal() { self } else { LedgerError::Fatal(Box::new(self)) }
    }

    /// Whether what is recorded cannot be read any more: the message names the file and the byte.
    pub fn is_damage(&self) -> bool {
        matches!(self, LedgerError::Corrupt(_))
    }

    /// Whether there is no room, so that somebody must make some.
    pub fn is_full(&self) -> bool {
        match self {
            LedgerError::Full { .. } => true,
            LedgerError::NotWritten(cause) | LedgerError::Unavailable { cause, .. } => {
                let cause = cause.downcast_ref::<io::Error>().map(io::Error::kind);
                use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
                matches!(cause, Some(StorageFull | QuotaExceeded | FileTooLarge))
            }
            _ => false,
        }
    }
}
