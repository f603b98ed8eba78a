//! The extensions that are the same in every certificate of a profile (RFC 5280 section 4.2.1), encoded once.

use base64::{Engine, prelude::BASE64_STANDARD};
use const_oid::{
    ObjectIdentifier,
    db::rfc5280::{
        ID_AD_CA_ISSUERS, ID_AD_OCSP, ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS,
        ID_CE_CERTIFICATE_POLICIES, ID_CE_CRL_DISTRIBUTION_POINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE,
        ID_CE_SUBJECT_ALT_NAME, ID_CE_SUBJECT_KEY_IDENTIFIER, ID_KP_CLIENT_AUTH, ID_KP_CODE_SIGNING,
        ID_KP_EMAIL_PROTECTION, ID_KP_SERVER_AUTH, ID_PE_AUTHORITY_INFO_ACCESS,
    },
};
use der::{AnyRef, Decode};

use super::{alt_name::check_uri, preset::Defaults, reader::Reader};
use crate::{
    asn1::{BIT_STRING, SEQUENCE, explicit, extension, implicit, object_identifier, primitive, tlv},
    cert::IssuingCa,
    config::{ConfigError, CustomExtension, KeyType, KeyUsage},
};

/// What the extensions of a profile say, whoever issues and whoever gets the certificate.
#[derive(Debug)]
pub(super) struct Extensions {
    key_usage: Vec<KeyUsage>,
    key_usage_rsa: Vec<KeyUsage>,
    extended_key_usage: Vec<ObjectIdentifier>,
    policies: Vec<ObjectIdentifier>,
    crl_distribution_points: Vec<String>,
    ocsp: Vec<String>,
    ca_issuers: Vec<String>,
    authority_key_identifier: bool,
    custom: Vec<Custom>,
}

#[derive(Debug)]
struct Custom {
    oid: ObjectIdentifier,
    critical: bool,
    value: Vec<u8>,
}

impl Extensions {
    pub(super) fn read(reader: &Reader<'_>, defaults: &Defaults, keys: &[KeyType]) -> Result<Extensions, ConfigError> {
        let settings = reader.settings;
        let (key_usage, key_usage_rsa) = match &settings.key_usage {
            Some(usage) => {
                check_usage(usage.get_ref(), keys).map_err(|message| reader.error("key_usage", message))?;
                (usage.get_ref().clone(), usage.get_ref().clone())
            }
            None => (defaults.key_usage.to_vec(), defaults.key_usage_rsa.to_vec()),
        };
        let extended_key_usage = match &settings.extended_key_usage {
            Some(purposes) => reader.each("extended_key_usage", purposes, purpose)?,
            None => defaults.extended_key_usage.to_vec(),
        };
        let custom = settings
            .extensions
            .iter()
            .map(|setting| {
                custom(setting.get_ref()).map_err(|message| reader.error_at(setting.span(), "extensions", message))
            })
            .collect::<Result<Vec<_>, _>>()?;
        for (index, extension) in custom.iter().enumerate() {
            if custom[..index].iter().any(|other| other.oid == extension.oid) {
                return Err(reader.error("extensions", format!("{} is there twice", extension.oid)));
            }
        }
        Ok(Extensions {
            key_usage,
            key_usage_rsa,
            extended_key_usage,
            policies: reader.each("certificate_policies", &settings.certificate_policies, |text| {
                ObjectIdentifier::new(text).map_err(|_| format!("\"{text}\" is not an OID"))
            })?,
            crl_distribution_points: reader.each("crl_distribution_points", &settings.crl_distribution_points, url)?,
            ocsp: reader.each("ocsp", &settings.ocsp, url)?,
            ca_issuers: reader.each("ca_issuers", &settings.ca_issuers, url)?,
            authority_key_identifier: settings.authority_key_identifier.as_ref().is_none_or(|switch| *switch.get_ref()),
            custom,
        })
    }

    /// The DER of all of them under one issuer, for RSA keys or for all others.
    pub(super) fn encode(&self, issuer: &IssuingCa, rsa: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        // cA is FALSE by default, and DER leaves defaults out.
        extension(&mut out, ID_CE_BASIC_CONSTRAINTS, true, |out| tlv(out, SEQUENCE, |_| {}));
        let usage = if rsa { &self.key_usage_rsa } else { &self.key_usage };
        if !usage.is_empty() {
            extension(&mut out, ID_CE_KEY_USAGE, true, |out| key_usage(out, usage));
        }
        oids(&mut out, ID_CE_EXT_KEY_USAGE, &self.extended_key_usage, object_identifier);
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
            extension(&mut out, *oid, *critical, |out| out.extend_from_slice(value));
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

fn oids(
    out: &mut Vec<u8>,
    extension_oid: ObjectIdentifier,
    list: &[ObjectIdentifier],
    each: impl Fn(&mut Vec<u8>, ObjectIdentifier),
) {
    if !list.is_empty() {
        extension(out, extension_oid, false, |out| {
            tlv(out, SEQUENCE, |out| list.iter().for_each(|oid| each(out, *oid)));
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

fn purpose(text: &str) -> Result<ObjectIdentifier, String> {
    match text {
        "client-auth" => Ok(ID_KP_CLIENT_AUTH),
        "server-auth" => Ok(ID_KP_SERVER_AUTH),
        "code-signing" => Ok(ID_KP_CODE_SIGNING),
        "email-protection" => Ok(ID_KP_EMAIL_PROTECTION),
        oid => ObjectIdentifier::new(oid).map_err(|_| {
            format!("\"{oid}\" is none of client-auth, server-auth, code-signing, email-protection, and no OID")
        }),
    }
}

fn url(text: &str) -> Result<String, String> {
    let known = ["http://", "https://", "ldap://"];
    if !known.iter().any(|scheme| text.starts_with(scheme) && text.len() > scheme.len()) {
        return Err(format!("\"{text}\" is not a URL that begins with {}", known.join(", ")));
    }
    check_uri(text).map(|()| text.to_owned())
}

fn custom(setting: &CustomExtension) -> Result<Custom, String> {
    let text = setting.oid.get_ref();
    let oid = ObjectIdentifier::new(text).map_err(|_| format!("\"{text}\" is not an OID"))?;
    let ours = [
        (ID_CE_BASIC_CONSTRAINTS, "no key: a device is no CA"),
        (ID_CE_KEY_USAGE, "key_usage"),
        (ID_CE_EXT_KEY_USAGE, "extended_key_usage"),
        (ID_CE_SUBJECT_ALT_NAME, "subject_alt_names"),
        (ID_CE_SUBJECT_KEY_IDENTIFIER, "subject_key_identifier"),
        (ID_CE_AUTHORITY_KEY_IDENTIFIER, "authority_key_identifier"),
        (ID_CE_CERTIFICATE_POLICIES, "certificate_policies"),
        (ID_CE_CRL_DISTRIBUTION_POINTS, "crl_distribution_points"),
        (ID_PE_AUTHORITY_INFO_ACCESS, "ocsp and ca_issuers"),
    ];
    if let Some((_, key)) = ours.iter().find(|(known, _)| *known == oid) {
        return Err(format!("{oid} has a key of its own ({key})"));
    }
    let value = match (&setting.hex, &setting.base64) {
        (Some(text), None) => hex::decode(text.get_ref()).map_err(|error| format!("hex: {error}"))?,
        (None, Some(text)) => BASE64_STANDARD.decode(text.get_ref()).map_err(|error| format!("base64: {error}"))?,
        _ => return Err(format!("the extension {oid} must have its value in either hex or base64")),
    };
    AnyRef::from_der(&value).map_err(|error| format!("the value of the extension {oid} is not DER: {error}"))?;
    Ok(Custom { oid, critical: setting.critical, value })
}
