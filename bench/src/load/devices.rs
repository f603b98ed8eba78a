//! The devices of a measurement: keys and CSRs, made beforehand and encoded as they are sent.
#![expect(clippy::disallowed_methods, reason = "the files of a measurement need not survive a crash")]

use std::{fs, path::Path, thread};

use anyhow::{Context, anyhow, ensure};
use birthmark::proto::IssueRequest;
use bytes::Bytes;
use prost::Message;
use rcgen::{CertificateParams, DnType, KeyPair};

use super::options::ORDER;
use crate::console::progress;

/// How many CSRs are written for other programs: enough for them to go round.
const WRITTEN: usize = 10_000;

/// Makes this number of devices on all processors, named by this prefix and their numbers. The request of each is
/// encoded, with its number as `request_id`.
pub(super) fn make(prefix: &str, number: usize) -> anyhow::Result<Vec<Bytes>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = number.div_ceil(threads).max(1);
    let bar = progress(number as u64, "P-256 keys and CSRs");
    let made = thread::scope(|scope| {
        let makers: Vec<_> = (0..number)
            .step_by(share)
            .map(|first| {
                let (bar, numbers) = (&bar, first..number.min(first + share));
                scope.spawn(move || {
                    let requests = numbers.map(|number| {
                        bar.inc(1);
                        request(prefix, number)
                    });
                    requests.collect::<anyhow::Result<Vec<_>>>()
                })
            })
            .collect();
        makers
            .into_iter()
            .map(|maker| maker.join().map_err(|_| anyhow!("a thread that makes CSRs panicked"))?)
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    bar.finish_and_clear();
    Ok(made.concat())
}

/// The id of a device that [`make`] made.
pub(super) fn device_id(prefix: &str, number: usize) -> String {
    format!("{prefix}-{number:07}")
}

fn request(prefix: &str, number: usize) -> anyhow::Result<Bytes> {
    let device_id = device_id(prefix, number);
    let request = IssueRequest {
        request_id: number.to_string(),
        csr: csr(&device_id)?.into(),
        device_id,
        order: ORDER.into(),
        profile: "device".into(),
        reissue: false,
        with_chain: false,
    };
    Ok(request.encode_to_vec().into())
}

/// The DER CSR of a new device.
pub(super) fn csr(device_id: &str) -> anyhow::Result<Vec<u8>> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, device_id);
    Ok(params.serialize_request(&key)?.der().to_vec())
}

/// Makes the folder for the CSRs.
///
/// # Errors
///
/// There is something already, or nothing can be made there.
pub(super) fn make_folder(folder: &Path) -> anyhow::Result<()> {
    ensure!(!folder.exists(), "{} exists; choose a new folder for the CSRs", folder.display());
    fs::create_dir_all(folder).with_context(|| format!("cannot write the CSRs into {}", folder.display()))
}

/// Writes the first CSRs into a folder, as PEM, so that other programs can be measured with them.
pub(super) fn write(devices: &[Bytes], folder: &Path) -> anyhow::Result<()> {
    let unwritable = || format!("cannot write the CSRs into {}", folder.display());
    for device in devices.iter().take(WRITTEN) {
        let request = IssueRequest::decode(device.clone())?;
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let text = pem::encode_config(&pem::Pem::new("CERTIFICATE REQUEST", request.csr), config);
        fs::write(folder.join(format!("{}.pem", request.device_id)), text).with_context(unwritable)?;
    }
    Ok(())
}
