//! Distinguished names that others wrote (RFC 5280 section 4.1.2.4).

use std::{borrow::Cow, fmt};

use const_oid::ObjectIdentifier;

use crate::{
    asn1::{
        BMP_STRING, DerError, IA5_STRING, NUMERIC_STRING, OBJECT_IDENTIFIER, Oid, PRINTABLE_STRING, Reader, SEQUENCE,
        SET, TELETEX_STRING, UNIVERSAL_STRING, UTF8_STRING, VISIBLE_STRING, Value,
    },
    name::type_name,
    quote::shortened,
};

/// A DER Name, with its attributes.
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    der: Vec<u8>,
    /// The relative distinguished names; nearly all have one attribute.
    rdns: Vec<Vec<Attribute>>,
}

/// One attribute.
#[derive(Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its type.
    pub oid: Oid,
    /// The tag of its value.
    pub tag: u8,
    content: Vec<u8>,
}

impl Name {
    /// Takes a DER Name apart.
    pub fn from_der(der: &[u8]) -> Result<Name, DerError> {
        let mut reader = Reader::new(Value::only(der)?.of(SEQUENCE)?);
        let mut rdns = Vec::new();
        while !reader.is_empty() {
            rdns.push(read_rdn(reader.expect(SET)?)?);
        }
        Ok(Name { der: der.to_vec(), rdns })
    }

    /// The octets, as they came.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// All attributes in their order.
    pub fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.rdns.iter().flatten()
    }

    /// Whether it has no attribute.
    pub fn is_empty(&self) -> bool {
        self.rdns.is_empty()
    }

    /// The values of an attribute, as text.
    pub fn values(&self, oid: ObjectIdentifier) -> Vec<String> {
        self.attributes().filter(|attribute| attribute.oid == oid).map(Attribute::to_text).collect()
    }

    /// Whether both say the same to people: the same text, whatever its string type, case or spaces (RFC 5280 section 7.1).
    pub fn same_text(&self, other: &Name) -> bool {
        self.rdns.len() == other.rdns.len() && starts_with(self, other)
    }
}

/// Whether the first RDNs of `name` are those of `prefix`, compared as text.
pub fn starts_with(name: &Name, prefix: &Name) -> bool {
    prefix.rdns.len() <= name.rdns.len()
        && prefix.rdns.iter().zip(&name.rdns).all(|(one, two)| folded(one) == folded(two))
}

fn folded(rdn: &[Attribute]) -> Vec<(&Oid, String)> {
    let mut folded: Vec<_> = rdn.iter().map(|attribute| (&attribute.oid, attribute.folded())).collect();
    folded.sort();
    folded
}

fn read_rdn(octets: &[u8]) -> Result<Vec<Attribute>, DerError> {
    let mut reader = Reader::new(octets);
    let mut attributes = Vec::new();
    while !reader.is_empty() {
        let mut attribute = Reader::new(reader.expect(SEQUENCE)?);
        let oid = Oid::from_content(attribute.expect(OBJECT_IDENTIFIER)?)?;
        let value = attribute.value()?;
        attribute.finish()?;
        attributes.push(Attribute { oid, tag: value.tag, content: value.content.to_vec() });
    }
    Ok(attributes)
}

impl Attribute {
    /// Its value as text, or as the hex of its content if it is none.
    pub fn to_text(&self) -> String {
        text_of(self.tag, &self.content).map_or_else(|| format!("#{}", hex::encode(&self.content)), Cow::into_owned)
    }

    fn folded(&self) -> String {
        self.to_text().to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// The text of any DirectoryString (RFC 5280 appendix A.1), IA5String, NumericString or VisibleString. `None` if it has
/// another type, or is not what its type says.
pub fn text_of(tag: u8, content: &[u8]) -> Option<Cow<'_, str>> {
    match tag {
        UTF8_STRING | NUMERIC_STRING | PRINTABLE_STRING | IA5_STRING | VISIBLE_STRING => {
            std::str::from_utf8(content).ok().map(Cow::Borrowed)
        }
        // T.61 in name only: everybody writes Latin-1.
        TELETEX_STRING => Some(content.iter().map(|octet| char::from(*octet)).collect()),
        BMP_STRING => {
            let (units, odd) = content.as_chunks::<2>();
            let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
            odd.is_empty().then(|| char::decode_utf16(units).collect::<Result<_, _>>().ok()).flatten().map(Cow::Owned)
        }
        UNIVERSAL_STRING => {
            let (units, odd) = content.as_chunks::<4>();
            let units = units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit)));
            odd.is_empty().then(|| units.collect()).flatten().map(Cow::Owned)
        }
        _ => None,
    }
}

/// In the order of the encoding, and no longer than people read.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("an empty name");
        }
        let rdn = |attributes: &Vec<Attribute>| {
            let each =
                attributes.iter().map(|attribute| format!("{}={}", type_name(&attribute.oid), attribute.to_text()));
            each.collect::<Vec<_>>().join("+")
        };
        write!(f, "{}", shortened(&self.rdns.iter().map(rdn).collect::<Vec<_>>().join(", ")))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Name of one CN with this value.
    fn cn(tag: u8, content: &[u8]) -> Name {
        use crate::asn1::{object_identifier, primitive, tlv};
        let mut der = Vec::new();
        tlv(&mut der, SEQUENCE, |out| {
            tlv(out, SET, |out| {
                tlv(out, SEQUENCE, |out| {
                    object_identifier(out, const_oid::db::rfc4519::CN);
                    primitive(out, tag, content);
                });
            });
        });
        Name::from_der(&der).unwrap()
    }

    #[test]
    fn text_of_every_string_type_is_read() {
        for (tag, content) in [
            (UTF8_STRING, "Möbel".as_bytes().to_vec()),
            (TELETEX_STRING, b"M\xf6bel".to_vec()),
            (BMP_STRING, "Möbel".encode_utf16().flat_map(u16::to_be_bytes).collect()),
            (UNIVERSAL_STRING, "Möbel".chars().flat_map(|c| (c as u32).to_be_bytes()).collect()),
        ] {
            assert_eq!(text_of(tag, &content).as_deref(), Some("Möbel"), "{tag}");
        }
        for (tag, content) in [
            (UTF8_STRING, &b"\xff"[..]),
            (BMP_STRING, b"\xd8\x00"),
            (BMP_STRING, b"a"),
            (UNIVERSAL_STRING, b"\0\x11\0\0"),
            (4, b"a"),
        ] {
            assert_eq!(text_of(tag, content), None, "{tag}");
        }
    }

    /// Names are the same text in any string type.
    #[test]
    fn name_is_the_same_text_in_any_string_type() {
        let (one, two) = (cn(UTF8_STRING, b"Acme  Root"), cn(PRINTABLE_STRING, b"ACME Root "));
        assert_ne!(one.as_der(), two.as_der());
        assert!(one.same_text(&two));
        assert!(!one.same_text(&cn(UTF8_STRING, b"Acme Root 2")));
    }

    #[test]
    fn long_name_is_shown_shortened() {
        let shown = cn(UTF8_STRING, "x".repeat(5000).as_bytes()).to_string();
        assert!(shown.starts_with("CN=xxx") && shown.chars().count() < 150, "{shown}");
    }
}
