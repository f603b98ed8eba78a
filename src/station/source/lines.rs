//! JSON lines, from a file or from a program that still writes.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

use serde::Deserialize;

use super::LONGEST_TEXT;
use crate::text_file;

/// A line that is longer has no end, such as `/dev/zero`.
const ENDLESS: u64 = 64 << 20;

/// A line for a device. Other keys are refused: what a line asks for is done, or said not to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) device_id: String,
    /// PEM, or base64 of DER.
    pub(super) csr: String,
    /// In place of the run's order.
    #[serde(default)]
    pub(super) order: Option<String>,
    /// In place of the run's profile.
    #[serde(default)]
    pub(super) profile: Option<String>,
}

impl Line {
    /// An error goes on after "line 7".
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        if line.len() > LONGEST_TEXT {
            return Err(format!("is longer than {LONGEST_TEXT} bytes"));
        }
        let text = text_file::decode(line).map_err(|error| format!("cannot be read: {error}"))?;
        serde_json::from_str(&text).map_err(|error| {
            format!(
                "is not of the form {{\"device_id\": \"…\", \"csr\": \"…\"}}, with \"order\" and \"profile\" where they \
                 differ: {}",
                crate::quote::shortened(&error.to_string())
            )
        })
    }
}

/// The lines of `input`, which may be UTF-8 or, with a byte order mark, UTF-16.
pub(super) fn reader(input: impl Read + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    let mut input = BufReader::new(input);
    // The first byte of both marks is in no UTF-8; one read returns what is there.
    let little = match input.fill_buf()? {
        [0xff, ..] => true,
        [0xfe, ..] => false,
        _ => return Ok(Box::new(input)),
    };
    Ok(Box::new(BufReader::new(Utf16 { input, little, unread: Vec::new(), high: None })))
}

/// How many lines a file has; none if that cannot be told without reading away what is in it.
pub(super) fn count(file: File) -> io::Result<Option<u64>> {
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut lines = 0;
    let mut file = reader(file)?;
    while file.skip_until(b'\n')? > 0 {
        lines += 1;
    }
    Ok(Some(lines))
}

/// The next line without its end; of one that is too long only the beginning, still too long to be taken for whole.
pub(super) fn next(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if input.by_ref().take(LONGEST_TEXT as u64 + 2).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > LONGEST_TEXT && input.by_ref().take(ENDLESS).skip_until(b'\n')? as u64 == ENDLESS {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line has no end"));
    }
    Ok(Some(line))
}

/// UTF-16 as UTF-8, as it comes. What is not UTF-16 becomes U+FFFD, which is part of no id and no CSR.
struct Utf16<R> {
    input: BufReader<R>,
    little: bool,
    /// UTF-8 that was not read yet.
    unread: Vec<u8>,
    /// The first half of a character.
    high: Option<u16>,
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() {
            let mut pair = [0; 2];
            match self.input.read(&mut pair[..1])? {
                0 => return Ok(0),
                _ => self.input.read_exact(&mut pair[1..])?,
            }
            let unit = if self.little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) };
            let units = self.high.take().into_iter().chain([unit]);
            let text: Vec<_> = char::decode_utf16(units).collect();
            if let [Err(half)] = &text[..]
                && (0xd800..0xdc00).contains(&half.unpaired_surrogate())
            {
                self.high = Some(unit);
                continue;
            }
            let text = text.into_iter().map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER));
            // The mark itself, which decoding the line leaves out.
            self.unread.extend(text.collect::<String>().bytes());
        }
        let length = self.unread.len().min(buffer.len());
        let (now, _) = self.unread.split_at(length);
        if let Some(buffer) = buffer.get_mut(..length) {
            buffer.copy_from_slice(now);
        }
        self.unread.drain(..length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn lines_of(octets: Vec<u8>) -> Vec<String> {
        let mut input = reader(io::Cursor::new(octets)).unwrap();
        let lines = std::iter::from_fn(|| next(&mut input).unwrap());
        lines.map(|line| Line::parse(line.trim_ascii()).map_or_else(|error| error, |line| line.device_id)).collect()
    }

    #[test]
    fn lines_with_any_byte_order_mark_are_read() {
        let text = "\u{feff}{\"device_id\": \"a\", \"csr\": \"\"}\r\n{\"device_id\": \"😀\", \"csr\": \"\"}";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for octets in [text.as_bytes().to_vec(), little, big, text.as_bytes()[3..].to_vec()] {
            assert_eq!(lines_of(octets), ["a", "😀"]);
        }
    }

    #[test]
    fn line_that_cannot_be_read_says_why() {
        let unmarked: Vec<u8> = "{\"device_id\": 1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(Line::parse(&unmarked).unwrap_err().contains("UTF-16"));
        let unknown = Line::parse(b"{\"device_id\": \"a\", \"csr\": \"\", \"ordr\": \"o\"}").unwrap_err();
        assert!(unknown.contains("ordr"), "{unknown}");
        let long = format!("{{\"device_id\": \"a\", \"csr\": \"\", \"{}\": 1}}", "x".repeat(60_000));
        assert!(Line::parse(long.as_bytes()).unwrap_err().len() < 600);
        let own =
            Line::parse(b"{\"device_id\": \"a\", \"csr\": \"\", \"order\": \"o2\", \"profile\": \"p2\"}").unwrap();
        assert_eq!((own.order.as_deref(), own.profile.as_deref()), (Some("o2"), Some("p2")));
    }

    #[test]
    fn endless_line_ends_the_reading() {
        let mut endless = BufReader::with_capacity(1 << 20, io::repeat(0));
        assert!(next(&mut endless).is_err());
    }
}
