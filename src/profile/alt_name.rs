//! The subjectAltName of a profile's certificates (RFC 5280 section 4.2.1.6): `dns:NAME`, `uri:URI`, `email:ADDRESS`, and
//! `hardware-module:OID:SERIAL` (hardwareModuleName of RFC 4108 section 5, as IEEE 802.1AR uses it).

use std::str::FromStr;

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

/// What a setting may be.
const FORMS: &str = "use dns:NAME, uri:URI, email:ADDRESS or hardware-module:OID:SERIAL";

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

/// Why a name cannot be in a subjectAltName.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AltNameError {
    #[error("\"{0}\" has no type; {FORMS}")]
    NoType(String),
    #[error("\"{0}\" has no serial number; {FORMS}")]
    NoSerialNumber(String),
    #[error("\"{text}\" is not an OID: {error}")]
    Oid { text: String, error: <Oid as FromStr>::Err },
    #[error("\"{0}\" is not a type of name; {FORMS}")]
    UnknownType(String),
    #[error("\"{0}\" has no value; {FORMS}")]
    NoValue(String),
    #[error("{0}")]
    Template(String),
    #[error(
        "\"{0}\" is not a DNS name: up to 253 characters in labels of 1 to 63 letters, digits and hyphens between dots"
    )]
    Dns(String),
    #[error("{0}")]
    Uri(String),
    #[error("\"{0}\" is not an e-mail address, such as iot@example.com")]
    Email(String),
    #[error("the hardware module's serial number is empty")]
    EmptySerialNumber,
}

impl AltName {
    pub(super) fn parse(text: &str) -> Result<AltName, AltNameError> {
        let (kind, value) = text.split_once(':').ok_or_else(|| AltNameError::NoType(shortened(text)))?;
        let (kind, value) = match kind {
            "dns" => (Kind::Dns, value),
            "uri" => (Kind::Uri, value),
            "email" => (Kind::Email, value),
            "hardware-module" => {
                let (oid, serial) =
                    value.split_once(':').ok_or_else(|| AltNameError::NoSerialNumber(shortened(text)))?;
                let oid = oid.parse().map_err(|error| AltNameError::Oid { text: shortened(oid), error })?;
                (Kind::HardwareModule(oid), serial)
            }
            other => return Err(AltNameError::UnknownType(shortened(other))),
        };
        let template = Template::parse(value).map_err(|error| AltNameError::Template(error.to_string()))?;
        let alt_name = AltName { kind, value: template };
        match alt_name.value.constant() {
            Some(constant) => alt_name.check(constant)?,
            None if value.is_empty() => return Err(AltNameError::NoValue(shortened(text))),
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

    fn check(&self, value: &str) -> Result<(), AltNameError> {
        match self.kind {
            // Not rustls_pki_types::DnsName: it takes underscores, which the preferred name syntax of RFC 5280 section
            // 4.2.1.6 does not have, and refuses a last label of digits alone, which a device id may be.
            Kind::Dns if is_dns_name(value) => Ok(()),
            Kind::Dns => Err(AltNameError::Dns(shortened(value))),
            Kind::Uri => check_uri(value).map_err(|error| AltNameError::Uri(error.to_string())),
            Kind::Email if is_mailbox(value) => Ok(()),
            Kind::Email => Err(AltNameError::Email(shortened(value))),
            Kind::HardwareModule(_) if value.is_empty() => Err(AltNameError::EmptySerialNumber),
            Kind::HardwareModule(_) => Ok(()),
        }
    }

    fn encode(&self, values: &Values<'_>, out: &mut Vec<u8>) -> Result<(), AltNameError> {
        let value = self.value.fill(values).map_err(|error| AltNameError::Template(error.to_string()))?;
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
pub(super) fn encode(names: &[AltName], values: &Values<'_>, out: &mut Vec<u8>) -> Result<(), AltNameError> {
    let mut failed = Ok(());
    if !names.is_empty() {
        extension(out, db::rfc5280::ID_CE_SUBJECT_ALT_NAME, false, |out| {
            tlv(out, SEQUENCE, |out| failed = names.iter().try_for_each(|name| name.encode(values, out)));
        });
    }
    failed
}
