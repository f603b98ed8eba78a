//! What takes files, and why it may not.

use std::{io, path::PathBuf};

/// Takes a bundle's files, one after another.
pub trait Sink {
    /// Begins the next file; the one before is whole.
    ///
    /// # Errors
    /// [`SinkError`].
    fn start(&mut self, name: &str) -> Result<(), SinkError>;

    /// The next octets of the file.
    ///
    /// # Errors
    /// [`SinkError`].
    fn write(&mut self, octets: &[u8]) -> Result<(), SinkError>;
}

/// Why files are not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// A file could not be written.
    #[error("cannot write {}: {cause}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// It is there already.
    #[error("{} exists; remove it, or choose another folder", .0.display())]
    Exists(PathBuf),
    /// A name that no file of a bundle has.
    #[error("\"{0}\" cannot be the name of a file of a bundle")]
    Name(String),
    /// Whoever takes the files has gone.
    #[error("nobody takes the files any more")]
    Gone,
}
