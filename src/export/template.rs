//! Texts with placeholders, such as `{device_id}` and `{order.NAME}`, filled in for each certificate.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, UnfitReason, milliseconds};
use crate::{
    pem::certificate_pem,
    quote::{quoted, shortened},
    x509,
};

/// A text with placeholders, taken apart once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
    OrderAttribute(String),
}

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    DeviceId,
    Order,
    Profile,
    Station,
    Issuer,
    SerialNumber,
    CertificateId,
    CertificateSha1,
    KeySha256,
    IssuedAt,
    ConfirmedAt,
    NotBefore,
    NotAfter,
    Replaces,
    Subject,
    CertificatePem,
    CertificateDer,
    IssuerSha256,
    IssuerPem,
}

/// Those that fit into a name or an attribute, and after them those that only a column has room for.
const FIELDS: [(&str, Field); 19] = [
    ("device_id", Field::DeviceId),
    ("order", Field::Order),
    ("profile", Field::Profile),
    ("station", Field::Station),
    ("issuer", Field::Issuer),
    ("serial_number", Field::SerialNumber),
    ("certificate_id", Field::CertificateId),
    ("certificate_sha1", Field::CertificateSha1),
    ("key_sha256", Field::KeySha256),
    ("issued_at", Field::IssuedAt),
    ("issuer_sha256", Field::IssuerSha256),
    ("confirmed_at", Field::ConfirmedAt),
    ("not_before", Field::NotBefore),
    ("not_after", Field::NotAfter),
    ("replaces", Field::Replaces),
    ("subject", Field::Subject),
    ("certificate_pem", Field::CertificatePem),
    ("certificate_der", Field::CertificateDer),
    ("issuer_pem", Field::IssuerPem),
];

/// How many of [`FIELDS`] fit into a name or an attribute.
const SHORT: usize = 11;

/// A text that is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTemplate(String);

impl TryFrom<String> for Template {
    type Error = InvalidTemplate;

    fn try_from(text: String) -> Result<Self, InvalidTemplate> {
        Template::of(&text, &FIELDS)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> String {
        template.text
    }
}

impl Template {
    /// For a name or an attribute: the placeholders are those whose values are short.
    pub(super) fn short(text: &str) -> Result<Self, InvalidTemplate> {
        Template::of(text, FIELDS.get(..SHORT).unwrap_or(&FIELDS))
    }

    /// `{device_id}`.
    pub(super) fn device_id() -> Self {
        Template { text: "{device_id}".to_owned(), pieces: vec![Piece::Field(Field::DeviceId)] }
    }

    /// With all placeholders.
    pub(super) fn long(text: &str) -> Result<Self, InvalidTemplate> {
        Template::of(text, &FIELDS)
    }

    fn of(text: &str, fields: &[(&str, Field)]) -> Result<Self, InvalidTemplate> {
        let wrong = |what: &str| {
            let known: Vec<_> = fields.iter().map(|(name, _)| format!("{{{name}}}")).collect();
            InvalidTemplate(format!(
                "{} has {what}; the placeholders are {} and {{order.NAME}}",
                quoted(text),
                known.join(", ")
            ))
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let inner = from.strip_prefix('{').and_then(|from| from.split_once('}'));
            let (name, after) = inner.ok_or_else(|| wrong("a brace by itself"))?;
            let field = fields.iter().find(|(known, _)| *known == name).map(|(_, field)| Piece::Field(*field));
            let attribute = name.strip_prefix("order.").filter(|name| !name.is_empty() && !name.contains('{'));
            let attribute = attribute.map(|name| Piece::OrderAttribute(name.to_owned()));
            let piece = field.or(attribute);
            pieces.push(piece.ok_or_else(|| wrong(&format!("the unknown placeholder {{{}}}", shortened(name))))?);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Template { text: text.to_owned(), pieces })
    }

    /// As it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands between the placeholders.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Whether it is nothing but the certificate.
    pub(super) fn is_certificate(&self) -> bool {
        matches!(self.pieces.as_slice(), [Piece::Field(Field::CertificatePem | Field::CertificateDer)])
    }

    /// Whether it is nothing but a certificate in PEM, whose text begins with dashes and is ours.
    pub(super) fn is_pem(&self) -> bool {
        matches!(self.pieces.as_slice(), [Piece::Field(Field::CertificatePem | Field::IssuerPem)])
    }

    /// Appends it, filled in; a value that looks like a placeholder stays what it is. What is not there (a moment, a
    /// replaced certificate) is empty.
    ///
    /// # Errors
    /// The attribute that the order lacks.
    pub(super) fn fill(&self, certificate: &Certificate<'_>, out: &mut String) -> Result<(), UnfitReason> {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field(field) => field.append(certificate, out),
                Piece::OrderAttribute(name) => match certificate.order_attributes.get(name) {
                    Some(value) => out.push_str(value),
                    None => {
                        let order = certificate.order;
                        let message = format!("its order {order} has no attribute {name}, which {} needs", self.text);
                        return Err(message.into());
                    }
                },
            }
        }
        Ok(())
    }
}

impl Field {
    fn append(self, certificate: &Certificate<'_>, out: &mut String) {
        let parsed = || x509::Certificate::from_der(certificate.der).ok();
        match self {
            Field::DeviceId => out.push_str(certificate.device_id),
            Field::Order => out.push_str(certificate.order),
            Field::Profile => out.push_str(certificate.profile),
            Field::Station => out.push_str(certificate.station),
            Field::Issuer => out.push_str(certificate.issuer.name()),
            Field::SerialNumber => append_hex(certificate.serial_number, out),
            Field::CertificateId => out.push_str(certificate.certificate_id),
            Field::CertificateSha1 => append_hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate.der).as_ref(), out),
            Field::KeySha256 => append_hex(certificate.key_sha256, out),
            Field::IssuedAt => out.push_str(&milliseconds(certificate.issued_at)),
            Field::ConfirmedAt => out.extend(certificate.confirmed_at.map(milliseconds)),
            Field::NotBefore => out.extend(parsed().map(|parsed| parsed.not_before.to_string())),
            Field::NotAfter => out.extend(parsed().map(|parsed| parsed.not_after.to_string())),
            Field::Replaces => append_hex(certificate.replaces.unwrap_or_default(), out),
            Field::Subject => out.extend(parsed().map(|parsed| parsed.subject.to_string())),
            Field::CertificatePem => out.push_str(&certificate_pem(certificate.der)),
            Field::CertificateDer => BASE64_STANDARD.encode_string(certificate.der, out),
            Field::IssuerSha256 => append_hex(certificate.issuer.sha256(), out),
            Field::IssuerPem => out.push_str(certificate.issuer.pem()),
        }
    }
}

pub(super) fn append_hex(octets: &[u8], out: &mut String) {
    for octet in octets {
        // Writing into a string does not fail.
        let _ = write!(out, "{octet:02x}");
    }
}
