//! Files with a private key.

use std::path::{Path, PathBuf};

use crate::{
    secret_file::{self, SecretFileError},
    text_file::{self, TextError},
};
use rustls::pki_types::{
    PrivateKeyDer,
    pem::{Error as PemError, PemObject},
};

/// What is wrong with a private key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the private key: {0}")]
    Unreadable(#[from] TextError),
    /// Others may read it.
    #[error(
        "others than its owner may use the private key (mode {mode:o}); make it private with chmod 600, and a new \
         key if others had the chance to read this one"
    )]
    NotPrivate {
        /// The file's permissions.
        mode: u32,
    },
    /// There is none in it that is known.
    #[error("cannot read the private key: {}", describe_pem_error(.0))]
    Malformed(PemError),
    /// It is that of another certificate.
    #[error("it does not belong to the certificate {}", certificate.display())]
    NotOfCertificate {
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// TLS takes neither key nor certificate, for another reason.
    #[error("TLS does not take it with the certificate {}: {error}", certificate.display())]
    NotTaken {
        /// The certificate's file.
        certificate: PathBuf,
        /// What the TLS library said.
        error: rustls::Error,
    },
}

/// The longest PEM file with a private key, in bytes.
const KEY_FILE: usize = 1 << 20;

/// Reads the first private key of a PEM file that only its owner may read.
///
/// # Errors
/// If it cannot be read, others may read it, or it has none.
pub fn read(path: &Path) -> Result<PrivateKeyDer<'static>, KeyError> {
    let octets = secret_file::read(path, KEY_FILE).map_err(|fault| match fault {
        SecretFileError::Exposed { mode } => KeyError::NotPrivate { mode },
        SecretFileError::File(error) => KeyError::Unreadable(error),
    })?;
    let text = text_file::decode(&octets).map_err(TextError::from)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(KeyError::Malformed)
}

/// What is wrong with the PEM of the key, without the file's name.
fn describe_pem_error(error: &PemError) -> String {
    match error {
        PemError::NoItemsFound => "there is none in it".into(),
        error => error.to_string(),
    }
}
