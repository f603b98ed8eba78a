//! The `[profiles.NAME]` sections of the configuration. What is absent here, the preset decides.

use std::ops::Range;

use jiff::Timestamp;
use serde::Deserialize;
use toml::Spanned;

use crate::pattern::Pattern;

/// `[profiles.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What the certificate is for: it decides whatever is absent below.
    #[serde(default)]
    pub preset: Preset,
    /// The name of the issuer.
    pub issuer: Option<Spanned<String>>,
    /// Instead of `issuer`: several, each from a moment on.
    #[serde(default)]
    pub issuers: Vec<Spanned<IssuerFrom>>,
    /// The key types that devices may have.
    pub key_types: Option<Spanned<Vec<KeyType>>>,
    /// The subject: a list of `TYPE=value` with placeholders.
    pub subject: Option<Vec<Spanned<String>>>,
    /// The subjectAltName: a list of `dns:…`, `uri:…` and `hardware-module:OID:…` with placeholders.
    #[serde(default)]
    pub subject_alt_names: Vec<Spanned<String>>,
    /// What is demanded of the CSR's own subject.
    #[serde(default)]
    pub csr_subject: CsrSubject,
    /// Which device ids it takes: a regular expression, or the name of a known rule.
    pub device_id: Option<Spanned<String>>,
    /// Whether it takes device ids that look like the code of a platform's proof of possession.
    #[serde(default)]
    pub allow_code_like_ids: bool,
    /// Whether a device may enrol again for a new key while its certificate is live, which is superseded then.
    #[serde(default)]
    pub renewal: bool,
    /// The JITP parameters that the provisioning template of the CA in AWS IoT declares.
    #[serde(default)]
    pub jitp: Vec<Spanned<String>>,
    /// Whether a request must be charged to an order.
    #[serde(default)]
    pub order_requirement: OrderRequirement,
    /// How long a certificate lives.
    pub validity_days: Option<Spanned<u32>>,
    /// Instead of `validity_days`: `issuer`, `99991231235959Z` or a moment.
    pub not_after: Option<Spanned<String>>,
    /// How long before its issue a certificate is valid, for devices and servers whose clock is slow.
    pub backdate_minutes: Option<Spanned<u32>>,
    /// What happens when a certificate would expire after its issuer.
    pub when_outliving_issuer: Option<WhenOutlivingIssuer>,
    /// keyUsage, for every key type.
    pub key_usage: Option<Spanned<Vec<KeyUsage>>>,
    /// extendedKeyUsage: `client-auth`, `server-auth` … or OIDs; none if empty.
    pub extended_key_usage: Option<Vec<Spanned<String>>>,
    /// Whether there is a subjectKeyIdentifier.
    pub subject_key_identifier: Option<bool>,
    /// Whether there is an authorityKeyIdentifier.
    pub authority_key_identifier: Option<Spanned<bool>>,
    /// cRLDistributionPoints: URLs.
    #[serde(default)]
    pub crl_distribution_points: Vec<Spanned<String>>,
    /// authorityInfoAccess, caIssuers: URLs.
    #[serde(default)]
    pub ca_issuers: Vec<Spanned<String>>,
    /// authorityInfoAccess, OCSP responders: URLs.
    #[serde(default)]
    pub ocsp: Vec<Spanned<String>>,
    /// certificatePolicies: OIDs.
    #[serde(default)]
    pub certificate_policies: Vec<Spanned<String>>,
    /// Any further extensions.
    #[serde(default)]
    pub extensions: Vec<Spanned<CustomExtension>>,
    /// The stations that may use it, `<line>/<station>` with `*`; every station if absent.
    #[serde(default)]
    pub stations: Vec<Pattern>,
}

impl Profile {
    /// Where a key's value stands in the file, or, if the key is absent, where the issuer's name does.
    pub(super) fn place(&self, key: &str) -> Option<Range<usize>> {
        let first = |list: &[Spanned<String>]| list.first().map(Spanned::span);
        let place = match key {
            "subject" => self.subject.as_deref().and_then(first),
            "subject_alt_names" => first(&self.subject_alt_names),
            "device_id" => self.device_id.as_ref().map(Spanned::span),
            "jitp" => first(&self.jitp),
            "validity_days" => self.validity_days.as_ref().map(Spanned::span),
            "not_after" => self.not_after.as_ref().map(Spanned::span),
            "key_types" => self.key_types.as_ref().map(Spanned::span),
            "key_usage" => self.key_usage.as_ref().map(Spanned::span),
            "backdate_minutes" => self.backdate_minutes.as_ref().map(Spanned::span),
            "extended_key_usage" => self.extended_key_usage.as_deref().and_then(first),
            "authority_key_identifier" => self.authority_key_identifier.as_ref().map(Spanned::span),
            "extensions" => self.extensions.first().map(Spanned::span),
            _ => None,
        };
        let issuer = || self.issuer.as_ref().map(Spanned::span);
        place.or_else(issuer).or_else(|| self.issuers.first().map(Spanned::span))
    }

    /// The key under which notAfter is configured.
    pub fn validity_key(&self) -> &'static str {
        if self.not_after.is_some() { "not_after" } else { "validity_days" }
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// A TLS client in general, and AWS IoT Core.
    #[default]
    Device,
    /// An Initial Device Identifier (IEEE 802.1AR-2018).
    Idevid,
    /// A Matter Device Attestation Certificate (Matter Core Specification section 6.2.2.3).
    MatterDac,
    /// An individual or group enrollment in Azure's Device Provisioning Service.
    AzureDps,
    /// A TLS client that renews its certificate.
    TlsClient,
}

impl Preset {
    /// As the configuration writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Preset::Device => "device",
            Preset::Idevid => "idevid",
            Preset::MatterDac => "matter-dac",
            Preset::AzureDps => "azure-dps",
            Preset::TlsClient => "tls-client",
        }
    }
}

/// One of several issuers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerFrom {
    /// A name of `[issuers]`.
    pub name: Spanned<String>,
    /// When the profile moves over to it; the first has none.
    pub from: Option<Spanned<Timestamp>>,
}

/// A key type that a profile takes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the variants are their names")]
pub enum KeyType {
    P256,
    P384,
    P521,
    Ed25519,
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

impl KeyType {
    /// As the configuration writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyType::P256 => "p256",
            KeyType::P384 => "p384",
            KeyType::P521 => "p521",
            KeyType::Ed25519 => "ed25519",
            KeyType::Rsa2048 => "rsa2048",
            KeyType::Rsa3072 => "rsa3072",
            KeyType::Rsa4096 => "rsa4096",
        }
    }

    /// Whether it is an RSA key.
    pub fn is_rsa(self) -> bool {
        matches!(self, KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096)
    }
}

/// What a profile demands of the CSR's own subject.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum CsrSubject {
    /// Nothing; it is not looked at.
    #[default]
    Ignore,
    /// Its CN must equal the device id.
    CnIsDeviceId,
    /// Its serialNumber must equal the device id.
    SerialNumberIsDeviceId,
}

/// Whether a request must be charged to an order.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum OrderRequirement {
    /// A request without an order is refused.
    #[default]
    Required,
    /// A request without an order is issued and counted nowhere.
    Optional,
}

/// What happens when a certificate would expire after its issuer.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum WhenOutlivingIssuer {
    /// It is not issued.
    Refuse,
    /// It expires with its issuer.
    Shorten,
    /// It outlives its issuer.
    Allow,
}

/// A bit of keyUsage (RFC 5280 section 4.2.1.3) that a device may have; its number is the bit's.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the variants are their names")]
pub enum KeyUsage {
    DigitalSignature = 0,
    #[serde(alias = "non-repudiation")]
    ContentCommitment = 1,
    KeyEncipherment = 2,
    DataEncipherment = 3,
    KeyAgreement = 4,
}

/// An extension with a fixed value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomExtension {
    /// Its type.
    pub oid: Spanned<String>,
    /// Its value: DER in hex.
    pub hex: Option<Spanned<String>>,
    /// Its value: DER in base64.
    pub base64: Option<Spanned<String>>,
    /// Whether who does not know it must refuse the certificate.
    #[serde(default)]
    pub critical: bool,
}
