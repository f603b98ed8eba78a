//! What programs read: a JSON object for each device.

use std::io::{self, Write};

use birthmark_base::{fields, hash::sha256, pem::certificate_pem};
use serde::Serialize;

use crate::places::Places;

/// Where JSON objects go for programs, one per line.
pub type Report = Box<dyn Write + Send>;

/// What became of a device; the summary counts them under the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Issued,
    Replayed,
    AlreadyThere,
    Refused,
    Held,
}

/// Writes a line that a program reads.
pub(super) fn write_line(report: &mut Report, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    report.write_all(&text)?;
    // A program that reads along must not wait for a buffer to fill.
    report.flush()
}

/// One device in the report.
#[derive(Serialize)]
pub(super) struct Line {
    device_id: String,
    pub(super) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    /// PEM, unless it is in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    /// The CA certificates that the device presents after its own, PEM, if they are wanted and in no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Line {
    /// `chain`: what the device presents after its certificate, PEM.
    pub(super) fn with_certificate(
        places: &Places,
        device_id: String,
        status: Status,
        certificate: &[u8],
        chain: &str,
    ) -> Self {
        let path = places.certificate(&device_id);
        let in_report = path.is_none();
        Line {
            device_id,
            status,
            serial_number: fields::serial_number(certificate).ok().map(hex::encode),
            certificate_id: Some(hex::encode(sha256(certificate))),
            file: path.map(|path| path.display().to_string()),
            certificate: in_report.then(|| certificate_pem(certificate)),
            chain: (in_report && places.chain_wanted()).then(|| chain.to_owned()),
            reason: None,
            message: None,
        }
    }

    pub(super) fn without_certificate(device_id: String, status: Status, reason: String, message: String) -> Self {
        let (reason, message) = (Some(reason), Some(message));
        let (serial_number, certificate_id, file, certificate, chain) = (None, None, None, None, None);
        Line { device_id, status, serial_number, certificate_id, file, certificate, chain, reason, message }
    }
}
