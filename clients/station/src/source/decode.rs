//! From the content of a file or the text of a line to the DER of a CSR.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use birthmark_base::{
    csr::{self, MAX_LENGTH, MalformedCsr},
    text_file::{self, EncodingError},
};

/// The longest file or line that is read: the longest CSR as PEM, with whatever text some tools put before it.
pub(super) const LONGEST_TEXT: usize = 64 << 10;

/// Programs that copy files allocate their final length first; no CSR ends in this many NULs.
const NOT_COPIED_YET: [u8; 16] = [0; 16];

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

/// Why there is no CSR in a file or a JSON text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("the file is longer than {LONGEST_TEXT} bytes")]
    FileTooLong,
    #[error("the file is empty")]
    FileEmpty,
    #[error("the file ends before the CSR in it does, at {have} of {whole} bytes; is it still being written?")]
    Unfinished { have: usize, whole: usize },
    #[error("the file is no CSR: {0}")]
    Encoding(EncodingError),
    #[error("the file looks like JSON lines; name it .jsonl")]
    JsonLines,
    #[error("the CSR is neither PEM nor base64 of DER: {0}")]
    Base64(base64::DecodeError),
    #[error("{0}")]
    Pem(MalformedCsr),
    #[error("the CSR has {0} bytes; at most {MAX_LENGTH} are allowed")]
    CsrTooLong(usize),
}

/// The DER of the CSR in a file, which is PEM or DER.
pub(super) fn csr_of_file(content: &[u8]) -> Result<Vec<u8>, DecodeError> {
    if content.len() > LONGEST_TEXT {
        return Err(DecodeError::FileTooLong);
    }
    if content.is_empty() {
        return Err(DecodeError::FileEmpty);
    }
    match text_of(content).map_err(DecodeError::Encoding)? {
        Some(text) => csr_of_pem(&text),
        None => match der_length(content) {
            Some(whole) if whole > content.len() && content.first() == Some(&0x30) => {
                Err(DecodeError::Unfinished { have: content.len(), whole })
            }
            _ => within_limit(content.to_vec()),
        },
    }
}

/// The DER of the CSR in a JSON text, which is PEM or base64 of DER.
pub(super) fn csr_of_text(text: &str) -> Result<Vec<u8>, DecodeError> {
    if text.contains(BEGIN) {
        return csr_of_pem(text);
    }
    let compact: String = text.split_ascii_whitespace().collect();
    within_limit(BASE64_STANDARD.decode(compact).map_err(DecodeError::Base64)?)
}

/// Whether this is the beginning of a CSR that is still being written. Most tools make an empty file first.
pub(super) fn is_unfinished(content: &[u8]) -> bool {
    if content.len() < 4 || content.ends_with(&NOT_COPIED_YET) || content.iter().all(u8::is_ascii_whitespace) {
        return true;
    }
    match text_of(content) {
        Ok(Some(text)) => is_open_pem(&text),
        Ok(None) if content.first() == Some(&0x30) => der_length(content).is_none_or(|length| length > content.len()),
        // The text that OpenSSL puts before the PEM, or the beginning of the first line.
        Ok(None) => {
            let text = content.trim_ascii_start();
            let beginning = |of: &[u8]| text.iter().zip(of).all(|(one, other)| one == other);
            beginning(b"Certificate Request:") || (text.len() < BEGIN.len() && beginning(BEGIN.as_bytes()))
        }
        // UTF-16 that was cut within a character.
        Err(_) => !content.len().is_multiple_of(2),
    }
}

/// The content as text, if it is text: PEM, or anything in an encoding that DER cannot be taken for.
fn text_of(content: &[u8]) -> Result<Option<Cow<'_, str>>, EncodingError> {
    let marked = [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"].iter().any(|mark| content.starts_with(mark));
    match text_file::decode(content) {
        Ok(text) if marked || text.contains(BEGIN) || text.starts_with('{') => Ok(Some(text)),
        Err(EncodingError::Utf8Invalid { .. }) if contains_pem(content) => {
            // Text that some tools put before the PEM may be in any encoding.
            Ok(Some(String::from_utf8_lossy(content)))
        }
        Ok(_) | Err(EncodingError::Utf8Invalid { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn contains_pem(content: &[u8]) -> bool {
    content.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes())
}

/// Whether the last block of a PEM text has no end yet.
fn is_open_pem(text: &str) -> bool {
    match (text.rfind(BEGIN), text.rfind(END)) {
        (Some(begin), Some(end)) => {
            end < begin || !text.get(end + END.len()..).is_some_and(|tag| tag.contains("-----"))
        }
        (Some(_), None) => true,
        (None, _) => !text.starts_with('{'),
    }
}

fn csr_of_pem(text: &str) -> Result<Vec<u8>, DecodeError> {
    if text.trim_start().starts_with('{') {
        return Err(DecodeError::JsonLines);
    }
    csr::from_pem(text.as_bytes()).map_err(DecodeError::Pem).and_then(within_limit)
}

/// The length of the DER value at the beginning, header included; none if the header is not whole or not DER.
fn der_length(content: &[u8]) -> Option<usize> {
    let (_, [first, rest @ ..]) = content.split_first()? else { return None };
    match *first {
        short @ 0..=0x7f => Some(2 + usize::from(short)),
        long @ 0x81..=0x84 => {
            let octets = rest.get(..usize::from(long & 0x7f))?;
            let length = octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
            Some(2 + octets.len() + length)
        }
        0x80 | 0x85.. => Some(0),
    }
}

fn within_limit(csr: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
    match csr.len() {
        length if length > MAX_LENGTH => Err(DecodeError::CsrTooLong(length)),
        _ => Ok(csr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csr() -> (Vec<u8>, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        (csr.der().to_vec(), csr.pem().unwrap())
    }

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn csr_file_is_unfinished_until_its_last_byte() {
        let (der, pem) = csr();
        let marked = utf16(&format!("\u{feff}{pem}"));
        let text = format!("Certificate Request:\n    Data:\n{pem}");
        for whole in [&der, pem.as_bytes(), &marked, text.as_bytes()] {
            // The last line may be without its end.
            let needed = if *whole == der { whole.len() } else { whole.trim_ascii_end().len() - 4 };
            for cut in (1..needed).step_by(7) {
                assert!(is_unfinished(&whole[..cut]), "{cut} of {}: {:?}", whole.len(), &whole[..cut]);
            }
            assert!(!is_unfinished(whole));
            assert_eq!(csr_of_file(whole), Ok(der.clone()));
        }
        let mut reserved = der.clone();
        reserved[100..].fill(0);
        assert!(is_unfinished(&reserved) && is_unfinished(&[0; 500]) && is_unfinished(b"\r\n"));
        for garbage in [&b"no CSR"[..], b"\x30\x03\x02\x01\x05", b"{\"device_id\": 1}", b"\xff\xd8\xff\xe0"] {
            assert!(!is_unfinished(garbage), "{garbage:?}");
        }
    }

    #[test]
    fn pem_of_every_tool_is_read() {
        let (der, pem) = csr();
        let spaced = pem.replace('\n', "\n\n");
        let parameters = format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{pem}");
        let mut latin1 = b"Gr\xfc\xdfe\n".to_vec();
        latin1.extend(pem.as_bytes());
        for content in [spaced.as_bytes(), parameters.as_bytes(), &latin1, format!("\u{feff}{pem}").as_bytes()] {
            assert_eq!(csr_of_file(content), Ok(der.clone()), "{}", String::from_utf8_lossy(content));
        }
        assert_eq!(csr_of_text(&pem), Ok(der.clone()));
        assert_eq!(csr_of_text(&BASE64_STANDARD.encode(&der)), Ok(der));
    }

    #[test]
    fn file_without_a_csr_is_refused_with_the_reason() {
        let (der, pem) = csr();
        for (content, says) in [
            (&b""[..], "empty"),
            (&pem.as_bytes()[..150], "ends before -----END"),
            (&der[..50], "still being written"),
            (&utf16(&pem), "UTF-16"),
            (b"{\"device_id\": \"a\", \"csr\": \"-----BEGIN CERTIFICATE REQUEST-----\\n\"}", "name it .jsonl"),
            (b"-----BEGIN X-----\nAAAA\n-----END X-----\n", "\"X\""),
        ] {
            let error = csr_of_file(content).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}
