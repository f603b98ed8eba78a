//! What an offline root signed: whether the daemon could issue with it, and how it differs from what was requested.

use std::{
    fmt,
    fs::File,
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{
    certificate::{Certificate, CertificateError, NotAfter, cas_below, date},
    file::{FileRef, Import},
};
use crate::{
    asn1::DerError,
    ca::{CaChain, ChainError},
    csr::{self, CsrError},
    hash::sha256,
    hsm::{self, Key},
    path::PathError,
    text_file::{self, TextError},
    x509::{CRL_SIGN, KEY_CERT_SIGN, Name},
    x509_time::Time,
};

/// A certificate that may be imported, that of its root, and what people should know before they say yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Imported {
    pub(super) certificate: Certificate,
    pub(super) root: Certificate,
    /// One sentence each.
    pub(super) differences: Vec<String>,
}

/// Why it may not be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// What was signed cannot be read.
    #[error(transparent)]
    Signed(CertificateError),
    /// The root's certificate cannot be read.
    #[error(transparent)]
    Root(CertificateError),
    /// What was signed is not the certificate of a CA with the token's key.
    #[error("{} cannot be imported: {reason}", file.display())]
    Unsuitable {
        /// The file, as the ceremony file names it.
        file: PathBuf,
        /// Why not.
        reason: Unsuitable,
    },
    /// The request cannot be read.
    #[error("{} is not the request: {reason}", file.display())]
    Request {
        /// The file, as the ceremony file names it.
        file: PathBuf,
        /// Why not.
        reason: RequestError,
    },
}

/// Why a certificate is not that of a CA with the token's key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unsuitable {
    /// It has another key.
    #[error(transparent)]
    Key(#[from] hsm::Error),
    /// The daemon would not start with it.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It is not valid now.
    #[error(transparent)]
    Validity(#[from] PathError),
    /// It outlives its root.
    #[error("it expires on {certificate}, after its root, which expires on {root}")]
    OutlivesRoot {
        /// When the certificate expires.
        certificate: String,
        /// When the root expires.
        root: String,
    },
}

/// Why a request cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The file cannot be opened.
    #[error("{0}")]
    Open(#[from] io::Error),
    /// The file cannot be read.
    #[error("{0}")]
    File(#[from] TextError),
    /// It is not a CSR.
    #[error("{0}")]
    Csr(#[from] CsrError),
    /// Its subject is not DER.
    #[error("{0}")]
    Subject(#[from] DerError),
}

impl ImportError {
    /// The file that is in the way.
    pub(super) fn file<'a>(&self, import: &'a Import) -> &'a FileRef {
        match self {
            ImportError::Signed(_) | ImportError::Unsuitable { .. } => &import.signed,
            ImportError::Root(_) => &import.root,
            ImportError::Request { .. } => import.request.as_ref().unwrap_or(&import.signed),
        }
    }
}

/// Reads what was signed and checks it against the key in the token, by the rules of the daemon's start. That it differs
/// from what was requested is no reason to refuse it.
pub(super) fn check(key: &Key, import: &Import, now: SystemTime) -> Result<Imported, ImportError> {
    let certificate = Certificate::read(&import.signed.path).map_err(ImportError::Signed)?;
    let unsuitable = |reason| ImportError::Unsuitable { file: import.signed.written.clone(), reason };
    key.check_matches(&certificate.key).map_err(|error| unsuitable(error.into()))?;
    let root = Certificate::read(&import.root.path).map_err(ImportError::Root)?;
    check_chain(&certificate, &root, now).map_err(unsuitable)?;
    let differences = differences(import, &certificate)?;
    Ok(Imported { certificate, root, differences })
}

fn check_chain(certificate: &Certificate, root: &Certificate, now: SystemTime) -> Result<(), Unsuitable> {
    let mut chain = vec![certificate.parsed().clone()];
    if certificate != root {
        chain.push(root.parsed().clone());
    }
    CaChain::from_certificates(chain)?.check_validity(now.into())?;
    if certificate.not_after > root.not_after {
        let [certificate, root] = [certificate, root].map(|one| date(one.not_after));
        return Err(Unsuitable::OutlivesRoot { certificate, root });
    }
    Ok(())
}

fn differences(import: &Import, certificate: &Certificate) -> Result<Vec<String>, ImportError> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, requested: String, signed: String| {
        if requested != signed {
            differences.push(format!("{what}: requested {requested}, signed {signed}"));
        }
    };
    if let Some(place) = &import.request {
        let (subject, spki) =
            read_request(place).map_err(|reason| ImportError::Request { file: place.written.clone(), reason })?;
        let key = |spki: &[u8]| format!("the key with the SHA-256 {}", hex::encode(sha256(spki)));
        compare("key", key(&spki), key(&certificate.key.spki));
        let other = subject.as_der() != certificate.subject().as_der();
        // As other octets of the same text it is another name for some verifiers.
        let encoding = if other && subject.same_text(certificate.subject()) { " in another encoding" } else { "" };
        compare("subject", format!("\"{subject}\""), format!("\"{}\"{encoding}", certificate.subject()));
    }
    let length = |length: Option<u64>| length.map_or("no limit".to_owned(), |length| length.to_string());
    compare("path length", length(Some(import.path_length.into())), length(certificate.path_length()));
    let usage = certificate.parsed().key_usage().ok().flatten().unwrap_or_default();
    compare("key usage", usages(KEY_CERT_SIGN | CRL_SIGN), usages(usage));
    match import.not_after {
        None => {}
        Some(NotAfter::At(end)) => compare("end", end.to_string(), Time::from(certificate.not_after).to_string()),
        Some(NotAfter::Days(days)) => {
            let lifetime = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
            // Leap seconds, and roots that begin an hour or a day earlier.
            let requested = Duration::from_secs(u64::from(days) * 86_400);
            if lifetime.abs_diff(requested) > Duration::from_secs(2 * 86_400) {
                compare("validity", format!("{days} days"), format!("{} days", lifetime.as_secs() / 86_400));
            }
        }
    }
    Ok(differences)
}

/// The subject and the DER public key of a request.
fn read_request(place: &FileRef) -> Result<(Name, Vec<u8>), RequestError> {
    let octets = text_file::read_octets(File::open(&place.path)?, text_file::LONGEST)?;
    let request = csr::verify(&octets, &csr::RefusedKeys::default())?;
    let subject = request.subject()?;
    Ok((subject, request.into_public_key().spki))
}

/// The names that RFC 5280 has for the bits of keyUsage.
fn usages(usage: u16) -> String {
    const NAMES: [&str; 9] = [
        "digitalSignature",
        "contentCommitment",
        "keyEncipherment",
        "dataEncipherment",
        "keyAgreement",
        "keyCertSign",
        "cRLSign",
        "encipherOnly",
        "decipherOnly",
    ];
    let set = NAMES.iter().enumerate().filter(|(bit, _)| usage >> bit & 1 != 0).map(|(_, name)| *name);
    set.collect::<Vec<_>>().join(" and ")
}

/// The lines of the plan: what people hold against their minutes.
impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Imported { certificate, root, differences } = self;
        for (name, certificate) in [("", certificate), ("root ", root)] {
            let below = cas_below(certificate.path_length());
            writeln!(f, "    {:<12}\"{}\"", format!("{name}subject "), certificate.subject())?;
            let [not_before, not_after] = [certificate.not_before, certificate.not_after].map(date);
            writeln!(f, "                valid from {not_before} until {not_after}, {below}")?;
            writeln!(f, "                SHA-256 {}", hex::encode(sha256(certificate.der())))?;
        }
        for difference in differences {
            writeln!(f, "    DIFFERS     {difference}")?;
        }
        Ok(())
    }
}
