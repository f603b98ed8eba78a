//! The subject of a profile's certificates: constant attributes are encoded once, the others are filled in.

use const_oid::db::rfc4519;

use super::{
    error::SubjectError,
    template::{Template, Values},
};
use crate::{
    asn1::{SEQUENCE, tlv},
    name::{Attribute, EMAIL_ADDRESS, Syntax},
    possession::CodeShape,
};

#[derive(Debug)]
pub(super) struct Subject {
    parts: Vec<Part>,
    /// The values of emailAddress among them.
    email_addresses: Vec<Template>,
}

#[derive(Debug)]
enum Part {
    /// DER of one or more RelativeDistinguishedNames.
    Constant(Vec<u8>),
    Filled {
        attribute: Attribute,
        value: Template,
    },
}

impl Subject {
    /// Takes note of one more attribute, `TYPE=value` with placeholders.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        let attribute = Attribute::parse(text)?;
        let value = Template::parse(&attribute.value)?;
        if attribute.oid == EMAIL_ADDRESS {
            self.email_addresses.push(value.clone());
        }
        let Some(constant) = value.constant() else {
            self.parts.push(Part::Filled { attribute, value });
            return Ok(());
        };
        if !matches!(self.parts.last(), Some(Part::Constant(_))) {
            self.parts.push(Part::Constant(Vec::new()));
        }
        match self.parts.last_mut() {
            Some(Part::Constant(encoded)) => Ok(attribute.encode(constant, encoded)?),
            _ => Ok(()),
        }
    }

    pub(super) fn new() -> Subject {
        Subject { parts: Vec::new(), email_addresses: Vec::new() }
    }

    pub(super) fn email_addresses(&self) -> impl Iterator<Item = &Template> {
        self.email_addresses.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        self.parts.iter().filter_map(|part| match part {
            Part::Filled { value, .. } => Some(value),
            Part::Constant(_) => None,
        })
    }

    /// An order's attribute as a sample certificate has it: what the subject can hold.
    pub(super) fn sample_of(&self, name: &str) -> &'static str {
        let country = self.parts.iter().any(|part| match part {
            Part::Filled { attribute, value } => {
                attribute.syntax == Syntax::Country && value.order_attributes().any(|found| found == name)
            }
            Part::Constant(_) => false,
        });
        if country { "AA" } else { "0000" }
    }

    /// The form of a platform's code that a CN has in which the device id stands, if it has one.
    pub(super) fn code_shape(&self, values: &Values<'_>) -> Option<CodeShape> {
        self.common_names().filter(|value| value.has_device_id()).find_map(|value| {
            let possible = CodeShape::has_length(value.length(values));
            possible.then(|| value.fill(values).ok()).flatten().and_then(|filled| CodeShape::of(&filled))
        })
    }

    /// The CNs that differ from one certificate to another.
    pub(super) fn common_names(&self) -> impl Iterator<Item = &Template> {
        self.parts.iter().filter_map(|part| match part {
            Part::Filled { attribute, value } if attribute.oid == rfc4519::CN => Some(value),
            _ => None,
        })
    }

    /// Appends the DER Name.
    pub(super) fn encode(&self, values: &Values<'_>, out: &mut Vec<u8>) -> Result<(), SubjectError> {
        let mut encoded = Ok(());
        tlv(out, SEQUENCE, |out| {
            encoded = self.parts.iter().try_for_each(|part| match part {
                Part::Constant(encoded) => {
                    out.extend_from_slice(encoded);
                    Ok(())
                }
                Part::Filled { attribute, value } => Ok(attribute.encode(&value.fill(values)?, out)?),
            });
        });
        encoded
    }
}
