//! A certificate, field by field, as text: read by `x509` and x509-cert, which share no code with its writer.

use const_oid::{ObjectIdentifier, db};
use der::{
    Decode, Encode,
    asn1::{ObjectIdentifier as DerOid, OctetStringRef},
};
use x509_cert::ext::pkix::{
    AuthorityInfoAccessSyntax, CrlDistributionPoints, KeyUsage, SubjectAltName,
    name::{DistributionPointName, GeneralName},
};

use crate::{
    asn1::{
        DerError, IA5_STRING, OBJECT_IDENTIFIER, Oid, PRINTABLE_STRING, Reader, SEQUENCE, UTC_TIME, UTF8_STRING, Value,
    },
    name::type_name,
    profile::HARDWARE_MODULE_NAME,
    signer::{PublicKey, SpkiError},
    x509::{Certificate, Extension, Name},
    x509_time::Time,
};

/// Why a certificate cannot be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// It is not one.
    #[error("the certificate is not valid DER: {0}")]
    Der(#[from] DerError),
    /// Its key is of an unknown kind.
    #[error(transparent)]
    Key(#[from] SpkiError),
}

/// Name and value of each field of a DER certificate, in the order of the encoding.
///
/// # Errors
/// See [`DescribeError`].
pub fn fields(certificate: &[u8]) -> Result<Vec<(String, String)>, DescribeError> {
    let parsed = Certificate::from_der(certificate)?;
    let mut fields = Vec::new();
    let mut field = |name: &str, value: String| fields.push((name.to_owned(), value));
    field("version", format!("V{}", parsed.version + 1));
    field("serial number", hex::encode(&parsed.serial_number));
    let [algorithm, _] = &parsed.algorithms;
    field("signature algorithm", algorithm_name(algorithm));
    name(&parsed.issuer, "issuer", &mut field);
    let [not_before_type, not_after_type] = parsed.time_types;
    field("not before", time(parsed.not_before, not_before_type));
    field("not after", time(parsed.not_after, not_after_type));
    name(&parsed.subject, "subject", &mut field);
    let key = PublicKey::of(&parsed)?;
    field("public key", format!("{}, {}", key.kind, hex::encode(&key.spki)));
    for extension in &parsed.extensions {
        let critical = if extension.critical { " (critical)" } else { "" };
        let value = value(&parsed, extension).unwrap_or_else(|| format!("DER {}", hex::encode(&extension.value)));
        field(&format!("{}{critical}", oid_name(&extension.oid)), value);
    }
    field("signature", format!("{} octets", parsed.signature.len()));
    field("size", format!("{} octets", certificate.len()));
    Ok(fields)
}

fn name(name: &Name, what: &str, field: &mut impl FnMut(&str, String)) {
    for attribute in name.attributes() {
        let value = format!("{} ({})", attribute.to_text(), string_type(attribute.tag));
        field(&format!("{what} {}", type_name(&attribute.oid)), value);
    }
}

fn string_type(tag: u8) -> String {
    match tag {
        UTF8_STRING => "UTF8String".into(),
        PRINTABLE_STRING => "PrintableString".into(),
        IA5_STRING => "IA5String".into(),
        other => format!("ASN.1 tag 0x{other:02x}"),
    }
}

fn time(time: Time, tag: u8) -> String {
    format!("{time} ({})", if tag == UTC_TIME { "UTCTime" } else { "GeneralizedTime" })
}

fn algorithm_name(identifier: &[u8]) -> String {
    let oid = Value::only(identifier)
        .and_then(|value| Reader::new(value.of(SEQUENCE)?).expect(OBJECT_IDENTIFIER))
        .and_then(Oid::from_content);
    let name = oid.map_or_else(|error| error.to_string(), |oid| oid_name(&oid));
    format!("{name}, {}", hex::encode(identifier))
}

fn oid_name(oid: &Oid) -> String {
    let known = ObjectIdentifier::from_bytes(oid.as_ref()).ok().and_then(|oid| db::DB.by_oid(&oid));
    known.map_or_else(
        || oid.to_string(),
        |name| name.trim_start_matches("id-ce-").trim_start_matches("id-pe-").to_owned(),
    )
}

/// The value of an extension in words; `None` if it is not known here.
fn value(certificate: &Certificate, extension: &Extension) -> Option<String> {
    use db::rfc5280;
    let der = extension.value.as_slice();
    Some(match ObjectIdentifier::from_bytes(extension.oid.as_ref()).ok()? {
        rfc5280::ID_CE_BASIC_CONSTRAINTS => {
            let constraints = certificate.basic_constraints().ok()??;
            let length = constraints.path_length.map_or(String::new(), |length| format!(", path length {length}"));
            format!("{}{length}", if constraints.ca { "a CA" } else { "not a CA" })
        }
        rfc5280::ID_CE_KEY_USAGE => {
            let KeyUsage(usage) = KeyUsage::from_der(der).ok()?;
            let names: Vec<_> = usage.into_iter().map(|usage| format!("{usage:?}")).collect();
            names.join(", ")
        }
        rfc5280::ID_CE_EXT_KEY_USAGE => {
            certificate.extended_key_usage().ok()??.iter().map(oid_name).collect::<Vec<_>>().join(", ")
        }
        rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER => hex::encode(certificate.subject_key_identifier().ok()??),
        rfc5280::ID_CE_AUTHORITY_KEY_IDENTIFIER => {
            hex::encode(certificate.authority_key_identifier().ok()??.key_identifier?)
        }
        rfc5280::ID_CE_SUBJECT_ALT_NAME => {
            let SubjectAltName(names) = SubjectAltName::from_der(der).ok()?;
            names.iter().map(general_name).collect::<Option<Vec<_>>>()?.join(", ")
        }
        rfc5280::ID_CE_CERTIFICATE_POLICIES => policies(der)?.join(", "),
        rfc5280::ID_CE_CRL_DISTRIBUTION_POINTS => {
            let CrlDistributionPoints(points) = CrlDistributionPoints::from_der(der).ok()?;
            let urls = points.iter().map(|point| match point.distribution_point.as_ref()? {
                DistributionPointName::FullName(names) => general_name(names.first()?),
                DistributionPointName::NameRelativeToCRLIssuer(_) => None,
            });
            urls.collect::<Option<Vec<_>>>()?.join(", ")
        }
        rfc5280::ID_PE_AUTHORITY_INFO_ACCESS => {
            let AuthorityInfoAccessSyntax(descriptions) = AuthorityInfoAccessSyntax::from_der(der).ok()?;
            let each = descriptions.iter().map(|description| {
                Some(format!(
                    "{} {}",
                    oid_name(&Oid::from(description.access_method)),
                    general_name(&description.access_location)?
                ))
            });
            each.collect::<Option<Vec<_>>>()?.join(", ")
        }
        _ => return None,
    })
}

fn policies(der: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::new(Value::only(der).and_then(|value| value.of(SEQUENCE)).ok()?);
    let mut policies = Vec::new();
    while !reader.is_empty() {
        let mut policy = Reader::new(reader.expect(SEQUENCE).ok()?);
        policies.push(Oid::from_content(policy.expect(OBJECT_IDENTIFIER).ok()?).ok()?.to_string());
    }
    Some(policies)
}

fn general_name(name: &GeneralName) -> Option<String> {
    #[derive(der::Sequence)]
    struct HardwareModuleName<'a> {
        hw_type: DerOid,
        hw_serial_num: &'a OctetStringRef,
    }
    Some(match name {
        GeneralName::DnsName(name) => format!("dns:{}", name.as_str()),
        GeneralName::Rfc822Name(address) => format!("email:{}", address.as_str()),
        GeneralName::UniformResourceIdentifier(uri) => format!("uri:{}", uri.as_str()),
        GeneralName::OtherName(other) if other.type_id == HARDWARE_MODULE_NAME => {
            let encoded = other.value.to_der().ok()?;
            let module = HardwareModuleName::from_der(&encoded).ok()?;
            let serial = String::from_utf8_lossy(module.hw_serial_num.as_bytes());
            format!("hardware-module:{}:{serial}", module.hw_type)
        }
        _ => return None,
    })
}
