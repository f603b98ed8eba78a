//! The statement of a bundle: what is in it, and of which part of the journal.

use serde::{Deserialize, Serialize};

/// The file that states what the bundle has.
pub const MANIFEST: &str = "manifest.json";

/// The file with the statement's signature.
pub const SIGNATURE: &str = "manifest.jws";

/// The file of what is no longer to be trusted.
pub const WITHDRAWN: &str = "withdrawn.jsonl";

/// The folder of the issuers' chains.
pub(super) const ISSUERS: &str = "issuers/";

/// The only version there is.
pub(super) const VERSION: u32 = 1;

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this form: 1.
    pub version: u32,
    /// The batch's id, such as `aws.0001`.
    pub batch: String,
    /// The destination.
    pub destination: String,
    /// The batch's number, from 1.
    pub number: u32,
    /// The format's name.
    pub format: String,
    /// Which part of the journal it is made of.
    pub journal: JournalRange,
    /// RFC 3339.
    pub created_at: String,
    /// Who cut the batch.
    pub created_by: String,
    /// Which certificates the destination takes.
    pub filter: Filter,
    /// The destination's settings at the time.
    pub settings: serde_json::Value,
    /// How many certificates the data files have.
    pub certificates: u64,
    /// How many lines `withdrawn.jsonl` has.
    pub withdrawn: u64,
    /// What was left out.
    pub unfit: Vec<Unfit>,
    /// Who issued the certificates.
    pub issuers: Vec<ListedIssuer>,
    /// Every other file of the bundle.
    pub files: Vec<ListedFile>,
}

/// Entries `first` to `end`, without `end` itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRange {
    /// The first entry.
    pub first: u64,
    /// How many entries the journal had when the batch was cut.
    pub end: u64,
    /// The journal's chain hash there, in hex.
    pub chain_hash: String,
}

/// Which certificates a destination takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Patterns of profiles; none lets all pass.
    pub profiles: Vec<String>,
    /// Patterns of orders; none lets all pass.
    pub orders: Vec<String>,
    /// `issued` or `confirmed`.
    pub only: String,
}

/// A certificate that the platform would refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfit {
    /// The device.
    pub device_id: String,
    /// The certificate's serial number, in hex.
    pub serial_number: String,
    /// What the platform would refuse.
    pub reason: String,
}

/// An issuing CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedIssuer {
    /// Of its certificate in DER, in hex: `issuers/<sha256>.pem` is its chain.
    pub sha256: String,
    /// For people.
    pub subject: String,
    /// Its name in the configuration at the time.
    pub name: String,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    /// Its path in the bundle.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// How many line feeds it has.
    pub lines: u64,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
}

/// A line of `withdrawn.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawnLine {
    /// SHA-256 of the certificate's DER, in hex.
    pub certificate_id: String,
    /// Its serial number, in hex.
    pub serial_number: String,
    /// The device.
    pub device_id: String,
    /// `scrapped` or `revoked`.
    pub reason: String,
    /// The CRLReason's name, or empty.
    pub code: String,
    /// What the operator wrote.
    pub text: String,
    /// RFC 3339.
    pub at: String,
    /// The batch in which it went out.
    pub batch: String,
    /// The device's certificate after it.
    pub replaced_by: Option<ReplacedBy>,
}

/// The certificate after a withdrawn one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedBy {
    /// SHA-256 of its DER, in hex.
    pub certificate_id: String,
    /// Its serial number, in hex.
    pub serial_number: String,
}

/// The id of a batch: `NAME.0001`.
pub fn batch_id(destination: &str, number: u32) -> String {
    format!("{destination}.{number:04}")
}

/// Whether a bundle can have a file of this name: parts of `A-Z a-z 0-9 . _ -` between slashes, none of them hidden or a
/// way out of the folder.
pub(super) fn is_file_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    name.len() <= 200 && name.split('/').all(part)
}
