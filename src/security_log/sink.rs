//! What records are written to.

use std::io;

use super::record::Record;

/// Writes records; what it cannot write is tried again, or given up.
pub(super) trait Sink: Send + 'static {
    /// Writes a record.
    ///
    /// # Errors
    /// It was not written. It is tried again.
    fn write(&mut self, record: &Record) -> io::Result<()>;
}
