//! Says which devices have taken their certificates.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tonic::transport::Channel;

use super::fields;
use crate::{
    client::Failure,
    proto::{ConfirmRequest, issuance_client::IssuanceClient},
    serial::SerialNumber,
};

/// The most serial numbers in one call.
const AT_ONCE: usize = 1000;

/// What became of the certificates.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// How many are confirmed, now or since before.
    pub confirmed: usize,
    /// Those that are not.
    pub refused: Vec<Refused>,
}

/// A certificate that is not confirmed.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Its serial number in hex.
    pub serial_number: String,
    /// Why, for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// Confirms certificates. It is free to do so again, so after a failure it may simply be run again.
///
/// # Errors
/// The daemon refused all of a call, or went away.
pub async fn confirm(channel: Channel, serial_numbers: &[SerialNumber]) -> Result<Summary, Failure> {
    let mut client = IssuanceClient::new(channel);
    let mut summary = Summary::default();
    for some in serial_numbers.chunks(AT_ONCE) {
        let serial_numbers = some.iter().map(|serial_number| serial_number.as_bytes().to_vec().into()).collect();
        let reply = client.confirm(ConfirmRequest { serial_numbers }).await?.into_inner();
        for result in reply.results {
            match result.error.as_ref().map(Failure::from) {
                None => summary.confirmed += 1,
                Some(failure) => summary.refused.push(Refused {
                    serial_number: hex::encode(&result.serial_number),
                    reason: failure.reason(),
                    message: failure.message,
                }),
            }
        }
    }
    Ok(summary)
}

/// The serial numbers of the certificates that "station sign" wrote to a folder, sorted by file.
///
/// # Errors
/// A sentence that names the folder or the file.
pub fn serial_numbers_in(folder: &Path) -> Result<Vec<SerialNumber>, String> {
    let unreadable = |error| format!("cannot read {}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|ending| ending == "pem") && !is_chain(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(|path| serial_number(&path)).collect()
}

/// Whether it is the chain file beside a device's certificate.
fn is_chain(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".chain.pem"));
    name.is_some_and(|device| path.with_file_name(format!("{device}.pem")).exists())
}

fn serial_number(path: &PathBuf) -> Result<SerialNumber, String> {
    let named = |what: String| format!("{}: {what}", path.display());
    let text = fs::read(path).map_err(|error| named(error.to_string()))?;
    let block = pem::parse(&text).ok().filter(|block| block.tag() == "CERTIFICATE");
    let block = block.ok_or_else(|| named("it holds no PEM certificate".to_owned()))?;
    let octets = fields::serial_number(block.contents()).map_err(named)?;
    SerialNumber::try_from(octets).map_err(|error| named(error.to_string()))
}
