//! Copies a journal, also while a daemon writes it: what is whole at the end, and only what the copy does not have yet.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use super::{
    error::{BROKEN_CHAIN, JournalError},
    file::{read_up_to, read_whole},
    frame::{self, Frame},
    segment::{self, Header},
};
use crate::{durable, ledger::head::ChainHash};

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many entries the copy has.
    pub entries: u64,
    /// How many of them are new in it.
    pub new_entries: u64,
    /// How many bytes were written.
    pub bytes: u64,
    /// How many files the copy has.
    pub files: u32,
}

/// What is written of the newest file that the copy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Newest {
    /// What it lacks.
    Missing,
    /// All of it: its disk may have refused what memory shows. The files before it were synced when it was begun.
    Again,
}

/// Brings the journal in the folder `to`, if there is one, up to the one in `from`; every byte that is written was verified.
/// The files of `from` are not locked: a daemon may write them.
///
/// # Errors
/// Damage in what is to be copied; a journal in `to` that is another one, or has what `from` has not; an I/O error.
pub(crate) fn copy(from: &Path, to: &Path, newest: Newest) -> Result<Copied, JournalError> {
    let mut copied = Copied::default();
    let there = segment::list(to)?;
    let mut number = 1;
    let mut before: Option<End> = None;
    loop {
        let path = segment::path(from, number);
        // A file that has one after it does not change any more.
        let next = next_header(from, number + 1)?;
        let file = File::open(&path).map_err(|error| JournalError::io(&path, error))?;
        let target = segment::path(to, number);
        let again = newest == Newest::Again && there.last() == Some(&number);
        let had = match &next {
            Some(next) if !again => is_copied(&file, &target, next)?,
            _ => None,
        };
        let end = match had {
            Some(end) => end,
            None => {
                let content = read_whole(&file, &path)?;
                let end = whole(&file, &path, &content, before.as_ref())?;
                if next.is_some() && end.length < content.len() as u64 {
                    return Err(JournalError::damaged(&path, end.length, "what is there is no entry"));
                }
                let had = bring_up(content.get(..end.length as usize).unwrap_or_default(), &target, again)?;
                copied.bytes += end.length - had.length;
                copied.new_entries += end.entries - had.entries;
                end
            }
        };
        before = Some(end);
        number += 1;
        if next.is_none() {
            break;
        }
    }
    for more in there.iter().filter(|there| **there >= number) {
        let path = segment::path(to, *more);
        let io = |error| JournalError::io(&path, error);
        if fs::metadata(&path).map_err(io)?.len() > Header::LENGTH.into() {
            return Err(has_more(&path, "the journal has no such file"));
        }
        // It was being begun, and holds no entry.
        fs::remove_file(&path).map_err(io)?;
    }
    durable::sync_folder(to).map_err(|error| JournalError::io(to, error))?;
    copied.files = number - 1;
    copied.entries = before.map_or(0, |end| end.entries);
    Ok(copied)
}

/// Where what is whole of a file ends.
#[derive(Clone, Copy, Debug)]
struct End {
    id: [u8; 16],
    chain: ChainHash,
    /// The sequence number of the last entry.
    entries: u64,
    length: u64,
}

/// The header of a file, if it is there and whole.
fn next_header(folder: &Path, number: u32) -> Result<Option<Header>, JournalError> {
    let path = segment::path(folder, number);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| JournalError::io(&path, error))?,
    };
    match Header::read(&file, &path) {
        Ok(header) => Ok(Some(header)),
        // It is being begun.
        Err(JournalError::Damaged { .. })
            if file.metadata().is_ok_and(|metadata| metadata.len() <= Header::LENGTH.into()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether a file that does not change any more was copied before: by its length and both of its ends, the last entry having
/// the hash of all before it. What is between was verified when it was copied.
fn is_copied(file: &File, target: &Path, next: &Header) -> Result<Option<End>, JournalError> {
    let copy = match File::open(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        copy => copy.map_err(|error| JournalError::io(target, error))?,
    };
    let io = |error| JournalError::io(target, error);
    let length = file.metadata().map_err(io)?.len();
    if copy.metadata().map_err(io)?.len() != length {
        return Ok(None);
    }
    let window = (64 << 10).min(length);
    for offset in [0, length - window] {
        let (mut one, mut other) = (vec![0; window as usize], vec![0; window as usize]);
        read_up_to(file, &mut one, offset).map_err(io)?;
        read_up_to(&copy, &mut other, offset).map_err(io)?;
        if one != other {
            return Err(has_more(target, "it is not a copy of the file with this name"));
        }
    }
    Ok(Some(End { id: next.id, chain: next.chain, entries: next.first_sequence - 1, length }))
}

/// Reads a file that continues the one before up to the last whole entry.
fn whole(file: &File, path: &Path, content: &[u8], before: Option<&End>) -> Result<End, JournalError> {
    let header = Header::read(file, path)?;
    let continues = match before {
        None => header.first_sequence == 1 && header.chain == [0; 32],
        Some(before) => {
            header.id == before.id
                && header.first_sequence == before.entries + 1
                && header.chain == before.chain
                && header.length_before.is_none_or(|length| length == before.length)
        }
    };
    if !continues {
        let what = "sequence number, chain hash or length in its header are not those of that file".to_owned();
        return Err(JournalError::Gap { path: path.display().to_string(), what });
    }
    end_of(&header, path, content)
}

fn end_of(header: &Header, path: &Path, content: &[u8]) -> Result<End, JournalError> {
    let (mut chain, mut entries, mut at) = (header.chain, header.first_sequence - 1, header.length() as usize);
    while let Some(rest) = content.get(at..).filter(|rest| !rest.is_empty()) {
        match Frame::parse(rest) {
            Ok(frame) if frame.follows(&chain) => {
                (chain, entries, at) = (frame.chain, entries + 1, at + frame.length());
            }
            Ok(_) => return Err(JournalError::damaged(path, at as u64, BROKEN_CHAIN)),
            Err(what) if frame::was_durable(content, at) => return Err(JournalError::damaged(path, at as u64, what)),
            // A write that has not come to its end.
            Err(_) => break,
        }
    }
    Ok(End { id: header.id, chain, entries, length: at as u64 })
}

/// What a copy had before.
struct Had {
    entries: u64,
    length: u64,
}

/// Gives the copy of a file what it does not have of `content`.
fn bring_up(content: &[u8], target: &Path, again: bool) -> Result<Had, JournalError> {
    let io = |error| JournalError::io(target, error);
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(target).map_err(io)?;
    let there = read_whole(&file, target)?;
    // A copy that was interrupted ends within an entry, or within its header.
    let had = match there.len() <= Header::LENGTH as usize {
        true => None,
        false => Some(end_of(&Header::read(&file, target)?, target, &there)?),
    };
    let kept = had.map_or(0, |had| had.length as usize);
    if there.get(..kept) != content.get(..kept) {
        return Err(has_more(target, "it holds entries that the journal does not have"));
    }
    if kept < content.len() || there.len() > kept || again {
        let from = if again { 0 } else { kept };
        file.set_len(kept as u64).map_err(io)?;
        file.write_all_at(content.get(from..).unwrap_or_default(), from as u64).map_err(io)?;
        file.sync_all().map_err(io)?;
    }
    let before = Header::read(&file, target)?.first_sequence - 1;
    Ok(Had { entries: had.map_or(before, |had| had.entries), length: kept as u64 })
}

fn has_more(path: &Path, what: &str) -> JournalError {
    JournalError::Gap {
        path: path.display().to_string(),
        what: format!("{what}; nothing was overwritten: back up into another folder"),
    }
}

/// Whether there is no journal in the folder.
pub(crate) fn is_empty(folder: &Path) -> Result<bool, JournalError> {
    match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        _ => Ok(segment::list(folder)?.is_empty()),
    }
}
