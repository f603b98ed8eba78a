//! Journal and mirror brought together at a start: the longer one that fits is taken.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::ledger::{
    copy::Settings,
    error::LedgerError,
    folder_lock::FolderLock,
    index,
    journal::{self, Journal, JournalError, Newest, Whereabouts},
};

/// What a start found of the mirror.
pub(super) enum Found {
    /// None is configured.
    None,
    /// It is there, locked, and has nothing that the journal has not.
    There(FolderLock),
    /// It is where a daemon left it, and has what the journal has: what that lacked was taken from there.
    Vouches(FolderLock),
    /// It is not to be had now, and has nothing that the journal has not.
    Away,
}

impl Found {
    /// Whether the journal has all that there is, wherever its files come from.
    pub(super) fn vouches(&self) -> bool {
        matches!(self, Found::Vouches(_))
    }

    /// The lock of its folder.
    pub(super) fn into_lock(self) -> Option<FolderLock> {
        match self {
            Found::There(lock) | Found::Vouches(lock) => Some(lock),
            Found::None | Found::Away => None,
        }
    }
}

/// Brings the journal in `data` up to its mirror, or the mirror up to it. Nothing is opened yet.
///
/// # Errors
/// The mirror may have gone on alone and is not to be had, they have gone different ways, another daemon uses the mirror, or one of them is damaged.
pub(super) fn bring_together(data: &Path, settings: &Settings) -> Result<Found, LedgerError> {
    let (here, of_before) = (data.join("journal"), journal::may_be_behind(&data.join("journal")));
    // Without a mirror from now on, the one that there was is brought together with for the last time.
    let Some(mirror) = settings.mirror.clone().or_else(|| of_before.clone().map(PathBuf::from)) else {
        return Ok(Found::None);
    };
    let mirror = &*mirror;
    let away = || match &of_before {
        None => Ok(Found::Away),
        Some(mirror) => {
            let (folder, mirror) = (here.display().to_string(), mirror.clone());
            Err(JournalError::MirrorAway { folder, mirror }.into())
        }
    };
    // It may be a disk that is not there: then nothing is to be made in its place.
    let lock = match mirror.is_dir() {
        true => FolderLock::take(mirror),
        false => {
            tracing::error!(folder = %mirror.display(), "the folder of the journal's mirror is not there; it must be made by hand");
            return away();
        }
    };
    let lock = match lock {
        Err(error @ LedgerError::Locked { .. }) => return Err(error),
        Err(error) => {
            tracing::error!(%error, "the journal's mirror cannot be used");
            return away();
        }
        Ok(lock) => lock,
    };
    // The daemon may have gone on there without the journal's disk.
    let index = mirror.join("index");
    for folder in [index::aside(&index), index] {
        let _ = fs::remove_dir_all(folder);
    }
    let there = mirror.join("journal");
    let Some((of_mirror, is_own)) = extent(&there, settings)? else {
        // One that has had entries may have more than what is here, if it was the one that went on.
        return if of_before.is_some() { away() } else { Ok(Found::There(lock)) };
    };
    let of_journal = extent(&here, settings)?.map(|(extent, _)| extent);
    let newest = match journal::ended_well(&here) && journal::ended_well(&there) {
        true => Newest::Missing,
        false => Newest::Again,
    };
    let apart = |error: JournalError| different_ways(data, mirror, &error);
    if of_journal.is_some_and(|of_journal| of_journal >= of_mirror) {
        // As far as it goes it must be the same.
        let copied = journal::copy(&here, &there, newest).map_err(apart)?;
        return Ok(match is_own && copied.new_entries == 0 {
            true => Found::Vouches(lock),
            false => Found::There(lock),
        });
    }
    if !is_own {
        let what = "the mirror has more entries than the journal, but was copied or moved itself".to_owned();
        return Err(apart(JournalError::Lost { folder: there.display().to_string(), what }));
    }
    let copied = journal::copy(&there, &here, newest).map_err(apart)?;
    if copied.new_entries > 0 {
        tracing::warn!(
            mirror = %mirror.display(), entries = copied.entries, new = copied.new_entries,
            "the journal lacked entries that its mirror has; they were taken from there"
        );
    }
    // What is not there cannot say whether it had gone on alone.
    Ok(match of_journal.is_none() && journal::may_be_behind(&there).is_some() {
        true => Found::There(lock),
        false => Found::Vouches(lock),
    })
}

/// How many entries and files a journal has.
type Extent = (u64, u32);

/// How far a journal goes, if there is one, and whether it is where a daemon left it.
fn extent(folder: &Path, settings: &Settings) -> Result<Option<(Extent, bool)>, LedgerError> {
    if journal::is_empty(folder)? {
        return Ok(None);
    }
    let journal = Journal::open(folder, settings.segment_size)?;
    let is_own = journal.whereabouts()? == Whereabouts::Own;
    Ok(Some(((journal.next_sequence(), journal.segment()), is_own)))
}

fn different_ways(data: &Path, mirror: &Path, error: &JournalError) -> LedgerError {
    let what = format!(
        "the journal in {} and its mirror in {} have gone different ways ({error}); find out which has what was issued \
         (\"birthmark journal verify\"), move the other one away, and use \"birthmark journal reconcile\" for what only that \
         one has",
        data.display(),
        mirror.display()
    );
    LedgerError::Storage(what.into())
}
