//! Distinguished names as configuration files write them: a list of `TYPE=value`, in the order of the certificate.

use const_oid::{ObjectIdentifier, db::rfc4519};

use crate::asn1::{IA5_STRING, PRINTABLE_STRING, SEQUENCE, SET, UTF8_STRING, object_identifier, primitive, tlv};

/// The Vendor ID in a Matter certificate (Matter Core Specification section 6.1.1).
pub const MATTER_VENDOR_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.37244.2.1");
/// The Product ID in a Matter certificate.
pub const MATTER_PRODUCT_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.37244.2.2");

/// What values a type of attribute may have, and how they are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// UTF8String, up to so many characters.
    Text(usize),
    /// PrintableString (RFC 5280 appendix A.1 demands it), up to so many characters.
    Printable(usize),
    /// IA5String, up to so many characters.
    Ascii(usize),
    /// PrintableString of the two letters of ISO 3166.
    Country,
    /// UTF8String of 4 upper-case hex digits (Matter Core Specification section 6.2.2.2).
    Hex4,
}

use Syntax::{Ascii, Country, Hex4, Printable, Text};

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
    ("DC", rfc4519::DC, Ascii(63)),
    ("emailAddress", ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1"), Ascii(255)),
    ("VID", MATTER_VENDOR_ID, Hex4),
    ("PID", MATTER_PRODUCT_ID, Hex4),
];

/// One attribute of a distinguished name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// The attribute's type.
    pub oid: ObjectIdentifier,
    /// What values it may have.
    pub syntax: Syntax,
    /// Its value, or a template of it.
    pub value: String,
}

impl Attribute {
    /// Reads `TYPE=value`, such as `CN=Acme Device Root`; a type without a name is written as its OID.
    ///
    /// # Errors
    /// A sentence that says what was wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("\"{text}\" is not of the form TYPE=value, such as \"CN={{device_id}}\""))?;
        let (name, value) = (name.trim(), value.trim());
        let (oid, syntax) = match TYPES.iter().find(|(known, ..)| *known == name) {
            Some((_, oid, syntax)) => (*oid, *syntax),
            None => {
                let oid = ObjectIdentifier::new(name).map_err(|_| {
                    let known: Vec<_> = TYPES.iter().map(|(name, ..)| *name).collect();
                    format!("\"{name}\" is not a known attribute type; the types are {}, or an OID", known.join(", "))
                })?;
                let known = TYPES.iter().find(|(_, known, _)| *known == oid);
                (oid, known.map_or(Text(256), |(.., syntax)| *syntax))
            }
        };
        if value.is_empty() {
            return Err(format!("\"{text}\" has no value"));
        }
        Ok(Attribute { oid, syntax, value: value.to_owned() })
    }

    /// Checks that it may have this value.
    ///
    /// # Errors
    /// A sentence that names the attribute, the value, and what would be right.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let name = self.type_name();
        let wrong = |right: String| Err(format!("{name} \"{value}\" {right}"));
        let longest = match self.syntax {
            Text(longest) | Printable(longest) | Ascii(longest) => longest,
            Country if value.len() == 2 && value.bytes().all(|byte| byte.is_ascii_uppercase()) => 2,
            Country => return wrong("must be the two capital letters of ISO 3166, such as DE".into()),
            Hex4 if value.len() == 4 && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F')) => 4,
            Hex4 => return wrong("must be 4 upper-case hex digits, such as FFF1".into()),
        };
        let length = value.chars().count();
        if length == 0 || length > longest {
            return wrong(format!("has {length} characters; 1 to {longest} are allowed"));
        }
        let printable = |byte: u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte);
        match self.syntax {
            Printable(_) if !value.bytes().all(printable) => {
                wrong("has characters that a PrintableString cannot hold; use A-Z a-z 0-9 ' ( ) + , - . / : = ?".into())
            }
            Ascii(_) if !value.is_ascii() => wrong("must be ASCII".into()),
            _ if value.chars().any(char::is_control) => wrong("must not have control characters".into()),
            _ => Ok(()),
        }
    }

    /// Appends the RelativeDistinguishedName with this value: a PrintableString or IA5String where RFC 5280 demands one,
    /// otherwise a UTF8String.
    ///
    /// # Errors
    /// Those of [`Attribute::check`].
    pub fn encode(&self, value: &str, out: &mut Vec<u8>) -> Result<(), String> {
        self.check(value)?;
        let tag = match self.syntax {
            Text(_) | Hex4 => UTF8_STRING,
            Printable(_) | Country => PRINTABLE_STRING,
            Ascii(_) => IA5_STRING,
        };
        tlv(out, SET, |out| {
            tlv(out, SEQUENCE, |out| {
                object_identifier(out, self.oid);
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

/// The short name of an attribute type, or its OID.
pub fn type_name(oid: &ObjectIdentifier) -> String {
    TYPES.iter().find(|(_, known, _)| known == oid).map_or_else(|| oid.to_string(), |(name, ..)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_takes_what_its_type_allows() {
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
            ("O=Möbel & Söhne", true),
            ("1.3.6.1.4.1.99999.1=x", true),
        ] {
            let attribute = Attribute::parse(text).unwrap();
            assert_eq!(attribute.check(&attribute.value).is_ok(), fits, "{text}");
        }
        let long = Attribute::parse("CN=x").unwrap();
        assert!(long.check(&"x".repeat(64)).is_ok());
        assert!(long.check(&"x".repeat(65)).unwrap_err().contains("65 characters; 1 to 64"));
        assert!(Attribute::parse("CNN=x").unwrap_err().contains("CN, C, O"));
        // A known type stays what it is when it is written as its OID.
        assert_eq!(Attribute::parse("2.5.4.6=DE"), Attribute::parse("C=DE"));
    }
}
