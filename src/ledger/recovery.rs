//! Certificates that the journal had lost, and that were found again.

use bytes::Bytes;

use super::record::Holder;
use crate::serial::SerialNumber;

/// A certificate that was found outside of the ledger, which issued it and has lost it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Its serial number.
    pub serial_number: SerialNumber,
    /// DER.
    pub certificate: Bytes,
    /// Whose it is.
    pub holder: Holder,
    /// The device's certificate before it; what is asked for leaves it to the ledger.
    pub replaces: Option<SerialNumber>,
    /// Where it was found: a file's name.
    pub source: String,
}
