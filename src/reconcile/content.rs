//! Files with many certificates, as `birthmark export` writes them: lines of JSON, comma-separated values, the bodies of Azure's
//! bulk operations, and Thingpress' lines of base64.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::Value;

use super::found::{Charge, Found};
use crate::{export::formats::csv::read_row, pem, x509::Certificate};

/// Where a file has no certificate although it should.
#[derive(Debug)]
pub struct Fault {
    /// The line, the record or the enrolment, counted from 1.
    pub line: usize,
    /// Why.
    pub cause: String,
}

/// Whether files with this ending may have many certificates. Of Thingpress' lines the name tells as well.
pub(super) fn is_known(extension: &str, name: &str) -> bool {
    matches!(extension, "jsonl" | "csv" | "json") || (extension == "txt" && name.starts_with("data-"))
}

/// Reads what a file holds; false if that is something else.
///
/// # Errors
/// The first line that holds no certificate.
pub(super) fn read(extension: &str, octets: &[u8], source: &str, found: &mut Vec<Found>) -> Result<bool, Fault> {
    let Ok(text) = std::str::from_utf8(octets) else { return Err(fault(1, "it is not UTF-8")) };
    match extension {
        "jsonl" => read_lines(text, source, found).map(|()| true),
        "csv" => read_rows(text, source, found),
        "json" => read_enrolments(text, source, found),
        "txt" => read_base64(text, source, found).map(|()| true),
        _ => Ok(false),
    }
}

fn fault(line: usize, cause: impl ToString) -> Fault {
    Fault { line, cause: cause.to_string() }
}

/// The first certificate of the PEM in this line.
fn from_pem(text: &str, line: usize) -> Result<Vec<u8>, Fault> {
    let blocks = pem::blocks(text.as_bytes()).map_err(|error| fault(line, error))?;
    let block = blocks.into_iter().next().ok_or_else(|| fault(line, "there is no certificate in its PEM"))?;
    if block.is_certificate() { Ok(block.der) } else { Err(fault(line, format!("its PEM is a {}", block.label))) }
}

fn charge(order: Option<&str>, profile: Option<&str>) -> Option<Charge> {
    let (order, profile) = (order?, profile.filter(|profile| !profile.is_empty())?);
    Some(Charge { order: order.to_owned(), profile: profile.to_owned() })
}

/// The lines of `jsonl`, and AWS' lines of parameters.
fn read_lines(text: &str, source: &str, found: &mut Vec<Found>) -> Result<(), Fault> {
    for (text, line) in text.lines().zip(1..).filter(|(text, _)| !text.trim().is_empty()) {
        let value: Value = serde_json::from_str(text).map_err(|error| fault(line, error))?;
        let field = |names: &[&str]| names.iter().find_map(|name| value.get(name)?.as_str());
        let certificate = field(&["certificate_pem", "certificate", "CertificatePem"]);
        let certificate =
            certificate.ok_or_else(|| fault(line, "it has no certificate_pem, certificate or CertificatePem"))?;
        let certificate = from_pem(certificate, line)?;
        found.push(Found {
            certificate: certificate.into(),
            device: field(&["device_id", "ThingName"]).map(str::to_owned),
            charge: charge(field(&["order"]), field(&["profile"])),
            source: format!("{source}:{line}"),
        });
    }
    Ok(())
}

/// Thingpress' lines; nothing tells whose they are.
fn read_base64(text: &str, source: &str, found: &mut Vec<Found>) -> Result<(), Fault> {
    for (text, line) in text.lines().zip(1..).filter(|(text, _)| !text.trim().is_empty()) {
        let pem = BASE64_STANDARD.decode(text.trim()).map_err(|error| fault(line, error))?;
        let certificate = from_pem(std::str::from_utf8(&pem).map_err(|error| fault(line, error))?, line)?;
        found.push(Found {
            certificate: certificate.into(),
            device: None,
            charge: None,
            source: format!("{source}:{line}"),
        });
    }
    Ok(())
}

#[derive(Deserialize)]
struct Enrolments {
    enrollments: Vec<Value>,
}

/// The body of a bulk operation of Azure's provisioning service. Other JSON holds no certificates.
fn read_enrolments(text: &str, source: &str, found: &mut Vec<Found>) -> Result<bool, Fault> {
    let body = match serde_json::from_str::<Enrolments>(text) {
        Ok(body) => body,
        // It was cut off.
        Err(error) if error.is_eof() && text.contains("\"enrollments\"") => return Err(fault(1, error)),
        Err(_) => return Ok(false),
    };
    for (enrolment, number) in body.enrollments.iter().zip(1..) {
        let certificate = enrolment.pointer("/attestation/x509/clientCertificates/primary/certificate");
        let certificate = certificate.and_then(Value::as_str).ok_or_else(|| fault(number, "it has no certificate"))?;
        let der = BASE64_STANDARD.decode(certificate).map_err(|error| fault(number, error))?;
        let device = enrolment.get("deviceId").or_else(|| enrolment.get("registrationId"));
        found.push(Found {
            certificate: der.into(),
            device: device.and_then(Value::as_str).map(str::to_owned),
            charge: None,
            source: format!("{source}, enrolment {number}"),
        });
    }
    Ok(true)
}

/// The columns that tell the device, by the presets of the format.
const DEVICE_COLUMNS: [&str; 4] = ["device_id", "NAME", "MAC", "cn"];

/// The records of `csv`. The column with certificates is the one in which the first record has one; without such a column
/// there are none.
fn read_rows(text: &str, source: &str, found: &mut Vec<Found>) -> Result<bool, Fault> {
    let not_whole = |line| fault(line, "the record is not whole");
    let (header, mut rest) = read_row(text).ok_or_else(|| not_whole(1))?;
    let column = |names: &[&str]| names.iter().find_map(|name| header.iter().position(|found| found == name));
    let [device, order, profile] = [&DEVICE_COLUMNS[..], &["order"], &["profile"]].map(column);
    let mut certificates = None;
    let mut line = 1;
    while !rest.is_empty() {
        line += 1;
        let (values, after) = read_row(rest).ok_or_else(|| not_whole(line))?;
        rest = after;
        if certificates.is_none() {
            certificates = values.iter().position(|value| of_cell(value, line).is_ok());
        }
        let Some(certificates) = certificates else { return Ok(false) };
        let certificate = of_cell(values.get(certificates).map_or("", String::as_str), line)?;
        let cell = |column: Option<usize>| column.and_then(|column| values.get(column)).map(|value| unquoted(value));
        found.push(Found {
            certificate: certificate.into(),
            device: cell(device).map(str::to_owned),
            charge: charge(cell(order), cell(profile)),
            source: format!("{source}, record {line}"),
        });
    }
    Ok(true)
}

/// The certificate of a cell in this record: PEM, or the base64 of DER.
fn of_cell(value: &str, line: usize) -> Result<Vec<u8>, Fault> {
    let der = match value.starts_with("-----BEGIN") {
        true => from_pem(value, line)?,
        false => BASE64_STANDARD.decode(value).map_err(|error| fault(line, error))?,
    };
    Certificate::from_der(&der).map(|_| der).map_err(|error| fault(line, error))
}

/// What stood in a cell before an apostrophe kept it from being a formula.
fn unquoted(value: &str) -> &str {
    let formula = |text: &&str| text.starts_with(['=', '+', '-', '@']);
    value.strip_prefix('\'').filter(formula).unwrap_or(value)
}
