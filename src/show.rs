//! A certificate, field by field, as text: parsed by x509-cert, which has no code in common with what wrote it.

use const_oid::{ObjectIdentifier, db};
use der::{
    Decode, Encode, Tag, Tagged,
    asn1::{ObjectIdentifier as Oid, OctetStringRef},
};
use x509_cert::{
    Certificate,
    ext::{
        Extension,
        pkix::{
            AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies,
            CrlDistributionPoints, ExtendedKeyUsage, KeyUsage, SubjectAltName, SubjectKeyIdentifier,
            name::{DistributionPointName, GeneralName},
        },
    },
    name::Name,
    time::Time,
};

use crate::{name::type_name, profile::HARDWARE_MODULE_NAME, signer::PublicKey};

/// Gives name and value of each field of a DER certificate, in the order of the encoding.
///
/// # Errors
/// If it is not valid DER.
pub fn fields(certificate: &[u8]) -> Result<Vec<(String, String)>, String> {
    let parsed =
        Certificate::from_der(certificate).map_err(|error| format!("the certificate is not valid DER: {error}"))?;
    let tbs = parsed.tbs_certificate();
    let encode = |error: der::Error| error.to_string();
    let mut fields = Vec::new();
    let mut field = |name: &str, value: String| fields.push((name.to_owned(), value));
    field("version", format!("{:?}", tbs.version()));
    field("serial number", hex::encode(tbs.serial_number().as_bytes()));
    field("signature algorithm", algorithm(tbs.signature().oid, &tbs.signature().to_der().map_err(encode)?));
    name(tbs.issuer(), "issuer", &mut field);
    field("not before", time(tbs.validity().not_before));
    field("not after", time(tbs.validity().not_after));
    name(tbs.subject(), "subject", &mut field);
    let spki = tbs.subject_public_key_info().to_der().map_err(encode)?;
    let key = PublicKey::from_spki(&spki).map_err(|error| error.to_string())?;
    field("public key", format!("{}, {}", key.kind, hex::encode(&key.spki)));
    for extension in tbs.extensions().map_or(&[][..], Vec::as_slice) {
        let critical = if extension.critical { " (critical)" } else { "" };
        let value = value(extension).unwrap_or_else(|| format!("DER {}", hex::encode(extension.extn_value.as_bytes())));
        field(&format!("{}{critical}", oid_name(&extension.extn_id)), value);
    }
    field("signature", format!("{} octets", parsed.signature().raw_bytes().len()));
    field("size", format!("{} octets", certificate.len()));
    Ok(fields)
}

fn name(name: &Name, what: &str, field: &mut impl FnMut(&str, String)) {
    for attribute in name.iter() {
        let text = String::from_utf8_lossy(attribute.value.value()).into_owned();
        field(
            &format!("{what} {}", type_name(&attribute.oid)),
            format!("{text} ({})", string_type(attribute.value.tag())),
        );
    }
}

fn string_type(tag: Tag) -> String {
    match tag {
        Tag::Utf8String => "UTF8String".into(),
        Tag::PrintableString => "PrintableString".into(),
        Tag::Ia5String => "IA5String".into(),
        other => format!("{other}"),
    }
}

fn time(time: Time) -> String {
    let kind = if matches!(time, Time::UtcTime(_)) { "UTCTime" } else { "GeneralizedTime" };
    format!("{} ({kind})", crate::cert::Time::of(time))
}

fn algorithm(oid: ObjectIdentifier, identifier: &[u8]) -> String {
    format!("{}, {}", oid_name(&oid), hex::encode(identifier))
}

fn oid_name(oid: &ObjectIdentifier) -> String {
    db::DB.by_oid(oid).map_or_else(
        || oid.to_string(),
        |name| name.trim_start_matches("id-ce-").trim_start_matches("id-pe-").to_owned(),
    )
}

/// The value of an extension in words; `None` if it is not known here.
fn value(extension: &Extension) -> Option<String> {
    use db::rfc5280;
    let der = extension.extn_value.as_bytes();
    Some(match extension.extn_id {
        rfc5280::ID_CE_BASIC_CONSTRAINTS => {
            let BasicConstraints { ca, path_len_constraint } = BasicConstraints::from_der(der).ok()?;
            let length = path_len_constraint.map_or(String::new(), |length| format!(", path length {length}"));
            format!("{}{length}", if ca { "a CA" } else { "not a CA" })
        }
        rfc5280::ID_CE_KEY_USAGE => {
            let KeyUsage(usage) = KeyUsage::from_der(der).ok()?;
            let names: Vec<_> = usage.into_iter().map(|usage| format!("{usage:?}")).collect();
            names.join(", ")
        }
        rfc5280::ID_CE_EXT_KEY_USAGE => {
            let ExtendedKeyUsage(purposes) = ExtendedKeyUsage::from_der(der).ok()?;
            purposes.iter().map(oid_name).collect::<Vec<_>>().join(", ")
        }
        rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER => hex::encode(SubjectKeyIdentifier::from_der(der).ok()?.0.as_bytes()),
        rfc5280::ID_CE_AUTHORITY_KEY_IDENTIFIER => {
            hex::encode(AuthorityKeyIdentifier::from_der(der).ok()?.key_identifier?.as_bytes())
        }
        rfc5280::ID_CE_SUBJECT_ALT_NAME => {
            let SubjectAltName(names) = SubjectAltName::from_der(der).ok()?;
            names.iter().map(general_name).collect::<Option<Vec<_>>>()?.join(", ")
        }
        rfc5280::ID_CE_CERTIFICATE_POLICIES => {
            let CertificatePolicies(policies) = CertificatePolicies::from_der(der).ok()?;
            policies.iter().map(|policy| policy.policy_identifier.to_string()).collect::<Vec<_>>().join(", ")
        }
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
                    oid_name(&description.access_method),
                    general_name(&description.access_location)?
                ))
            });
            each.collect::<Option<Vec<_>>>()?.join(", ")
        }
        _ => return None,
    })
}

fn general_name(name: &GeneralName) -> Option<String> {
    #[derive(der::Sequence)]
    struct HardwareModuleName<'a> {
        hw_type: Oid,
        hw_serial_num: &'a OctetStringRef,
    }
    Some(match name {
        GeneralName::DnsName(name) => format!("dns:{}", name.as_str()),
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
