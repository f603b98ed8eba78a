//! A ceremony's record, verified: its signature, and the files that it names. It needs no HSM.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    hash::sha256,
    pem::{self, ReadError},
    signer::{PublicKey, SignatureAlgorithm, SpkiError, UnknownAlgorithm},
};

/// Why a record is not verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is no record.
    #[error("{} is not the record of a ceremony: {why}", path.display())]
    NotARecord {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Nobody signed it.
    #[error("{} is not signed: the ceremony had no audit key and no sign_with", .0.display())]
    Unsigned(PathBuf),
    /// A key cannot be read.
    #[error("cannot read a public key from {}: {error}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: ReadError,
    },
    /// A key is of no kind that signs records.
    #[error(transparent)]
    Key(#[from] SpkiError),
    /// The algorithm is none that is known.
    #[error(transparent)]
    Algorithm(#[from] UnknownAlgorithm),
    /// Another key signed it.
    #[error(
        "the record is signed by the key with the SHA-256 {found}, not by the trusted key, which has {trusted}; it is \
         another ceremony's, or a forgery"
    )]
    OtherKey {
        /// The record's key.
        found: String,
        /// The key that is trusted.
        trusted: String,
    },
    /// The file was changed, or the signature is another's.
    #[error("the signature in {} is not one of {}: the record was changed after it was signed", signature.display(), record.display())]
    Changed {
        /// The signature's file.
        signature: PathBuf,
        /// The record.
        record: PathBuf,
    },
}

/// What became of a file that a record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// It is what it was.
    Same,
    /// It was changed.
    Differs,
    /// It is not here.
    Absent,
}

/// A record whose signature is good.
#[derive(Debug)]
pub struct Verified {
    /// The whole record.
    pub record: Value,
    /// SHA-256 of the record's file.
    pub sha256: String,
    /// SHA-256 of the key that signed it, as DER SubjectPublicKeyInfo.
    pub key_sha256: String,
    /// The files that the ceremony read and made.
    pub files: Vec<(PathBuf, FileState)>,
}

/// Verifies a record with the key that is trusted, or else with its own, which then proves only that the two belong together.
///
/// # Errors
/// What is in the way, or wrong.
pub fn verify(path: &Path, trusted: Option<&Path>) -> Result<Verified, VerifyError> {
    let read = |path: &Path| fs::read(path).map_err(|source| VerifyError::Read { path: path.to_owned(), source });
    let not_a_record = |why: String| VerifyError::NotARecord { path: path.to_owned(), why };
    let octets = read(path)?;
    let record: Value = serde_json::from_slice(&octets).map_err(|error| not_a_record(error.to_string()))?;
    if !record.get("steps").is_some_and(Value::is_array) {
        return Err(not_a_record("it has no \"steps\"".into()));
    }
    let announced = record.get("signature").filter(|signature| !signature.is_null());
    let announced = announced.ok_or_else(|| VerifyError::Unsigned(path.to_owned()))?;
    let text = |name: &str| {
        let text = announced.get(name).and_then(Value::as_str);
        text.ok_or_else(|| not_a_record(format!("its signature has no \"{name}\"")))
    };
    let own = PublicKey::from_spki(&own_key(text("public_key")?).map_err(not_a_record)?)?;
    if let Some(trusted) = trusted {
        let unread = |error| VerifyError::KeyFile { path: trusted.to_owned(), error };
        let key = PublicKey::from_spki(&pem::read_public_key(trusted).map_err(unread)?)?;
        if key != own {
            let [found, trusted] = [&own, &key].map(|key| hex::encode(key.hash()));
            return Err(VerifyError::OtherKey { found, trusted });
        }
    }
    let algorithm: SignatureAlgorithm = text("algorithm")?.parse()?;
    let mut signature = path.to_owned().into_os_string();
    signature.push(".sig");
    let signature = PathBuf::from(signature);
    if !own.verifies(algorithm, &octets, &read(&signature)?) {
        return Err(VerifyError::Changed { signature, record: path.to_owned() });
    }
    let mut files = Vec::new();
    for part in ["ceremony", "steps"].into_iter().filter_map(|name| record.get(name)) {
        find_files(part, &mut files);
    }
    let (sha256, key_sha256) = (hex::encode(sha256(&octets)), hex::encode(own.hash()));
    Ok(Verified { record, sha256, key_sha256, files })
}

fn own_key(text: &str) -> Result<Vec<u8>, String> {
    let blocks = pem::blocks(text.as_bytes()).map_err(|error| error.to_string())?;
    let block = blocks.into_iter().find(|block| block.label == "PUBLIC KEY");
    block.map(|block| block.der).ok_or_else(|| "its \"public_key\" is no public key in PEM".into())
}

/// Each file is an object with its path and its SHA-256.
fn find_files(value: &Value, files: &mut Vec<(PathBuf, FileState)>) {
    if let (Some(path), Some(hash)) = (value.get("path"), value.get("sha256"))
        && let (Some(path), Some(hash)) = (path.as_str(), hash.as_str())
    {
        let state = match fs::read(path) {
            Ok(content) if hex::encode(sha256(&content)) == hash => FileState::Same,
            Ok(_) => FileState::Differs,
            Err(_) => FileState::Absent,
        };
        files.push((path.into(), state));
    }
    match value {
        Value::Array(values) => values.iter().for_each(|value| find_files(value, files)),
        Value::Object(values) => values.values().for_each(|value| find_files(value, files)),
        _ => {}
    }
}
