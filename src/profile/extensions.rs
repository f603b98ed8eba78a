//! The extensions that are the same in every certificate of a profile (RFC 5280 section 4.2.1), encoded once at the start.

use std::str::FromStr;

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
use der::{
    Any, AnyRef, Decode, Encode, Tag,
    asn1::{Ia5String, OctetString},
};
use x509_cert::ext::pkix::{
    AccessDescription, AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CrlDistributionPoints,
    KeyUsage, KeyUsages,
    crl::dp::DistributionPoint,
    name::{DistributionPointName, GeneralName},
};

use super::{
    crl_shard::{self, ShardPlaces},
    preset::Defaults,
    reader::Reader,
    uri::check_uri,
};
use crate::{
    asn1::{Oid, extension},
    ca::IssuingCa,
    config::{self, ConfigError, CustomExtension, KeyType},
    crl::Shards,
    quote::shortened,
};

/// What the extensions of a profile say, whoever issues and whoever gets the certificate.
#[derive(Debug)]
pub(super) struct Extensions {
    key_usage: Vec<config::KeyUsage>,
    extended_key_usage: Vec<Oid>,
    policies: Vec<Oid>,
    /// URLs, with `{crl_shard}` where the shard stands.
    crl_distribution_points: Vec<String>,
    ocsp: Vec<GeneralName>,
    ca_issuers: Vec<GeneralName>,
    authority_key_identifier: bool,
    custom: Vec<Custom>,
}

#[derive(Debug)]
struct Custom {
    oid: Oid,
    critical: bool,
    /// DER.
    value: Vec<u8>,
}

/// Why a profile cannot have an extension.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExtensionError {
    #[error("must not be empty; a device signs: [\"digital-signature\"]")]
    NoUsage,
    #[error("{usage} does not fit {key} keys, which the profile takes; change one of the two")]
    UnsuitableUsage { usage: &'static str, key: &'static str },
    #[error("\"{text}\" is not an OID: {error}")]
    Oid { text: String, error: <Oid as FromStr>::Err },
    // RFC 5280 sections 4.2 and 4.2.1.4: an extension and a policy occur once; a purpose twice is a mistake.
    #[error("{0} is there twice; a certificate has it once")]
    Duplicate(Oid),
    #[error("\"{0}\" is none of client-auth, server-auth, code-signing, email-protection, and no OID")]
    Purpose(String),
    #[error("\"{text}\" is not a URL that begins with {}", URL_SCHEMES.join(", "))]
    UrlScheme { text: String },
    #[error("{0}")]
    Url(String),
    #[error("{oid} {reason}")]
    Refused { oid: Oid, reason: &'static str },
    #[error("{0} must not be critical (RFC 5280 section 4.2)")]
    Critical(Oid),
    #[error("hex: {0}")]
    Hex(#[from] hex::FromHexError),
    #[error("base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("the extension {0} must have its value in either hex or base64")]
    OneValue(Oid),
    #[error("the value of the extension {oid} is not DER: {error}")]
    NotDer { oid: Oid, error: der::Error },
}

impl Extensions {
    pub(super) fn read(reader: &Reader<'_>, defaults: &Defaults, keys: &[KeyType]) -> Result<Extensions, ConfigError> {
        let settings = reader.settings;
        let key_usage = match &settings.key_usage {
            Some(usage) => {
                check_usage(usage.get_ref(), keys).map_err(|error| reader.error("key_usage", error))?;
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
                custom(setting.get_ref()).map_err(|error| reader.error_at(setting.span(), "extensions", error))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let policies = reader.each("certificate_policies", &settings.certificate_policies, oid)?;
        for (key, list) in [
            ("extensions", custom.iter().map(|extension| &extension.oid).collect::<Vec<_>>()),
            ("certificate_policies", policies.iter().collect()),
            ("extended_key_usage", extended_key_usage.iter().collect()),
        ] {
            check_once(&list).map_err(|error| reader.error(key, error))?;
        }
        Ok(Extensions {
            key_usage,
            extended_key_usage,
            policies,
            crl_distribution_points: reader.each(
                "crl_distribution_points",
                &settings.crl_distribution_points,
                |text| url(&crl_shard::sample(text)).map(|_| text.to_owned()),
            )?,
            ocsp: reader.each("ocsp", &settings.ocsp, url)?,
            ca_issuers: reader.each("ca_issuers", &settings.ca_issuers, url)?,
            authority_key_identifier: settings.authority_key_identifier.as_ref().is_none_or(|switch| *switch.get_ref()),
            custom,
        })
    }

    /// Checks that the URLs of lists name the shard if the issuer has several.
    pub(super) fn check_shards(&self, issuer: &IssuingCa, shards: Shards) -> Result<(), String> {
        crl_shard::check(&self.crl_distribution_points, issuer.name(), shards)
    }

    /// Where the shard of a certificate stands in what [`Extensions::encode`] gave.
    pub(super) fn shard_places(&self, encoded: &[u8], shards: Shards) -> ShardPlaces {
        ShardPlaces::find(encoded, &self.crl_distribution_points, shards)
    }

    /// The DER of all of them under one issuer; the shard of its list is filled in later. Nothing of a CSR is in it (invariant 8).
    pub(super) fn encode(&self, issuer: &IssuingCa, shards: Shards) -> Result<Vec<u8>, der::Error> {
        let mut out = Vec::with_capacity(512);
        let mut add = |oid, critical, value: Vec<u8>| extension(&mut out, oid, critical, |out| out.extend(value));
        // cA is FALSE by default, and DER leaves defaults out.
        let no_ca = BasicConstraints { ca: false, path_len_constraint: None };
        add(Oid::from(ID_CE_BASIC_CONSTRAINTS), true, no_ca.to_der()?);
        if !self.key_usage.is_empty() {
            let usage = self.key_usage.iter().map(|usage| bit(*usage)).fold(Default::default(), |all, one| all | one);
            add(ID_CE_KEY_USAGE.into(), true, KeyUsage(usage).to_der()?);
        }
        if !self.extended_key_usage.is_empty() {
            let purposes = self.extended_key_usage.iter().map(any).collect::<Result<Vec<_>, _>>()?;
            add(ID_CE_EXT_KEY_USAGE.into(), false, purposes.to_der()?);
        }
        if self.authority_key_identifier {
            let key_identifier = Some(OctetString::new(issuer.key_identifier())?);
            let identifier = AuthorityKeyIdentifier { key_identifier, ..AuthorityKeyIdentifier::default() };
            add(ID_CE_AUTHORITY_KEY_IDENTIFIER.into(), false, identifier.to_der()?);
        }
        if !self.policies.is_empty() {
            let policies = self.policies.iter().map(|oid| Ok(PolicyInformation { policy_identifier: any(oid)? }));
            let policies = policies.collect::<Result<Vec<_>, der::Error>>()?;
            add(ID_CE_CERTIFICATE_POLICIES.into(), false, policies.to_der()?);
        }
        if !self.crl_distribution_points.is_empty() {
            let points = self.crl_distribution_points.iter().map(|url| {
                let url = Ia5String::new(&crl_shard::with_room(url, shards))?;
                let url = GeneralName::UniformResourceIdentifier(url);
                let distribution_point = Some(DistributionPointName::FullName(vec![url]));
                Ok(DistributionPoint { distribution_point, reasons: None, crl_issuer: None })
            });
            let points = points.collect::<Result<_, der::Error>>()?;
            add(ID_CE_CRL_DISTRIBUTION_POINTS.into(), false, CrlDistributionPoints(points).to_der()?);
        }
        let ocsp = self.ocsp.iter().map(|url| (ID_AD_OCSP, url));
        let access = ocsp.chain(self.ca_issuers.iter().map(|url| (ID_AD_CA_ISSUERS, url)));
        let access: Vec<_> = access
            .map(|(method, url)| AccessDescription { access_method: method, access_location: url.clone() })
            .collect();
        if !access.is_empty() {
            add(ID_PE_AUTHORITY_INFO_ACCESS.into(), false, AuthorityInfoAccessSyntax(access).to_der()?);
        }
        for Custom { oid, critical, value } in &self.custom {
            add(oid.clone(), *critical, value.clone());
        }
        Ok(out)
    }
}

/// That of RFC 5280 section 4.2.1.4 without qualifiers; x509-cert's knows no OIDs with arcs above 32 bits, as UUIDs are.
#[derive(der::Sequence)]
struct PolicyInformation {
    policy_identifier: Any,
}

fn any(oid: &Oid) -> Result<Any, der::Error> {
    Any::new(Tag::ObjectIdentifier, oid.as_ref())
}

fn bit(usage: config::KeyUsage) -> KeyUsages {
    match usage {
        config::KeyUsage::DigitalSignature => KeyUsages::DigitalSignature,
        config::KeyUsage::ContentCommitment => KeyUsages::NonRepudiation,
        config::KeyUsage::KeyEncipherment => KeyUsages::KeyEncipherment,
        config::KeyUsage::DataEncipherment => KeyUsages::DataEncipherment,
        config::KeyUsage::KeyAgreement => KeyUsages::KeyAgreement,
    }
}

/// As the configuration writes it.
fn usage_name(usage: config::KeyUsage) -> &'static str {
    match usage {
        config::KeyUsage::DigitalSignature => "digital-signature",
        config::KeyUsage::ContentCommitment => "content-commitment",
        config::KeyUsage::KeyEncipherment => "key-encipherment",
        config::KeyUsage::DataEncipherment => "data-encipherment",
        config::KeyUsage::KeyAgreement => "key-agreement",
    }
}

/// What RFC 3279, 5480 and 8410 say of the usages that fit a key's algorithm.
fn check_usage(usage: &[config::KeyUsage], keys: &[KeyType]) -> Result<(), ExtensionError> {
    if usage.is_empty() {
        return Err(ExtensionError::NoUsage);
    }
    let unsuitable = |usage: config::KeyUsage, key: KeyType| match usage {
        config::KeyUsage::DigitalSignature | config::KeyUsage::ContentCommitment => false,
        config::KeyUsage::KeyEncipherment | config::KeyUsage::DataEncipherment => !key.is_rsa(),
        config::KeyUsage::KeyAgreement => key.is_rsa() || key == KeyType::Ed25519,
    };
    for usage in usage {
        if let Some(key) = keys.iter().find(|key| unsuitable(*usage, **key)) {
            return Err(ExtensionError::UnsuitableUsage { usage: usage_name(*usage), key: key.as_str() });
        }
    }
    Ok(())
}

fn oid(text: &str) -> Result<Oid, ExtensionError> {
    text.parse().map_err(|error| ExtensionError::Oid { text: shortened(text), error })
}

fn check_once(oids: &[&Oid]) -> Result<(), ExtensionError> {
    match oids.iter().enumerate().find(|(index, oid)| oids.iter().take(*index).any(|earlier| earlier == *oid)) {
        Some((_, oid)) => Err(ExtensionError::Duplicate((*oid).clone())),
        None => Ok(()),
    }
}

fn purpose(text: &str) -> Result<Oid, ExtensionError> {
    Ok(match text {
        "client-auth" => ID_KP_CLIENT_AUTH.into(),
        "server-auth" => ID_KP_SERVER_AUTH.into(),
        "code-signing" => ID_KP_CODE_SIGNING.into(),
        "email-protection" => ID_KP_EMAIL_PROTECTION.into(),
        other => other.parse().map_err(|_| ExtensionError::Purpose(shortened(other)))?,
    })
}

const URL_SCHEMES: [&str; 3] = ["http://", "https://", "ldap://"];

fn url(text: &str) -> Result<GeneralName, ExtensionError> {
    if !URL_SCHEMES.iter().any(|scheme| text.starts_with(scheme) && text.len() > scheme.len()) {
        return Err(ExtensionError::UrlScheme { text: shortened(text) });
    }
    check_uri(text).map_err(|error| ExtensionError::Url(error.to_string()))?;
    let url = Ia5String::new(text).map_err(|error| ExtensionError::Url(error.to_string()))?;
    Ok(GeneralName::UniformResourceIdentifier(url))
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
    (CT_PRECERT_POISON, "makes a certificate that no verifier may accept (RFC 6962 section 3.1)"),
    (CT_PRECERT_SCTS, "is made by a log for one certificate, not by a profile (RFC 6962 section 3.3)"),
    (ID_PKIX_OCSP_NOCHECK, "is for OCSP responders (RFC 6960 section 4.2.2.2.1)"),
];

/// Those that RFC 5280 sections 4.2.1.7, 4.2.1.8, 4.2.1.15 and 4.2.2.2 demand to be not critical.
const NEVER_CRITICAL: [ObjectIdentifier; 4] =
    [ID_CE_ISSUER_ALT_NAME, ID_CE_SUBJECT_DIRECTORY_ATTRIBUTES, ID_CE_FRESHEST_CRL, ID_PE_SUBJECT_INFO_ACCESS];

fn custom(setting: &CustomExtension) -> Result<Custom, ExtensionError> {
    let oid = oid(setting.oid.get_ref())?;
    if let Some((_, reason)) = REFUSED.iter().find(|(known, _)| oid == *known) {
        return Err(ExtensionError::Refused { oid, reason });
    }
    if setting.critical && NEVER_CRITICAL.iter().any(|known| oid == *known) {
        return Err(ExtensionError::Critical(oid));
    }
    let value = match (&setting.hex, &setting.base64) {
        (Some(text), None) => hex::decode(text.get_ref())?,
        (None, Some(text)) => BASE64_STANDARD.decode(text.get_ref())?,
        _ => return Err(ExtensionError::OneValue(oid)),
    };
    match AnyRef::from_der(&value) {
        Ok(_) => Ok(Custom { oid, critical: setting.critical, value }),
        Err(error) => Err(ExtensionError::NotDer { oid, error }),
    }
}
