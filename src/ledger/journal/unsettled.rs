//! The end of the newest file as the process before left it, and what a start makes of it.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{error::JournalError, frame::FrameError, position::Position, segment};
use crate::durable;

/// The end of the newest file as the process before left it.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// The last whole write, and where it begins.
    pub(super) last_write: (u32, Vec<u8>),
    /// Unreadable bytes after the end.
    pub(super) torn: Option<Torn>,
    /// A file without a whole header, which a crash left after the newest.
    pub(super) headless: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Torn {
    pub(super) what: FrameError,
    pub(super) bytes: u64,
}

/// The newest file, and the end that was found in it.
pub(super) struct Newest<'a> {
    pub(super) folder: &'a Path,
    pub(super) file: &'a File,
    pub(super) segment: u32,
    pub(super) end: u32,
}

impl Newest<'_> {
    fn path(&self) -> PathBuf {
        segment::path(self.folder, self.segment)
    }

    /// Nothing that is known to have been durable may lie after what is there.
    pub(super) fn check_not_cut(&self, unsettled: Option<&Unsettled>, known: Position) -> Result<(), JournalError> {
        let bytes = unsettled.and_then(|unsettled| Some(unsettled.torn.as_ref()?.bytes)).unwrap_or(0);
        let file_end = Position::new(self.segment, self.end.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX)));
        if known <= file_end {
            return Ok(());
        }
        Err(JournalError::lost(
            self.folder,
            format!(
                "the index knows it up to byte {} of file {:08}.journal, and it ends at byte {} of file {:08}.journal",
                known.offset(),
                known.segment(),
                file_end.offset(),
                file_end.segment()
            ),
        ))
    }

    /// Cuts off what a crash left torn, and puts what is whole on stable storage.
    pub(super) fn settle(&self, unsettled: &Unsettled, known: Option<Position>) -> Result<(), JournalError> {
        let path = self.path();
        let Unsettled { last_write: (start, last_write), torn, headless } = unsettled;
        if let Some(Torn { what, bytes }) = torn {
            // The bytes are there, and wrong.
            if let Some(known) = known.filter(|known| Position::new(self.segment, self.end) < *known) {
                let what = format!(
                    "{what}; this is not what a crash leaves of its last write, because the index knows the file to have been whole \
                     up to byte {} (to abandon what is unreadable, move the index away)",
                    known.offset()
                );
                return Err(JournalError::damaged(&path, self.end.into(), what));
            }
            tracing::warn!(
                file = %path.display(), at = self.end, bytes, %what,
                "cut off the incomplete last entry of the journal: a crash interrupted its last write"
            );
        }
        if let Some(path) = headless {
            // No longer than a header, so it never held an entry, and nothing knows of one after the file before it.
            tracing::warn!(file = %path.display(), "removed a journal file that a crash left without its header");
            std::fs::remove_file(path).map_err(|error| JournalError::io(path, error))?;
        }
        let settle = || -> io::Result<()> {
            self.file.set_len(self.end.into())?;
            self.file.write_all_at(last_write, u64::from(*start))?;
            self.file.sync_all()?;
            // A crash may have come between a new file and the sync of its name.
            durable::sync_folder(self.folder)
        };
        settle().map_err(|error| JournalError::io(&path, error))
    }
}
