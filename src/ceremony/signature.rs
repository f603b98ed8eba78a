//! The signature of a ceremony's record: over all octets of its file, in the form that `openssl dgst -verify` reads.

use std::path::PathBuf;

use super::{error::StepError, file::FileRef, record::SignatureRecord};
use crate::{hsm::Key, pem};

/// Where the signature of this record is.
pub(super) fn place(record: &FileRef) -> FileRef {
    let beside = |path: &PathBuf| {
        let mut name = path.clone().into_os_string();
        name.push(".sig");
        PathBuf::from(name)
    };
    FileRef { written: beside(&record.written), path: beside(&record.path), span: record.span.clone() }
}

/// What signs a record.
pub(super) struct RecordSigner {
    key: Key,
    file: PathBuf,
}

impl RecordSigner {
    pub(super) fn new(key: Key, record: &FileRef) -> RecordSigner {
        let file = place(record).path.file_name().map(PathBuf::from).unwrap_or_default();
        RecordSigner { key, file }
    }

    /// What the record says about its signature.
    pub(super) fn announce(&self) -> SignatureRecord {
        let public = self.key.public_key();
        SignatureRecord {
            file: self.file.clone(),
            key: self.key.label().to_owned(),
            algorithm: self.key.algorithm().to_string(),
            key_sha256: hex::encode(public.hash()),
            public_key: pem::encode("PUBLIC KEY", &public.spki),
        }
    }

    /// Signs the file, and checks what came out.
    pub(super) fn sign(&self, content: &[u8]) -> Result<Vec<u8>, StepError> {
        let signature = self.key.sign(content)?;
        match self.key.public_key().verifies(self.key.algorithm(), content, &signature) {
            true => Ok(signature),
            false => Err(crate::hsm::Error::SignatureWrong { label: self.key.label().to_owned() }.into()),
        }
    }
}
