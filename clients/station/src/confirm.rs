//! Confirms that devices have installed their certificates.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use birthmark_base::{
    fields::{self, FieldsError},
    pem::{self, PemError},
    quote::shortened,
    serial::SerialNumber,
    text_file::{self, TextError},
};
use birthmark_client::{Client, Confirmation, Error, Named};
use serde::Serialize;

use super::places::LONGEST_CERTIFICATES;

/// What became of the certificates.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// The number that is confirmed, now or earlier.
    pub confirmed: usize,
    /// Those that are not.
    pub refused: Vec<Refused>,
}

/// A certificate that is not confirmed.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Its serial number in hex; none if its file cannot be read, or if there is no such certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// Its device, if it was named by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Why, for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// Confirms certificates. Confirming again is free, so after a failure it may be run again.
///
/// # Errors
/// The daemon refused all of a call, or went away.
pub async fn confirm(client: &Client, certificates: &[Named]) -> Result<Summary, Error> {
    let mut summary = Summary::default();
    for Confirmation { serial_number, device_id, error, .. } in client.confirm(certificates).await? {
        match error {
            None => summary.confirmed += 1,
            Some(failure) => summary.refused.push(Refused {
                serial_number: Some(hex::encode(&serial_number)).filter(|hex| !hex.is_empty()),
                device_id: Some(device_id).filter(|device| !device.is_empty()),
                reason: failure.reason(),
                message: failure.message,
            }),
        }
    }
    Ok(summary)
}

/// Certificates that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct Unreadable {
    /// The folder.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// What a folder has.
#[derive(Debug, Default)]
pub struct Found {
    /// The devices' certificates, each once.
    pub serial_numbers: Vec<SerialNumber>,
    /// Files that are not a device's certificate, each with what they are.
    pub skipped: Vec<String>,
    /// Files that should be one and cannot be read.
    pub unreadable: Vec<Refused>,
}

/// The devices' certificates in a folder, in the order of their files, or that of a file. What a file holds decides and not
/// its name: a chain file begins with the device's certificate, too.
///
/// # Errors
/// If there is no such folder or file.
pub fn serial_numbers_in(folder: &Path) -> Result<Found, Unreadable> {
    let unreadable = |source| Unreadable { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    if fs::metadata(folder).map_err(unreadable)?.is_file() {
        paths.push(folder.to_owned());
    } else {
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("pem")) {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let (mut found, mut known) = (Found::default(), HashSet::new());
    for path in paths {
        match content(&path) {
            Ok(Content::Device(serial_number)) => {
                if known.insert(serial_number) {
                    found.serial_numbers.push(serial_number);
                }
            }
            Ok(Content::Other(what)) => found.skipped.push(format!("{} holds {what}", path.display())),
            Err(what) => found.unreadable.push(Refused {
                serial_number: None,
                device_id: None,
                reason: "CERTIFICATE_UNREADABLE".to_owned(),
                message: format!("{}: {what}", path.display()),
            }),
        }
    }
    Ok(found)
}

/// What a device stores as its certificate, PEM or DER: the first one of the file. It need not be a certificate, which is
/// for the daemon to say.
///
/// # Errors
/// If the file cannot be read.
pub fn read_back(path: &Path) -> Result<Vec<u8>, Unreadable> {
    let unreadable = |source: TextError| Unreadable { path: path.to_owned(), source: io::Error::other(source) };
    let file = text_file::open_regular(path).map_err(unreadable)?;
    let octets = text_file::read_octets(file, LONGEST_CERTIFICATES).map_err(unreadable)?;
    if pem::is_der(&octets) {
        return Ok(octets);
    }
    let first = pem::blocks(&octets).ok().and_then(|blocks| blocks.into_iter().next());
    Ok(first.map_or(octets, |block| block.der))
}

/// What a PEM file holds.
enum Content {
    /// A device's certificate, first of all.
    Device(SerialNumber),
    /// Something else.
    Other(String),
}

/// Why a file that should hold a certificate holds none.
#[derive(Debug, thiserror::Error)]
enum ContentError {
    #[error(transparent)]
    Text(#[from] TextError),
    #[error("the PEM is damaged: {0}")]
    Pem(#[from] PemError),
    #[error("it holds no PEM certificate")]
    Nothing,
    #[error(transparent)]
    Fields(#[from] FieldsError),
}

fn content(path: &Path) -> Result<Content, ContentError> {
    let octets = text_file::read_octets(text_file::open_regular(path)?, LONGEST_CERTIFICATES)?;
    let blocks = pem::blocks(&octets)?;
    let first = blocks.first().ok_or(ContentError::Nothing)?;
    if !first.is_certificate() {
        return Ok(Content::Other(format!("a {}", shortened(&first.label))));
    }
    if fields::is_ca(&first.der) {
        return Ok(Content::Other("a CA certificate".to_owned()));
    }
    let octets = fields::serial_number(&first.der)?;
    match SerialNumber::try_from(octets) {
        Ok(serial_number) => Ok(Content::Device(serial_number)),
        Err(error) => Ok(Content::Other(format!("a certificate that no Birthmark daemon issued: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

    use super::*;

    #[test]
    fn folder_is_read_by_content_and_not_by_name() -> Result<(), Box<dyn std::error::Error>> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key)?.pem();
        let issuer = rcgen::Issuer::new(params, &key);
        let device = |number: u8| {
            let mut params = rcgen::CertificateParams::default();
            params.serial_number = Some(vec![number; 20].into());
            Ok::<_, rcgen::Error>(params.signed_by(&key, &issuer)?.pem())
        };
        let folder = tempfile::tempdir()?;
        for (name, content) in [
            ("a.pem", device(1)?),
            ("a.chain.pem", device(2)?),
            ("b.pem", device(3)?),
            ("b.chain.pem", format!("{}{ca}", device(3)?)),
            ("c.chain.pem", format!("{}{ca}", device(4)?)),
            ("ca.PEM", ca.clone()),
            ("key.pem", key.serialize_pem()),
            ("torn.pem", device(5)?.split_at(100).0.to_owned()),
            ("empty.pem", String::new()),
            (".hidden.pem", device(6)?),
        ] {
            fs::write(folder.path().join(name), content)?;
        }
        let found = serial_numbers_in(folder.path())?;
        let first: Vec<_> = found.serial_numbers.iter().map(|number| number.as_bytes()[0]).collect();
        assert_eq!(first, [2, 1, 3, 4]);
        assert_eq!(found.skipped.len(), 2, "{:?}", found.skipped);
        assert_eq!(found.unreadable.len(), 2, "{:?}", found.unreadable);
        Ok(())
    }
}
