//! Finds certificates in files, and tells what they are, so that a ledger that has lost them can take them back.
//!
//! Nothing in a file is believed that its certificate does not bear out: it must be signed by an issuer that the ledger
//! has recorded, have a serial number that this ledger gives, and name the device.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use const_oid::db::rfc5280::ID_CE_SUBJECT_ALT_NAME;
use serde::Deserialize;

use crate::{
    hash::sha256,
    id::DeviceId,
    ledger::{Holder, RecordedIssuer, Recovery},
    path, pem,
    serial::SerialNumber,
    text_file::{self, TextError},
    x509::Certificate,
};

/// The longest file with one certificate and its chain, in bytes.
const LONGEST_CERTIFICATE: u64 = 1 << 20;

/// The longest file with JSON lines, in bytes.
const LONGEST_LINES: u64 = 8 << 30;

/// How deep folders are looked into.
const DEEPEST: usize = 8;

/// A certificate that was found, and what its place says about it.
#[derive(Clone, Debug)]
pub struct Found {
    /// DER.
    pub certificate: Bytes,
    /// The device, as the file's name or the line has it.
    device: String,
    /// The order and the profile, if the line has them.
    charge: Option<Charge>,
    /// The file, and the line in it.
    pub source: String,
}

/// What a certificate is charged to.
#[derive(Clone, Debug)]
pub struct Charge {
    /// The order; empty if there is none.
    pub order: String,
    /// The profile.
    pub profile: String,
}

/// What could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or a folder.
    #[error("cannot read {}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: TextError,
    },
    /// A line of a file of lines.
    #[error("{} has in line {line} no certificate as an export has it: {cause}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        cause: String,
    },
}

/// A line of an export.
#[derive(Deserialize)]
struct Line {
    device_id: String,
    order: String,
    profile: String,
    certificate_pem: String,
}

/// Reads a file, or all files of a folder and the folders in it. Gives how many files were passed over, because they hold
/// no certificate of a device.
///
/// # Errors
/// What cannot be read.
pub fn read(path: &Path, found: &mut Vec<Found>) -> Result<u64, ReadError> {
    read_to_depth(path, DEEPEST, found)
}

fn read_to_depth(path: &Path, depth: usize, found: &mut Vec<Found>) -> Result<u64, ReadError> {
    let unreadable = |cause: io::Error| ReadError::File { path: path.to_owned(), cause: TextError::Io(cause) };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return read_file(path, found);
    }
    let Some(depth) = depth.checked_sub(1) else { return Ok(1) };
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // Hidden files are those that a writer has not finished.
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    paths.iter().map(|path| read_to_depth(path, depth, found)).sum()
}

fn read_file(path: &Path, found: &mut Vec<Found>) -> Result<u64, ReadError> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "jsonl" => read_lines(path, found).map(|()| 0),
        // The same certificate is in the file without the chain.
        "pem" | "crt" | "cer" if !name.ends_with(".chain") => read_certificate(path, name, found),
        _ => Ok(1),
    }
}

fn read_certificate(path: &Path, name: &str, found: &mut Vec<Found>) -> Result<u64, ReadError> {
    let unreadable = |cause: TextError| ReadError::File { path: path.to_owned(), cause };
    let file = text_file::open_regular(path).map_err(unreadable)?;
    let octets = text_file::read_octets(file, LONGEST_CERTIFICATE).map_err(unreadable)?;
    let certificate = match pem::is_der(&octets) {
        true => Some(octets),
        // A CSR or a key is none.
        false => pem::blocks(&octets)
            .ok()
            .and_then(|blocks| blocks.into_iter().next())
            .and_then(|block| block.is_certificate().then_some(block.der)),
    };
    let Some(certificate) = certificate else { return Ok(1) };
    let (device, source) = (name.to_owned(), path.display().to_string());
    found.push(Found { certificate: certificate.into(), device, charge: None, source });
    Ok(0)
}

fn read_lines(path: &Path, found: &mut Vec<Found>) -> Result<(), ReadError> {
    let text =
        text_file::read(path, LONGEST_LINES).map_err(|cause| ReadError::File { path: path.to_owned(), cause })?;
    for (index, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let wrong = |cause: String| ReadError::Line { path: path.to_owned(), line: index + 1, cause };
        let line: Line = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let blocks = pem::blocks(line.certificate_pem.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let block = blocks.into_iter().next().ok_or_else(|| wrong("certificate_pem is empty".into()))?;
        let charge = Some(Charge { order: line.order, profile: line.profile });
        let source = format!("{}:{}", path.display(), index + 1);
        found.push(Found { certificate: block.der.into(), device: line.device_id, charge, source });
    }
    Ok(())
}

/// Why a certificate is none that the ledger can have lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotOurs {
    /// It cannot be read.
    #[error("it is not a certificate: {0}")]
    Malformed(String),
    /// Its serial number is not one of this ledger's.
    #[error("its serial number, {0}, is none that this ledger gives")]
    SerialNumber(String),
    /// No issuer of the ledger signed it.
    #[error("it is not signed by an issuer that the journal has recorded")]
    Issuer,
    /// The name of its file, or its line, names another device than it does.
    #[error("it does not name the device \"{0}\", which its file does")]
    Device(String),
    /// Nothing tells its order.
    #[error("nothing tells to which order it was charged; give --order, or --profile if to none")]
    Charge,
}

/// Tells what certificates are.
#[derive(Debug)]
pub struct Reconciler {
    ledger: [u8; 16],
    /// The newest first.
    issuers: Vec<(Arc<RecordedIssuer>, Certificate)>,
}

impl Reconciler {
    /// For the ledger with this id and the issuers that it has recorded.
    pub fn new(ledger: [u8; 16], recorded: Vec<Arc<RecordedIssuer>>) -> Reconciler {
        let read = |issuer: Arc<RecordedIssuer>| {
            let certificate = Certificate::from_der(issuer.chain.first()?).ok()?;
            Some((issuer, certificate))
        };
        Reconciler { ledger, issuers: recorded.into_iter().rev().filter_map(read).collect() }
    }

    /// Its serial number, if it is one of the ledger's.
    ///
    /// # Errors
    /// It is none.
    pub fn serial_number(&self, found: &Found) -> Result<SerialNumber, NotOurs> {
        self.serial_of(&parse(found)?)
    }

    fn serial_of(&self, certificate: &Certificate) -> Result<SerialNumber, NotOurs> {
        let serial = SerialNumber::try_from(certificate.serial_number.as_slice()).ok();
        let other = || NotOurs::SerialNumber(hex::encode(&certificate.serial_number));
        serial.filter(|serial| serial.is_of(&self.ledger)).ok_or_else(other)
    }

    /// What it is; `usual` is what certificates are charged to whose files do not tell.
    ///
    /// # Errors
    /// Why the ledger cannot have lost it.
    pub fn identify(&self, found: &Found, usual: Option<&Charge>) -> Result<Recovery, NotOurs> {
        let certificate = parse(found)?;
        let serial_number = self.serial_of(&certificate)?;
        let signed =
            |(_, issuer): &&(Arc<RecordedIssuer>, Certificate)| path::check_issued_by(&certificate, issuer).is_ok();
        let (issuer, _) = self.issuers.iter().find(signed).ok_or(NotOurs::Issuer)?;
        let device: DeviceId = found.device.parse().map_err(|_| NotOurs::Device(found.device.clone()))?;
        if !names(&certificate, device.as_str()) {
            return Err(NotOurs::Device(found.device.clone()));
        }
        let Charge { order, profile } = found.charge.as_ref().or(usual).ok_or(NotOurs::Charge)?.clone();
        let holder = Holder {
            device: device.as_str().to_owned(),
            key_hash: sha256(&certificate.spki),
            order,
            profile,
            issuer: issuer.name.clone(),
            issuer_id: issuer.id,
        };
        let (certificate, source) = (found.certificate.clone(), found.source.clone());
        Ok(Recovery { serial_number, certificate, holder, replaces: None, source })
    }
}

fn parse(found: &Found) -> Result<Certificate, NotOurs> {
    Certificate::from_der(&found.certificate).map_err(|error| NotOurs::Malformed(error.to_string()))
}

/// Whether the device's id is part of the subject or of a subjectAltName.
fn names(certificate: &Certificate, device: &str) -> bool {
    let holds = |octets: &[u8]| octets.windows(device.len()).any(|window| window == device.as_bytes());
    let alt_name = certificate.extension(ID_CE_SUBJECT_ALT_NAME);
    holds(certificate.subject().as_der()) || alt_name.is_some_and(|extension| holds(&extension.value))
}
