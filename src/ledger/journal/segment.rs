//! Journal files: their names, headers and order. The parent module has the table.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{ChainHash, JournalError, durable, folder_error, read_up_to};

const MAGIC: &[u8; 8] = b"BMJOURNL";
const VERSION: u32 = 1;

/// What a file says of itself.
pub(super) struct Header {
    pub(super) id: [u8; 16],
    pub(super) first_sequence: u64,
    /// The chain hash before the first frame.
    pub(super) chain: ChainHash,
}

impl Header {
    pub(super) const LENGTH: u32 = 72;

    fn encode(&self) -> [u8; Self::LENGTH as usize] {
        let mut bytes = [0; Self::LENGTH as usize];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.id);
        bytes[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.chain);
        let sum = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads and checks a file's header.
    pub(super) fn read(file: &File, path: &Path) -> Result<Header, JournalError> {
        let mut bytes = [0; Self::LENGTH as usize];
        let length = read_up_to(file, &mut bytes, 0).map_err(|error| JournalError::io(path, error))?;
        if length < bytes.len() {
            return Err(JournalError::damaged(path, 0, "the file ends within its header"));
        }
        if &bytes[0..8] != MAGIC {
            return Err(JournalError::damaged(path, 0, "it does not begin as a journal file does"));
        }
        let field = |at: usize| bytes[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if field(8) != VERSION {
            return Err(JournalError::NewerVersion {
                path: path.display().to_string(),
                found: field(8),
                known: VERSION,
            });
        }
        if field(12) != crc32c::crc32c(&bytes[16..]) {
            return Err(JournalError::damaged(path, 0, "the header's checksum does not fit"));
        }
        let mut header = Header { id: [0; 16], first_sequence: 0, chain: [0; 32] };
        header.id.copy_from_slice(&bytes[16..32]);
        header.first_sequence = bytes[32..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        header.chain.copy_from_slice(&bytes[40..72]);
        Ok(header)
    }
}

/// The file with this number.
pub(super) fn path(folder: &Path, segment: u32) -> PathBuf {
    folder.join(format!("{segment:08}.journal"))
}

/// The numbers of the files in the folder, ascending.
pub(super) fn list(folder: &Path) -> Result<Vec<u32>, JournalError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder).map_err(folder_error(folder))? {
        let name = entry.map_err(folder_error(folder))?.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.strip_suffix(".journal")) {
            let number = number.parse().map_err(|_| {
                JournalError::damaged(&folder.join(&name), 0, "no journal file has such a name; move it elsewhere")
            })?;
            segments.push(number);
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// A crash while a file is begun leaves it without a whole header; it holds nothing and goes.
pub(super) fn drop_torn_newest(folder: &Path, segments: &mut Vec<u32>) -> Result<(), JournalError> {
    let Some(&newest) = segments.last() else { return Ok(()) };
    let path = path(folder, newest);
    let length = fs::metadata(&path).map_err(|error| JournalError::io(&path, error))?.len();
    let file = File::open(&path).map_err(|error| JournalError::io(&path, error))?;
    let torn =
        length <= u64::from(Header::LENGTH) && matches!(Header::read(&file, &path), Err(JournalError::Damaged { .. }));
    if torn {
        tracing::warn!(file = %path.display(), "removed a journal file that a crash left without its header");
        fs::remove_file(&path)
            .and_then(|()| durable::sync_folder(folder))
            .map_err(|error| JournalError::io(&path, error))?;
        segments.pop();
    }
    Ok(())
}

/// Checks that no file is missing between the first and the newest. That each continues the hash chain of the one
/// before is seen when they are read.
pub(super) fn check_sequence(folder: &Path, segments: &[u32]) -> Result<(), JournalError> {
    let mut id = None;
    for (index, &segment) in segments.iter().enumerate() {
        let expected = index as u32 + 1;
        let path = path(folder, segment);
        if segment != expected {
            let what = format!("file {expected:08}.journal is missing");
            return Err(JournalError::Gap { path: path.display().to_string(), what });
        }
        let file = File::open(&path).map_err(|error| JournalError::io(&path, error))?;
        let header = Header::read(&file, &path)?;
        if *id.get_or_insert(header.id) != header.id {
            let what = "it belongs to another ledger".to_owned();
            return Err(JournalError::Gap { path: path.display().to_string(), what });
        }
    }
    Ok(())
}

/// Begins a file; what is written to it lasts only after [`sync_new`].
pub(super) fn create(folder: &Path, segment: u32, header: &Header) -> Result<File, JournalError> {
    let path = path(folder, segment);
    let begin = || -> io::Result<File> {
        // A try that failed before, for want of space, may have left the name behind.
        let file = File::options().read(true).write(true).create(true).truncate(true).mode(0o640).open(&path)?;
        file.write_all_at(&header.encode(), 0)?;
        Ok(file)
    };
    begin().map_err(|error| JournalError::io(&path, error))
}

/// Puts a file that was begun, and its name, on stable storage.
pub(super) fn sync_new(file: &File, folder: &Path) -> io::Result<()> {
    file.sync_all()?;
    durable::sync_folder(folder)
}

/// The whole content of a file.
pub(super) fn read_whole(file: &File, path: &Path) -> Result<Vec<u8>, JournalError> {
    let read = || -> io::Result<Vec<u8>> {
        let length = file.metadata()?.len();
        let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut content = vec![0; length];
        let read = read_up_to(file, &mut content, 0)?;
        content.truncate(read);
        Ok(content)
    };
    read().map_err(|error| JournalError::io(path, error))
}
