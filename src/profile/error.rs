//! Why a profile refuses a request or an order. Each message names the rule, the value and what would be right.

use jiff::Timestamp;

use super::{alt_name::AltNameError, template::MissingAttribute};
use crate::{
    asn1::DerError, csr::NoText, id::DeviceId, name::AttributeError, path::PathError, possession::CodeShape,
    signer::KeyKind, x509_time::Time,
};

/// Why a profile refuses a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The station may not use the profile.
    #[error("the station {station} may not use the profile \"{profile}\"")]
    StationRefused {
        /// Who asked.
        station: String,
        /// For what.
        profile: String,
    },
    /// The key type is not on the profile's list.
    #[error("the profile \"{profile}\" does not take {found} keys; it takes {}", .taken.join(", "))]
    KeyUnsupported {
        /// The profile.
        profile: String,
        /// The CSR's key.
        found: KeyKind,
        /// What the profile takes.
        taken: Vec<&'static str>,
    },
    /// The request names no order.
    #[error("the profile \"{0}\" requires an order; name one")]
    OrderRequired(String),
    /// The device's certificate would be one that a platform takes as a proof of possession of the CA's key.
    #[error(
        "a certificate for the device id \"{device}\" would have {shape} as its name, with which anybody could register \
         the CA in an account of their own; use other ids, or say allow_code_like_ids = true in the profile \"{profile}\""
    )]
    DeviceIdLikeCode {
        /// What was asked for.
        device: DeviceId,
        /// What it looks like.
        shape: CodeShape,
        /// The profile.
        profile: String,
    },
    /// The names of the certificate would not fit the profile.
    #[error(transparent)]
    SubjectRefused(#[from] SubjectError),
    /// A certificate made now would have an impossible validity.
    #[error(transparent)]
    IssuerExpiring(#[from] ValidityError),
}

/// Why the names of a certificate would not fit its profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// The device id does not fit the profile's rule.
    #[error("the device id \"{device}\" does not fit the profile's device_id = \"{rule}\"{}", known(*.expression))]
    DeviceId {
        /// What was asked for.
        device: DeviceId,
        /// As the configuration writes it.
        rule: String,
        /// What it stands for, if it is the name of a known rule.
        expression: Option<&'static str>,
    },
    /// The CSR's subject names another device.
    #[error("the {attribute} of the CSR's subject must be the device id \"{device}\"; it is \"{found}\"")]
    CsrNamesAnother {
        /// The attribute that must be the device id.
        attribute: &'static str,
        /// The device id.
        device: DeviceId,
        /// What the CSR has.
        found: String,
    },
    /// The CSR's subject names no device.
    #[error("the {attribute} of the CSR's subject must be the device id \"{device}\"; {cause}")]
    CsrNamesNone {
        /// The attribute that must be the device id.
        attribute: &'static str,
        /// The device id.
        device: DeviceId,
        /// Why there is nothing to compare.
        cause: NoText,
    },
    /// The order lacks an attribute that the certificate shows.
    #[error(transparent)]
    OrderAttribute(#[from] MissingAttribute),
    /// The subject cannot hold the value.
    #[error(transparent)]
    Subject(#[from] AttributeError),
    /// The subjectAltName cannot hold the value.
    #[error(transparent)]
    AltName(#[from] AltNameError),
    /// The certificate would be too long for its preset.
    #[error("the certificate could have {length} octets; at most {longest} are allowed: shorten its subject")]
    TooLong {
        /// With the longest signature.
        length: usize,
        /// What the preset allows.
        longest: usize,
    },
    /// The certificate would not be one.
    #[error("the certificate would be malformed: {0}")]
    Malformed(DerError),
    /// The issuer's chain does not allow it, its names for example (RFC 5280 section 6).
    #[error("the certificate would not be valid below its issuer: {0}")]
    InvalidBelowIssuer(#[from] PathError),
}

fn known(expression: Option<&str>) -> String {
    expression.map_or_else(String::new, |expression| format!(" ({expression})"))
}

/// Why a certificate made now would have an impossible validity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidityError {
    /// Its issuer is not valid yet.
    #[error("the issuer \"{issuer}\" is not valid before {not_before}, and the clock says {now}")]
    NotYet {
        /// The issuer's name in the configuration.
        issuer: String,
        /// From when on the issuer is valid.
        not_before: Time,
        /// The daemon's clock.
        now: Timestamp,
    },
    /// It would outlive its issuer, which the profile does not allow.
    #[error(
        "a certificate made on {} would expire at {not_after}, after its issuer \"{issuer}\", which expires at \
         {issuers}; give it a shorter validity, a new issuer, or say when_outliving_issuer = \"shorten\" or \"allow\"",
        Time::from(*.now).date()
    )]
    OutlivesIssuer {
        /// When it would expire.
        not_after: Time,
        /// The issuer's name in the configuration.
        issuer: String,
        /// When the issuer expires.
        issuers: Time,
        /// The daemon's clock.
        now: Timestamp,
    },
    /// It, or its issuer, would be expired already.
    #[error(
        "a certificate made on {} would have expired: it would expire at {not_after}, its issuer \"{issuer}\" at {issuers}",
        Time::from(*.now).date()
    )]
    Expired {
        /// When it would expire.
        not_after: Time,
        /// The issuer's name in the configuration.
        issuer: String,
        /// When the issuer expires.
        issuers: Time,
        /// The daemon's clock.
        now: Timestamp,
    },
}

/// Why no certificates could be made under an order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderTermsError {
    /// It has an attribute that the profile's certificates do not show.
    #[error(
        "the profile \"{profile}\" uses no attribute \"{unused}\"; it uses {}",
        if .used.is_empty() { "none".to_owned() } else { .used.join(", ") }
    )]
    UnusedAttribute {
        /// The profile.
        profile: String,
        /// The attribute, shortened.
        unused: String,
        /// What the certificates show.
        used: Vec<String>,
    },
    /// None of the stations that a pattern names may use the profile.
    #[error(
        "no station <line>/<station> that may use the profile \"{profile}\" (those of {}) fits the order's \"{pattern}\"",
        .allowed.join(", ")
    )]
    NoStation {
        /// The profile.
        profile: String,
        /// The profile's patterns.
        allowed: Vec<String>,
        /// The order's pattern, shortened.
        pattern: String,
    },
    /// A value does not fit its place in the certificate.
    #[error(transparent)]
    Value(#[from] SubjectError),
}
