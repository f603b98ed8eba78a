//! JSON lines, from a file or from a program that still writes.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

use birthmark_base::{
    quote::shortened,
    text_file::{self, EncodingError},
};
use serde::Deserialize;

use super::decode::LONGEST_TEXT;

/// A line that is longer has no end, such as `/dev/zero`.
const ENDLESS: usize = 64 << 20;

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
    /// In place of the run's.
    #[serde(default)]
    pub(super) reissue: Option<bool>,
}

/// What is wrong with a line; the message goes on after "line 7".
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("is longer than {LONGEST_TEXT} bytes")]
    TooLong,
    #[error("is cut off: the input ends within it")]
    CutOff,
    #[error("cannot be read: {0}")]
    Encoding(EncodingError),
    #[error(
        "is not of the form {{\"device_id\": \"…\", \"csr\": \"…\"}}, with \"order\", \"profile\" and \
         \"reissue\" where they differ: {}", shortened(&.0.to_string())
    )]
    Form(serde_json::Error),
}

impl Line {
    pub(super) fn parse(line: &Octets) -> Result<Self, LineError> {
        if line.octets.len() > LONGEST_TEXT {
            return Err(LineError::TooLong);
        }
        if line.within_character {
            return Err(LineError::CutOff);
        }
        let text = text_file::decode(&line.octets).map_err(|error| {
            let within_character = std::str::from_utf8(&line.octets).is_err_and(|error| error.error_len().is_none());
            if line.unended && within_character { LineError::CutOff } else { LineError::Encoding(error) }
        })?;
        serde_json::from_str(&text).map_err(|error| match error.is_eof() && line.unended {
            true => LineError::CutOff,
            false => LineError::Form(error),
        })
    }
}

/// The octets of a line in UTF-8, without its end; of one that is too long only the beginning, still too long to be taken
/// for whole.
#[derive(Debug, Default)]
pub(super) struct Octets {
    octets: Vec<u8>,
    /// The input ended, and not this line.
    unended: bool,
    /// The input ended within a character of it.
    within_character: bool,
}

impl Octets {
    /// Whether there is nothing on the line.
    pub(super) fn is_blank(&self) -> bool {
        !self.within_character && self.octets.iter().all(u8::is_ascii_whitespace)
    }
}

/// The lines of an input in UTF-8 or, with a byte order mark, UTF-16. A line ends with LF, CRLF or CR alone: within JSON
/// none of them can stand unescaped in a text.
pub(super) struct Lines<R> {
    input: Encoded<R>,
    /// A CR ended the line before. Whether an LF follows is found out with the next line: a program that still writes may
    /// wait for the answer to this one.
    after_cr: bool,
}

enum Encoded<R> {
    Utf8(BufReader<R>),
    Utf16(BufReader<Utf16<R>>),
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> io::Result<Self> {
        let mut input = BufReader::new(input);
        // The first byte of both marks is in no UTF-8; one read returns what is there.
        let little = match input.fill_buf()? {
            [0xff, ..] => Some(true),
            [0xfe, ..] => Some(false),
            _ => None,
        };
        let input = match little {
            None => Encoded::Utf8(input),
            Some(little) => {
                let decoded = Utf16 { input, little, unread: Vec::new(), high: None, cut: false };
                Encoded::Utf16(BufReader::new(decoded))
            }
        };
        Ok(Lines { input, after_cr: false })
    }

    /// The next line; none at the end of the input.
    pub(super) fn next(&mut self) -> io::Result<Option<Octets>> {
        let mut line = Octets::default();
        let mut length = 0;
        loop {
            let (available, cut) = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                line.unended = true;
                line.within_character = cut && self.input.take_cut();
                return Ok((length > 0 || line.within_character).then_some(line));
            }
            if std::mem::take(&mut self.after_cr) && available.first() == Some(&b'\n') {
                self.input.consume(1);
                continue;
            }
            let end = available.iter().position(|octet| matches!(octet, b'\n' | b'\r'));
            let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            let room = (LONGEST_TEXT + 1).saturating_sub(line.octets.len());
            line.octets.extend_from_slice(part.get(..room).unwrap_or(part));
            length += part.len();
            let read = part.len() + usize::from(end.is_some());
            let after_cr = end.is_some_and(|end| available.get(end) == Some(&b'\r'));
            self.input.consume(read);
            if end.is_some() {
                self.after_cr = after_cr;
                return Ok(Some(line));
            }
            if length >= ENDLESS {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line has no end"));
            }
        }
    }
}

impl<R: Read> Encoded<R> {
    /// What is there, and whether the input was cut within a character.
    fn fill_buf(&mut self) -> io::Result<(&[u8], bool)> {
        match self {
            Encoded::Utf8(input) => Ok((input.fill_buf()?, false)),
            Encoded::Utf16(input) => {
                let cut = input.fill_buf()?.is_empty() && input.get_ref().cut;
                Ok((input.buffer(), cut))
            }
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Encoded::Utf8(input) => input.consume(count),
            Encoded::Utf16(input) => input.consume(count),
        }
    }

    /// Whether the input was cut within a character and that was not reported yet.
    fn take_cut(&mut self) -> bool {
        match self {
            Encoded::Utf8(_) => false,
            Encoded::Utf16(input) => std::mem::take(&mut input.get_mut().cut),
        }
    }
}

/// How many lines a file has; none if that cannot be told without reading away what is in it, or without an end.
pub(super) fn count(file: File) -> io::Result<Option<u64>> {
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut count = 0;
    let mut lines = Lines::new(file)?;
    loop {
        match lines.next() {
            Ok(Some(_)) => count += 1,
            Ok(None) => return Ok(Some(count)),
            // Those before it are signed first.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// UTF-16 as UTF-8, as it comes. What is not UTF-16 becomes U+FFFD, which is part of no id and no CSR.
struct Utf16<R> {
    input: BufReader<R>,
    little: bool,
    /// UTF-8 that was not read yet.
    unread: Vec<u8>,
    /// The first half of a character.
    high: Option<u16>,
    /// The input ended within a character.
    cut: bool,
}

impl<R: Read> Utf16<R> {
    /// The next code unit; none at the end, also if only half of one is left.
    fn unit(&mut self) -> io::Result<Option<u16>> {
        let mut pair = [0; 2];
        let mut length = 0;
        while let Some(rest) = pair.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => {
                    let half = self.high.take().is_some();
                    self.cut = half || length > 0;
                    return Ok(None);
                }
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(if self.little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }))
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() {
            let Some(unit) = self.unit()? else { return Ok(0) };
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
    use super::*;

    fn lines_of(octets: Vec<u8>) -> Vec<String> {
        let mut input = Lines::new(io::Cursor::new(octets)).unwrap();
        let lines = std::iter::from_fn(|| input.next().unwrap());
        let told = |line| Line::parse(&line).map_or_else(|error| error.to_string(), |line| line.device_id);
        lines.map(told).collect()
    }

    fn parsed(line: &[u8]) -> Result<Line, LineError> {
        Line::parse(&Octets { octets: line.to_vec(), ..Octets::default() })
    }

    /// The good lines are taken, and the rest is named as cut, whatever the encoding and wherever the cut is.
    #[test]
    fn input_cut_within_a_line_keeps_the_lines_before() {
        let [one, two] = ["a", "é😀"].map(|id| format!("{{\"device_id\": \"{id}\", \"csr\": \"\"}}\n"));
        let utf8 = |text: &str| text.as_bytes().to_vec();
        let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        for encode in [&utf8 as &dyn Fn(&str) -> Vec<u8>, &little, &big] {
            let first = encode(&["\u{feff}", &one].concat());
            let octets = [first.clone(), encode(&two)].concat();
            let end = octets.len() - encode("\n").len();
            for length in first.len() + 1..end {
                let found = lines_of(octets[..length].to_vec());
                assert_eq!(found.len(), 2, "{length} of {}: {found:?}", octets.len());
                assert!(found[0] == "a" && found[1].contains("cut off"), "{length} of {}: {found:?}", octets.len());
            }
            assert_eq!(lines_of(octets[..end].to_vec()), ["a", "é😀"]);
            assert_eq!(lines_of(octets), ["a", "é😀"]);
        }
    }

    /// A cut in the last line end is named too, and hides nothing.
    #[test]
    fn input_cut_within_a_line_end_is_named() {
        let text: Vec<u8> =
            "\u{feff}{\"device_id\": \"a\", \"csr\": \"\"}\n\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let found = lines_of(text[..text.len() - 1].to_vec());
        assert_eq!(found.len(), 2);
        assert!(found[0] == "a" && found[1].contains("cut off"), "{found:?}");
    }

    /// LF, CRLF and CR alone; what follows a CR is not waited for.
    #[test]
    fn line_ends_of_every_system_end_a_line() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["a", "b"].map(|id| format!("{{\"device_id\": \"{id}\", \"csr\": \"\"}}{end}")).concat();
            let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
            for octets in [text.into_bytes(), utf16] {
                assert_eq!(lines_of(octets.clone()), ["a", "b"], "{end:?}");
                // However little comes at a time.
                let mut slow = Lines::new(OneByOne(octets.into())).unwrap();
                assert_eq!(std::iter::from_fn(|| slow.next().unwrap()).count(), 2, "{end:?}");
            }
        }
        let mut open = Lines::new(io::Cursor::new(b"{}\r").chain(Unreadable)).unwrap();
        assert!(open.next().unwrap().is_some());
    }

    struct OneByOne(std::collections::VecDeque<u8>);

    impl Read for OneByOne {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let (Some(octet), Some(place)) = (self.0.pop_front(), buffer.first_mut()) else { return Ok(0) };
            *place = octet;
            Ok(1)
        }
    }

    /// In place of a program that has not written more yet.
    struct Unreadable;

    impl Read for Unreadable {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
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
        assert!(parsed(&unmarked).unwrap_err().to_string().contains("UTF-16"));
        let unknown = parsed(b"{\"device_id\": \"a\", \"csr\": \"\", \"ordr\": \"o\"}").unwrap_err().to_string();
        assert!(unknown.contains("ordr"), "{unknown}");
        let long = format!("{{\"device_id\": \"a\", \"csr\": \"\", \"{}\": 1}}", "x".repeat(60_000));
        assert!(parsed(long.as_bytes()).unwrap_err().to_string().len() < 600);
        let own = parsed(b"{\"device_id\": \"a\", \"csr\": \"\", \"order\": \"o2\", \"profile\": \"p2\"}").unwrap();
        assert_eq!((own.order.as_deref(), own.profile.as_deref()), (Some("o2"), Some("p2")));
    }

    #[test]
    fn endless_line_ends_the_reading() {
        let mut endless = Lines::new(io::repeat(0)).unwrap();
        assert!(endless.next().is_err());
    }
}
