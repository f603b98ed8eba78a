//! What is wrong with a journal, and why a batch is not in it.

use std::{io, path::Path};

use crate::ledger::{entry::InvalidEntry, error::LedgerError};

/// What is wrong with a journal. Each message names the file and the byte.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file could not be read, written or listed.
    #[error("the journal file {path} cannot be used: {cause}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// Something durable has changed.
    #[error(
        "the journal file {path} is damaged at byte {offset}: {what}; nothing was changed: restore this file from a \
         backup"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Where the unreadable frame or header begins.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// An event that is not known here.
    #[error(
        "the journal file {path} has at byte {offset} an event that this daemon does not know; use the daemon that \
         wrote it, or a newer one"
    )]
    NewerEvent {
        /// The file.
        path: String,
        /// Where the entry's frame begins.
        offset: u64,
    },
    /// Something else knows entries that are not there.
    #[error(
        "the journal in {folder} has lost entries: {what}; restore it from a newer backup or, to go on with what is \
         here and accept the loss of the rest, use \"birthmark journal accept-loss\""
    )]
    Lost {
        /// The journal's folder.
        folder: String,
        /// What is known, and by what.
        what: String,
    },
    /// Its mirror may have entries that are not there.
    #[error(
        "the journal in {folder} may lack entries: its mirror in {mirror}, which goes on alone when this disk fails, is not \
         to be had; bring the mirror back and start again or, if it is lost, accept that with \"birthmark journal \
         accept-loss\""
    )]
    MirrorAway {
        /// The journal's folder.
        folder: String,
        /// The mirror's.
        mirror: String,
    },
    /// Another process has the newest file locked.
    #[error(
        "another process{} has the journal file {path} locked",
        .pid.map(|pid| format!(" (number {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The file.
        path: String,
        /// The process, if the system reveals it.
        pid: Option<u32>,
    },
    /// The files do not follow each other.
    #[error("the journal file {path} does not follow the file before it: {what}")]
    Gap {
        /// The file.
        path: String,
        /// What differs.
        what: String,
    },
    /// An entry is whole, but cannot be true together with those before it.
    #[error(
        "the journal file {path} has at byte {offset} an entry (number {sequence}) that contradicts those before it: \
         {what}"
    )]
    Contradiction {
        /// The file.
        path: String,
        /// Where the entry's frame begins.
        offset: u64,
        /// The entry's sequence number.
        sequence: u64,
        /// The rule that it breaks.
        what: String,
    },
    /// Written by a newer daemon.
    #[error("the journal file {path} has version {found}, this daemon knows version {known}; use a newer daemon")]
    NewerVersion {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
}

impl JournalError {
    pub(super) fn io(path: &Path, cause: io::Error) -> Self {
        JournalError::Io { path: path.display().to_string(), cause }
    }

    pub(super) fn lost(folder: &Path, what: String) -> Self {
        JournalError::Lost { folder: folder.display().to_string(), what }
    }

    pub(super) fn damaged(path: &Path, offset: u64, what: impl ToString) -> Self {
        JournalError::Damaged { path: path.display().to_string(), offset, what: what.to_string() }
    }

    /// Whether what was durable cannot be read any more. A lack of descriptors or memory is none.
    pub(crate) fn is_damage(&self) -> bool {
        use rustix::io::Errno;
        match self {
            JournalError::Damaged { .. } | JournalError::Gap { .. } | JournalError::Contradiction { .. } => true,
            JournalError::Io { cause, .. } => {
                let lost =
                    [Errno::IO, Errno::NOENT, Errno::UCLEAN, Errno::BADMSG, Errno::NODATA, Errno::NXIO, Errno::NODEV];
                lost.iter().any(|errno| cause.raw_os_error() == Some(errno.raw_os_error()))
                    || cause.kind() == io::ErrorKind::NotFound
            }
            _ => false,
        }
    }

    /// For a whole frame whose payload is no entry.
    pub(super) fn invalid_entry(path: &Path, offset: u64, what: InvalidEntry) -> Self {
        match what {
            InvalidEntry::NewerEvent => JournalError::NewerEvent { path: path.display().to_string(), offset },
            what => JournalError::damaged(path, offset, what),
        }
    }
}

/// What is wrong with a frame whose chain hash is not the one that its place demands.
pub(super) const BROKEN_CHAIN: &str = "the hash chain does not fit what is before it";

/// Why a batch is not in the journal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// It was not written; the journal is as it was before.
    #[error("the journal could not be written: {0}")]
    NotWritten(io::Error),
    /// It is not known what of it is on the disk.
    #[error("the journal could not be made durable ({0}); the daemon stops, and recovers when it is started again")]
    Unknown(io::Error),
    /// An entry that fits no frame; the journal, and what was staged before, are as they were.
    #[error("the entry has {bytes} bytes; {limit} are possible")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The largest length that is possible.
        limit: usize,
    },
    /// The newest file has no name any more: nothing was written to it.
    #[error(
        "the journal file {path} was changed by another process: it was removed; the daemon stops, before it hands out what \
         is lost"
    )]
    Removed {
        /// The file.
        path: String,
    },
    /// The newest file is not the one that was written before: nothing was written to it.
    #[error(
        "the journal file {path} was changed by another process: {what}; the daemon stops, before it hands out what \
         is lost"
    )]
    Taken {
        /// The file.
        path: String,
        /// What shows it.
        what: String,
    },
}

impl AppendError {
    /// What the journal's disk did, if the fault is the disk's: then a mirror goes on without it. A file that another process
    /// changed is none.
    pub(super) fn of_disk(&self) -> Option<String> {
        match self {
            AppendError::NotWritten(cause) | AppendError::Unknown(cause) => Some(cause.to_string()),
            AppendError::Removed { path } => Some(format!("{path} was removed")),
            AppendError::TooLarge { .. } | AppendError::Taken { .. } => None,
        }
    }
}

impl From<JournalError> for LedgerError {
    fn from(error: JournalError) -> Self {
        match &error {
            JournalError::Lost { what, .. } => LedgerError::Lost { what: what.clone(), cause: Box::new(error) },
            JournalError::MirrorAway { mirror, .. } => {
                LedgerError::Lost { what: format!("what the mirror in {mirror} may have more"), cause: Box::new(error) }
            }
            _ if error.is_damage() => LedgerError::Corrupt(Box::new(error)),
            _ => LedgerError::Storage(Box::new(error)),
        }
    }
}

impl From<AppendError> for LedgerError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NotWritten(cause) => LedgerError::NotWritten(Box::new(cause)),
            AppendError::TooLarge { .. } => LedgerError::NotWritten(Box::new(error)),
            AppendError::Unknown(_) | AppendError::Removed { .. } | AppendError::Taken { .. } => {
                LedgerError::Fatal(Box::new(error))
            }
        }
    }
}
