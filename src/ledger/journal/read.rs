//! Reading the journal, by many threads, also while it grows.

use std::{
    fs::File,
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use parking_lot::RwLock;

use super::{
    damage::Damage,
    error::{BROKEN_CHAIN, JournalError},
    file::read_up_to,
    frame::{self, Frame, FrameError, HEAD},
    position::Position,
    segment::{self, Header},
};
use crate::ledger::{
    entry::{Entry, EntryHead, InvalidEntry},
    head::ChainHash,
};

/// Reads frames by position or from a position on. Clones share the open files.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: RwLock<PathBuf>,
    /// Where the same journal is once more, for what cannot be read.
    twin: RwLock<Option<PathBuf>>,
    /// The journal could not be read, or what was to be made beside it not be made: its disk may have failed.
    suspected: AtomicBool,
    /// Opened when first read.
    files: RwLock<Vec<(u32, Option<Arc<File>>)>>,
    damage: Damage,
    /// How many frames were read in order.
    #[cfg(test)]
    frames_read: std::sync::atomic::AtomicU64,
}

impl Reader {
    pub(super) fn new(folder: &Path, segments: Vec<u32>) -> Self {
        let files = segments.into_iter().map(|segment| (segment, None)).collect();
        let shared = Shared {
            folder: RwLock::new(folder.to_owned()),
            twin: RwLock::default(),
            suspected: AtomicBool::new(false),
            files: RwLock::new(files),
            damage: Damage::default(),
            #[cfg(test)]
            frames_read: Default::default(),
        };
        Reader { shared: Arc::new(shared) }
    }

    pub(super) fn add(&self, segment: u32) {
        self.shared.files.write().push((segment, None));
    }

    /// Where the journal is written and read.
    pub(crate) fn folder(&self) -> PathBuf {
        self.shared.folder.read().clone()
    }

    /// The data folder that the journal's folder is in.
    pub(crate) fn home(&self) -> PathBuf {
        let folder = self.folder();
        folder.parent().map(Path::to_owned).unwrap_or(folder)
    }

    /// What cannot be read is read from another folder that has the same entries.
    pub(super) fn set_twin(&self, folder: &Path) {
        *self.shared.twin.write() = Some(folder.to_owned());
    }

    fn twin(&self) -> Option<PathBuf> {
        self.shared.twin.read().clone()
    }

    /// From now on the journal is that in another folder, which has the same entries, and this one is its twin.
    pub(super) fn move_to(&self, folder: &Path) {
        let mut files = self.shared.files.write();
        let before = std::mem::replace(&mut *self.shared.folder.write(), folder.to_owned());
        *self.shared.twin.write() = Some(before);
        files.iter_mut().for_each(|(_, file)| *file = None);
    }

    /// Says that the journal's disk seems to have failed, by what was tried beside it.
    pub(crate) fn suspect_disk(&self) {
        self.shared.suspected.store(true, Ordering::Release);
    }

    /// Whether somebody said so since this was asked last.
    pub(super) fn take_suspicion(&self) -> bool {
        self.shared.suspected.load(Ordering::Acquire) && self.shared.suspected.swap(false, Ordering::AcqRel)
    }

    /// How many frames were read in order, by all clones, since this was last asked.
    #[cfg(test)]
    pub(crate) fn take_frames_read(&self) -> u64 {
        self.shared.frames_read.swap(0, Ordering::Relaxed)
    }

    /// The damage that is known, as one sentence.
    pub(crate) fn known_damage(&self) -> Option<String> {
        self.damage().known()
    }

    /// Everything was read: what is known of damage is what that found.
    pub(crate) fn replace_damage(&self, found: &[JournalError]) {
        self.damage().replace(found);
    }

    fn damage(&self) -> &Damage {
        &self.shared.damage
    }

    /// The entry at a position that the index gave, from the journal's twin if the journal's own cannot be read.
    ///
    /// # Errors
    /// Damage: the frame's checksum does not fit. Nothing of it is served.
    pub(crate) fn entry(&self, position: Position) -> Result<Entry, JournalError> {
        self.read_entry(position).or_else(|error| {
            self.note(&error);
            let twin = self.twin().filter(|_| error.is_damage());
            let path = twin.map(|folder| segment::path(&folder, position.segment()));
            let entry = path.and_then(|path| read_at(&File::open(&path).ok()?, &path, position).ok());
            entry.ok_or(error)
        })
    }

    /// Takes note of what could not be read.
    fn note(&self, error: &JournalError) {
        self.damage().note(error);
        if error.is_damage() && matches!(error, JournalError::Io { .. }) {
            self.suspect_disk();
        }
    }

    fn read_entry(&self, position: Position) -> Result<Entry, JournalError> {
        let path = segment::path(&self.folder(), position.segment());
        read_at(&*self.file(position.segment())?, &path, position)
    }

    /// The bytes of whole frames of one file, which were verified when they were read.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn bytes(&self, from: Position, to: Position) -> Result<Vec<u8>, JournalError> {
        let path = segment::path(&self.folder(), from.segment());
        let mut bytes = vec![0; to.offset().saturating_sub(from.offset()) as usize];
        let read = read_up_to(&*self.file(from.segment())?, &mut bytes, from.offset().into());
        match read.map_err(|error| JournalError::io(&path, error))? == bytes.len() && from.segment() == to.segment() {
            true => Ok(bytes),
            false => Err(JournalError::damaged(&path, from.offset().into(), "the file ends here")),
        }
    }

    /// The error for an entry that is whole but does not fit what else is known.
    pub(crate) fn contradiction(&self, position: Position, what: &str) -> JournalError {
        JournalError::damaged(&segment::path(&self.folder(), position.segment()), position.offset().into(), what)
    }

    /// The chain hash after the frame at a position; none if no whole frame is there.
    pub(crate) fn chain_at(&self, position: Position) -> Option<ChainHash> {
        let file = self.file(position.segment()).ok()?;
        let mut head = [0; HEAD];
        let read = read_up_to(&file, &mut head, position.offset().into()).ok()?;
        if read < HEAD {
            return None;
        }
        let mut bytes = vec![0; HEAD + frame::payload_length(&head).ok()?];
        read_up_to(&file, &mut bytes, position.offset().into()).ok()?;
        Frame::parse(&bytes).ok().map(|frame| frame.chain)
    }

    /// Where the file that holds the frame with this sequence number begins, or will, and the number of its first frame.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn file_of(&self, sequence: u64) -> Result<(Position, u64), JournalError> {
        let segments: Vec<_> = self.shared.files.read().iter().map(|(segment, _)| *segment).collect();
        let mut found = (Position::start(), 1);
        for segment in segments {
            let header = Header::read(&*self.file(segment)?, &segment::path(&self.folder(), segment))?;
            if header.first_sequence > sequence {
                break;
            }
            found = (Position::new(segment, header.length()), header.first_sequence);
        }
        Ok(found)
    }

    /// The sequence number before the first file whose entries may be as late as `moment`, going by the first entry of each file.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn sequence_before(&self, moment: jiff::Timestamp) -> Result<u64, JournalError> {
        let segments: Vec<_> = self.shared.files.read().iter().map(|(segment, _)| *segment).collect();
        let mut before = 0;
        for segment in segments {
            let header = Header::read(&*self.file(segment)?, &segment::path(&self.folder(), segment))?;
            // The newest file may have none yet.
            let Ok(first) = self.read_entry(Position::new(segment, header.length())) else { break };
            if first.time >= moment {
                break;
            }
            before = header.first_sequence.saturating_sub(1);
        }
        Ok(before)
    }

    /// The sequence numbers of the entries at these positions, which must ascend.
    ///
    /// # Errors
    /// A file that cannot be read, or a position without an entry.
    pub(crate) fn sequences(&self, positions: &[Position]) -> Result<Vec<u64>, JournalError> {
        let mut found = Vec::with_capacity(positions.len());
        let mut walk: Option<Walk> = None;
        for position in positions {
            let mut at = match walk.take() {
                Some(walk) if walk.segment == position.segment() => walk,
                _ => self.walk(position.segment())?,
            };
            while at.offset < position.offset() {
                at.step()?;
            }
            if at.offset != position.offset() {
                return Err(self.contradiction(*position, "no entry begins here"));
            }
            found.push(at.sequence);
            walk = Some(at);
        }
        Ok(found)
    }

    fn walk(&self, segment: u32) -> Result<Walk, JournalError> {
        let (file, path) = (self.file(segment)?, segment::path(&self.folder(), segment));
        let header = Header::read(&file, &path)?;
        let file = OpenFile { path, file, ahead: Bytes::new() };
        Ok(Walk { file, segment, offset: header.length(), sequence: header.first_sequence })
    }

    /// All frames from `from` up to `end`, in order; [`Position::start`] is the first. The hash chain is checked
    /// from frame to frame.
    pub(crate) fn frames(&self, from: Position, end: Position) -> Frames {
        Frames { own: false, ..Frames::new(self, from, end) }
    }

    /// As [`Reader::frames`], but what the journal's own files do not give is an error, whatever its twin has.
    pub(super) fn own_frames(&self, from: Position, end: Position) -> Frames {
        Frames::new(self, from, end)
    }

    /// As [`Reader::frames`], to find an entry of which the rest is read where it lies: each frame's checksum is checked, and not
    /// the chain.
    pub(crate) fn heads(&self, from: Position, end: Position) -> Frames<EntryHead> {
        Frames { own: false, ..Frames::new(self, from, end) }
    }

    /// Opens a file again: another one may have its name now, restored from a backup.
    pub(super) fn reopen(&self, segment: u32) -> Result<Arc<File>, JournalError> {
        let mut files = self.shared.files.write();
        if let Some((_, file)) = files.iter_mut().find(|(number, _)| *number == segment) {
            *file = None;
        }
        drop(files);
        self.file(segment)
    }

    fn file(&self, segment: u32) -> Result<Arc<File>, JournalError> {
        let opened = |files: &[(u32, Option<Arc<File>>)]| {
            let index = files.binary_search_by_key(&segment, |(number, _)| *number).ok()?;
            Some((index, files[index].1.clone()))
        };
        let found = opened(&self.shared.files.read());
        let path = || segment::path(&self.folder(), segment);
        match found {
            Some((_, Some(file))) => Ok(file),
            Some((index, None)) => {
                // Under the lock, so that it is no file of a folder that was just left.
                let mut files = self.shared.files.write();
                let file = Arc::new(File::open(path()).map_err(|error| JournalError::io(&path(), error))?);
                files[index].1 = Some(Arc::clone(&file));
                Ok(file)
            }
            None => Err(JournalError::io(&path(), std::io::ErrorKind::NotFound.into())),
        }
    }
}

/// The entry at a position of this file.
fn read_at(file: &File, path: &Path, position: Position) -> Result<Entry, JournalError> {
    let damaged = |what: &dyn ToString| JournalError::damaged(path, position.offset().into(), what.to_string());
    // Most entries fit the first read.
    let mut bytes = vec![0; 2048];
    let offset = u64::from(position.offset());
    let read = read_up_to(file, &mut bytes, offset).map_err(|error| JournalError::io(path, error))?;
    let head = bytes[..read].first_chunk::<HEAD>().ok_or_else(|| damaged(&"the file ends here"))?;
    let length = HEAD + frame::payload_length(head).map_err(|error| damaged(&error))?;
    if length > read {
        bytes.resize(length, 0);
        read_up_to(file, &mut bytes, offset).map_err(|error| JournalError::io(path, error))?;
    }
    bytes.truncate(length);
    Frame::parse(&bytes).map_err(|error| damaged(&error))?;
    Entry::decode(Bytes::from(bytes).slice(HEAD..)).map_err(|error| JournalError::invalid_entry(path, offset, error))
}

/// Counts the frames of a file by their lengths alone.
struct Walk {
    file: OpenFile,
    segment: u32,
    /// Of the next frame.
    offset: u32,
    sequence: u64,
}

impl Walk {
    fn step(&mut self) -> Result<(), JournalError> {
        self.file.fill(self.offset, HEAD, Entry::CHUNK)?;
        let length = self.file.ahead.first_chunk::<HEAD>().ok_or(FrameError::Short).and_then(frame::payload_length);
        let length = HEAD + length.map_err(|error| self.file.damaged(self.offset, error))?;
        // A frame that is longer than what was read ahead is left behind.
        self.file.ahead = self.file.ahead.slice(length.min(self.file.ahead.len())..);
        self.offset += length as u32;
        self.sequence += 1;
        Ok(())
    }
}

/// What is read of a frame.
pub(crate) trait Content: Sized {
    /// Whether each frame must follow the one before by its hash.
    const CHAINED: bool;
    /// How much is read from a file at once.
    const CHUNK: usize;

    fn decode(payload: Bytes) -> Result<Self, InvalidEntry>;
}

impl Content for Entry {
    const CHAINED: bool = true;
    const CHUNK: usize = 128 << 10;

    fn decode(payload: Bytes) -> Result<Self, InvalidEntry> {
        Entry::decode(payload)
    }
}

impl Content for EntryHead {
    const CHAINED: bool = false;
    const CHUNK: usize = 32 << 10;

    fn decode(payload: Bytes) -> Result<Self, InvalidEntry> {
        EntryHead::decode(payload)
    }
}

/// Frames in order; made by [`Reader::frames`]. Ends after the first error.
#[derive(Debug)]
pub(crate) struct Frames<C = Entry> {
    reader: Reader,
    next: Position,
    end: Position,
    file: Option<OpenFile>,
    /// The chain hash before the next frame, once it is known.
    chain: Option<ChainHash>,
    /// Whether the twin is left alone.
    own: bool,
    /// Where they are read since the journal's own files failed.
    twin: Option<PathBuf>,
    failed: bool,
    content: PhantomData<C>,
}

/// The file that is being read, and what of it has been read from the next frame on.
#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: Arc<File>,
    ahead: Bytes,
}

impl OpenFile {
    fn damaged(&self, offset: u32, what: impl ToString) -> JournalError {
        JournalError::damaged(&self.path, offset.into(), what)
    }

    /// Has at least the `wanted` bytes from `offset` on in `ahead`, if the file does; reads `chunk` bytes at once.
    fn fill(&mut self, offset: u32, wanted: usize, chunk: usize) -> Result<(), JournalError> {
        if self.ahead.len() < wanted {
            let mut bytes = vec![0; wanted.max(chunk)];
            let read = read_up_to(&self.file, &mut bytes, offset.into());
            bytes.truncate(read.map_err(|error| JournalError::io(&self.path, error))?);
            self.ahead = bytes.into();
        }
        Ok(())
    }
}

/// A frame that was read, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadFrame<C = Entry> {
    /// Where it begins.
    pub(crate) position: Position,
    /// Where the next one begins.
    pub(crate) next: Position,
    /// The chain hash after it.
    pub(crate) chain: ChainHash,
    /// What it holds.
    pub(crate) entry: C,
}

impl<C: Content> Frames<C> {
    fn new(reader: &Reader, from: Position, end: Position) -> Self {
        Frames {
            reader: reader.clone(),
            next: from,
            end,
            file: None,
            chain: None,
            own: true,
            twin: None,
            failed: false,
            content: PhantomData,
        }
    }

    fn read(&mut self) -> Result<Option<ReadFrame<C>>, JournalError> {
        loop {
            if self.next >= self.end {
                return Ok(None);
            }
            let mut file = match self.file.take() {
                Some(file) => file,
                None => {
                    self.file = Some(self.open()?);
                    continue;
                }
            };
            let (number, offset) = (self.next.segment(), self.next.offset());
            file.fill(offset, HEAD, C::CHUNK)?;
            if file.ahead.is_empty() && number < self.end.segment() {
                self.next = Position::new(number + 1, 0);
                continue;
            }
            let length = file.ahead.first_chunk::<HEAD>().ok_or(FrameError::Short).and_then(frame::payload_length);
            let length = HEAD + length.map_err(|error| file.damaged(offset, error))?;
            file.fill(offset, length, C::CHUNK)?;
            let frame = Frame::parse(&file.ahead).map_err(|error| file.damaged(offset, error))?;
            if C::CHAINED && self.chain.is_some_and(|before| !frame.follows(&before)) {
                return Err(file.damaged(offset, BROKEN_CHAIN));
            }
            let chain = frame.chain;
            let entry = C::decode(file.ahead.slice(HEAD..length))
                .map_err(|error| JournalError::invalid_entry(&file.path, offset.into(), error))?;
            file.ahead = file.ahead.slice(length..);
            self.file = Some(file);
            self.chain = Some(chain);
            let position = self.next;
            self.next = Position::new(number, offset + length as u32);
            #[cfg(test)]
            self.reader.shared.frames_read.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(ReadFrame { position, next: self.next, chain, entry }));
        }
    }

    /// Opens the file in which the next frame is; the first frame of a file must continue the chain.
    fn open(&mut self) -> Result<OpenFile, JournalError> {
        let number = self.next.segment();
        let folder = self.twin.clone().unwrap_or_else(|| self.reader.folder());
        let path = segment::path(&folder, number);
        let file = match &self.twin {
            Some(_) => Arc::new(File::open(&path).map_err(|error| JournalError::io(&path, error))?),
            None => self.reader.file(number)?,
        };
        let header = Header::read(&file, &path)?;
        if self.next.offset() == 0 {
            self.next = Position::new(number, header.length());
        }
        if self.next.offset() == header.length() && *self.chain.get_or_insert(header.chain) != header.chain {
            let what = "its hash chain continues another file".to_owned();
            return Err(JournalError::Gap { path: path.display().to_string(), what });
        }
        Ok(OpenFile { path, file, ahead: Bytes::new() })
    }
}

impl<C: Content> Iterator for Frames<C> {
    type Item = Result<ReadFrame<C>, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let read = self.read().or_else(|error| {
            self.reader.note(&error);
            match self.reader.twin().filter(|_| error.is_damage() && !self.own && self.twin.is_none()) {
                Some(twin) => {
                    (self.twin, self.file) = (Some(twin), None);
                    self.read().map_err(|_| error)
                }
                None => Err(error),
            }
        });
        self.failed = read.is_err();
        read.transpose()
    }
}
