//! The place: which file the daemon wrote last, and how many entries the journal had then, so that a journal that was
//! restored from a copy is told from one that the daemon left behind.
//!
//! It is the file `place` beside the journal's folder. A copy of a file has another inode or another time of birth, and a
//! copy in place of the newest file has fewer entries; so whoever restores, moves or rolls back files is noticed, unless
//! the whole file system was set back: then only a checkpoint that was kept elsewhere tells.
//!
//! It is on stable storage whenever a file is begun; the number of entries is written once a second and not synced, and
//! so never ahead of the journal.

use std::{
    fmt::Write,
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, UNIX_EPOCH},
};

use crate::{
    durable::{self, Access},
    text_file,
};

const FILE: &str = "place";
const TITLE: &str = "birthmark journal place 1";

/// The number of the newest file where nobody knows it: no file has it.
const UNKNOWN: u32 = 0;

/// How often the number of entries is written.
const INTERVAL: Duration = Duration::from_secs(1);

/// The place of the journal in a folder.
fn place_of(folder: &Path) -> PathBuf {
    folder.parent().unwrap_or(folder).join(FILE)
}

/// What distinguishes a file from its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    inode: u64,
    /// When it was made, in nanoseconds since 1970; 0 where the file system does not tell.
    created: u128,
}

impl Identity {
    fn of(metadata: &Metadata) -> Identity {
        let created = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Identity { inode: metadata.ino(), created: created.map_or(0, |since| since.as_nanos()) }
    }
}

/// What the daemon wrote last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    journal: [u8; 16],
    /// The number of the newest file.
    segment: u32,
    identity: Identity,
    entries: u64,
}

impl Content {
    /// Always of the same length, so that it can be overwritten.
    fn text(&self) -> String {
        let Content { journal, segment, identity: Identity { inode, created }, entries } = self;
        let mut body = format!("{TITLE}\njournal {}\n", hex::encode(journal));
        // Writing to a string does not fail.
        let _ = write!(body, "file {segment:010} {inode:020} {created:025}\nentries {entries:020}");
        let sum = crc32c::crc32c(body.as_bytes());
        format!("{body}\ncrc32c {sum:08x}\n")
    }

    fn read(text: &str) -> Option<Content> {
        let (body, sum) = text.trim_end().rsplit_once('\n')?;
        if u32::from_str_radix(sum.strip_prefix("crc32c ")?, 16).ok()? != crc32c::crc32c(body.as_bytes()) {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let mut journal = [0; 16];
        hex::decode_to_slice(lines.next()?.strip_prefix("journal ")?, &mut journal).ok()?;
        let mut file = lines.next()?.strip_prefix("file ")?.split(' ');
        let mut number = || file.next()?.parse::<u128>().ok();
        let (segment, inode, created) = (number()?, number()?, number()?);
        let entries = lines.next()?.strip_prefix("entries ")?.parse().ok()?;
        let identity = Identity { inode: u64::try_from(inode).ok()?, created };
        Some(Content { journal, segment: u32::try_from(segment).ok()?, identity, entries })
    }
}

/// What the journal is when it is opened.
pub(super) struct Found<'a> {
    pub(super) journal: [u8; 16],
    /// The newest file, and its number.
    pub(super) segment: u32,
    pub(super) file: &'a File,
    /// Whether that has no entry yet.
    pub(super) is_empty: bool,
    /// How many entries there are.
    pub(super) entries: u64,
}

/// Whether the journal is where a daemon left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// It is.
    Own,
    /// Nothing tells.
    Unknown,
    /// Nothing tells: there is no place (birthmark had none before), or a crash tore it.
    NoPlace,
    /// It is not, and why.
    Elsewhere(String),
}

/// Whether the journal that was found is where a daemon left it.
pub(super) fn check(folder: &Path, found: &Found<'_>) -> io::Result<Whereabouts> {
    let elsewhere = |what: String| Ok(Whereabouts::Elsewhere(what));
    let path = place_of(folder);
    let text = match text_file::read(&path, 4096) {
        Ok(text) => text,
        Err(text_file::TextError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Whereabouts::NoPlace);
        }
        Err(error) => return elsewhere(format!("the file {FILE} beside it cannot be read: {error}")),
    };
    let place = Content::read(&text);
    if place.is_some_and(|place| place.segment == UNKNOWN) {
        return Ok(Whereabouts::Unknown);
    }
    // A crash may have torn it: then it tells as little as none.
    let Some(place) = place else { return Ok(Whereabouts::NoPlace) };
    if place.journal != found.journal {
        return elsewhere(format!("the file {FILE} beside it is that of another journal"));
    }
    // A crash may have come between a new file and its place; nothing is written to the file before.
    let begun = found.segment == place.segment + 1 && found.is_empty;
    if found.segment != place.segment && !begun {
        return elsewhere(format!(
            "the newest file is {:08}.journal, and the one that was written last is {:08}.journal",
            found.segment, place.segment
        ));
    }
    let metadata = match begun {
        true => super::segment::path(folder, place.segment).metadata()?,
        false => found.file.metadata()?,
    };
    if Identity::of(&metadata) != place.identity {
        return elsewhere(format!("the file {:08}.journal is another one than was written last", place.segment));
    }
    if found.entries < place.entries {
        return elsewhere(format!(
            "it has {} entries, and had {} when it was written last",
            found.entries, place.entries
        ));
    }
    Ok(Whereabouts::Own)
}

/// From now on nothing tells where the journal in this folder was written.
pub(crate) fn forget(folder: &Path) -> io::Result<()> {
    let identity = Identity { inode: 0, created: 0 };
    let content = Content { journal: [0; 16], segment: UNKNOWN, identity, entries: 0 };
    durable::write(&place_of(folder), content.text().as_bytes(), Access::Owner)
}

/// The place, kept by the daemon that writes.
#[derive(Debug)]
pub(super) struct Place {
    file: File,
    content: Content,
    written: Instant,
}

impl Place {
    /// From now on the journal is this one.
    pub(super) fn take(folder: &Path, found: &Found<'_>) -> io::Result<Place> {
        let identity = Identity::of(&found.file.metadata()?);
        let content = Content { journal: found.journal, segment: found.segment, identity, entries: found.entries };
        let path = place_of(folder);
        durable::write(&path, content.text().as_bytes(), Access::Owner)?;
        let file = File::options().write(true).open(&path)?;
        Ok(Place { file, content, written: Instant::now() })
    }

    /// The journal has so many entries, all of them durable.
    pub(super) fn note(&mut self, entries: u64, at_once: bool) {
        if entries == self.content.entries || (!at_once && self.written.elapsed() < INTERVAL) {
            return;
        }
        self.content.entries = entries;
        self.written = Instant::now();
        // If it fails the place tells less, and nothing wrong.
        let _ = self.file.write_all_at(self.content.text().as_bytes(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_comes_back_as_written_and_no_flipped_bit_is_taken() {
        let identity = Identity { inode: u64::MAX, created: 1_790_000_000_123_456_789 };
        let content = Content { journal: [7; 16], segment: u32::MAX, identity, entries: u64::MAX };
        let text = content.text();
        assert_eq!(Content::read(&text), Some(content));
        assert_eq!(Content { segment: 1, entries: 0, ..content }.text().len(), text.len());
        for bit in 0..text.len() * 8 {
            let mut bad = text.clone().into_bytes();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = String::from_utf8(bad).ok().and_then(|bad| Content::read(&bad));
            // The final line feed, and the case of hex digits, carry nothing.
            assert!(read.is_none_or(|read| read == content), "bit {bit}");
        }
    }
}
