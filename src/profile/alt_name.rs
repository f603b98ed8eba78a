//! The subjectAltName of a profile's certificates (RFC 5280 section 4.2.1.6): `dns:NAME`, `uri:URI`, and
//! `hardware-module:OID:SERIAL` (hardwareModuleName of RFC 4108 section 5, as IEEE 802.1AR uses it).

use const_oid::{ObjectIdentifier, db};

use super::template::{Template, Values};
use crate::asn1::{OCTET_STRING, SEQUENCE, explicit, extension, implicit, object_identifier, primitive, tlv};

/// id-on-hardwareModuleName.
pub(crate) const HARDWARE_MODULE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.4");

#[derive(Debug)]
pub(super) struct AltName {
    kind: Kind,
    value: Template,
}

#[derive(Debug)]
enum Kind {
    Dns,
    Uri,
    HardwareModule(ObjectIdentifier),
}

impl AltName {
    pub(super) fn parse(text: &str) -> Result<AltName, String> {
        let form = "use dns:NAME, uri:URI or hardware-module:OID:SERIAL";
        let (kind, value) = text.split_once(':').ok_or_else(|| format!("\"{text}\" has no type; {form}"))?;
        let (kind, value) = match kind {
            "dns" => (Kind::Dns, value),
            "uri" => (Kind::Uri, value),
            "hardware-module" => {
                let (oid, serial) =
                    value.split_once(':').ok_or_else(|| format!("\"{text}\" has no serial number; {form}"))?;
                let oid = ObjectIdentifier::new(oid).map_err(|_| format!("\"{oid}\" is not an OID; {form}"))?;
                (Kind::HardwareModule(oid), serial)
            }
            other => return Err(format!("\"{other}\" is not a type of name; {form}")),
        };
        let alt_name = AltName { kind, value: Template::parse(value)? };
        match alt_name.value.constant() {
            Some(constant) => alt_name.check(constant)?,
            None if value.is_empty() => return Err(format!("\"{text}\" has no value; {form}")),
            None => {}
        }
        Ok(alt_name)
    }

    pub(super) fn template(&self) -> &Template {
        &self.value
    }

    fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Dns => check_dns(value),
            Kind::Uri => check_uri(value),
            Kind::HardwareModule(_) if value.is_empty() => Err("the hardware module's serial number is empty".into()),
            Kind::HardwareModule(_) => Ok(()),
        }
    }

    fn encode(&self, values: &Values<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let value = self.value.fill(values)?;
        self.check(&value)?;
        match self.kind {
            Kind::Dns => primitive(out, implicit(2), value.as_bytes()),
            Kind::Uri => primitive(out, implicit(6), value.as_bytes()),
            // otherName [0] { type-id, value [0] EXPLICIT HardwareModuleName { hwType, hwSerialNum } }
            Kind::HardwareModule(oid) => tlv(out, explicit(0), |out| {
                object_identifier(out, HARDWARE_MODULE_NAME);
                tlv(out, explicit(0), |out| {
                    tlv(out, SEQUENCE, |out| {
                        object_identifier(out, oid);
                        primitive(out, OCTET_STRING, value.as_bytes());
                    });
                });
            }),
        }
        Ok(())
    }
}

/// Appends the extension; nothing without names.
pub(super) fn encode(names: &[AltName], values: &Values<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let mut failed = Ok(());
    if !names.is_empty() {
        extension(out, db::rfc5280::ID_CE_SUBJECT_ALT_NAME, false, |out| {
            tlv(out, SEQUENCE, |out| failed = names.iter().try_for_each(|name| name.encode(values, out)));
        });
    }
    failed
}

/// Preferred name syntax of RFC 1034 section 3.5, as RFC 5280 demands it.
fn check_dns(name: &str) -> Result<(), String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(());
    }
    Err(format!(
        "\"{name}\" is not a DNS name: up to 253 characters in labels of 1 to 63 letters, digits and hyphens between dots"
    ))
}

/// RFC 5280: an absolute URI (RFC 3986 section 4.3 with its scheme), in ASCII.
pub(super) fn check_uri(uri: &str) -> Result<(), String> {
    let scheme = uri.split_once(':').map(|(scheme, rest)| (scheme, rest.is_empty()));
    let good = |scheme: &str| {
        scheme.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    match scheme {
        Some((scheme, false))
            if good(scheme) && uri.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)) =>
        {
            Ok(())
        }
        _ => Err(format!("\"{uri}\" is not an absolute URI in ASCII, such as https://example.com/device")),
    }
}
