//! The extensions that are the same in every certificate of a profile (RFC 5280 section 4.2.1), encoded once.

use base64::{Engine, prelude::BASE64_STANDARD};
use const_oid::{
    ObjectIdentifier,
    db::{
        rfc5280::{
            ID_AD_CA_ISSUERS, ID_AD_OCSP, ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS,
            ID_CE_CERTIFICATE_ISSUER, ID_CE_CERTIFICATE_POLICIES, ID_CE_CRL_DISTRIBUTION_POINTS, ID_CE_CRL_NUMBER,
            ID_CE_CRL_REASONS, ID_CE_DELTA_CRL_INDICATOR, ID_CE_EXT_KEY_USAGE, ID_CE_FRESHEST_CRL,
            ID_CE_INHIBIT_ANY_POLICY, ID_CE_INVALIDITY_DATE, ID_CE_ISSUER_ALT_NAME, ID_CE_ISSUING_DISTRIBUTION_POINT,
            ID_CE_KEY_USAGE, ID_CE_NAME_CONSTRAINTS, ID_CE_POLICY_CONSTRAINTS, ID_CE_POLICY_MAPPINGS,
            ID_CE_SUBJECT_ALT_NAME, ID_CE_SUBJECT_DIRECTORY_ATTRIBUTES, ID_CE_SUBJECT_KEY_IDENTIFIER,
            ID_KP_CLIENT_AUTH, ID_KP_CODE_SIGNING, ID_KP_EMAIL_PROTECTION, ID_KP_SERVER_AUTH,
            ID_PE_AUTHORITY_INFO_ACCESS, ID_PE_SUBJECT_INFO_ACCESS,
        },
        rfc6960::ID_PKIX_OCSP_NOCHECK,
        rfc6962::{CT_PRECERT_POISON, CT_PRECERT_SCTS},
    },
};
use der::{AnyRef, Decode};

use super::{preset::Defaults, reader::Reader, uri::check_uri};
use crate::{
    asn1::{BIT_STRING, Oid, SEQUENCE, explicit, extension, implicit, object_identifier, primitive, tlv},
    ca::IssuingCa,
    config::{ConfigError, CustomExtension, KeyType, KeyUsage},
    quote::shortened,
};

/// What the extensions of a profile say, whoever issues and whoever gets the certificate.
#[derive(Debug)]
pub(super) struct Extensions {
    key_usage: Vec<KeyUsage>,
    extended_key_usage: Vec<Oid>,
    policies: Vec<Oid>,
    crl_distribution_points: Vec<String>,
    ocsp: Vec<String>,
    ca_issuers: Vec<String>,
    authority_key_identifier: bool,
    custom: Vec<Custom>,
}

#[derive(Debug)]
struct Custom {
    oid: Oid,
    critical: bool,
    value: Vec<u8>,
}

impl Extensions {
    pub(super) fn read(reader: &Reader<'_>, defaults: &Defaults, keys: &[KeyType]) -> Result<Extensions, ConfigError> {
        let settings = reader.settings;
        let key_usage = match &settings.key_usage {
            Some(usage) => {
                check_usage(usage.get_ref(), keys).map_err(|message| reader.error("key_usage", message))?;
                usage.get_ref().clone()
            }
            None => defaults.key_usage.to_vec(),
        };
        let extended_key_usage = match &settings.extended_key_usage {
            Some(purposes) => reader.each("extended_key_usage", purposes, purpose)?,
            None => defaults.extended_key_usage.iter().map(|oid| Oid::from(*oid)).collect(),
        };
        let custom = settings
            .extensions
            .iter()
            .map(|setting| {
                custom(setting.get_ref()).map_err(|message| reader.error_at(setting.span(), "extensions", message))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let policies = reader.each("certificate_policies", &settings.certificate_policies, oid)?;
        for (key, list) in [
            ("extensions", custom.iter().map(|extension| &extension.oid).collect::<Vec<_>>()),
            ("certificate_policies", policies.iter().collect()),
            ("extended_key_usage", extended_key_usage.iter().collect()),
        ] {
            once(&list).map_err(|message| reader.error(key, message))?;
        }
        Ok(Extensions {
            key_usage,
            extended_key_usage,
            policies,
            crl_distribution_points: reader.each("crl_distribution_points", &settings.crl_distribution_points, url)?,
            ocsp: reader.each("ocsp", &settings.ocsp, url)?,
            ca_issuers: reader.each("ca_issuers", &settings.ca_issuers, url)?,
            authority_key_identifier: settings.authority_key_identifier.as_ref().is_none_or(|switch| *switch.get_ref()),
            custom,
        })
    }

    /// The DER of all of them under one issuer.
    pub(super) fn encode(&self, issuer: &IssuingCa) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        // cA is FALSE by default, and DER leaves defaults out.
        extension(&mut out, ID_CE_BASIC_CONSTRAINTS, true, |out| tlv(out, SEQUENCE, |_| {}));
        if !self.key_usage.is_empty() {
            extension(&mut out, ID_CE_KEY_USAGE, true, |out| key_usage(out, &self.key_usage));
        }
        oids(&mut out, ID_CE_EXT_KEY_USAGE, &self.extended_key_usage, |out, oid| object_identifier(out, oid));
        if self.authority_key_identifier {
            extension(&mut out, ID_CE_AUTHORITY_KEY_IDENTIFIER, false, |out| {
                out.extend_from_slice(issuer.authority_key_identifier());
            });
        }
        oids(&mut out, ID_CE_CERTIFICATE_POLICIES, &self.policies, |out, oid| {
            tlv(out, SEQUENCE, |out| object_identifier(out, oid));
        });
        if !self.crl_distribution_points.is_empty() {
            extension(&mut out, ID_CE_CRL_DISTRIBUTION_POINTS, false, |out| {
                tlv(out, SEQUENCE, |out| {
                    self.crl_distribution_points.iter().for_each(|url| distribution_point(out, url))
                });
            });
        }
        if !(self.ocsp.is_empty() && self.ca_issuers.is_empty()) {
            extension(&mut out, ID_PE_AUTHORITY_INFO_ACCESS, false, |out| {
                tlv(out, SEQUENCE, |out| {
                    self.ocsp.iter().for_each(|url| access_description(out, ID_AD_OCSP, url));
                    self.ca_issuers.iter().for_each(|url| access_description(out, ID_AD_CA_ISSUERS, url));
                });
            });
        }
        for Custom { oid, critical, value } in &self.custom {
            extension(&mut out, oid, *critical, |out| out.extend_from_slice(value));
        }
        out
    }
}

/// What RFC 3279, 5480 and 8410 say of the usages that fit a key's algorithm.
fn check_usage(usage: &[KeyUsage], keys: &[KeyType]) -> Result<(), String> {
    if usage.is_empty() {
        return Err("must not be empty; a device signs: [\"digital-signature\"]".into());
    }
    let misfit = |usage: KeyUsage, key: KeyType| match usage {
        KeyUsage::DigitalSignature | KeyUsage::ContentCommitment => false,
        KeyUsage::KeyEncipherment | KeyUsage::DataEncipherment => !key.is_rsa(),
        KeyUsage::KeyAgreement => key.is_rsa() || key == KeyType::Ed25519,
    };
    for usage in usage {
        if let Some(key) = keys.iter().find(|key| misfit(*usage, **key)) {
            return Err(format!(
                "{usage:?} does not fit {} keys, which the profile takes; change one of the two",
                key.as_str()
            ));
        }
    }
    Ok(())
}

/// Named bits: the number of unused bits first, and no trailing zeros (X.690 section 11.2.2).
fn key_usage(out: &mut Vec<u8>, usage: &[KeyUsage]) {
    let bits = usage.iter().fold(0_u8, |bits, usage| bits | 0x80 >> (*usage as u8));
    primitive(out, BIT_STRING, &[bits.trailing_zeros() as u8, bits]);
}

fn oids(out: &mut Vec<u8>, extension_oid: ObjectIdentifier, list: &[Oid], each: impl Fn(&mut Vec<u8>, &Oid)) {
    if !list.is_empty() {
        extension(out, extension_oid, false, |out| {
            tlv(out, SEQUENCE, |out| list.iter().for_each(|oid| each(out, oid)));
        });
    }
}

/// DistributionPoint { distributionPoint [0] { fullName [0] { uniformResourceIdentifier [6] } } }
fn distribution_point(out: &mut Vec<u8>, url: &str) {
    tlv(out, SEQUENCE, |out| {
        tlv(out, explicit(0), |out| tlv(out, explicit(0), |out| primitive(out, implicit(6), url.as_bytes())));
    });
}

/// AccessDescription { accessMethod, accessLocation: uniformResourceIdentifier [6] }
fn access_description(out: &mut Vec<u8>, method: ObjectIdentifier, url: &str) {
    tlv(out, SEQUENCE, |out| {
        object_identifier(out, method);
        primitive(out, implicit(6), url.as_bytes());
    });
}

fn oid(text: &str) -> Result<Oid, String> {
    text.parse().map_err(|error| format!("\"{}\" is not an OID: {error}", shortened(text)))
}

/// RFC 5280 sections 4.2 and 4.2.1.4: an extension and a policy are there once; of a purpose nobody needs two.
fn once(oids: &[&Oid]) -> Result<(), String> {
    match oids.iter().enumerate().find(|(index, oid)| oids.iter().take(*index).any(|earlier| earlier == *oid)) {
        Some((_, oid)) => Err(format!("{oid} is there twice; a certificate has it once")),
        None => Ok(()),
    }
}

fn purpose(text: &str) -> Result<Oid, String> {
    Ok(match text {
        "client-auth" => ID_KP_CLIENT_AUTH.into(),
        "server-auth" => ID_KP_SERVER_AUTH.into(),
        "code-signing" => ID_KP_CODE_SIGNING.into(),
        "email-protection" => ID_KP_EMAIL_PROTECTION.into(),
        other => other.parse().map_err(|_| {
            let other = shortened(other);
            format!("\"{other}\" is none of client-auth, server-auth, code-signing, email-protection, and no OID")
        })?,
    })
}

fn url(text: &str) -> Result<String, String> {
    let known = ["http://", "https://", "ldap://"];
    if !known.iter().any(|scheme| text.starts_with(scheme) && text.len() > scheme.len()) {
        return Err(format!("\"{}\" is not a URL that begins with {}", shortened(text), known.join(", ")));
    }
    check_uri(text).map(|()| text.to_owned())
}

/// The extensions that no key `extensions` may give, and why.
const REFUSED: [(ObjectIdentifier, &str); 22] = [
    (ID_CE_BASIC_CONSTRAINTS, "has a key of its own (none: a device is no CA)"),
    (ID_CE_KEY_USAGE, "has a key of its own (key_usage)"),
    (ID_CE_EXT_KEY_USAGE, "has a key of its own (extended_key_usage)"),
    (ID_CE_SUBJECT_ALT_NAME, "has a key of its own (subject_alt_names)"),
    (ID_CE_SUBJECT_KEY_IDENTIFIER, "has a key of its own (subject_key_identifier)"),
    (ID_CE_AUTHORITY_KEY_IDENTIFIER, "has a key of its own (authority_key_identifier)"),
    (ID_CE_CERTIFICATE_POLICIES, "has a key of its own (certificate_policies)"),
    (ID_CE_CRL_DISTRIBUTION_POINTS, "has a key of its own (crl_distribution_points)"),
    (ID_PE_AUTHORITY_INFO_ACCESS, "has a key of its own (ocsp and ca_issuers)"),
    (ID_CE_NAME_CONSTRAINTS, "is for CAs alone (nameConstraints, RFC 5280 section 4.2.1.10)"),
    (ID_CE_POLICY_MAPPINGS, "is for CAs alone (policyMappings, RFC 5280 section 4.2.1.5)"),
    (ID_CE_POLICY_CONSTRAINTS, "is for CAs alone (policyConstraints, RFC 5280 section 4.2.1.11)"),
    (ID_CE_INHIBIT_ANY_POLICY, "is for CAs alone (inhibitAnyPolicy, RFC 5280 section 4.2.1.14)"),
    (ID_CE_CRL_NUMBER, "is of CRLs, not of certificates (RFC 5280 section 5.2)"),
    (ID_CE_DELTA_CRL_INDICATOR, "is of CRLs, not of certificates (RFC 5280 section 5.2)"),
    (ID_CE_ISSUING_DISTRIBUTION_POINT, "is of CRLs, not of certificates (RFC 5280 section 5.2)"),
    (ID_CE_CRL_REASONS, "is of CRL entries, not of certificates (RFC 5280 section 5.3)"),
    (ID_CE_INVALIDITY_DATE, "is of CRL entries, not of certificates (RFC 5280 section 5.3)"),
    (ID_CE_CERTIFICATE_ISSUER, "is of CRL entries, not of certificates (RFC 5280 section 5.3)"),
    (CT_PRECERT_POISON, "makes a certificate one that nobody may accept (RFC 6962 section 3.1)"),
    (CT_PRECERT_SCTS, "is made by a log for one certificate, not by a profile (RFC 6962 section 3.3)"),
    (ID_PKIX_OCSP_NOCHECK, "is for OCSP responders (RFC 6960 section 4.2.2.2.1)"),
];

/// Those that RFC 5280 sections 4.2.1.7, 4.2.1.8, 4.2.1.15 and 4.2.2.2 demand to be not critical.
const NEVER_CRITICAL: [ObjectIdentifier; 4] =
    [ID_CE_ISSUER_ALT_NAME, ID_CE_SUBJECT_DIRECTORY_ATTRIBUTES, ID_CE_FRESHEST_CRL, ID_PE_SUBJECT_INFO_ACCESS];

fn custom(setting: &CustomExtension) -> Result<Custom, String> {
    let oid = oid(setting.oid.get_ref())?;
    if let Some((_, reason)) = REFUSED.iter().find(|(known, _)| oid == *known) {
        return Err(format!("{oid} {reason}"));
    }
    if setting.critical && NEVER_CRITICAL.iter().any(|known| oid == *known) {
        return Err(format!("{oid} must not be critical (RFC 5280 section 4.2)"));
    }
    let value = match (&setting.hex, &setting.base64) {
        (Some(text), None) => hex::decode(text.get_ref()).map_err(|error| format!("hex: {error}"))?,
        (None, Some(text)) => BASE64_STANDARD.decode(text.get_ref()).map_err(|error| format!("base64: {error}"))?,
        _ => return Err(format!("the extension {oid} must have its value in either hex or base64")),
    };
    AnyRef::from_der(&value).map_err(|error| format!("the value of the extension {oid} is not DER: {error}"))?;
    Ok(Custom { oid, critical: setting.critical, value })
}
