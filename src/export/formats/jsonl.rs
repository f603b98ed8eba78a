//! `jsonl`, the canonical format: one JSON object a line, with all that the ledger knows of a certificate. Its importers are
//! programs of the site, and `birthmark-aws`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    super::certificate::{Certificate, UnfitReason, milliseconds},
    lines::Lines,
};
use crate::{pem::certificate_pem, x509};

#[derive(Serialize)]
struct Line<'a> {
    device_id: &'a str,
    certificate_id: &'a str,
    serial_number: String,
    certificate: String,
    issuer_sha256: String,
    issuer: &'a str,
    order: &'a str,
    order_attributes: &'a BTreeMap<String, String>,
    profile: &'a str,
    station: &'a str,
    key_sha256: String,
    issued_at: String,
    confirmed_at: Option<String>,
    replaces: Option<String>,
    not_before: Option<String>,
    not_after: Option<String>,
    subject: Option<String>,
}

pub(in crate::export) struct Jsonl;

impl Lines for Jsonl {
    fn append(&mut self, certificate: &Certificate<'_>, out: &mut String) -> Result<(), UnfitReason> {
        let parsed = x509::Certificate::from_der(certificate.der).ok();
        let line = Line {
            device_id: certificate.device_id,
            certificate_id: certificate.certificate_id,
            serial_number: hex::encode(certificate.serial_number),
            certificate: certificate_pem(certificate.der),
            issuer_sha256: hex::encode(certificate.issuer.sha256()),
            issuer: certificate.issuer.name(),
            order: certificate.order,
            order_attributes: certificate.order_attributes,
            profile: certificate.profile,
            station: certificate.station,
            key_sha256: hex::encode(certificate.key_sha256),
            issued_at: milliseconds(certificate.issued_at),
            confirmed_at: certificate.confirmed_at.map(milliseconds),
            replaces: certificate.replaces.map(hex::encode),
            not_before: parsed.as_ref().map(|parsed| parsed.not_before.to_string()),
            not_after: parsed.as_ref().map(|parsed| parsed.not_after.to_string()),
            subject: parsed.as_ref().map(|parsed| parsed.subject.to_string()),
        };
        // Strings always have a JSON form.
        out.push_str(&serde_json::to_string(&line).unwrap_or_default());
        out.push('\n');
        Ok(())
    }
}
