//! What formats have in common whose files hold many certificates, one after another.

use std::fmt::Write;

use super::super::certificate::{Certificate, Issuer, UnfitReason};

/// Writes certificates into data files.
pub(in crate::export) trait Lines: Send {
    /// How the names of data files end.
    fn extension(&self) -> &'static str {
        "jsonl"
    }

    /// What a data file begins with.
    fn begin(&self) -> &str {
        ""
    }

    /// What separates two certificates.
    fn between(&self) -> &'static str {
        ""
    }

    /// What a data file ends with.
    fn end(&self) -> &'static str {
        ""
    }

    /// Appends a certificate, with the line's end if there is one.
    ///
    /// # Errors
    /// Why the platform does not take it: it should not be in the batch.
    fn append(&mut self, certificate: &Certificate<'_>, out: &mut String) -> Result<(), UnfitReason>;

    /// The files beside the data, with their names: what the platform needs besides the certificates.
    fn beside(&self, issuers: &[Issuer]) -> Vec<(String, String)> {
        let _ = issuers;
        Vec::new()
    }
}

/// Appends a string as JSON (RFC 8259 section 7), without a copy between: PEM is most of a line.
pub(super) fn json_string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\')) {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        match from.bytes().next() {
            Some(b'\n') => out.push_str("\\n"),
            Some(b'\r') => out.push_str("\\r"),
            Some(b'\t') => out.push_str("\\t"),
            Some(special @ (b'"' | b'\\')) => out.extend(['\\', char::from(special)]),
            // Writing into a string does not fail.
            Some(control) => drop(write!(out, "\\u{control:04x}")),
            None => {}
        }
        rest = from.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_string_is_read_as_what_it_was() {
        let ascii: String = (0..=0x7f).map(char::from).collect();
        for text in [ascii.as_str(), "", "\n", "a\"", "zwölf €\u{2028}\u{1f600}", "-----BEGIN X-----\nMAA=\n"] {
            let mut json = String::new();
            json_string(text, &mut json);
            assert_eq!(serde_json::from_str::<String>(&json).ok().as_deref(), Some(text), "{json}");
        }
    }
}
