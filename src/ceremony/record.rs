//! The ceremony record: what was made, when, by whom, in whose presence, in which tokens, by which program.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use aws_lc_rs::digest;
use serde::Serialize;

use super::{
    certificate::Certificate,
    error::StepError,
    file::{FileRef, Witness},
};
use crate::{
    hash::sha256,
    hsm::{self, Key, KeyAttributes, ModuleInfo, Token, TokenIdentity},
    local_user,
    version::VERSION,
};

/// The record, as its JSON file holds it. Hashes, serial numbers and ids are in hexadecimal, times are RFC 3339 in UTC.
#[derive(Debug, Serialize)]
pub struct Record {
    /// When the ceremony began.
    pub began: String,
    /// When it was finished.
    pub time: String,
    /// What the approved script is called.
    pub script: Option<String>,
    /// Who typed, as the ceremony file says.
    pub operator: Option<String>,
    /// Who was there, as the ceremony file says.
    pub witnesses: Vec<Witness>,
    /// The program that held it.
    pub program: Program,
    /// The name of the machine.
    pub host: String,
    /// Who was logged in, also behind sudo, and the user whose rights the process had.
    pub user: String,
    /// The ceremony file.
    pub ceremony: Output,
    /// The tokens.
    pub tokens: Vec<TokenRecord>,
    /// What each step made.
    pub steps: Vec<StepRecord>,
    /// Who signs this file.
    pub signature: Option<SignatureRecord>,
}

/// The program.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Its version.
    pub version: &'static str,
    /// Its file.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// A token, and the module that it was reached through.
#[derive(Debug, Serialize)]
pub struct TokenRecord {
    /// What the ceremony file calls it.
    pub name: String,
    /// What it says that it is.
    #[serde(flatten)]
    pub identity: TokenIdentity,
    /// The version of its hardware, as it says.
    pub hardware: String,
    /// The version of its firmware, as it says.
    pub firmware: String,
    /// The PKCS#11 module.
    pub module: ModuleInfo,
    /// SHA-256 of the module's file.
    pub module_sha256: String,
}

/// The signature of the record: over all octets of its file, in a file of its own beside it.
#[derive(Debug, Serialize)]
pub struct SignatureRecord {
    /// The file's name.
    pub file: PathBuf,
    /// The label of the key.
    pub key: String,
    /// The algorithm, as the configuration names it.
    pub algorithm: String,
    /// SHA-256 of the key's DER SubjectPublicKeyInfo.
    pub key_sha256: String,
    /// The key, in PEM.
    pub public_key: String,
}

/// What one step made.
#[derive(Debug, Serialize)]
pub struct StepRecord {
    /// What the step did, as the ceremony file names it.
    pub r#do: &'static str,
    /// When it began.
    pub began: String,
    /// When it was finished.
    pub finished: String,
    /// What the ceremony file calls the token that has the key.
    pub token: String,
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
    /// What the token says about it.
    pub attributes: KeyAttributes,
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
    /// Since when it is valid.
    pub not_before: String,
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
    pub(super) fn new(key: &Key) -> Result<Self, hsm::Error> {
        Ok(KeyRecord {
            label: key.label().to_owned(),
            id: hex::encode(key.id()),
            r#type: key.public_key().kind.to_string(),
            public_key_sha256: hex::encode(key.public_key().hash()),
            attributes: key.attributes()?,
        })
    }
}

impl CertificateRecord {
    pub(super) fn new(certificate: &Certificate, place: &FileRef) -> Self {
        CertificateRecord {
            file: Output::new(place.path.clone(), certificate.pem().as_bytes()),
            fingerprint_sha256: hex::encode(sha256(certificate.der())),
            serial: certificate.serial(),
            subject: certificate.subject().to_string(),
            not_before: rfc3339(certificate.not_before),
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

/// Who was logged in, whatever sudo and su made of it, and the user whose rights the process has.
pub(super) fn user() -> String {
    let number = rustix::process::getuid().as_raw();
    let login = local_user::own_name();
    let login = login.strip_prefix("local-").unwrap_or(&login);
    let own = local_user::name(number, None);
    let own = own.strip_prefix("local-").unwrap_or(&own);
    if login == own { format!("{login} (uid {number})") } else { format!("{login}, as {own} (uid {number})") }
}

impl Program {
    /// This one.
    pub(super) fn own() -> io::Result<Program> {
        Ok(Program {
            version: VERSION,
            path: std::env::current_exe()?,
            // What runs, though the file may have another name by now.
            sha256: file_sha256(Path::new("/proc/self/exe"))?,
        })
    }
}

impl TokenRecord {
    pub(super) fn new(name: &str, token: &Token) -> Result<TokenRecord, StepError> {
        let (hardware, firmware) = token.versions()?;
        let module = token.module_info()?;
        let unread = |source| StepError::Read { path: module.path.clone(), source };
        let module_sha256 = file_sha256(&module.path).map_err(unread)?;
        let identity = token.identity().clone();
        Ok(TokenRecord { name: name.to_owned(), identity, hardware, firmware, module, module_sha256 })
    }
}

fn file_sha256(path: &Path) -> io::Result<String> {
    let (mut file, mut context) = (File::open(path)?, digest::Context::new(&digest::SHA256));
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(context.finish())),
            length => context.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}
