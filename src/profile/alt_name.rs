//! The subjectAltName of a profile's certificates (RFC 5280 section 4.2.1.6): `dns:NAME`, `uri:URI`, `email:ADDRESS`, and
//! `hardware-module:OID:SERIAL` (hardwareModuleName of RFC 4108 section 5, as IEEE 802.1AR uses it).

use const_oid::{ObjectIdentifier, db};

use super::{
    template::{Template, Values},
    uri::check_uri,
};
use crate::{
    asn1::{OCTET_STRING, Oid, SEQUENCE, explicit, extension, implicit, object_identifier, primitive, tlv},
    name::{is_dns_name, is_mailbox},
    quote::shortened,
};

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
    Email,
    HardwareModule(Oid),
}

impl AltName {
    pub(super) fn parse(text: &str) -> Result<AltName, String> {
        let form = "use dns:NAME, uri:URI, email:ADDRESS or hardware-module:OID:SERIAL";
        let (kind, value) =
            text.split_once(':').ok_or_else(|| format!("\"{}\" has no type; {form}", shortened(text)))?;
        let (kind, value) = match kind {
            "dns" => (Kind::Dns, value),
            "uri" => (Kind::Uri, value),
            "email" => (Kind::Email, value),
            "hardware-module" => {
                let (oid, serial) = value
                    .split_once(':')
                    .ok_or_else(|| format!("\"{}\" has no serial number; {form}", shortened(text)))?;
                let oid = oid.parse().map_err(|error| format!("\"{}\" is not an OID: {error}", shortened(oid)))?;
                (Kind::HardwareModule(oid), serial)
            }
            other => return Err(format!("\"{}\" is not a type of name; {form}", shortened(other))),
        };
        let alt_name = AltName { kind, value: Template::parse(value)? };
        match alt_name.value.constant() {
            Some(constant) => alt_name.check(constant)?,
            None if value.is_empty() => return Err(format!("\"{}\" has no value; {form}", shortened(text))),
            None => {}
        }
        Ok(alt_name)
    }

    /// Whether it is the e-mail address that the subject has as this text.
    pub(super) fn is_email(&self, value: &Template) -> bool {
        matches!(self.kind, Kind::Email) && self.value == *value
    }

    pub(super) fn template(&self) -> &Template {
        &self.value
    }

    fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Dns if is_dns_name(value) => Ok(()),
            Kind::Dns => Err(format!(
                "\"{}\" is not a DNS name: up to 253 characters in labels of 1 to 63 letters, digits and hyphens between dots",
                shortened(value)
            )),
            Kind::Uri => check_uri(value),
            Kind::Email if is_mailbox(value) => Ok(()),
            Kind::Email => Err(format!("\"{}\" is not an e-mail address, such as iot@example.com", shortened(value))),
            Kind::HardwareModule(_) if value.is_empty() => Err("the hardware module's serial number is empty".into()),
            Kind::HardwareModule(_) => Ok(()),
        }
    }

    fn encode(&self, values: &Values<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let value = self.value.fill(values)?;
        self.check(&value)?;
        match self.kind {
            Kind::Email => primitive(out, implicit(1), value.as_bytes()),
            Kind::Dns => primitive(out, implicit(2), value.as_bytes()),
            Kind::Uri => primitive(out, implicit(6), value.as_bytes()),
            // otherName [0] { type-id, value [0] EXPLICIT HardwareModuleName { hwType, hwSerialNum } }
            Kind::HardwareModule(ref oid) => tlv(out, explicit(0), |out| {
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
