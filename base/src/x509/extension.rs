//! The extensions that decide who may issue what (RFC 5280 section 4.2.1).

use const_oid::db::rfc5280::{
    ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE,
    ID_CE_NAME_CONSTRAINTS, ID_CE_SUBJECT_ALT_NAME, ID_CE_SUBJECT_KEY_IDENTIFIER,
};

use super::{certificate::Certificate, name::Name};
use crate::asn1::{
    BIT_STRING, BOOLEAN, DerError, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, Oid, Reader, SEQUENCE, Value, explicit,
    implicit,
};

// The bits of [`Certificate::key_usage`] (section 4.2.1.3).
/// digitalSignature.
pub const DIGITAL_SIGNATURE: u16 = 1;
/// contentCommitment, formerly nonRepudiation.
pub const CONTENT_COMMITMENT: u16 = 1 << 1;
/// keyEncipherment.
pub const KEY_ENCIPHERMENT: u16 = 1 << 2;
/// keyAgreement.
pub const KEY_AGREEMENT: u16 = 1 << 4;
/// keyCertSign.
pub const KEY_CERT_SIGN: u16 = 1 << 5;
/// cRLSign.
pub const CRL_SIGN: u16 = 1 << 6;

/// Section 4.2.1.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicConstraints {
    /// Whether it is a CA's certificate.
    pub ca: bool,
    /// How many CAs may follow it in a chain; no limit if `None`.
    pub path_length: Option<u64>,
}

/// Section 4.2.1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityKeyIdentifier {
    /// The issuer's subjectKeyIdentifier.
    pub key_identifier: Option<Vec<u8>>,
    /// The issuer of the issuer's certificate.
    pub issuer: Vec<GeneralName>,
    /// The serial number of the issuer's certificate: the octets of the INTEGER.
    pub serial_number: Option<Vec<u8>>,
}

/// Section 4.2.1.6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GeneralName {
    /// The type of the name.
    Other(Oid),
    /// rfc822Name.
    Email(String),
    /// dNSName.
    Dns(String),
    /// directoryName.
    Directory(Name),
    /// uniformResourceIdentifier.
    Uri(String),
    /// 4 or 16 octets; followed by a mask in name constraints.
    Ip(Vec<u8>),
    /// Its tag.
    Unknown(u8),
}

/// Section 4.2.1.10.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameConstraints {
    /// permittedSubtrees.
    pub permitted: Vec<GeneralName>,
    /// excludedSubtrees.
    pub excluded: Vec<GeneralName>,
}

impl Certificate {
    /// basicConstraints.
    ///
    /// # Errors
    /// If the value is none.
    pub fn basic_constraints(&self) -> Result<Option<BasicConstraints>, DerError> {
        self.read(ID_CE_BASIC_CONSTRAINTS, |value| {
            let mut reader = Reader::new(value.of(SEQUENCE)?);
            let ca = match reader.optional(BOOLEAN)? {
                None => false,
                Some([value]) => *value != 0,
                Some(_) => return Err(DerError::Content("cA")),
            };
            let path_length = reader.optional(INTEGER)?.map(unsigned).transpose()?;
            reader.finish()?;
            Ok(BasicConstraints { ca, path_length })
        })
    }

    /// The bits of keyUsage; the first, digitalSignature, is 1.
    ///
    /// # Errors
    /// If the value is none.
    pub fn key_usage(&self) -> Result<Option<u16>, DerError> {
        self.read(ID_CE_KEY_USAGE, |value| {
            let octets = value.of(BIT_STRING)?.split_first().map_or(&[][..], |(_, octets)| octets);
            let bit = |index: usize| octets.get(index / 8).is_some_and(|octet| octet << (index % 8) & 0x80 != 0);
            Ok((0..16).filter(|index| bit(*index)).fold(0, |usage, index| usage | 1 << index))
        })
    }

    /// The octets of subjectKeyIdentifier.
    ///
    /// # Errors
    /// If the value is none.
    pub fn subject_key_identifier(&self) -> Result<Option<&[u8]>, DerError> {
        self.read(ID_CE_SUBJECT_KEY_IDENTIFIER, |value| value.of(OCTET_STRING))
    }

    /// authorityKeyIdentifier.
    ///
    /// # Errors
    /// If the value is none.
    pub fn authority_key_identifier(&self) -> Result<Option<AuthorityKeyIdentifier>, DerError> {
        self.read(ID_CE_AUTHORITY_KEY_IDENTIFIER, |value| {
            let mut reader = Reader::new(value.of(SEQUENCE)?);
            let key_identifier = reader.optional(implicit(0))?.map(<[u8]>::to_vec);
            let issuer = reader.optional(explicit(1))?.map_or(Ok(Vec::new()), general_names)?;
            let serial_number = reader.optional(implicit(2))?.map(<[u8]>::to_vec);
            reader.finish()?;
            Ok(AuthorityKeyIdentifier { key_identifier, issuer, serial_number })
        })
    }

    /// The purposes of extKeyUsage.
    ///
    /// # Errors
    /// If the value is none.
    pub fn extended_key_usage(&self) -> Result<Option<Vec<Oid>>, DerError> {
        self.read(ID_CE_EXT_KEY_USAGE, |value| {
            let mut reader = Reader::new(value.of(SEQUENCE)?);
            let mut purposes = Vec::new();
            while !reader.is_empty() {
                purposes.push(Oid::from_content(reader.expect(OBJECT_IDENTIFIER)?)?);
            }
            Ok(purposes)
        })
    }

    /// The names of subjectAltName; none without it.
    pub fn subject_alt_names(&self) -> Result<Vec<GeneralName>, DerError> {
        let names = self.read(ID_CE_SUBJECT_ALT_NAME, |value| general_names(value.of(SEQUENCE)?))?;
        Ok(names.unwrap_or_default())
    }

    /// nameConstraints.
    ///
    /// # Errors
    /// If the value is none.
    pub fn name_constraints(&self) -> Result<Option<NameConstraints>, DerError> {
        self.read(ID_CE_NAME_CONSTRAINTS, |value| {
            let mut reader = Reader::new(value.of(SEQUENCE)?);
            let permitted = reader.optional(explicit(0))?.map_or(Ok(Vec::new()), subtrees)?;
            let excluded = reader.optional(explicit(1))?.map_or(Ok(Vec::new()), subtrees)?;
            reader.finish()?;
            Ok(NameConstraints { permitted, excluded })
        })
    }

    fn read<'a, T>(
        &'a self,
        oid: const_oid::ObjectIdentifier,
        read: impl FnOnce(Value<'a>) -> Result<T, DerError>,
    ) -> Result<Option<T>, DerError> {
        self.extension(oid).map(|extension| read(Value::only(&extension.value)?)).transpose()
    }
}

/// An INTEGER that is not negative.
fn unsigned(content: &[u8]) -> Result<u64, DerError> {
    let wrong = DerError::Content("INTEGER");
    match content {
        [] => Err(wrong),
        [first, ..] if *first >= 0x80 || content.len() > 8 => Err(wrong),
        octets => Ok(octets.iter().fold(0, |value, octet| value << 8 | u64::from(*octet))),
    }
}

fn general_names(octets: &[u8]) -> Result<Vec<GeneralName>, DerError> {
    let mut reader = Reader::new(octets);
    let mut names = Vec::new();
    while !reader.is_empty() {
        names.push(general_name(reader.value()?)?);
    }
    Ok(names)
}

fn general_name(value: Value<'_>) -> Result<GeneralName, DerError> {
    let text = |content: &[u8]| String::from_utf8(content.to_vec()).map_err(|_| DerError::Content("IA5String"));
    Ok(match value.tag {
        0xa0 => GeneralName::Other(Oid::from_content(Reader::new(value.content).expect(OBJECT_IDENTIFIER)?)?),
        0x81 => GeneralName::Email(text(value.content)?),
        0x82 => GeneralName::Dns(text(value.content)?),
        0xa4 => GeneralName::Directory(Name::from_der(Value::only(value.content)?.whole)?),
        0x86 => GeneralName::Uri(text(value.content)?),
        0x87 => GeneralName::Ip(value.content.to_vec()),
        tag => GeneralName::Unknown(tag),
    })
}

/// GeneralSubtrees: minimum is 0 and maximum absent, as section 4.2.1.10 demands.
fn subtrees(octets: &[u8]) -> Result<Vec<GeneralName>, DerError> {
    let mut reader = Reader::new(octets);
    let mut names = Vec::new();
    while !reader.is_empty() {
        let mut subtree = Reader::new(reader.expect(SEQUENCE)?);
        names.push(general_name(subtree.value()?)?);
        if subtree.optional(implicit(0))?.is_some_and(|minimum| minimum != [0]) || !subtree.is_empty() {
            return Err(DerError::Content("minimum or maximum"));
        }
    }
    Ok(names)
}
