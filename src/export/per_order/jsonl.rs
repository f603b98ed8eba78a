//! One JSON object per line for each certificate, for custom programs.

use serde::Serialize;

use crate::{
    pem::certificate_pem,
    proto::{Record, rfc3339},
};

#[derive(Serialize)]
struct Line<'a> {
    certificate_id: &'a str,
    serial_number: String,
    device_id: &'a str,
    order: &'a str,
    profile: &'a str,
    issuer: &'a str,
    station: &'a str,
    issued_at: Option<String>,
    certificate_pem: String,
}

/// The line with its end.
pub(super) fn line(record: &Record) -> String {
    let line = Line {
        certificate_id: &record.certificate_id,
        serial_number: hex::encode(&record.serial_number),
        device_id: &record.device_id,
        order: &record.order,
        profile: &record.profile,
        issuer: &record.issuer,
        station: &record.station,
        issued_at: record.issued_at.as_ref().and_then(rfc3339),
        certificate_pem: certificate_pem(&record.certificate),
    };
    // Strings always have a JSON form.
    serde_json::to_string(&line).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;

    #[test]
    fn jsonl_line_has_all_about_a_certificate() {
        assert_eq!(
            super::line(&record("dev-1")),
            concat!(
                r#"{"certificate_id":"e4f60d0aa6d7f3d3b6a6494b1c861b99f649c6f9ec51abaf201b20f297327c95","#,
                r#""serial_number":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","device_id":"dev-1","order":"order-1","#,
                r#""profile":"device","issuer":"ca","station":"line1/tester3","issued_at":"2026-01-01T00:00:00Z","#,
                r#""certificate_pem":"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"}"#,
                "\n"
            )
        );
    }
}
