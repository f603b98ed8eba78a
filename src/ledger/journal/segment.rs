//! Journal files: their names, headers and order. The parent module has the table.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    error::{BROKEN_CHAIN, JournalError},
    file::{folder_error, read_up_to, read_whole},
    frame::{Frame, HEAD, MAX_PAYLOAD},
    position::FIRST_HEADER,
};
use crate::{durable, ledger::head::ChainHash};

const MAGIC: &[u8; 8] = b"BMJOURNL";
/// Of the first file, and of all files that birthmark 0.1 wrote.
const WITHOUT_LENGTH: u32 = 1;
const VERSION: u32 = 2;

/// The header of a file.
pub(super) struct Header {
    pub(super) id: [u8; 16],
    pub(super) first_sequence: u64,
    /// The chain hash before the first frame.
    pub(super) chain: ChainHash,
    /// The length of the file before, in bytes; none in version 1.
    pub(super) length_before: Option<u64>,
}

impl Header {
    /// Of the first file, in bytes.
    pub(super) const FIRST_LENGTH: u32 = FIRST_HEADER;
    /// Of every other file that this version writes, in bytes.
    pub(super) const LENGTH: u32 = 80;

    /// Where the file's first frame begins, in bytes.
    pub(super) fn length(&self) -> u32 {
        if self.length_before.is_some() { Self::LENGTH } else { Self::FIRST_LENGTH }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length() as usize];
        let version = if self.length_before.is_some() { VERSION } else { WITHOUT_LENGTH };
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.id);
        bytes[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.chain);
        if let Some(length) = self.length_before {
            bytes[72..80].copy_from_slice(&length.to_le_bytes());
        }
        let sum = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads and checks a file's header.
    pub(super) fn read(file: &File, path: &Path) -> Result<Header, JournalError> {
        let mut bytes = [0; Self::LENGTH as usize];
        let read = read_up_to(file, &mut bytes, 0).map_err(|error| JournalError::io(path, error))?;
        let ends_early = || JournalError::damaged(path, 0, "the file ends within its header");
        if read < Self::FIRST_LENGTH as usize {
            return Err(ends_early());
        }
        if &bytes[0..8] != MAGIC {
            return Err(JournalError::damaged(path, 0, "it does not begin as a journal file does"));
        }
        let field = |at: usize| bytes[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let length = match field(8) {
            WITHOUT_LENGTH => Self::FIRST_LENGTH,
            VERSION => Self::LENGTH,
            _ => 0,
        };
        if length == 0 {
            return Err(JournalError::NewerVersion {
                path: path.display().to_string(),
                found: field(8),
                known: VERSION,
            });
        }
        if read < length as usize {
            return Err(ends_early());
        }
        if field(12) != crc32c::crc32c(&bytes[16..length as usize]) {
            return Err(JournalError::damaged(path, 0, "the header's checksum does not fit"));
        }
        let mut header = Header { id: [0; 16], first_sequence: 0, chain: [0; 32], length_before: None };
        header.id.copy_from_slice(&bytes[16..32]);
        header.first_sequence = bytes[32..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        header.chain.copy_from_slice(&bytes[40..72]);
        if length == Self::LENGTH {
            header.length_before = bytes[72..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        }
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

/// A file whose header is not whole, and that holds nothing else.
pub(super) struct Headless {
    pub(super) path: PathBuf,
    /// Its length.
    pub(super) bytes: u64,
    pub(super) what: String,
}

/// The newest file, if it is as a crash leaves one that was just begun: no longer than a header, the header not whole,
/// and its number the one after that of the file before. Where a number is missing something else happened to the
/// folder, and [`check_sequence`] refuses it.
pub(super) fn headless_newest(folder: &Path, segments: &[u32]) -> Result<Option<Headless>, JournalError> {
    let Some(&newest) = segments.last() else { return Ok(None) };
    if segments.iter().zip(1..).any(|(segment, expected)| *segment != expected) {
        return Ok(None);
    }
    let path = path(folder, newest);
    let file = File::open(&path).map_err(|error| JournalError::io(&path, error))?;
    let bytes = file.metadata().map_err(|error| JournalError::io(&path, error))?.len();
    Ok(match Header::read(&file, &path) {
        Err(JournalError::Damaged { what, .. }) if bytes <= u64::from(Header::LENGTH) => {
            Some(Headless { path, bytes, what })
        }
        _ => None,
    })
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

/// Checks that each file continues where the one before it ends: in sequence, chain hash and length, from the headers
/// and the last frame of each file. Costs some microseconds a file; what lies between is seen when it is read.
pub(super) fn check_ends(folder: &Path, segments: &[u32]) -> Result<(), JournalError> {
    let mut before: Option<(PathBuf, File, Header)> = None;
    for &segment in segments {
        let path = path(folder, segment);
        let file = File::open(&path).map_err(|error| JournalError::io(&path, error))?;
        let header = Header::read(&file, &path)?;
        match &before {
            None if header.first_sequence != 1 || header.chain != [0; 32] => {
                return Err(JournalError::damaged(&path, 0, "it is not the first file of a journal"));
            }
            None => {}
            Some((path_before, file_before, header_before)) => {
                if let Some(what) = discontinuity(path_before, file_before, header_before, &header)? {
                    return Err(locate(path_before, file_before, header_before, &path, &header, &what));
                }
            }
        }
        before = Some((path, file, header));
    }
    Ok(())
}

/// Why a file is not the one that the next one continues, as far as its length and its last frame tell.
fn discontinuity(path: &Path, file: &File, header: &Header, next: &Header) -> Result<Option<String>, JournalError> {
    let io = |error| JournalError::io(path, error);
    let length = file.metadata().map_err(io)?.len();
    if next.first_sequence <= header.first_sequence {
        return Ok(Some(format!(
            "its first entry is number {}, that of the file after it number {}",
            header.first_sequence, next.first_sequence
        )));
    }
    if let Some(expected) = next.length_before.filter(|expected| *expected != length) {
        return Ok(Some(format!("it has {length} bytes, and had {expected} when the file after it was begun")));
    }
    if !ends_with(file, length, &next.chain).map_err(io)? {
        return Ok(Some("its last entry is not the one that the file after it continues".into()));
    }
    Ok(None)
}

/// Whether the last frame of a file is whole, ends with the file and has this chain hash.
fn ends_with(file: &File, length: u64, chain: &ChainHash) -> io::Result<bool> {
    // Where the frame begins is not known, but its chain hash is, and stands near its beginning. Most frames are short.
    for window in [4 << 10, 64 << 10, HEAD + MAX_PAYLOAD] {
        let start = length.saturating_sub(window as u64);
        let mut bytes = vec![0; (length - start) as usize];
        let read = read_up_to(file, &mut bytes, start)?;
        bytes.truncate(read);
        for at in (0..bytes.len().saturating_sub(HEAD)).rev() {
            let head_chain = bytes.get(at + 12..at + HEAD);
            if head_chain == Some(chain.as_slice())
                && Frame::parse(&bytes[at..]).is_ok_and(|frame| at + frame.length() == bytes.len())
            {
                return Ok(true);
            }
        }
        if start == 0 {
            break;
        }
    }
    Ok(false)
}

/// Finds the first byte of a file that is wrong, once it is known that one is.
fn locate(path: &Path, file: &File, header: &Header, next_path: &Path, next: &Header, what: &str) -> JournalError {
    let content = match read_whole(file, path) {
        Ok(content) => content,
        Err(error) => return error,
    };
    let (mut at, mut chain, mut sequence) = (header.length() as usize, header.chain, header.first_sequence);
    while at < content.len() {
        let wrong = match Frame::parse(&content[at..]) {
            Ok(frame) if frame.follows(&chain) => {
                (chain, sequence) = (frame.chain, sequence + 1);
                at += frame.length();
                continue;
            }
            Ok(_) => BROKEN_CHAIN.to_owned(),
            Err(error) => error.to_string(),
        };
        return JournalError::damaged(path, at as u64, format!("{wrong} ({what})"));
    }
    // Whole in itself: it was cut between two entries, or one of both is another file.
    let what = format!(
        "{} ends at byte {at} after entry {}, and this one begins with entry {} ({what})",
        path.display(),
        sequence - 1,
        next.first_sequence
    );
    JournalError::Gap { path: next_path.display().to_string(), what }
}

/// Begins a file; what is written to it lasts only after [`sync_new`].
///
/// An attempt that failed (no space) or a crash may have left the name, with a part of a header: that is overwritten. A
/// file that is longer than a header is never touched.
pub(super) fn create(folder: &Path, segment: u32, header: &Header) -> Result<File, JournalError> {
    create_with(folder, segment, &header.encode())
}

/// As [`create`], with the bytes of the header.
pub(super) fn create_with(folder: &Path, segment: u32, header: &[u8]) -> Result<File, JournalError> {
    let path = path(folder, segment);
    let begin = || -> io::Result<File> {
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        if file.metadata()?.len() > u64::from(Header::LENGTH) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, IN_THE_WAY));
        }
        file.set_len(0)?;
        file.write_all_at(header, 0)?;
        Ok(file)
    };
    begin().map_err(|error| JournalError::io(&path, error))
}

const IN_THE_WAY: &str = "a file of this name is there and holds entries; move it elsewhere";

/// Puts a file that was begun, and its name, on stable storage.
pub(super) fn sync_new(file: &File, folder: &Path) -> io::Result<()> {
    file.sync_all()?;
    durable::sync_folder(folder)
}
