//! Checks a bundle offline: the manifest's signature, that its files are there, whole and no more, and that each certificate
//! is signed by an issuer that lies beside it. Without a daemon, and with all processors.

mod content;
mod error;
mod issuers;
mod source;

use std::{
    num::NonZero,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

pub(crate) use self::source::Source;
use self::{content::Content, issuers::Issuers};
use super::{
    jws,
    manifest::{
        ISSUERS, ListedFile, MANIFEST, Manifest, SIGNATURE, VERSION, WITHDRAWN, WithdrawnLine, batch_id, is_file_name,
    },
    settings::Settings,
};
use crate::{hash::sha256, quote::quoted, signer::PublicKey};

pub use self::error::{Fault, VerifyError};

/// A manifest with a million files has a fifth of it.
const LONGEST_MANIFEST: u64 = 1 << 30;

/// A bundle that was found whole.
#[derive(Debug)]
pub struct Verified {
    source: Source,
    manifest: Manifest,
    manifest_sha256: [u8; 32],
    holds_certificates: bool,
}

/// A line of a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file.
    pub file: String,
    /// Counted from 1.
    pub number: u64,
    /// Without its end.
    pub text: String,
}

/// Verifies the bundle at `path`, a folder or a tar, whose manifest one of the keys must have signed. `progress` is told of
/// each file's octets when it was checked.
///
/// # Errors
/// What is wrong with it first, in the order of the manifest.
pub fn verify(path: &Path, keys: &[PublicKey], progress: &(dyn Fn(u64) + Sync)) -> Result<Verified, VerifyError> {
    let source = Source::open(path)?;
    let signature = source.read(SIGNATURE, LONGEST_MANIFEST)?;
    let payload = jws::verify(&signature, keys).map_err(|error| VerifyError::new(SIGNATURE, error))?;
    let octets = source.read(MANIFEST, LONGEST_MANIFEST)?;
    if octets != payload {
        return Err(VerifyError::new(MANIFEST, Fault::OtherManifest));
    }
    drop((signature, payload));
    let malformed = |reason: String| VerifyError::new(MANIFEST, Fault::Malformed(reason));
    let manifest: Manifest = serde_json::from_slice(&octets).map_err(|error| malformed(error.to_string()))?;
    if manifest.version != VERSION {
        let version = manifest.version;
        return Err(malformed(format!("it has the version {version}; this program knows version {VERSION}")));
    }
    if manifest.batch != batch_id(&manifest.destination, manifest.number) {
        return Err(malformed("its batch is not that of destination and number".into()));
    }
    let settings = Settings::from_json(&manifest.settings.to_string()).map_err(|error| malformed(error.to_string()))?;
    check_names(&source, &manifest)?;
    let issuers = Issuers::read(&manifest, |name| read_listed(&source, &manifest, name))?;
    let content = Content::new(&settings.format, &issuers);
    let found = check_files(&source, &manifest, &content, progress)?;
    for (what, found, stated) in [
        ("certificates", found.certificates, manifest.certificates),
        ("withdrawals", found.withdrawn, manifest.withdrawn),
    ] {
        if found != stated {
            return Err(VerifyError::new(MANIFEST, Fault::Count { what, found, stated }));
        }
    }
    let holds_certificates = content.holds_certificates();
    Ok(Verified { source, manifest_sha256: sha256(&octets), manifest, holds_certificates })
}

/// That each file is there which the manifest names, and no other.
fn check_names(source: &Source, manifest: &Manifest) -> Result<(), VerifyError> {
    let mut listed = std::collections::BTreeSet::from([MANIFEST, SIGNATURE]);
    for file in &manifest.files {
        if !is_file_name(&file.name) || !listed.insert(&file.name) {
            let reason = format!("it names the file {} twice, or no file can be called so", quoted(&file.name));
            return Err(VerifyError::new(MANIFEST, Fault::Malformed(reason)));
        }
        match source.length(&file.name) {
            None => return Err(VerifyError::new(&file.name, Fault::Missing)),
            Some(found) if found != file.bytes => {
                return Err(VerifyError::new(&file.name, Fault::Length { found, stated: file.bytes }));
            }
            Some(_) => {}
        }
    }
    if !listed.contains(WITHDRAWN) {
        return Err(VerifyError::new(MANIFEST, Fault::Malformed(format!("it does not name {WITHDRAWN}"))));
    }
    match source.names().find(|name| !listed.contains(name)) {
        Some(foreign) => Err(VerifyError::new(foreign, Fault::Foreign)),
        None => Ok(()),
    }
}

/// The content of a file, if it is the one that the manifest names.
fn read_checked(source: &Source, file: &ListedFile) -> Result<Vec<u8>, VerifyError> {
    let octets = source.read(&file.name, file.bytes)?;
    let found = octets.len() as u64;
    if found != file.bytes {
        return Err(VerifyError::new(&file.name, Fault::Length { found, stated: file.bytes }));
    }
    if hex::encode(sha256(&octets)) != file.sha256 {
        return Err(VerifyError::new(&file.name, Fault::Changed));
    }
    Ok(octets)
}

fn read_listed(source: &Source, manifest: &Manifest, name: &str) -> Result<Vec<u8>, VerifyError> {
    match manifest.files.iter().find(|file| file.name == name) {
        Some(file) => read_checked(source, file),
        None => Err(VerifyError::new(name, Fault::Missing)),
    }
}

/// What the files have.
struct Found {
    certificates: u64,
    withdrawn: u64,
}

/// Checks the files, each on one thread, in their order.
fn check_files(
    source: &Source,
    manifest: &Manifest,
    content: &Content<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Found, VerifyError> {
    let next = AtomicUsize::new(0);
    let (certificates, withdrawn) = (AtomicU64::new(0), AtomicU64::new(0));
    let first_error: Mutex<Option<(usize, VerifyError)>> = Mutex::new(None);
    let check = |file: &ListedFile| -> Result<(), VerifyError> {
        let octets = read_checked(source, file)?;
        let lines = octets.iter().map(|octet| u64::from(*octet == b'\n')).sum::<u64>();
        if lines != file.lines {
            let reason = format!("it has {lines} lines; the manifest says {}", file.lines);
            return Err(VerifyError::new(&file.name, Fault::Malformed(reason)));
        }
        if file.name == WITHDRAWN {
            withdrawn.fetch_add(check_withdrawn(&octets)?, Ordering::Relaxed);
        } else if !file.name.starts_with(ISSUERS) {
            let found = content.check(&file.name, &octets).map_err(|fault| VerifyError::new(&file.name, fault))?;
            certificates.fetch_add(found, Ordering::Relaxed);
        }
        progress(file.bytes);
        Ok(())
    };
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = manifest.files.get(at) else { return };
            if let Err(error) = check(file) {
                let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                if first.as_ref().is_none_or(|(before, _)| at < *before) {
                    *first = Some((at, error));
                }
                // Those before it are being checked.
                return next.store(manifest.files.len(), Ordering::Relaxed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(manifest.files.len());
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(Found { certificates: certificates.into_inner(), withdrawn: withdrawn.into_inner() }),
    }
}

fn check_withdrawn(octets: &[u8]) -> Result<u64, VerifyError> {
    let lines = octets.split_inclusive(|octet| *octet == b'\n').zip(1..);
    lines.map(|(line, number)| read_withdrawn(line, number).map(|_| 1)).sum()
}

fn read_withdrawn(line: &[u8], number: u64) -> Result<WithdrawnLine, VerifyError> {
    serde_json::from_slice(line)
        .map_err(|error| VerifyError::new(WITHDRAWN, Fault::Malformed(format!("line {number}: {error}"))))
}

impl Verified {
    /// What the bundle states.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// That it is the bundle of this batch.
    ///
    /// # Errors
    /// If it is another one's.
    pub fn must_be(&self, batch: &str) -> Result<(), VerifyError> {
        if self.manifest.batch == batch {
            return Ok(());
        }
        let reason = format!("it is the manifest of {}, not of {batch}", self.manifest.batch);
        Err(VerifyError::new(MANIFEST, Fault::Malformed(reason)))
    }

    /// SHA-256 of the manifest, which names the bundle as it is.
    pub fn manifest_sha256(&self) -> &[u8; 32] {
        &self.manifest_sha256
    }

    /// Whether the certificates themselves are in it: a list of fingerprints has none whose signature could be verified.
    pub fn holds_certificates(&self) -> bool {
        self.holds_certificates
    }

    /// A file's content. It is hashed once more, so that what is read is what was verified.
    ///
    /// # Errors
    /// If there is no such file, or it was changed since.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, VerifyError> {
        read_listed(&self.source, &self.manifest, name)
    }

    /// The lines of all data files, one file in memory at a time; for the formats `jsonl`, `aws-bulk` and `thingpress`.
    pub fn lines(&self) -> impl Iterator<Item = Result<Line, VerifyError>> + '_ {
        let data = self.manifest.files.iter().filter(|file| file.name.starts_with("data-"));
        data.flat_map(|file| {
            let lines: Box<dyn Iterator<Item = Result<Line, VerifyError>>> = match read_checked(&self.source, file) {
                Ok(octets) => Box::new(InLines { file: file.name.clone(), octets, at: 0, number: 0 }),
                Err(error) => Box::new(std::iter::once(Err(error))),
            };
            lines
        })
    }

    /// What is no longer to be trusted.
    ///
    /// # Errors
    /// If the file was changed since.
    pub fn withdrawn(&self) -> Result<impl Iterator<Item = Result<WithdrawnLine, VerifyError>>, VerifyError> {
        let octets = self.read(WITHDRAWN)?;
        let lines = InLines { file: WITHDRAWN.to_owned(), octets, at: 0, number: 0 };
        Ok(lines.map(|line| line.and_then(|line| read_withdrawn(line.text.as_bytes(), line.number))))
    }

    /// The chain of an issuer of the manifest in PEM, by its SHA-256 in hex.
    ///
    /// # Errors
    /// If there is none, or it was changed since.
    pub fn issuer_chain(&self, sha256: &str) -> Result<Vec<u8>, VerifyError> {
        self.read(&format!("{ISSUERS}{sha256}.pem"))
    }
}

/// The lines of a file.
struct InLines {
    file: String,
    octets: Vec<u8>,
    at: usize,
    number: u64,
}

impl Iterator for InLines {
    type Item = Result<Line, VerifyError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.octets.get(self.at..).filter(|rest| !rest.is_empty())?;
        let line = rest.split(|octet| *octet == b'\n').next().unwrap_or_default();
        self.at += line.len() + 1;
        self.number += 1;
        let text = String::from_utf8(line.to_vec());
        let wrong = |_| VerifyError::new(&self.file, Fault::Malformed(format!("line {} is not UTF-8", self.number)));
        Some(text.map(|text| Line { file: self.file.clone(), number: self.number, text }).map_err(wrong))
    }
}
