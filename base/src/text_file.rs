//! Text that people and other programs write: PEM, PINs, lists, JSON lines. The one place that knows byte order marks,
//! UTF-16 (as PowerShell's `>` and Excel write it) and endless files.

use std::{
    borrow::Cow,
    fs::{File, FileType, OpenOptions},
    io::{self, Read},
    path::Path,
};

use zeroize::Zeroizing;

/// Bounds a file of certificates, a configuration or a block list, in bytes.
pub const LONGEST: u64 = 64 << 20;

/// Why a file cannot be taken for text. The messages do not name the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The system could not read it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is a folder, pipe, socket or device where a file is required.
    #[error("it is not a file but a {0}")]
    NotAFile(&'static str),
    /// It is longer than such a file can be; it may be endless, as `/dev/zero`.
    #[error("it is longer than {0} bytes")]
    TooLong(u64),
    /// It is neither UTF-8 nor UTF-16 with a byte order mark.
    #[error("{0}")]
    Encoding(#[from] EncodingError),
}

/// Why octets are not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodingError {
    /// Two octets a character without a byte order mark.
    #[error("it looks like UTF-16 text without a byte order mark; save it as UTF-8 or ASCII")]
    Utf16Unmarked,
    /// It has a byte order mark of UTF-16, and is not UTF-16.
    #[error("its byte order mark says UTF-16, but it is not valid UTF-16; save it as UTF-8 or ASCII")]
    Utf16Invalid,
    /// An octet that UTF-8 does not have there.
    #[error("it is not UTF-8 text: octet {at} is wrong")]
    Utf8Invalid {
        /// Counted from 0.
        at: usize,
    },
}

/// The text in `octets`, UTF-8 or UTF-16 with a byte order mark; the mark itself is left out.
///
/// # Errors
/// See [`EncodingError`].
pub fn decode(octets: &[u8]) -> Result<Cow<'_, str>, EncodingError> {
    let utf16 = |rest: &[u8], read: fn([u8; 2]) -> u16| {
        let (pairs, odd) = rest.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(EncodingError::Utf16Invalid);
        }
        // It may be a secret: a buffer that grows would leave copies of it behind, and so would one that is abandoned.
        let mut text = Zeroizing::new(String::with_capacity(3 * pairs.len()));
        for character in char::decode_utf16(pairs.iter().map(|pair| read(*pair))) {
            text.push(character.map_err(|_| EncodingError::Utf16Invalid)?);
        }
        Ok(std::mem::take(&mut *text))
    };
    match octets {
        [0xff, 0xfe, rest @ ..] => return utf16(rest, u16::from_le_bytes).map(Cow::Owned),
        [0xfe, 0xff, rest @ ..] => return utf16(rest, u16::from_be_bytes).map(Cow::Owned),
        // ASCII in UTF-16 has a NUL beside each of its first characters; no text file begins so.
        [0, first, 0, _, ..] | [first, 0, _, 0, ..] if *first != 0 => return Err(EncodingError::Utf16Unmarked),
        _ => {}
    }
    let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
    std::str::from_utf8(octets)
        .map(Cow::Borrowed)
        .map_err(|error| EncodingError::Utf8Invalid { at: error.valid_up_to() })
}

/// The lines of a text, whatever ends them: LF, CRLF, CR alone (old Macs, some terminals) or Unicode's own separators. A
/// comment must not extend over what its writer saw as a line end.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        line.split(['\r', '\u{85}', '\u{2028}', '\u{2029}'])
    })
}

/// Reads a whole file as text. A pipe that somebody names is read too; nothing is read beyond `longest` bytes.
///
/// # Errors
/// See [`TextError`].
pub fn read(path: &Path, longest: u64) -> Result<String, TextError> {
    let octets = read_octets(File::open(path)?, longest)?;
    Ok(decode(&octets)?.into_owned())
}

/// Opens what must be a regular file, as found in a folder that others write to: a pipe there does not block the reader.
///
/// # Errors
/// See [`TextError`].
pub fn open_regular(path: &Path) -> Result<File, TextError> {
    let file = open_at_once(path)?;
    match kind_of(&file)? {
        None => Ok(file),
        Some(other) => Err(TextError::NotAFile(other)),
    }
}

/// Opens a file for reading, and does not wait for whoever writes into a pipe.
///
/// # Errors
/// Any I/O error.
#[cfg(unix)]
pub(crate) fn open_at_once(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path)
}

/// As on Unix; Windows has its pipes elsewhere than in folders.
#[cfg(not(unix))]
pub(crate) fn open_at_once(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

/// Reads at most `longest` bytes.
///
/// # Errors
/// See [`TextError`].
pub fn read_octets(file: File, longest: u64) -> Result<Vec<u8>, TextError> {
    let mut octets = Vec::new();
    file.take(longest.saturating_add(1)).read_to_end(&mut octets)?;
    if octets.len() as u64 > longest { Err(TextError::TooLong(longest)) } else { Ok(octets) }
}

/// What a file is called that is not a regular one.
fn kind_of(file: &File) -> io::Result<Option<&'static str>> {
    let kind = file.metadata()?.file_type();
    Ok(match kind {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("folder"),
        kind => Some(kind_of_special(kind)),
    })
}

#[cfg(unix)]
fn kind_of_special(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        kind if kind.is_fifo() => "pipe",
        kind if kind.is_socket() => "socket",
        _ => "device",
    }
}

#[cfg(not(unix))]
fn kind_of_special(_: FileType) -> &'static str {
    "device"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_any_byte_order_mark_is_read() {
        let (little, big): (Vec<u8>, Vec<u8>) = (
            "\u{feff}1234é".encode_utf16().flat_map(u16::to_le_bytes).collect(),
            "\u{feff}1234é".encode_utf16().flat_map(u16::to_be_bytes).collect(),
        );
        for octets in ["1234é".as_bytes(), "\u{feff}1234é".as_bytes(), &little, &big] {
            assert_eq!(decode(octets).unwrap(), "1234é");
        }
    }

    #[test]
    fn text_in_an_unknown_encoding_is_refused_by_name() {
        let unmarked: Vec<u8> = "1234".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(decode(&unmarked), Err(EncodingError::Utf16Unmarked));
        let unmarked: Vec<u8> = "1234".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(decode(&unmarked), Err(EncodingError::Utf16Unmarked));
        assert_eq!(decode(b"\xff\xfe1"), Err(EncodingError::Utf16Invalid));
        assert_eq!(decode(b"\xff\xfe\x00\xd8"), Err(EncodingError::Utf16Invalid));
        assert_eq!(decode(b"12\xff"), Err(EncodingError::Utf8Invalid { at: 2 }));
    }

    #[test]
    fn line_ends_of_every_system_end_a_line() {
        for text in ["# a\nb\n", "# a\r\nb\r\n", "# a\rb\r", "# a\u{2028}b\u{2028}", "# a\u{85}b"] {
            let found: Vec<_> = lines(text).filter(|line| !line.is_empty()).collect();
            assert_eq!(found, ["# a", "b"], "{text:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn endless_file_is_refused() {
        assert!(matches!(read(Path::new("/dev/zero"), 1000), Err(TextError::TooLong(1000))));
    }

    #[cfg(unix)]
    #[test]
    fn pipe_in_a_folder_blocks_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("x.csr");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(open_regular(&pipe), Err(TextError::NotAFile("pipe"))));
        assert!(matches!(open_regular(folder.path()), Err(TextError::NotAFile("folder"))));
    }
}
