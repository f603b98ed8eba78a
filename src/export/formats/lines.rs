//! What formats have in common whose files hold many certificates, one after another.

use super::super::certificate::{Certificate, Issuer};

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
    fn append(&mut self, certificate: &Certificate<'_>, out: &mut String) -> Result<(), String>;

    /// The files beside the data, with their names: what the platform needs besides the certificates.
    fn beside(&self, issuers: &[Issuer]) -> Vec<(String, String)> {
        let _ = issuers;
        Vec::new()
    }
}

/// Appends a string as JSON.
pub(super) fn json_string(text: &str, out: &mut String) {
    // Strings always have a JSON form.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}
