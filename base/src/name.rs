//! Distinguished names as configuration files write them: a list of `TYPE=value`, in the order of the certificate.

use const_oid::{ObjectIdentifier, db::rfc4519};

use crate::{
    asn1::{IA5_STRING, Oid, PRINTABLE_STRING, SEQUENCE, SET, UTF8_STRING, object_identifier, primitive, tlv},
    quote::shortened,
};

/// The Vendor ID in a Matter certificate (Matter Core Specification section 6.1.1).
pub const MATTER_VENDOR_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.37244.2.1");
/// The Product ID in a Matter certificate.
pub const MATTER_PRODUCT_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.37244.2.2");

/// The e-mail address in a subject (RFC 5280 section 4.1.2.6).
pub const EMAIL_ADDRESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");

/// What values a type of attribute may have, and how they are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// UTF8String, up to this many characters.
    Text(usize),
    /// PrintableString (RFC 5280 appendix A.1 demands it), up to this many characters.
    Printable(usize),
    /// IA5String of one DNS label (RFC 4519 section 2.4).
    Label,
    /// IA5String of an e-mail address, up to this many characters.
    Mailbox(usize),
    /// PrintableString of the two letters of ISO 3166.
    Country,
    /// UTF8String of 4 upper-case hex digits (Matter Core Specification section 6.2.2.2).
    Hex4,
}

use Syntax::{Country, Hex4, Label, Mailbox, Printable, Text};

impl Syntax {
    fn check(self, value: &str) -> Result<(), ValueFault> {
        let longest = match self {
            Text(longest) | Printable(longest) | Mailbox(longest) => longest,
            Label => 63,
            Country if value.len() == 2 && value.bytes().all(|byte| byte.is_ascii_uppercase()) => 2,
            Country => return Err(ValueFault::Country),
            Hex4 if value.len() == 4 && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F')) => 4,
            Hex4 => return Err(ValueFault::Hex4),
        };
        let found = value.chars().count();
        if found == 0 || found > longest {
            return Err(ValueFault::Length { found, longest });
        }
        let printable = |byte: u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte);
        match self {
            Printable(_) if !value.bytes().all(printable) => Err(ValueFault::Printable),
            Label if !is_dns_label(value) => Err(ValueFault::Label),
            Mailbox(_) if !is_mailbox(value) => Err(ValueFault::Mailbox),
            _ if value.chars().any(char::is_control) => Err(ValueFault::Control),
            _ => Ok(()),
        }
    }
}

/// The attribute types by the names that configuration files have for them; the lengths are those of RFC 5280 appendix
/// A.1 and X.520 annex C, where they say any.
const TYPES: &[(&str, ObjectIdentifier, Syntax)] = &[
    ("CN", rfc4519::CN, Text(64)),
    ("C", rfc4519::C, Country),
    ("O", rfc4519::O, Text(64)),
    ("OU", rfc4519::OU, Text(64)),
    ("L", rfc4519::L, Text(128)),
    ("ST", rfc4519::ST, Text(128)),
    ("street", rfc4519::STREET, Text(128)),
    ("postalCode", rfc4519::POSTAL_CODE, Text(40)),
    ("serialNumber", rfc4519::SERIAL_NUMBER, Printable(64)),
    ("dnQualifier", rfc4519::DN_QUALIFIER, Printable(64)),
    ("title", rfc4519::TITLE, Text(64)),
    ("name", rfc4519::NAME, Text(128)),
    ("GN", rfc4519::GIVEN_NAME, Text(64)),
    ("SN", rfc4519::SN, Text(64)),
    ("initials", rfc4519::INITIALS, Text(64)),
    ("generationQualifier", rfc4519::GENERATION_QUALIFIER, Text(64)),
    ("pseudonym", ObjectIdentifier::new_unwrap("2.5.4.65"), Text(128)),
    ("description", rfc4519::DESCRIPTION, Text(256)),
    ("businessCategory", rfc4519::BUSINESS_CATEGORY, Text(128)),
    ("organizationIdentifier", ObjectIdentifier::new_unwrap("2.5.4.97"), Text(64)),
    ("UID", rfc4519::UID, Text(256)),
    ("DC", rfc4519::DC, Label),
    ("emailAddress", EMAIL_ADDRESS, Mailbox(255)),
    ("VID", MATTER_VENDOR_ID, Hex4),
    ("PID", MATTER_PRODUCT_ID, Hex4),
];

/// Why there is no such attribute, or it cannot have a value. Texts are shortened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// Not `TYPE=value`.
    #[error("\"{0}\" is not of the form TYPE=value, such as \"CN={{device_id}}\"")]
    Form(String),
    /// The type is not known here.
    #[error("\"{0}\" is not a known attribute type; the types are {types}, or an OID", types = type_names())]
    UnknownType(String),
    /// Nothing follows the equals sign.
    #[error("\"{0}\" has no value")]
    Empty(String),
    /// The type does not allow the value.
    #[error("{name} \"{value}\" {fault}")]
    Value {
        /// The attribute's type.
        name: String,
        /// The value.
        value: String,
        /// The rule that it breaks.
        fault: ValueFault,
    },
}

/// For those who join it with other sentences.
impl From<AttributeError> for String {
    fn from(error: AttributeError) -> String {
        error.to_string()
    }
}

/// The rule that an attribute's value breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueFault {
    /// No country's code.
    #[error("must be the two capital letters of ISO 3166, such as DE")]
    Country,
    /// Not a VID or PID.
    #[error("must be 4 upper-case hex digits, such as FFF1")]
    Hex4,
    /// Too long, or empty.
    #[error("has {found} characters; 1 to {longest} are allowed")]
    Length {
        /// How many it has.
        found: usize,
        /// How many it may have.
        longest: usize,
    },
    /// Outside PrintableString.
    #[error("has characters that a PrintableString cannot hold; use A-Z a-z 0-9 ' ( ) + , - . / : = ?")]
    Printable,
    /// Not one label of a DNS name.
    #[error("must be one label of a DNS name, such as example; write each label as a DC of its own")]
    Label,
    /// No e-mail address.
    #[error("must be an e-mail address, such as iot@example.com")]
    Mailbox,
    /// A control character in it.
    #[error("must not have control characters")]
    Control,
}

/// One attribute of a distinguished name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// The attribute's type.
    pub oid: Oid,
    /// What values it may have.
    pub syntax: Syntax,
    /// Its value, or a template of it.
    pub value: String,
}

impl Attribute {
    /// Reads `TYPE=value`, such as `CN=Acme Device Root`; a type without a name is written as its OID.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, AttributeError> {
        let (name, value) = text.split_once('=').ok_or_else(|| AttributeError::Form(shortened(text)))?;
        let (name, value) = (name.trim(), value.trim());
        let (oid, syntax) = match TYPES.iter().find(|(known, ..)| *known == name) {
            Some((_, oid, syntax)) => (Oid::from(*oid), *syntax),
            None => {
                let oid = name.parse::<Oid>().map_err(|_| AttributeError::UnknownType(shortened(name)))?;
                let known = TYPES.iter().find(|(_, known, _)| oid == *known);
                (oid, known.map_or(Text(256), |(.., syntax)| *syntax))
            }
        };
        if value.is_empty() {
            return Err(AttributeError::Empty(shortened(text)));
        }
        Ok(Attribute { oid, syntax, value: value.to_owned() })
    }

    /// Checks that it may have this value.
    ///
    /// # Errors
    /// The attribute, the value, and what would be right.
    pub fn check(&self, value: &str) -> Result<(), AttributeError> {
        self.syntax.check(value).map_err(|fault| {
            let (name, value) = (self.type_name(), shortened(value));
            AttributeError::Value { name, value, fault }
        })
    }

    /// Appends the RelativeDistinguishedName with this value: a PrintableString or IA5String where RFC 5280 demands
    /// one, otherwise a UTF8String.
    ///
    /// # Errors
    /// Those of [`Attribute::check`].
    pub fn encode(&self, value: &str, out: &mut Vec<u8>) -> Result<(), AttributeError> {
        self.check(value)?;
        let tag = match self.syntax {
            Text(_) | Hex4 => UTF8_STRING,
            Printable(_) | Country => PRINTABLE_STRING,
            Label | Mailbox(_) => IA5_STRING,
        };
        tlv(out, SET, |out| {
            tlv(out, SEQUENCE, |out| {
                object_identifier(out, &self.oid);
                primitive(out, tag, value.as_bytes());
            });
        });
        Ok(())
    }

    /// The attribute type's short name, or its OID.
    pub fn type_name(&self) -> String {
        type_name(&self.oid)
    }
}

fn type_names() -> String {
    TYPES.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
}

/// The short name of an attribute type, or its OID.
pub fn type_name(oid: &Oid) -> String {
    TYPES.iter().find(|(_, known, _)| oid == known).map_or_else(|| oid.to_string(), |(name, ..)| (*name).to_owned())
}

/// A label of the preferred name syntax (RFC 1034 section 3.5), which RFC 5280 demands.
pub fn is_dns_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Labels between dots.
pub fn is_dns_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

/// An e-mail address (RFC 5321 section 4.1.2: Dot-string, at, Domain).
pub fn is_mailbox(address: &str) -> bool {
    let atom = |atom: &str| {
        !atom.is_empty()
            && atom.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte))
    };
    address
        .rsplit_once('@')
        .is_some_and(|(local, domain)| local.len() <= 64 && local.split('.').all(atom) && is_dns_name(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute takes what its type allows.
    #[test]
    fn name_attribute_takes_what_its_type_allows() {
        for (text, fits) in [
            ("CN=d1", true),
            ("C=DE", true),
            ("C=de", false),
            ("C=DEU", false),
            ("VID=FFF1", true),
            ("VID=fff1", false),
            ("PID=80000", false),
            ("serialNumber=A-1", true),
            ("serialNumber=A_1", false),
            ("DC=example", true),
            ("DC=é", false),
            ("DC=exa mple.com", false),
            ("DC=example.com", false),
            ("DC=-x", false),
            ("emailAddress=iot+1@example.com", true),
            ("emailAddress=not an address", false),
            ("emailAddress=a@b@c", false),
            ("emailAddress=a..b@example.com", false),
            ("2.25.329800735698586629295641978511506172918=x", true),
            ("O=Möbel & Söhne", true),
            ("1.3.6.1.4.1.99999.1=x", true),
        ] {
            let attribute = Attribute::parse(text).unwrap();
            assert_eq!(attribute.check(&attribute.value).is_ok(), fits, "{text}");
        }
        let long = Attribute::parse("CN=x").unwrap();
        assert!(long.check(&"x".repeat(64)).is_ok());
        assert!(long.check(&"x".repeat(65)).unwrap_err().to_string().contains("65 characters; 1 to 64"));
        assert!(Attribute::parse("CNN=x").unwrap_err().to_string().contains("CN, C, O"));
        // A known type stays what it is when it is written as its OID.
        assert_eq!(Attribute::parse("2.5.4.6=DE"), Attribute::parse("C=DE"));
    }
}
