//! Exports: batches of an order's certificates.

use std::{fmt, str::FromStr};

use jiff::Timestamp;

use super::actor::Actor;

/// A batch of an order's certificates: those recorded after the export before it and before its own entry in the
/// journal, but for those that were scrapped or revoked by then. So it never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its id.
    pub id: ExportId,
    /// How many certificates it has, at least one.
    pub certificates: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: Actor,
    /// When and by whom it was acknowledged, once it is.
    pub acknowledged: Option<(Timestamp, Actor)>,
}

/// An export's id: `<order>.<number>`, the number with at least four digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportId {
    /// The order's id.
    pub order: String,
    /// Counts the order's exports from 1.
    pub number: u32,
}

impl fmt::Display for ExportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04}", self.order, self.number)
    }
}

impl FromStr for ExportId {
    type Err = ParseExportIdError;

    fn from_str(text: &str) -> Result<Self, ParseExportIdError> {
        let parse = || {
            let (order, number) = text.rsplit_once('.')?;
            let id = ExportId { order: order.to_owned(), number: number.parse().ok()? };
            // Each has one id only.
            (!order.is_empty() && id.number > 0 && id.to_string() == text).then_some(id)
        };
        parse().ok_or_else(|| ParseExportIdError(text.to_owned()))
    }
}

/// The text is not the id of an export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is not the id of an export, which is <order>.<number> with at least four digits, such as lot-42.0001",
    crate::quote::quoted(.0)
)]
pub struct ParseExportIdError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_id_has_one_text() {
        for (text, order, number) in
            [("o1.0001", "o1", 1), ("a.0001.0002", "a.0001", 2), ("o1.9999", "o1", 9999), ("o1.10000", "o1", 10_000)]
        {
            assert_eq!(text.parse(), Ok(ExportId { order: order.into(), number }));
        }
        for text in ["", "o1", "o1.", "o1.1", "o1.00001", "o1.0000", ".0001", "o1.+001", "o1.99999999999", "o1.0001 "] {
            assert!(text.parse::<ExportId>().is_err(), "{text}");
        }
    }
}
