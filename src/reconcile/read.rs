//! The files with certificates: those of a station's folder, exports, and bundles, as folders and as tars.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    content::{self, Fault},
    found::Found,
};
use crate::{
    export::{
        manifest::{MANIFEST, SIGNATURE},
        verify::{Source, VerifyError},
    },
    pem,
    text_file::{self, TextError},
};

/// The longest file with one certificate and its chain, in bytes.
const LONGEST_CERTIFICATE: u64 = 1 << 20;

/// The longest file with many certificates, in bytes.
const LONGEST_LINES: u64 = 8 << 30;

/// How deep folders are looked into.
const DEEPEST: usize = 8;

/// What could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A file or a folder.
    #[error("cannot read {}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: TextError,
    },
    /// A file of many certificates.
    #[error("{source_name} has in line {} no certificate as an export has it: {}", .fault.line, .fault.cause)]
    Line {
        /// The file, and the bundle that it is in.
        source_name: String,
        /// Where, and why.
        fault: Fault,
    },
    /// A tar.
    #[error("cannot read {}: {cause}", path.display())]
    Tar {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: VerifyError,
    },
}

/// What was read.
#[derive(Debug, Default)]
pub struct Reading {
    /// The certificates.
    pub found: Vec<Found>,
    /// Files that should have one and are torn, each with why.
    pub torn: Vec<(String, String)>,
    /// How many files were passed over, because they hold no certificate of a device.
    pub passed_over: u64,
}

/// Reads a file, or all files of a folder and the folders in it.
///
/// # Errors
/// What cannot be read.
pub fn read(path: &Path, reading: &mut Reading) -> Result<(), ReadError> {
    let before = (reading.found.len(), reading.torn.len());
    reading.passed_over += read_to_depth(path, DEEPEST, false, reading)?;
    // A share that is not mounted is an empty folder.
    if before == (reading.found.len(), reading.torn.len()) {
        reading.torn.push((path.display().to_string(), "there is no certificate of a device in it".to_owned()));
    }
    Ok(())
}

/// Gives how many files were passed over, as all below.
fn read_to_depth(path: &Path, depth: usize, in_bundle: bool, reading: &mut Reading) -> Result<u64, ReadError> {
    let unreadable = |cause: io::Error| ReadError::File { path: path.to_owned(), cause: TextError::Io(cause) };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return read_file(path, reading);
    }
    let Some(depth) = depth.checked_sub(1) else { return Ok(1) };
    let is_bundle = [MANIFEST, SIGNATURE].iter().all(|name| path.join(name).is_file());
    let mut paths = Vec::new();
    let mut passed_over = 0;
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Hidden files are those that a writer has not finished.
        if name.starts_with('.') {
            continue;
        }
        let is_folder = entry.path().is_dir();
        match is_bundle || in_bundle {
            true if !(is_folder && is_device_folder(&name) || is_data(&name, in_bundle)) => passed_over += 1,
            _ => paths.push(entry.path()),
        }
    }
    paths.sort();
    for path in paths {
        passed_over += read_to_depth(&path, depth, is_bundle || in_bundle, reading)?;
    }
    Ok(passed_over)
}

/// Whether a bundle's file has certificates of devices: `data-…`, or in a folder of Matter's one for each device.
fn is_data(name: &str, in_folder: bool) -> bool {
    match in_folder {
        true => name.ends_with(".der"),
        false => name.starts_with("data-"),
    }
}

/// Whether a folder in a bundle has certificates of devices, and not those of issuers.
fn is_device_folder(name: &str) -> bool {
    !matches!(name, "issuers" | "pai")
}

fn read_file(path: &Path, reading: &mut Reading) -> Result<u64, ReadError> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let unreadable = |cause: TextError| ReadError::File { path: path.to_owned(), cause };
    let octets = |longest| text_file::read_octets(text_file::open_regular(path)?, longest);
    let source = path.display().to_string();
    match extension.as_str() {
        "tar" => read_tar(path, reading),
        extension if content::is_known(extension, name) => {
            let octets = octets(LONGEST_LINES).map_err(unreadable)?;
            read_content(extension, &octets, source, reading)
        }
        "pem" | "crt" | "cer" | "der" => {
            let device = name.strip_suffix(".chain");
            // The same certificate is in the file without the chain, if a station came to write that.
            if device.is_some_and(|device| path.with_file_name(format!("{device}.{extension}")).exists()) {
                return Ok(1);
            }
            let octets = octets(LONGEST_CERTIFICATE).map_err(unreadable)?;
            Ok(read_certificate(octets, device.unwrap_or(name), source, reading))
        }
        _ => Ok(1),
    }
}

fn read_certificate(octets: Vec<u8>, name: &str, source: String, reading: &mut Reading) -> u64 {
    let certificate = match pem::is_der(&octets) {
        true => octets,
        false => match pem::blocks(&octets) {
            Ok(blocks) => match blocks.into_iter().next() {
                Some(block) if block.is_certificate() => block.der,
                // Whoever wrote it was killed before anything was in it.
                None if octets.trim_ascii().is_empty() => return torn(source, "it is empty", reading),
                // A CSR or a key is none.
                _ => return 1,
            },
            Err(error) => return torn(source, error, reading),
        },
    };
    let (certificate, device) = (certificate.into(), Some(name.to_owned()));
    reading.found.push(Found { certificate, device, charge: None, source });
    0
}

fn torn(source: String, why: impl ToString, reading: &mut Reading) -> u64 {
    reading.torn.push((source, why.to_string()));
    0
}

fn read_content(extension: &str, octets: &[u8], source: String, reading: &mut Reading) -> Result<u64, ReadError> {
    match content::read(extension, octets, &source, &mut reading.found) {
        Ok(true) => Ok(0),
        Ok(false) => Ok(1),
        Err(fault) => Err(ReadError::Line { source_name: source, fault }),
    }
}

fn read_tar(path: &Path, reading: &mut Reading) -> Result<u64, ReadError> {
    let failed = |cause| ReadError::Tar { path: path.to_owned(), cause };
    let source = Source::open(path).map_err(failed)?;
    let names: Vec<String> = source.names().map(str::to_owned).collect();
    if ![MANIFEST, SIGNATURE].iter().all(|name| names.iter().any(|found| found == name)) {
        return Ok(1);
    }
    let mut passed_over = 0;
    for name in &names {
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        if !(folder.split('/').all(is_device_folder) && is_data(file, !folder.is_empty())) {
            passed_over += 1;
            continue;
        }
        let (stem, extension) = file.rsplit_once('.').unwrap_or((file, ""));
        let octets = source.read(name, LONGEST_LINES).map_err(failed)?;
        let shown = format!("{}/{name}", path.display());
        passed_over += match folder.is_empty() {
            true => read_content(extension, &octets, shown, reading)?,
            false => read_certificate(octets, stem, shown, reading),
        };
    }
    Ok(passed_over)
}
