//! The ceremony record: what was made, when, by whom, on which token.

use std::{path::PathBuf, time::SystemTime};

use serde::Serialize;

use super::{certificate::Certificate, file::FileRef};
use crate::{
    hash::sha256,
    hsm::{Key, ModuleInfo, TokenIdentity},
};

/// The record, as its JSON file holds it. Hashes, serial numbers and ids are in hexadecimal, times are RFC 3339 in UTC.
#[derive(Debug, Serialize)]
pub struct Record {
    /// When the ceremony was finished.
    pub time: String,
    /// The version of birthmark.
    pub birthmark: &'static str,
    /// The name of the machine.
    pub host: String,
    /// The user's name (from the environment) and number (from the system).
    pub user: String,
    /// The ceremony file.
    pub ceremony: Output,
    /// The token.
    pub token: TokenIdentity,
    /// The PKCS#11 module.
    pub module: ModuleInfo,
    /// What each step made.
    pub steps: Vec<StepRecord>,
}

/// What one step made.
#[derive(Debug, Serialize)]
pub struct StepRecord {
    /// What the step did, as the ceremony file names it.
    pub r#do: &'static str,
    /// The key that it made or, for an import, used.
    pub key: KeyRecord,
    /// The certificate that it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateRecord>,
    /// The request that it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Output>,
    /// The file with the public half of the key that it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<Output>,
    /// The certificate of the root that issued what was imported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_certificate: Option<CertificateRecord>,
    /// How what was imported differs from what was requested.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

/// A key of the token.
#[derive(Debug, Serialize)]
pub struct KeyRecord {
    /// CKA_LABEL.
    pub label: String,
    /// CKA_ID.
    pub id: String,
    /// Its type, such as `P-384`.
    pub r#type: String,
    /// SHA-256 of its DER SubjectPublicKeyInfo.
    #[serde(rename = "key_sha256")]
    pub public_key_sha256: String,
}

/// A certificate that was written.
#[derive(Debug, Serialize)]
pub struct CertificateRecord {
    /// The file.
    #[serde(flatten)]
    pub file: Output,
    /// SHA-256 of the DER certificate.
    pub fingerprint_sha256: String,
    /// Its serial number.
    #[serde(rename = "serial_number")]
    pub serial: String,
    /// Its subject, in the order of the certificate.
    pub subject: String,
    /// When it expires.
    pub not_after: String,
}

/// A file.
#[derive(Clone, Debug, Serialize)]
pub struct Output {
    /// Its absolute path.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl KeyRecord {
    pub(super) fn new(key: &Key) -> Self {
        KeyRecord {
            label: key.label().to_owned(),
            id: hex::encode(key.id()),
            r#type: key.public_key().kind.to_string(),
            public_key_sha256: hex::encode(key.public_key().hash()),
        }
    }
}

impl CertificateRecord {
    pub(super) fn new(certificate: &Certificate, place: &FileRef) -> Self {
        CertificateRecord {
            file: Output::new(place.path.clone(), certificate.pem().as_bytes()),
            fingerprint_sha256: hex::encode(sha256(certificate.der())),
            serial: certificate.serial(),
            subject: certificate.subject().to_string(),
            not_after: rfc3339(certificate.not_after),
        }
    }
}

impl Output {
    pub(super) fn new(path: PathBuf, content: &[u8]) -> Self {
        Output { path, sha256: hex::encode(sha256(content)) }
    }
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map_or_else(|_| "unknown".into(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

pub(super) fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}

pub(super) fn user() -> String {
    let number = rustix::process::getuid().as_raw();
    match std::env::var("USER").or_else(|_| std::env::var("LOGNAME")) {
        Ok(name) => format!("{name} (uid {number})"),
        Err(_) => format!("uid {number}"),
    }
}
