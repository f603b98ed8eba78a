//! The certificates in a bundle's data files, found by its format.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::{
    super::{formats::csv::read_row, settings::Format},
    error::Fault,
    issuers::{Issuer, Issuers},
};

use crate::hash::sha256;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
const END: &str = "-----END CERTIFICATE-----\n";

/// How data files are read.
pub(super) struct Content<'b> {
    format: &'b Format,
    issuers: &'b Issuers,
}

#[derive(Deserialize)]
struct JsonLine {
    certificate: String,
    certificate_id: String,
    issuer_sha256: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AwsLine {
    certificate_pem: String,
    #[serde(rename = "CACertificatePem")]
    ca_certificate_pem: String,
}

#[derive(Deserialize)]
struct Enrollments {
    enrollments: Vec<Enrollment>,
}

#[derive(Deserialize)]
struct Enrollment {
    attestation: Attestation,
}

#[derive(Deserialize)]
struct Attestation {
    x509: X509,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct X509 {
    client_certificates: ClientCertificates,
}

#[derive(Deserialize)]
struct ClientCertificates {
    primary: Primary,
}

#[derive(Deserialize)]
struct Primary {
    certificate: String,
}

impl<'b> Content<'b> {
    pub(super) fn new(format: &'b Format, issuers: &'b Issuers) -> Self {
        Content { format, issuers }
    }

    /// Whether there are certificates whose signatures can be verified.
    pub(super) fn holds_certificates(&self) -> bool {
        match self.format {
            Format::Csv(csv) => csv.certificate_column().is_some(),
            _ => true,
        }
    }

    /// Checks the certificates of a file, and counts them.
    pub(super) fn check(&self, name: &str, octets: &[u8]) -> Result<u64, Fault> {
        let is_data = name.starts_with("data-");
        match self.format {
            Format::Matter if name.contains("/pai/") => Ok(0),
            Format::Matter => self.one(1, octets, None).map(|()| 1),
            _ if !is_data => Ok(0),
            Format::Jsonl => self.lines(octets, |line| {
                let line: JsonLine = serde_json::from_str(line).map_err(|error| error.to_string())?;
                let issuer = self.issuers.by_sha256(&line.issuer_sha256).ok_or("its issuer is not in the bundle")?;
                let der = from_pem(&line.certificate)?;
                if hex::encode(sha256(&der)) != line.certificate_id {
                    return Err("its certificate_id is not its SHA-256".into());
                }
                Ok((der, Some(issuer)))
            }),
            Format::AwsBulk(_) => self.lines(octets, |line| {
                let line: AwsLine = serde_json::from_str(line).map_err(|error| error.to_string())?;
                let issuer = self.issuers.by_pem(&line.ca_certificate_pem).ok_or("its issuer is not in the bundle")?;
                Ok((from_pem(&line.certificate_pem)?, Some(issuer)))
            }),
            Format::Thingpress => self.lines(octets, |line| {
                let pem = BASE64_STANDARD.decode(line.trim_end()).map_err(|error| error.to_string())?;
                Ok((from_pem(std::str::from_utf8(&pem).map_err(|error| error.to_string())?)?, None))
            }),
            Format::AzureDps(_) => {
                let body: Enrollments =
                    serde_json::from_slice(octets).map_err(|error| Fault::Malformed(error.to_string()))?;
                let mut count = 0;
                for (enrollment, position) in body.enrollments.iter().zip(1..) {
                    let der =
                        BASE64_STANDARD.decode(&enrollment.attestation.x509.client_certificates.primary.certificate);
                    let der = der.map_err(|error| Fault::Certificate { position, reason: error.to_string() })?;
                    self.one(position, &der, None)?;
                    count = position;
                }
                Ok(count)
            }
            Format::Csv(csv) => self.rows(text(octets)?, csv.certificate_column()),
        }
    }

    fn one(&self, position: u64, der: &[u8], issuer: Option<&Issuer>) -> Result<(), Fault> {
        let checked = self.issuers.check(der, issuer);
        checked.map_err(|reason| Fault::Certificate { position, reason: reason.to_string() })
    }

    fn lines(
        &self,
        octets: &[u8],
        read: impl Fn(&str) -> Result<(Vec<u8>, Option<&'b Issuer>), String>,
    ) -> Result<u64, Fault> {
        let mut count = 0;
        for (line, position) in text(octets)?.split_inclusive('\n').zip(1..) {
            let (der, issuer) = read(line).map_err(|reason| Fault::Certificate { position, reason })?;
            self.one(position, &der, issuer)?;
            count = position;
        }
        Ok(count)
    }

    fn rows(&self, text: &str, column: Option<usize>) -> Result<u64, Fault> {
        let broken = |position: u64| Fault::Malformed(format!("record {position} is not whole"));
        let (_, mut rest) = read_row(text).ok_or_else(|| broken(0))?;
        let mut count = 0;
        while !rest.is_empty() {
            let (values, after) = read_row(rest).ok_or_else(|| broken(count + 1))?;
            (count, rest) = (count + 1, after);
            let Some(column) = column else { continue };
            let value = values.get(column).ok_or_else(|| broken(count))?;
            let der = if value.starts_with(BEGIN) {
                from_pem(value)
            } else {
                BASE64_STANDARD.decode(value).map_err(|error| error.to_string())
            };
            let der = der.map_err(|reason| Fault::Certificate { position: count, reason })?;
            self.one(count, &der, None)?;
        }
        Ok(count)
    }
}

fn text(octets: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(octets).map_err(|error| Fault::Malformed(format!("it is not UTF-8: {error}")))
}

/// The DER of a certificate as this program writes it.
fn from_pem(pem: &str) -> Result<Vec<u8>, String> {
    let body =
        pem.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or("it is not one PEM certificate")?;
    let mut base64 = String::with_capacity(body.len());
    body.split('\n').for_each(|line| base64.push_str(line));
    BASE64_STANDARD.decode(base64).map_err(|error| format!("its PEM: {error}"))
}
