//! The reading of a whole file, which finds its damage.

use rustix::fs::Advice;

use super::{
    error::JournalError,
    position::Position,
    read::Reader,
    segment::{self, Header},
};
use crate::ledger::head::ChainHash;

/// What a file of the journal ends with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileEnd {
    next_sequence: u64,
    chain: ChainHash,
    length: u64,
}

impl Reader {
    /// Checks that the journal, which ends at `end`, has the last entry that something else (the index) knows.
    pub(super) fn attest(&self, last: Option<(Position, ChainHash)>, end: Position) -> Result<(), JournalError> {
        // What lies after the end is for the settling of the journal to judge.
        let Some((position, chain)) = last.filter(|(position, _)| *position < end) else { return Ok(()) };
        if self.chain_at(position) == Some(chain) {
            return Ok(());
        }
        // Damage, or a journal that went on in another way? A file that can be read through has no damage.
        let (file, next) = (position.segment(), Position::new(position.segment().saturating_add(1), 0));
        self.own_frames(Position::new(file, 0), end.min(next)).try_for_each(|frame| frame.map(drop))?;
        let what = format!(
            "the index knows another entry at byte {} of file {file:08}.journal than the one that is there",
            position.offset()
        );
        Err(JournalError::lost(&self.folder(), what))
    }

    /// Reads a whole file again from the disk, up to `end` if that is in it, and checks its header, every frame and
    /// how it continues the file before. `read` is called with the number of bytes that were read, and returns
    /// whether to go on; none if not.
    ///
    /// # Errors
    /// The first damage in the file.
    pub(crate) fn check_file(
        &self,
        number: u32,
        end: Position,
        before: Option<FileEnd>,
        read: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<FileEnd>, JournalError> {
        let file = self.reopen(number)?;
        let is_newest = number == end.segment();
        // What the system has in its memory says nothing about the disk. A hint: a file system may not take it.
        let forget = || if is_newest { Ok(()) } else { rustix::fs::fadvise(&*file, 0, None, Advice::DontNeed) };
        let _ = forget();
        let path = segment::path(&self.folder(), number);
        let header = Header::read(&file, &path)?;
        if let Some(before) = before {
            let fits = header.first_sequence == before.next_sequence
                && header.chain == before.chain
                && header.length_before.is_none_or(|length| length == before.length);
            if !fits {
                let what = "sequence number, chain hash or length in its header are not those of that file".to_owned();
                return Err(JournalError::Gap { path: path.display().to_string(), what });
            }
        }
        let mut found =
            FileEnd { next_sequence: header.first_sequence, chain: header.chain, length: header.length().into() };
        let mut unsaid = found.length;
        for frame in self.own_frames(Position::new(number, 0), end.min(Position::new(number.saturating_add(1), 0))) {
            let frame = frame?;
            let length = u64::from(frame.next.offset() - frame.position.offset());
            (found.next_sequence, found.chain) = (found.next_sequence + 1, frame.chain);
            found.length += length;
            unsaid += length;
            if unsaid >= STEP && !read(std::mem::take(&mut unsaid)) {
                return Ok(None);
            }
        }
        let _ = forget();
        Ok(read(unsaid).then_some(found))
    }
}

/// How many bytes are read between two calls of `read`.
const STEP: u64 = 1 << 20;
