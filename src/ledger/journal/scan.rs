//! Reading a journal from outside: the whole of it, by its own rules alone, without changing anything. For
//! verification and dumps, of a copy or beside a running daemon.

use std::{
    fs::File,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::{
    error::{BROKEN_CHAIN, JournalError},
    file::{read_up_to, read_whole},
    frame::{self, Frame, HEAD},
    segment::{self, Header},
};
use crate::ledger::{entry::Entry, head::ChainHash};

/// How often, and after which pause, an unreadable end is read again: a daemon may be writing just there.
const REREAD_ATTEMPTS: u32 = 5;
const REREAD_INTERVAL: Duration = Duration::from_millis(20);

/// Reads a journal from its first frame (or a later sequence number) to the end that it had when it was opened, or a
/// little later. Every checksum, every chain hash and every file's header is checked on the way.
///
/// Memory: one journal file, 64 MiB unless the ledger is configured otherwise.
#[derive(Debug)]
pub struct Scan {
    folder: PathBuf,
    /// The files, ascending and without gaps from 1; `files[current]` is being read.
    files: Vec<u32>,
    current: usize,
    /// Of the file: from `base` on, which is 0 unless it is followed.
    content: Bytes,
    base: u64,
    offset: usize,
    id: [u8; 16],
    /// The next frame's.
    sequence: u64,
    /// After the last frame that was read.
    chain: ChainHash,
    torn: Option<TornEnd>,
    total: u64,
    pause: Duration,
}

/// Unreadable bytes at the very end, as a crash leaves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornEnd {
    /// The file.
    pub path: PathBuf,
    /// Where the unreadable bytes begin.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
    /// Why they cannot be read.
    pub what: String,
}

/// A frame and where it lies.
#[derive(Clone, Debug)]
pub struct ScannedFrame {
    /// Its number, from 1.
    pub sequence: u64,
    /// The number of its file.
    pub file: u32,
    /// Where in the file it begins.
    pub offset: u64,
    /// Its length with its head, in bytes.
    pub length: usize,
    /// The chain hash after it.
    pub chain: ChainHash,
    /// What it holds.
    pub entry: Entry,
}

impl Scan {
    /// Opens the journal in `folder`, which is a data folder or the journal folder in it. Reads every file's header.
    ///
    /// # Errors
    /// If there is no journal, a file is missing, or a header is damaged.
    pub fn open(folder: &Path) -> Result<Scan, JournalError> {
        let inner = folder.join("journal");
        let folder = if inner.is_dir() { inner } else { folder.to_owned() };
        let mut files = segment::list(&folder)?;
        let mut torn = None;
        if files.len() > 1
            && let Some(segment::Headless { path, bytes, what }) = segment::headless_newest(&folder, &files)?
        {
            // A file that was begun when the crash came holds nothing.
            torn = Some(TornEnd { path, offset: 0, bytes, what });
            files.pop();
        }
        if files.is_empty() {
            let cause = std::io::Error::new(std::io::ErrorKind::NotFound, "it holds no NNNNNNNN.journal");
            return Err(JournalError::io(&folder, cause));
        }
        segment::check_sequence(&folder, &files)?;
        let mut total = 0;
        for file in &files {
            let path = segment::path(&folder, *file);
            total += path.metadata().map_err(|error| JournalError::io(&path, error))?.len();
        }
        let (header, content) = load(&folder, files[0])?;
        if header.first_sequence != 1 || header.chain != [0; 32] {
            let path = segment::path(&folder, files[0]);
            return Err(JournalError::damaged(&path, 0, "it is not the first file of a journal"));
        }
        Ok(Scan {
            folder,
            files,
            current: 0,
            content,
            base: 0,
            offset: header.length() as usize,
            id: header.id,
            sequence: 1,
            chain: header.chain,
            torn,
            total,
            pause: REREAD_INTERVAL,
        })
    }

    #[cfg(test)]
    pub(super) fn without_pauses(mut self) -> Self {
        self.pause = Duration::ZERO;
        self
    }

    /// Goes on with the file that holds the frame `sequence`, without reading those before it. The frames of that
    /// file before `sequence` come as well.
    ///
    /// # Errors
    /// As for [`Scan::open`].
    pub fn skip_to(&mut self, sequence: u64) -> Result<(), JournalError> {
        while let Some(next) = self.files.get(self.current + 1) {
            let (path, file) = open(&self.folder, *next)?;
            let header = Header::read(&file, &path)?;
            if header.first_sequence > sequence {
                break;
            }
            self.current += 1;
            (self.sequence, self.chain) = (header.first_sequence, header.chain);
            self.content = Bytes::new();
        }
        if self.content.is_empty() {
            let (header, content) = load(&self.folder, self.files[self.current])?;
            (self.content, self.base, self.offset) = (content, 0, header.length() as usize);
        }
        Ok(())
    }

    /// The ledger's random id.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The bytes of all files.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// The chain hash after the last frame that was read.
    pub fn chain_hash(&self) -> &ChainHash {
        &self.chain
    }

    /// The sequence number of the next frame.
    pub fn next_sequence(&self) -> u64 {
        self.sequence
    }

    /// The chain hash after the entry `sequence`, read again; none if there is no such entry.
    ///
    /// # Errors
    /// Damage on the way to it, from the beginning of its file on.
    pub fn chain_after(&self, sequence: u64) -> Result<Option<ChainHash>, JournalError> {
        let mut scan = Scan::open(&self.folder)?;
        scan.skip_to(sequence)?;
        while let Some(frame) = scan.read()? {
            if frame.sequence == sequence {
                return Ok(Some(frame.chain));
            }
        }
        Ok(None)
    }

    /// What cannot be read at the very end, once that was reached.
    pub fn torn_end(&self) -> Option<&TornEnd> {
        self.torn.as_ref()
    }

    /// The error for a frame that is whole but contradicts what is before it.
    pub fn contradiction(&self, frame: &ScannedFrame, what: impl ToString) -> JournalError {
        JournalError::Contradiction {
            path: segment::path(&self.folder, frame.file).display().to_string(),
            offset: frame.offset,
            sequence: frame.sequence,
            what: what.to_string(),
        }
    }

    /// The next frame, or none at the end.
    ///
    /// # Errors
    /// The first damage.
    pub fn read(&mut self) -> Result<Option<ScannedFrame>, JournalError> {
        loop {
            if self.offset == self.content.len() {
                if self.current + 1 == self.files.len() {
                    return Ok(None);
                }
                self.next_file()?;
                continue;
            }
            let file = self.files[self.current];
            let path = segment::path(&self.folder, file);
            let offset = self.base + self.offset as u64;
            let damaged = |what: &dyn ToString| JournalError::damaged(&path, offset, what.to_string());
            match Frame::parse(&self.content[self.offset..]) {
                Ok(frame) if !frame.follows(&self.chain) => return Err(damaged(&BROKEN_CHAIN)),
                Ok(frame) => {
                    let (chain, length) = (frame.chain, frame.length());
                    let payload = self.content.slice(self.offset + HEAD..self.offset + length);
                    let entry =
                        Entry::decode(payload).map_err(|error| JournalError::invalid_entry(&path, offset, error))?;
                    let sequence = self.sequence;
                    self.offset += length;
                    self.sequence += 1;
                    self.chain = chain;
                    return Ok(Some(ScannedFrame { sequence, file, offset, length, chain, entry }));
                }
                Err(what) => {
                    if self.reread_end()? {
                        continue;
                    }
                    if self.current + 1 < self.files.len() || frame::was_durable(&self.content, self.offset) {
                        return Err(damaged(&what));
                    }
                    let bytes = (self.content.len() - self.offset) as u64;
                    self.torn = Some(TornEnd { path, offset, bytes, what: what.to_string() });
                    self.content.truncate(self.offset);
                }
            }
        }
    }

    /// Looks for what was written since the end was reached. Whether there may be more to read.
    ///
    /// # Errors
    /// As for [`Scan::open`].
    pub fn follow(&mut self) -> Result<bool, JournalError> {
        let Some(newest) = self.files.last().copied() else { return Ok(false) };
        let (path, file) = open(&self.folder, self.files[self.current])?;
        let read = self.base + self.offset as u64;
        let length = file.metadata().map_err(|error| JournalError::io(&path, error))?.len();
        if length > read {
            let mut rest = vec![0; usize::try_from(length - read).unwrap_or(usize::MAX)];
            let filled = read_up_to(&file, &mut rest, read).map_err(|error| JournalError::io(&path, error))?;
            rest.truncate(filled);
            (self.content, self.base, self.offset, self.torn) = (rest.into(), read, 0, None);
            return Ok(true);
        }
        // One that was begun has its header at once, or is looked at later.
        let next = newest + 1;
        let begun = open(&self.folder, next).is_ok_and(|(path, file)| Header::read(&file, &path).is_ok());
        if begun {
            self.files.push(next);
        }
        Ok(begun)
    }

    /// Whether what could not be read in the newest file can be read now, because a daemon has written it meanwhile.
    fn reread_end(&mut self) -> Result<bool, JournalError> {
        if self.current + 1 < self.files.len() {
            return Ok(false);
        }
        for _ in 0..REREAD_ATTEMPTS {
            thread::sleep(self.pause);
            // A file after this one that the daemon began shows that this one is at its end.
            for file in segment::list(&self.folder)? {
                if file > self.files[self.current] && !self.files.contains(&file) {
                    self.files.push(file);
                }
            }
            let content = load(&self.folder, self.files[self.current])?.1;
            let content = content.slice((self.base as usize).min(content.len())..);
            let readable = content.get(self.offset..).is_some_and(|rest| rest.is_empty() || Frame::parse(rest).is_ok());
            if readable {
                self.content = content;
                return Ok(true);
            }
            if self.current + 1 < self.files.len() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn next_file(&mut self) -> Result<(), JournalError> {
        self.current += 1;
        let file = self.files[self.current];
        let length = self.base + self.content.len() as u64;
        // The file before need not be in memory beside this one.
        (self.content, self.base, self.offset) = (Bytes::new(), 0, 0);
        let (header, content) = load(&self.folder, file)?;
        let gap = |what: String| {
            let path = segment::path(&self.folder, file).display().to_string();
            Err(JournalError::Gap { path, what })
        };
        if header.id != self.id {
            return gap("it belongs to another ledger".into());
        }
        if header.first_sequence != self.sequence {
            return gap(format!(
                "its first entry is number {}, the next one would be {}",
                header.first_sequence, self.sequence
            ));
        }
        if header.chain != self.chain {
            return gap("its hash chain continues another file".into());
        }
        if let Some(expected) = header.length_before.filter(|expected| *expected != length) {
            return gap(format!("that has {length} bytes, and had {expected} when this one was begun"));
        }
        (self.content, self.offset) = (content, header.length() as usize);
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<ScannedFrame, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

fn open(folder: &Path, file: u32) -> Result<(PathBuf, File), JournalError> {
    let path = segment::path(folder, file);
    let file = File::open(&path).map_err(|error| JournalError::io(&path, error))?;
    Ok((path, file))
}

fn load(folder: &Path, file: u32) -> Result<(Header, Bytes), JournalError> {
    let (path, file) = open(folder, file)?;
    let header = Header::read(&file, &path)?;
    Ok((header, Bytes::from(read_whole(&file, &path)?)))
}
