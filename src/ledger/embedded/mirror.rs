//! Journal and mirror brought together at a start: the longer one that fits is taken.

use std::path::Path;

use super::settings::Settings;
use crate::ledger::{
    error::LedgerError,
    folder_lock::FolderLock,
    journal::{self, Journal, JournalError, Whereabouts},
};

/// What a start found of the mirror.
pub(super) enum Found {
    /// None is configured.
    None,
    /// It is there, locked, and has nothing that the journal has not.
    There(FolderLock),
    /// It had what the journal had lost, and gave it back.
    GaveBack(FolderLock),
    /// It is not to be had now.
    Away,
}

impl Found {
    /// Whether the journal has all that the mirror had.
    pub(super) fn completed(&self) -> bool {
        matches!(self, Found::GaveBack(_))
    }

    /// The lock of its folder.
    pub(super) fn into_lock(self) -> Option<FolderLock> {
        match self {
            Found::There(lock) | Found::GaveBack(lock) => Some(lock),
            Found::None | Found::Away => None,
        }
    }
}

/// Brings the journal in `data` up to its mirror, or the mirror up to it. Nothing is opened yet.
///
/// # Errors
/// They have gone different ways, another daemon uses the mirror, or one of them is damaged.
pub(super) fn bring_together(data: &Path, settings: &Settings) -> Result<Found, LedgerError> {
    let Some(mirror) = &settings.mirror else { return Ok(Found::None) };
    // It may be a disk that is not there: then nothing is to be made in its place.
    let lock = match mirror.is_dir() {
        true => FolderLock::take(mirror),
        false => {
            tracing::error!(folder = %mirror.display(), "the folder of the journal's mirror is not there; it must be made by hand");
            return Ok(Found::Away);
        }
    };
    let lock = match lock {
        Err(error @ LedgerError::Locked { .. }) => return Err(error),
        Err(error) => {
            tracing::error!(%error, "the journal's mirror cannot be used");
            return Ok(Found::Away);
        }
        Ok(lock) => lock,
    };
    let (here, there) = (data.join("journal"), mirror.join("journal"));
    if journal::is_empty(&there)? {
        return Ok(Found::There(lock));
    }
    let of_mirror = Journal::open(&there, settings.segment_size)?;
    let (entries, is_own) = (of_mirror.next_sequence(), of_mirror.whereabouts()? == Whereabouts::Own);
    let had = match journal::is_empty(&here)? {
        true => 0,
        false => Journal::open(&here, settings.segment_size)?.next_sequence(),
    };
    drop(of_mirror);
    if entries <= had {
        // As far as it goes it must be the same.
        journal::copy(&here, &there).map_err(|error| different_ways(mirror, &error))?;
        return Ok(Found::There(lock));
    }
    if !is_own {
        let what = "the mirror has more entries than the journal, but was copied or moved itself".to_owned();
        return Err(different_ways(mirror, &JournalError::Lost { folder: there.display().to_string(), what }));
    }
    let copied = journal::copy(&there, &here).map_err(|error| different_ways(mirror, &error))?;
    tracing::warn!(
        mirror = %mirror.display(), entries = copied.entries, new = copied.new_entries,
        "the journal lacked entries that its mirror has; they were taken from there"
    );
    Ok(Found::GaveBack(lock))
}

fn different_ways(mirror: &Path, error: &JournalError) -> LedgerError {
    let what = format!(
        "the journal and its mirror in {} have gone different ways ({error}); find out which has what was issued \
         (\"birthmark journal verify\"), move the other one away, and use \"birthmark journal reconcile\" for what only that \
         one has",
        mirror.display()
    );
    LedgerError::Storage(what.into())
}
