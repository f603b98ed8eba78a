//! A journal that is the copy of one that lies elsewhere: what others wrote is taken in, and what is written here is on stable
//! storage there before it is appended.

use std::{io, os::unix::fs::FileExt, path::Path};

use super::{
    Journal,
    error::{AppendError, BROKEN_CHAIN, JournalError},
    foreign_batch::{Batch, ForeignError},
    frame::Frame,
    position::Position,
    segment::Header,
};
use crate::ledger::head::ChainHash;

impl Journal {
    /// Opens the copy of the ledger with this id, or begins one.
    ///
    /// # Errors
    /// As for [`Journal::open`]; a journal of another ledger.
    pub(crate) fn open_copy(folder: &Path, id: [u8; 16], segment_size: u32) -> Result<Journal, JournalError> {
        if !Journal::exists(folder)? {
            return Journal::begin(folder, segment_size, id);
        }
        let journal = Journal::open(folder, segment_size)?;
        if journal.id() != id {
            let [here, there] = [journal.id(), id].map(hex::encode);
            let what = format!("it is that of the ledger {here}, and the database holds the ledger {there}");
            return Err(JournalError::Gap { path: journal.path().display().to_string(), what });
        }
        Ok(journal)
    }

    /// The batch that is staged, if one is, and the chain hash after it.
    pub(crate) fn staged(&self) -> Option<(Batch<'_>, u64, ChainHash)> {
        let chain = self.staged.chain?;
        let batch = Batch { first: self.sequence, place: self.end(), frames: &self.staged.bytes };
        Some((batch, self.staged.frames, chain))
    }

    /// Writes what is staged, which is on stable storage elsewhere.
    ///
    /// # Errors
    /// If it could not be written; it stays staged.
    pub(crate) fn commit_copied(&mut self) -> Result<(), AppendError> {
        let staged = std::mem::take(&mut self.staged);
        let Some(chain) = staged.chain else { return Ok(()) };
        if let Err(error) = self.write_copied(&staged.bytes, staged.frames, chain) {
            self.staged = staged;
            return Err(error);
        }
        // The buffer's memory serves the next batch.
        self.staged.bytes = staged.bytes;
        self.staged.bytes.clear();
        Ok(())
    }

    /// Takes in a batch that others wrote; every frame of it is verified before anything is written.
    ///
    /// # Errors
    /// It does not continue what is here, or could not be written.
    pub(crate) fn append(&mut self, batch: Batch<'_>) -> Result<(), ForeignError> {
        let differs = |what: String| Err(ForeignError::Differs(what));
        if batch.first != self.sequence {
            return differs(format!(
                "it begins with the entry {}, and the next one here is {}",
                batch.first, self.sequence
            ));
        }
        let (mut chain, mut frames, mut at) = (self.chain, 0, 0);
        while let Some(rest) = batch.frames.get(at..).filter(|rest| !rest.is_empty()) {
            let number = self.sequence + frames;
            let frame = match Frame::parse(rest) {
                Ok(frame) => frame,
                Err(what) => return differs(format!("its entry {number} cannot be read: {what}")),
            };
            if !frame.follows(&chain) {
                return differs(format!("at its entry {number} {BROKEN_CHAIN}"));
            }
            (chain, frames, at) = (frame.chain, frames + 1, at + frame.length());
        }
        if frames == 0 {
            return differs("it has no entry".into());
        }
        if batch.place != self.end() {
            let begun = Position::new(self.segment + 1, batch.place.offset());
            let offsets = [Header::FIRST_LENGTH, Header::LENGTH];
            if batch.place != begun || !offsets.contains(&batch.place.offset()) {
                return differs(format!("it belongs at {}, and the copy ends at {}", batch.place, self.end()));
            }
            // What lies in older files does not change any more.
            self.file.sync_data().map_err(AppendError::Unknown)?;
            self.rotate(batch.place.offset() == Header::LENGTH)?;
        }
        Ok(self.write_copied(batch.frames, frames, chain)?)
    }

    fn write_copied(&mut self, bytes: &[u8], frames: u64, chain: ChainHash) -> Result<(), AppendError> {
        self.check_own()?;
        let length = u32::try_from(bytes.len()).ok().and_then(|length| self.end.checked_add(length));
        let end = length.ok_or_else(|| AppendError::NotWritten(io::ErrorKind::FileTooLarge.into()))?;
        if let Err(error) = self.file.write_all_at(bytes, u64::from(self.end)) {
            return match self.file.set_len(u64::from(self.end)) {
                Ok(()) => Err(AppendError::NotWritten(error)),
                Err(_) => Err(AppendError::Unknown(error)),
            };
        }
        (self.end, self.sequence, self.chain) = (end, self.sequence + frames, chain);
        if let Some(place) = &mut self.place {
            place.note(self.sequence - 1, false);
        }
        Ok(())
    }
}
