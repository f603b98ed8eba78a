//! The subject of a profile's certificates: constant attributes are encoded once, the others are filled in.

use super::template::{Template, Values};
use crate::{
    asn1::{SEQUENCE, tlv},
    name::{Attribute, Syntax},
};

#[derive(Debug)]
pub(super) struct Subject(Vec<Part>);

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
        let Some(constant) = value.constant() else {
            self.0.push(Part::Filled { attribute, value });
            return Ok(());
        };
        if !matches!(self.0.last(), Some(Part::Constant(_))) {
            self.0.push(Part::Constant(Vec::new()));
        }
        match self.0.last_mut() {
            Some(Part::Constant(encoded)) => attribute.encode(constant, encoded),
            _ => Ok(()),
        }
    }

    pub(super) fn new() -> Subject {
        Subject(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        self.0.iter().filter_map(|part| match part {
            Part::Filled { value, .. } => Some(value),
            Part::Constant(_) => None,
        })
    }

    /// An order's attribute as a sample certificate has it: what the subject can hold.
    pub(super) fn sample_of(&self, name: &str) -> &'static str {
        let country = self.0.iter().any(|part| match part {
            Part::Filled { attribute, value } => {
                attribute.syntax == Syntax::Country && value.order_attributes().any(|found| found == name)
            }
            Part::Constant(_) => false,
        });
        if country { "AA" } else { "0000" }
    }

    /// Appends the DER Name.
    pub(super) fn encode(&self, values: &Values<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let mut failed = Ok(());
        tlv(out, SEQUENCE, |out| {
            failed = self.0.iter().try_for_each(|part| match part {
                Part::Constant(encoded) => {
                    out.extend_from_slice(encoded);
                    Ok(())
                }
                Part::Filled { attribute, value } => attribute.encode(&value.fill(values)?, out),
            });
        });
        failed
    }
}
