//! The file that an operator takes to the platform.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    durable::{self, Access},
    pem::certificate_pem,
};

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ProofFileError {
    /// There is another one in its place.
    #[error("{} exists and is another certificate; name a file that does not exist", .0.display())]
    Exists(PathBuf),
    /// The system refuses.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// Writes a certificate (DER) into a new file as PEM. A file that holds the same certificate already is left as it is.
///
/// # Errors
/// Another file in its place, or one that cannot be written.
pub fn write_file(path: &Path, certificate: &[u8]) -> Result<(), ProofFileError> {
    let pem = certificate_pem(certificate);
    if fs::read(path).is_ok_and(|found| found == pem.as_bytes()) {
        return Ok(());
    }
    durable::write_new(path, pem.as_bytes(), Access::Public).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => ProofFileError::Exists(path.to_owned()),
        _ => ProofFileError::Write { path: path.to_owned(), error },
    })
}
