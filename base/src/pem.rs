//! PEM (RFC 7468): the one reader of it, for what people and other programs send, and the one writer.
//!
//! As lax as the laxest of those programs: any text may surround the blocks, lines may be of any length, blank or
//! indented, and the text may be UTF-16 or have a byte order mark. A damaged block is refused, even next to a good one.

use std::{borrow::Cow, path::Path};

use ::pem::{EncodeConfig, LineEnding, Pem};
use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    asn1::{SEQUENCE, Value},
    quote::shortened,
    text_file::{self, EncodingError, TextError},
};

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What stands between `-----BEGIN ` and `-----`.
    pub label: String,
    /// What its base64 holds.
    pub der: Vec<u8>,
}

impl Block {
    /// Whether its label is one for certificates: that of RFC 7468 section 5.1, or the older ones that it names.
    pub fn is_certificate(&self) -> bool {
        matches!(self.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE" | "X.509 CERTIFICATE")
    }
}

/// Why there is no PEM in a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// The text is in an unknown encoding.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// A block among octets that are no text.
    #[error("line {line} has the control character U+{:04X}, which no text has; remove it", u32::from(*.character))]
    Control {
        /// The line, counted from 1.
        line: usize,
        /// What it has.
        character: char,
    },
    /// A block that does not end.
    #[error("it ends before -----END {0}-----; it was cut off, or is still being written")]
    Unfinished(String),
    /// A block ends under another name.
    #[error("its block begins as {begin} and ends as {end}")]
    Mismatch {
        /// After BEGIN.
        begin: String,
        /// After END.
        end: String,
    },
    /// A block that is encrypted.
    #[error("its {0} is encrypted")]
    Encrypted(String),
    /// A block whose content is not base64.
    #[error("its {label} is not base64: {reason}")]
    Base64 {
        /// Of the block.
        label: String,
        /// What is wrong.
        reason: String,
    },
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// All blocks in a text; none if there is none.
///
/// # Errors
/// See [`PemError`].
pub fn blocks(octets: &[u8]) -> Result<Vec<Block>, PemError> {
    let text = match text_file::decode(octets) {
        Ok(text) => text,
        // The text around the blocks may be in any encoding that has ASCII in it, such as Latin-1.
        Err(EncodingError::Utf8Invalid { .. }) => Cow::Owned(octets.iter().map(|octet| char::from(*octet)).collect()),
        Err(error) => return Err(error.into()),
    };
    let mut blocks = Vec::new();
    // What stands around PEM is text; in other octets, such as DER around it, there is none.
    let is_control = |character: char| character.is_ascii_control() && !character.is_ascii_whitespace();
    if let Some((before, from)) = text.find(is_control).and_then(|at| text.split_at_checked(at)) {
        return match (begin(&text), from.chars().next()) {
            (Some(_), Some(character)) => Err(PemError::Control { line: 1 + before.matches('\n').count(), character }),
            _ => Ok(blocks),
        };
    }
    let mut rest = text.as_ref();
    while let Some((label, body)) = begin(rest) {
        let Some((body, after)) = body.split_once(END) else {
            return Err(PemError::Unfinished(shortened(label).to_string()));
        };
        let end = after.split_once(DASHES).map_or(after.lines().next().unwrap_or_default(), |(end, _)| end);
        if end.trim() != label {
            let [begin, end] = [label, end].map(|label| shortened(label).to_string());
            return Err(PemError::Mismatch { begin, end });
        }
        blocks.push(Block { label: label.to_owned(), der: content(label, body)? });
        rest = after.get(end.len()..).unwrap_or_default();
    }
    Ok(blocks)
}

/// The label of the next block, and what follows it.
fn begin(text: &str) -> Option<(&str, &str)> {
    let mut rest = text;
    loop {
        let (_, after) = rest.split_once(BEGIN)?;
        match after.split_once(DASHES) {
            Some((label, body)) if !label.contains('\n') => return Some((label.trim(), body)),
            // A line that only begins like one.
            _ => rest = after,
        }
    }
}

fn content(label: &str, body: &str) -> Result<Vec<u8>, PemError> {
    let mut base64 = String::with_capacity(body.len());
    for line in body.lines() {
        // A header of RFC 1421, which some programs write as a comment.
        if line.contains(':') {
            if line.contains("ENCRYPTED") {
                return Err(PemError::Encrypted(shortened(label).to_string()));
            }
            continue;
        }
        base64.extend(line.chars().filter(|character| !character.is_whitespace()));
    }
    BASE64_STANDARD
        .decode(base64)
        .map_err(|error| PemError::Base64 { label: shortened(label).to_string(), reason: error.to_string() })
}

/// A block with lines of 64 characters that end in `\n` (RFC 7468 section 3).
pub fn encode(label: &str, der: &[u8]) -> String {
    ::pem::encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

/// A DER certificate as PEM.
pub fn certificate_pem(der: &[u8]) -> String {
    encode("CERTIFICATE", der)
}

/// Whether the octets are one DER SEQUENCE, as their length says: no text is, whatever its first character.
pub fn is_der(octets: &[u8]) -> bool {
    Value::only(octets).is_ok_and(|value| value.tag == SEQUENCE)
}

/// Why what a file should hold cannot be taken. The messages do not name the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{0}")]
    File(#[from] TextError),
    /// It is damaged.
    #[error("it is not whole PEM: {0}")]
    Pem(#[from] PemError),
    /// It is DER.
    #[error("it is DER, not PEM; convert it with openssl x509 -inform DER")]
    Der,
    /// It has no certificate.
    #[error("there is no PEM certificate in it{0}")]
    Nothing(String),
    /// It is something else than a public key.
    #[error("it holds {0}, not one PUBLIC KEY")]
    NotAPublicKey(String),
    /// It has several where one is due.
    #[error("it holds {0} certificates; it must hold one")]
    Several(usize),
}

/// Reads the certificates of a PEM file, of which there must be at least one; what else is in it is passed over.
///
/// # Errors
/// See [`ReadError`].
pub fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, ReadError> {
    let file = std::fs::File::open(path).map_err(TextError::Io)?;
    let octets = text_file::read_octets(file, text_file::LONGEST)?;
    if is_der(&octets) {
        return Err(ReadError::Der);
    }
    let blocks = blocks(&octets)?;
    let others: Vec<_> =
        blocks.iter().filter(|block| !block.is_certificate()).map(|block| block.label.as_str()).collect();
    if others.len() == blocks.len() {
        let others = if others.is_empty() { String::new() } else { format!(", but {}", shortened(&others.join(", "))) };
        return Err(ReadError::Nothing(others));
    }
    Ok(blocks.into_iter().filter(Block::is_certificate).map(|block| block.der).collect())
}

/// Reads the only certificate of a PEM file.
///
/// # Errors
/// See [`ReadError`].
pub fn read_certificate(path: &Path) -> Result<Vec<u8>, ReadError> {
    let mut certificates = read_certificates(path)?;
    match (certificates.len(), certificates.pop()) {
        (1, Some(certificate)) => Ok(certificate),
        (several, _) => Err(ReadError::Several(several)),
    }
}

/// Reads the DER SubjectPublicKeyInfo of a PEM file with one public key.
///
/// # Errors
/// See [`ReadError`].
pub fn read_public_key(path: &Path) -> Result<Vec<u8>, ReadError> {
    let file = std::fs::File::open(path).map_err(TextError::Io)?;
    let mut blocks = blocks(&text_file::read_octets(file, text_file::LONGEST)?)?;
    match (blocks.len(), blocks.pop()) {
        (1, Some(block)) if block.label == "PUBLIC KEY" => Ok(block.der),
        (1, Some(block)) => Err(ReadError::NotAPublicKey(shortened(&block.label).to_string())),
        (several, _) => Err(ReadError::NotAPublicKey(format!("{several} PEM blocks"))),
    }
}

#[cfg(test)]
mod tests;
