//! What a platform said about a batch: JSON lines, read as they come.

use std::collections::HashMap;

use aws_lc_rs::digest;
use serde::Deserialize;

use super::error::BatchError;
use crate::quote::quoted;

/// The longest line, in bytes.
const LONGEST_LINE: usize = 64 << 10;

/// SHA-256 of a certificate's DER.
pub(super) type CertificateId = [u8; 32];

/// What was said about one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Registered,
    Already,
    Withdrawn,
    Failed { code: String, message: String },
}

/// A line; what else it has is for others.
#[derive(Deserialize)]
struct Line {
    certificate_id: String,
    state: String,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// Results that are being read.
pub(super) struct ResultReader {
    digest: digest::Context,
    /// The beginning of a line whose end is still to come.
    begun: Vec<u8>,
    lines: u64,
    said: HashMap<CertificateId, Said>,
    most: u64,
}

impl ResultReader {
    /// At most `most` certificates.
    pub(super) fn new(most: u64) -> Self {
        let digest = digest::Context::new(&digest::SHA256);
        ResultReader { digest, begun: Vec::new(), lines: 0, said: HashMap::new(), most }
    }

    /// Takes the next of the octets.
    pub(super) fn push(&mut self, octets: &[u8]) -> Result<(), BatchError> {
        self.digest.update(octets);
        let mut rest = octets;
        while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.begun.is_empty() {
                self.line(line)?;
            } else {
                let mut whole = std::mem::take(&mut self.begun);
                whole.extend_from_slice(line);
                self.line(&whole)?;
            }
        }
        self.begun.extend_from_slice(rest);
        match self.begun.len() > LONGEST_LINE {
            true => Err(self.wrong(format!("is longer than {LONGEST_LINE} bytes"))),
            false => Ok(()),
        }
    }

    fn wrong(&self, what: impl std::fmt::Display) -> BatchError {
        BatchError::Results(format!("line {} of the results {what}", self.lines + 1))
    }

    fn line(&mut self, line: &[u8]) -> Result<(), BatchError> {
        let blank = line.iter().all(u8::is_ascii_whitespace);
        if !blank {
            let Line { certificate_id, state, code, message } =
                serde_json::from_slice(line).map_err(|error| self.wrong(format!("cannot be read: {error}")))?;
            let id = hex::decode(&certificate_id).ok().and_then(|id| CertificateId::try_from(id).ok());
            let id = id.ok_or_else(|| {
                self.wrong(format!("has the certificate_id {}, which is no SHA-256 in hex", quoted(&certificate_id)))
            })?;
            let said = match state.as_str() {
                "registered" => Said::Registered,
                "already" => Said::Already,
                "withdrawn" => Said::Withdrawn,
                "failed" => Said::Failed { code: code.unwrap_or_default(), message: message.unwrap_or_default() },
                other => {
                    let states = "registered, already, failed or withdrawn";
                    return Err(self.wrong(format!("has the state {}; it must be {states}", quoted(other))));
                }
            };
            self.said.insert(id, said);
            if self.said.len() as u64 > self.most {
                let what = format!("is of one certificate too many: the batch has {} with its withdrawals", self.most);
                return Err(self.wrong(what));
            }
        }
        self.lines += 1;
        Ok(())
    }

    /// All that was said, and the digest of the results. The last of several lines about a certificate counts.
    pub(super) fn finish(mut self) -> Result<(HashMap<CertificateId, Said>, [u8; 32]), BatchError> {
        let last = std::mem::take(&mut self.begun);
        self.line(&last)?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.digest.finish().as_ref());
        Ok((self.said, sha256))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: u8, state: &str) -> String {
        format!(
            "{{\"certificate_id\":\"{}\",\"state\":\"{state}\",\"code\":\"E\",\"at\":\"x\"}}\n",
            hex::encode([id; 32])
        )
    }

    fn read(text: &str, most: u64) -> Result<(HashMap<CertificateId, Said>, [u8; 32]), BatchError> {
        let mut reader = ResultReader::new(most);
        text.as_bytes().chunks(7).try_for_each(|piece| reader.push(piece))?;
        reader.finish()
    }

    /// However they are cut into pieces; the last word about a certificate counts.
    #[test]
    fn results_are_read_line_by_line_from_pieces() {
        let text = [line(1, "failed"), line(2, "already"), "\n".into(), line(1, "registered")].concat();
        let (said, sha256) = read(text.trim_end(), 2).unwrap();
        assert_eq!(sha256, crate::hash::sha256(text.trim_end().as_bytes()));
        assert_eq!((&said[&[1; 32]], &said[&[2; 32]], said.len()), (&Said::Registered, &Said::Already, 2));
        assert!(read("", 0).unwrap().0.is_empty());
    }

    #[test]
    fn results_that_cannot_be_are_refused_with_their_line() {
        for (text, says) in [
            (line(1, "registered") + "{", "line 2"),
            (line(1, "done"), "\"done\""),
            (line(1, "registered").replace("01", "0"), "no SHA-256"),
            (line(1, "registered") + &line(2, "registered"), "too many"),
            ("x".repeat(LONGEST_LINE + 8), "longer"),
        ] {
            let error = read(&text, 1).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
