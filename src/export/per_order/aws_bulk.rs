//! AWS IoT bulk registration: a template and one JSON object of parameters a line, for `StartThingRegistrationTask`.
//!
//! AWS reports a bad line only after the whole task has run, so its rules are checked here.

use serde::Serialize;
use serde_json::json;

use super::error::{ExportError, LONGEST_NAME};
use crate::{pem::certificate_pem, proto::Record};

/// The longest line that AWS takes, in bytes.
const LONGEST_LINE: usize = 256 << 10;

/// The longest value of a thing's attribute, in characters.
const LONGEST_ATTRIBUTE: usize = 800;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line<'a> {
    thing_name: &'a str,
    serial_number: String,
    certificate_pem: String,
    #[serde(rename = "CACertificatePem")]
    ca_certificate_pem: String,
}

/// Why AWS would refuse a device's parameters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("an AWS IoT thing name has 1 to {LONGEST_NAME} characters of a-z A-Z 0-9 : _ -")]
    ThingName,
    #[error("the serial number cannot be an attribute of an AWS IoT thing")]
    SerialNumber,
    #[error("its line has {0} bytes; AWS takes {LONGEST_LINE}")]
    LineTooLong(usize),
}

/// The parameters of one device with the line's end, or why AWS would refuse them. `ca` is the DER certificate of its
/// issuing CA.
pub(super) fn line(record: &Record, ca: &[u8]) -> Result<String, Unusable> {
    let line = Line {
        thing_name: &record.device_id,
        serial_number: hex::encode(&record.serial_number),
        certificate_pem: certificate_pem(&record.certificate),
        ca_certificate_pem: certificate_pem(ca),
    };
    if !is_thing_name(line.thing_name) {
        return Err(Unusable::ThingName);
    }
    if !is_attribute_value(&line.serial_number) {
        return Err(Unusable::SerialNumber);
    }
    // Strings always have a JSON form.
    let text = serde_json::to_string(&line).unwrap_or_default() + "\n";
    match text.len() {
        length if length > LONGEST_LINE => Err(Unusable::LineTooLong(length)),
        _ => Ok(text),
    }
}

/// The template that makes of each line a thing, its active certificate, and the policy's attachment.
pub(super) fn template(policy: &str) -> Result<String, ExportError> {
    // iot:PolicyName is `[\w+=,.@-]+`.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if policy.is_empty() || policy.len() > LONGEST_NAME || !policy.bytes().all(fits) {
        return Err(ExportError::Policy(policy.to_owned()));
    }
    let string = || json!({ "Type": "String" });
    let reference = |name| json!({ "Ref": name });
    let template = json!({
        "Parameters": {
            "ThingName": string(),
            "SerialNumber": string(),
            "CertificatePem": string(),
            "CACertificatePem": string(),
        },
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": reference("ThingName"),
                    "AttributePayload": { "serialNumber": reference("SerialNumber") },
                },
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {
                    "CertificatePem": reference("CertificatePem"),
                    "CACertificatePem": reference("CACertificatePem"),
                    "Status": "ACTIVE",
                },
            },
            "policy": { "Type": "AWS::IoT::Policy", "Properties": { "PolicyName": policy } },
        },
    });
    Ok(format!("{template:#}\n"))
}

fn is_thing_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":_-".contains(&byte))
}

fn is_attribute_value(text: &str) -> bool {
    text.len() <= LONGEST_ATTRIBUTE
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.,@/:#=[]-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::record, *};

    #[test]
    fn aws_line_has_the_parameters_of_the_template() {
        assert_eq!(
            line(&record("dev-1"), &[0x30, 0]),
            Ok(concat!(
                r#"{"ThingName":"dev-1","SerialNumber":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","#,
                r#""CertificatePem":"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n","#,
                r#""CACertificatePem":"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"}"#,
                "\n"
            )
            .to_owned())
        );
    }

    #[test]
    fn aws_template_is_the_documented_one() -> Result<(), Box<dyn std::error::Error>> {
        let expected = r#"{"Parameters":{"ThingName":{"Type":"String"},"SerialNumber":{"Type":"String"},"CertificatePem":{"Type":"String"},"CACertificatePem":{"Type":"String"}},
 "Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"ThingName"},"AttributePayload":{"serialNumber":{"Ref":"SerialNumber"}}}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificatePem":{"Ref":"CertificatePem"},"CACertificatePem":{"Ref":"CACertificatePem"},"Status":"ACTIVE"}},
  "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"device"}}}}"#;
        let expected: serde_json::Value = serde_json::from_str(expected)?;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&template("device")?)?, expected);
        assert!(template("a policy").is_err());
        Ok(())
    }

    #[test]
    fn aws_line_with_unfit_names_is_refused() {
        for (name, fits) in [("dev-1", true), ("a:b_c", true), ("dev.1", false), ("", false), ("ü", false)] {
            assert_eq!(line(&record(name), &[]).is_ok(), fits, "{name}");
        }
        assert!(line(&record(&"x".repeat(129)), &[]).is_err());
        assert!(line(&record("dev-1"), &vec![0; LONGEST_LINE]).is_err_and(|why| why.to_string().contains("bytes")));
        assert!(!is_attribute_value("two words"));
    }
}
