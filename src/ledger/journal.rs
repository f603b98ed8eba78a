//! The journal: append-only files of checksummed, hash-chained frames, each frame one [`Entry`].
//!
//! Positions only grow: `written ≥ durable ≥ applied to the index`, and `durable ≥` what a checkpoint names.
//!
//! # On disk
//!
//! Files `00000001.journal`, `00000002.journal`, … All numbers are little-endian.
//!
//! | header | bytes |
//! |---|---|
//! | magic `BMJOURNL` | 8 |
//! | version: 1 (without the last field), or 2 | 4 |
//! | CRC32C of the rest of the header | 4 |
//! | the ledger's random id, the same in all files | 16 |
//! | sequence number of the first frame (the first of all is 1) | 8 |
//! | the chain hash before the first frame; zero in the first file | 32 |
//! | the length of the file before; not in the first file, nor in those of birthmark 0.1 | 8 |
//!
//! | frame | bytes |
//! |---|---|
//! | length of the payload, 1 to 1 MiB | 4 |
//! | CRC32C of the rest of the frame and the length | 4 |
//! | how far back the first frame of the same write begins | 4 |
//! | chain hash: SHA-256 of the chain hash before and the payload | 32 |
//! | payload: a protobuf `birthmark.journal.v1.Entry` | length |
//!
//! # After a crash
//!
//! Only the newest file's last write can be torn: every write is synced before the next begins. An unreadable frame
//! in the newest file is cut off with all after it, unless
//!
//! - a readable frame after it belongs to a later write, or
//! - the index has applied the journal beyond it, or the newest checkpoint covers it.
//!
//! Then what is unreadable had once been durable, and the journal is damaged: the start is refused. Nothing is
//! repaired by itself.
//!
//! # Damage
//!
//! A start checks that all files are there, and that each continues where the one before it ends (sequence number,
//! chain hash, length). What lies in older files is read by the scrub ([`crate::ledger::scrub`]), and checked
//! whenever it is used: nothing is served whose checksum does not fit.
//!
//! An index that knows entries which the journal does not have is evidence that the journal lost them (its newest
//! file is gone, or an older copy was restored): the start is refused until an operator has accepted the loss.
//!
//! What is whole at the end may still be in the system's memory only (the daemon was killed between write and sync), or
//! the disk may have refused it once: the daemon ended because a sync failed, after which Linux takes the page for
//! clean (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). So the last write is
//! written again and synced before anything is answered from it.

mod check;
mod copy;
mod damage;
mod error;
mod file;
mod foreign;
mod foreign_batch;
mod frame;
mod mirror;
mod own;
mod pairing;
mod place;
mod position;
mod read;
mod scan;
mod segment;
mod unsettled;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::pairing::complete;
pub use self::{
    copy::Copied,
    error::JournalError,
    scan::{Scan, ScannedFrame, TornEnd},
};
pub(crate) use self::{
    copy::{Newest, copy, is_empty},
    error::AppendError,
    foreign_batch::{Batch, ForeignError, read_batch, split_after},
    mirror::MirrorState,
    pairing::{ended_well, may_be_behind},
    place::{Whereabouts, forget as forget_place},
    position::Position,
    read::{Frames, ReadFrame, Reader},
};
use self::{
    error::BROKEN_CHAIN,
    file::read_whole,
    frame::Frame,
    mirror::{JournalEnd, Mirror},
    own::NotOwn,
    place::{Found, Place},
    segment::Header,
    unsettled::{Newest as NewestFile, Torn, Unsettled},
};
use super::{entry::Entry, head::ChainHash};
use crate::file_lock::{lock_file, lock_holder};

/// The journal, open for appending. There is one in a data folder; the folder's lock sees to that.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Where it is written: another folder after its disk failed and the mirror's goes on.
    folder: PathBuf,
    reader: Reader,
    id: [u8; 16],
    /// The newest file.
    file: File,
    segment: u32,
    /// How much of the newest file is durable: where the next frame goes.
    end: u32,
    /// The sequence number of the next frame.
    sequence: u64,
    /// The chain hash after the last durable frame.
    chain: ChainHash,
    /// A new file is begun when the newest one has reached this size.
    segment_size: u32,
    /// Whether the newest file is locked against other processes.
    locked: bool,
    staged: Staged,
    /// Kept while the journal is where a daemon left it.
    place: Option<Place>,
    /// The second journal.
    mirror: Option<Mirror>,
    /// What [`Journal::open`] found at the end and [`Journal::settle`] has yet to deal with.
    unsettled: Option<Unsettled>,
}

/// Frames that are not written yet.
#[derive(Debug, Default)]
struct Staged {
    bytes: Vec<u8>,
    frames: u64,
    /// The chain hash after the last of them.
    chain: Option<ChainHash>,
}

impl Journal {
    /// Opens the journal in `folder`, or begins one. [`Journal::settle`] must be called before anything is appended.
    ///
    /// # Errors
    /// Damage, a gap, a newer version, or an I/O error.
    pub(crate) fn open(folder: &Path, segment_size: u32) -> Result<Journal, JournalError> {
        let mut segments = segment::list(folder)?;
        let headless = segment::headless_newest(folder, &segments)?.map(|headless| headless.path);
        if headless.is_some() {
            segments.pop();
        }
        let Some(&newest) = segments.last() else {
            return Journal::begin(folder, segment_size, rand::random());
        };
        segment::check_sequence(folder, &segments)?;
        segment::check_ends(folder, &segments)?;

        let path = segment::path(folder, newest);
        let file =
            File::options().read(true).write(true).open(&path).map_err(|error| JournalError::io(&path, error))?;
        let header = Header::read(&file, &path)?;
        let mut journal = Journal {
            folder: folder.to_owned(),
            reader: Reader::new(folder, segments),
            id: header.id,
            file,
            segment: newest,
            end: header.length(),
            sequence: header.first_sequence,
            chain: header.chain,
            segment_size,
            locked: false,
            staged: Staged::default(),
            place: None,
            mirror: None,
            unsettled: None,
        };
        journal.find_end(&path, headless)?;
        Ok(journal)
    }

    /// Whether there is a journal in the folder.
    ///
    /// # Errors
    /// An I/O error.
    pub(crate) fn exists(folder: &Path) -> Result<bool, JournalError> {
        Ok(!segment::list(folder)?.is_empty())
    }

    /// Checks that [`Journal::open`] would not begin a new journal in the place of one that something else knows:
    /// that the only file is not one that was cut within its header.
    ///
    /// # Errors
    /// [`JournalError::Damaged`], or an I/O error.
    pub(crate) fn check_first_header(folder: &Path) -> Result<(), JournalError> {
        let segments = segment::list(folder)?;
        match segment::headless_newest(folder, &segments)? {
            Some(segment::Headless { path, what, .. }) if segments.len() == 1 => {
                Err(JournalError::damaged(&path, 0, what))
            }
            _ => Ok(()),
        }
    }

    fn begin(folder: &Path, segment_size: u32, id: [u8; 16]) -> Result<Journal, JournalError> {
        let header = Header { id, first_sequence: 1, chain: [0; 32], length_before: None };
        let file = segment::create(folder, 1, &header)?;
        segment::sync_new(&file, folder).map_err(|error| JournalError::io(&segment::path(folder, 1), error))?;
        Ok(Journal {
            folder: folder.to_owned(),
            reader: Reader::new(folder, vec![1]),
            id: header.id,
            file,
            segment: 1,
            end: header.length(),
            sequence: 1,
            chain: header.chain,
            segment_size,
            locked: false,
            staged: Staged::default(),
            place: None,
            mirror: None,
            unsettled: None,
        })
    }

    /// Reads the newest file to its end.
    fn find_end(&mut self, path: &Path, headless: Option<PathBuf>) -> Result<(), JournalError> {
        let content = read_whole(&self.file, path)?;
        let mut at = self.end as usize;
        let mut last_write = 0;
        let mut torn = None;
        while at < content.len() {
            match Frame::parse(&content[at..]) {
                Ok(frame) if frame.follows(&self.chain) => {
                    self.chain = frame.chain;
                    self.sequence += 1;
                    last_write = at.saturating_sub(frame.back);
                    at += frame.length();
                }
                Ok(_) => return Err(JournalError::damaged(path, at as u64, BROKEN_CHAIN)),
                Err(what) => {
                    if frame::was_durable(&content, at) {
                        return Err(JournalError::damaged(path, at as u64, what));
                    }
                    torn = Some(Torn { what, bytes: (content.len() - at) as u64 });
                    break;
                }
            }
        }
        self.end = at as u32;
        let last_write = (last_write as u32, content[last_write..at].to_vec());
        self.unsettled = Some(Unsettled { last_write, torn, headless });
        Ok(())
    }

    /// Makes the end that was found the durable end: cuts off what a crash left torn after it, and puts what is whole
    /// on stable storage. `known` is a position up to which something else (the index) knows the journal to have been
    /// durable; an unreadable frame before it is no torn end, and a journal that ends before it has lost entries.
    ///
    /// # Errors
    /// Damage, a loss, or an I/O error. After damage or a loss nothing was changed.
    pub(crate) fn settle(&mut self, known: Option<Position>) -> Result<(), JournalError> {
        let newest = NewestFile { folder: &self.folder, file: &self.file, segment: self.segment, end: self.end };
        if let Some(known) = known {
            newest.check_not_cut(self.unsettled.as_ref(), known)?;
        }
        if let Some(unsettled) = &self.unsettled {
            newest.settle(unsettled, known)?;
        }
        self.unsettled = None;
        Ok(())
    }

    /// Holds against the journal what something else (the index) knows of it: the journal's id, and the last entry
    /// that it has seen, with the chain hash after it.
    ///
    /// # Errors
    /// [`JournalError::Lost`] if the journal never had that entry, or damage.
    pub(crate) fn attest(&self, id: [u8; 16], last: Option<(Position, ChainHash)>) -> Result<(), JournalError> {
        if id != self.id {
            let [known, here] = [id, self.id].map(hex::encode);
            return Err(self.lost(format!("the index is that of the journal {known}, and this is the journal {here}")));
        }
        self.reader.attest(last, self.end())
    }

    /// Whether the journal is where a daemon left it.
    ///
    /// # Errors
    /// An I/O error.
    pub(crate) fn whereabouts(&self) -> Result<Whereabouts, JournalError> {
        let found = place::check(&self.folder, &self.found()).map_err(|error| JournalError::io(&self.folder, error))?;
        // A journal without entries lacks none.
        Ok(if self.sequence == 1 && found == Whereabouts::NoPlace { Whereabouts::Own } else { found })
    }

    /// From now on the journal is where it is: a later start does not take it for a copy.
    ///
    /// # Errors
    /// An I/O error.
    pub(crate) fn take_place(&mut self) -> Result<(), JournalError> {
        let io = |error| JournalError::io(&self.folder, error);
        let place = Place::take(&self.folder, &self.found()).map_err(io)?;
        self.place = Some(place);
        Ok(())
    }

    fn found(&self) -> Found<'_> {
        let is_empty = self.end <= Header::LENGTH;
        let (journal, segment, file, entries) = (self.id, self.segment, &self.file, self.sequence - 1);
        Found { journal, segment, file, is_empty, entries }
    }

    /// The place is told how many entries there are; otherwise it is once a second.
    pub(crate) fn note_place(&mut self) {
        if let Some(place) = &mut self.place {
            place.note(self.sequence - 1, true);
        }
    }

    /// From now on every write goes to the journal in `folder` as well.
    ///
    /// # Errors
    /// If there is no thread to be had; what else fails is the mirror's state.
    pub(crate) fn start_mirror(&mut self, folder: &Path) -> io::Result<()> {
        self.mirror = Some(Mirror::start(&self.folder, folder, self.journal_end(), MirrorState::default())?);
        self.reader.set_twin(folder);
        Ok(())
    }

    /// The daemon ends: a mirror that has the same says so, and so does the journal.
    pub(crate) fn note_stop(&mut self) {
        self.note_place();
        let end = self.journal_end();
        if let Some(mirror) = &mut self.mirror {
            mirror.join_if_caught_up(end);
            mirror.note_stop();
        }
    }

    /// From now on the journal is taken for what it is, also if a mirror that is not there has more.
    ///
    /// # Errors
    /// An I/O error.
    pub(crate) fn part_from_mirror(&self) -> Result<(), JournalError> {
        pairing::part(&self.folder).map_err(|error| JournalError::io(&self.folder, error))
    }

    /// The state of the mirror, if there is one.
    pub(crate) fn mirror_state(&self) -> Option<MirrorState> {
        self.mirror.as_ref().map(Mirror::state)
    }

    fn journal_end(&self) -> JournalEnd {
        JournalEnd { id: self.id, segment: self.segment, length: self.end, entries: self.sequence - 1 }
    }

    /// The newest file.
    fn path(&self) -> PathBuf {
        segment::path(&self.folder, self.segment)
    }

    fn lost(&self, what: String) -> JournalError {
        JournalError::lost(&self.folder, what)
    }

    /// Locks the newest file, and each that is begun later, against other processes. The kernel frees the lock
    /// however the process ends.
    ///
    /// # Errors
    /// [`JournalError::InUse`], or an I/O error.
    pub(crate) fn lock(&mut self) -> Result<(), JournalError> {
        self.locked = true;
        let path = self.path();
        if lock_file(&self.file).map_err(|error| JournalError::io(&path, error))? {
            return Ok(());
        }
        let pid = lock_holder(&self.file);
        Err(JournalError::InUse { path: path.display().to_string(), pid })
    }

    /// What cannot be read at the end, and where, until [`Journal::settle`].
    pub(crate) fn unreadable_end(&self) -> Option<String> {
        let Torn { what, bytes } = self.unsettled.as_ref()?.torn.as_ref()?;
        let path = self.path();
        Some(format!("{}: {bytes} bytes from byte {} on: {what}", path.display(), self.end))
    }

    /// The number of the newest file.
    pub(crate) fn segment(&self) -> u32 {
        self.segment
    }

    /// The ledger's random id.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Where the next frame goes; all before it is durable.
    pub(crate) fn end(&self) -> Position {
        Position::new(self.segment, self.end)
    }

    /// The chain hash after the last durable frame.
    pub(crate) fn chain(&self) -> &ChainHash {
        &self.chain
    }

    /// The sequence number of the next frame; the first of all is 1.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.sequence
    }

    /// Reads the journal, also while it grows.
    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Adds an entry to the next write and returns where it will be. Nothing is on disk until [`Journal::commit`].
    ///
    /// # Errors
    /// If the entry is too large or a new file cannot be begun. What was staged before stays staged.
    pub(crate) fn stage(&mut self, entry: &Entry) -> Result<Position, AppendError> {
        if self.staged.bytes.is_empty() && self.end >= self.segment_size {
            self.rotate_or_fail_over()?;
        }
        let start = self.staged.bytes.len();
        let before = self.staged.chain.unwrap_or(self.chain);
        let chain = frame::encode(&mut self.staged.bytes, &before, |payload| entry.encode(payload))
            .inspect_err(|_| self.staged.bytes.truncate(start))?;
        self.staged.chain = Some(chain);
        self.staged.frames += 1;
        Ok(Position::new(self.segment, self.end + start as u32))
    }

    /// Writes what is staged and returns when it is on stable storage.
    pub(crate) fn commit(&mut self) -> Result<(), AppendError> {
        if self.reader.take_suspicion() {
            self.fail_over("it cannot be read, or what is beside it cannot be written", self.end, self.sequence - 1);
        }
        if self.staged.chain.is_some()
            && let Err(error) = self.check_own()
            && !error.of_disk().is_some_and(|why| self.fail_over(&why, self.end, self.sequence - 1))
        {
            self.discard();
            return Err(error);
        }
        self.write_staged()
    }

    /// Checks that nobody else wrote the newest file, or took it away.
    fn check_own(&self) -> Result<(), AppendError> {
        own::check(&self.file, &self.path(), self.end).map_err(|error| {
            let path = self.path().display().to_string();
            match error {
                NotOwn::Io(cause) => AppendError::NotWritten(cause),
                NotOwn::Removed => AppendError::Removed { path },
                NotOwn::Changed(what) => AppendError::Taken { path, what },
            }
        })
    }

    fn write_staged(&mut self) -> Result<(), AppendError> {
        let staged = std::mem::take(&mut self.staged);
        let Some(chain) = staged.chain else { return Ok(()) };
        let (bytes, sequence, before) = (Arc::new(staged.bytes), self.sequence + staged.frames, self.journal_end());
        if let Some(mirror) = &mut self.mirror {
            mirror.join_if_caught_up(before);
            mirror.write(Arc::clone(&bytes), self.end, sequence - 1);
        }
        let started = std::time::Instant::now();
        let written = self.write_own(&bytes);
        // Nothing is answered before it is on both disks, unless one has failed.
        let mirrored = self.mirror.as_mut().is_some_and(Mirror::wait);
        let end = self.end + bytes.len() as u32;
        if let Err(error) = written
            && !error.of_disk().is_some_and(|why| mirrored && self.fail_over(&why, end, sequence - 1))
        {
            if let Some(mirror) = &mut self.mirror {
                mirror.cut(self.end);
            }
            return Err(error);
        }
        crate::metrics::fsync(started.elapsed());
        self.end = end;
        self.sequence = sequence;
        self.chain = chain;
        if let Some(place) = &mut self.place {
            place.note(self.sequence - 1, false);
        }
        let end = self.journal_end();
        if let Some(mirror) = &mut self.mirror {
            mirror.wrote(end);
        }
        // The buffer's memory serves the next batch.
        self.staged.bytes = Arc::try_unwrap(bytes).unwrap_or_default();
        self.staged.bytes.clear();
        Ok(())
    }

    fn write_own(&self, bytes: &[u8]) -> Result<(), AppendError> {
        if let Err(error) = self.file.write_all_at(bytes, u64::from(self.end)) {
            // What a failed write left behind must not be taken for frames later.
            return match self.file.set_len(u64::from(self.end)) {
                Ok(()) => Err(AppendError::NotWritten(error)),
                Err(_) => Err(AppendError::Unknown(error)),
            };
        }
        // What a failed sync left on the disk is not known: the process must end (invariants 1 and 10), or go on with the
        // mirror alone.
        self.file.sync_data().map_err(AppendError::Unknown)
    }

    /// Goes on with the mirror, if that has all up to `length` in the newest file, and brings up what was the journal until
    /// now as its mirror. Whether it does.
    fn fail_over(&mut self, why: &str, length: u32, entries: u64) -> bool {
        let Some(mirror) = self.mirror.as_ref().filter(|mirror| mirror.is_joined()) else { return false };
        let (survivor, state, failed) = (mirror.folder().to_owned(), mirror.state(), self.folder.display());
        let end = JournalEnd { length, entries, ..self.journal_end() };
        match mirror.take_over(end, self.locked, self.place.is_some()) {
            Ok(taken) => (self.file, self.place) = taken,
            Err(error) => {
                let mirror = survivor.display();
                tracing::error!(folder = %failed, why, %mirror, %error, "the journal failed, and its mirror cannot take its place");
                return false;
            }
        }
        tracing::error!(
            folder = %failed, why, mirror = %survivor.display(),
            "the journal failed: the daemon goes on with its mirror ALONE, WITHOUT a second copy of the journal"
        );
        let failed = std::mem::replace(&mut self.folder, survivor);
        self.reader.move_to(&self.folder);
        // The thread that wrote it ends before another one begins.
        self.mirror = None;
        state.fail(&failed, why);
        match Mirror::start_behind(&self.folder, &failed, entries, state) {
            Ok(mirror) => self.mirror = Some(mirror),
            Err(error) => tracing::error!(%error, "the journal's other copy is not brought up before the next start"),
        }
        true
    }

    /// Forgets what is staged.
    pub(crate) fn discard(&mut self) {
        self.staged = Staged::default();
    }

    fn rotate_or_fail_over(&mut self) -> Result<(), AppendError> {
        match self.rotate(true) {
            Err(error) if error.of_disk().is_some_and(|why| self.fail_over(&why, self.end, self.sequence - 1)) => {
                self.rotate(true)
            }
            rotated => rotated,
        }
    }

    /// `with_length`: as files are begun since birthmark 0.1.
    fn rotate(&mut self, with_length: bool) -> Result<(), AppendError> {
        self.check_own()?;
        self.file.sync_data().map_err(AppendError::Unknown)?; // A copy's writes are not synced each.
        let length_before = with_length.then_some(u64::from(self.end));
        let header = Header { id: self.id, first_sequence: self.sequence, chain: self.chain, length_before };
        let next = self.segment + 1;
        let file = segment::create(&self.folder, next, &header).map_err(|error| match error {
            JournalError::Io { cause, .. } => AppendError::NotWritten(cause),
            other => AppendError::NotWritten(io::Error::other(other)),
        })?;
        if self.locked && file.try_lock().is_err() {
            let path = segment::path(&self.folder, next).display().to_string();
            return Err(AppendError::Taken { path, what: "another process has it locked".into() });
        }
        segment::sync_new(&file, &self.folder).map_err(AppendError::Unknown)?;
        if self.place.is_some() {
            // Before anything is in the file: what is not in the place is taken for a copy.
            let (journal, entries) = (self.id, self.sequence - 1);
            let found = Found { journal, segment: next, file: &file, is_empty: true, entries };
            self.place = Some(Place::take(&self.folder, &found).map_err(AppendError::NotWritten)?);
        }
        if let Some(mirror) = &mut self.mirror {
            mirror.begin(next, header.encode(), self.sequence - 1);
        }
        self.file = file;
        self.reader.add(next);
        self.segment = next;
        self.end = header.length();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
