//! What may be wrong with a path of certificates, in sentences.

use std::fmt;

use const_oid::db::rfc5280::ANY_POLICY;

use super::constraints::NameFault;
use crate::{
    asn1::{DerError, Oid},
    signer::SpkiError,
    x509::Certificate,
    x509_time::Time,
};

/// What is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathError {
    /// Counted from 1, the issuing CA; 0 is the certificate that it issues.
    position: usize,
    subject: String,
    fault: Fault,
}

impl PathError {
    /// A fault of the certificate with this index in the chain.
    pub(super) fn at(index: usize, certificate: &Certificate, fault: Fault) -> PathError {
        PathError { position: index + 1, subject: certificate.subject.to_string(), fault }
    }

    /// A fault of the certificate that the chain's first CA issues.
    pub(super) fn of_end_entity(fault: Fault) -> PathError {
        PathError { position: 0, subject: String::new(), fault }
    }

    /// Why.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PathError { position, subject, fault } = self;
        match position {
            0 => write!(f, "{fault}"),
            1 => write!(f, "certificate 1, the issuing CA \"{subject}\": {fault}"),
            position => write!(f, "certificate {position}, \"{subject}\": {fault}"),
        }
    }
}

impl std::error::Error for PathError {}

/// Why a certificate cannot be in a chain. The sections are RFC 5280's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    #[error("it is not a certificate: {0}")]
    Der(DerError),
    #[error("its extension {extension} is malformed: {error}")]
    Extension { extension: &'static str, error: DerError },
    #[error("its key cannot be used: {0}")]
    Key(SpkiError),
    #[error("it has version {0}; a CA's certificate has version 3, for its extensions (section 4.1.2.1)")]
    Version(u8),
    #[error("the signature algorithm within it is not the one beside its signature (section 4.1.1.2)")]
    Algorithms,
    #[error("it has the extension {0} twice (section 4.2)")]
    Duplicate(Oid),
    #[error("it has the critical extension {0}, which verifiers do not know, so that they refuse it (section 4.2)")]
    UnknownCritical(Oid),
    #[error("its subject is empty; a CA must have a name (section 4.1.2.6)")]
    EmptySubject,
    #[error("it is not a CA's: its basicConstraints do not say CA:TRUE (section 4.2.1.9)")]
    NotACa,
    #[error("its basicConstraints are not critical, as a CA's must be (section 4.2.1.9)")]
    ConstraintsNotCritical,
    #[error("it may not issue: its keyUsage does not have keyCertSign (section 4.2.1.3)")]
    MayNotSign,
    #[error("it has no subjectKeyIdentifier, which the certificates that it issues must refer to (section 4.2.1.2)")]
    NoKeyIdentifier,
    #[error("its subjectKeyIdentifier is empty (section 4.2.1.2)")]
    EmptyKeyIdentifier,
    #[error("its path length is {allowed}, but {found} CAs follow it in the chain (section 4.2.1.9)")]
    PathLength { allowed: u64, found: u64 },
    #[error("it is not valid before {0}")]
    NotYetValid(Time),
    #[error("it expired at {0}")]
    Expired(Time),
    #[error(
        "its issuer is \"{issuer}\", but the next certificate is that of \"{next}\"; list each issuer after what it issued"
    )]
    Issuer { issuer: String, next: String },
    #[error(
        "its issuer and the subject of the next certificate, \"{0}\", are the same text in another encoding (string type, \
         case or spaces): verifiers that compare octets refuse it; have it issued again with the issuer's name as it is"
    )]
    StringType(String),
    #[error("its signature was not made by the key of the next certificate, or it was changed since")]
    Signature,
    #[error("it is issued by itself, but its signature was not made by its own key, or it was changed since")]
    OwnSignature,
    #[error("its signature cannot be verified: {0}")]
    Unverifiable(String),
    #[error("its authorityKeyIdentifier is not the {0} of its issuer's certificate (section 4.2.1.1)")]
    KeyIdentifier(&'static str),
    #[error("its name constraints cannot be met: {}{fault} (section 4.2.1.10)", of_ca(*.below))]
    NameConstraints { below: usize, fault: NameFault },
    #[error("its extendedKeyUsage allows none of the purposes of the certificate: {0} (section 4.2.1.12)")]
    Purposes(String),
    #[error(
        "it demands a valid certificate policy below it (requireExplicitPolicy, section 4.2.1.11), but no policy is \
         valid there: {0}"
    )]
    ExplicitPolicy(NoPolicy),
    #[error("it maps anyPolicy, which no CA may (section 6.1.4 (a))")]
    MapsAnyPolicy,
    #[error("it has the certificate policy {0} twice (section 4.2.1.4)")]
    DuplicatePolicy(Oid),
}

/// Why no certificate policy is valid for a path any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPolicy {
    /// Which certificate left none: its position, counted from 1; 0 is the one that the issuing CA issues.
    pub(super) position: usize,
    /// Those of its policies.
    pub(super) found: Vec<Oid>,
    /// Those that the CAs above it allow.
    pub(super) allowed: Vec<Oid>,
    /// Whether it lost them by its policyMappings, which a CA above it inhibits.
    pub(super) by_mapping: bool,
}

impl NoPolicy {
    /// Whether only the certificate that the issuing CA issues lacks one.
    pub(crate) fn is_of_end_entity(&self) -> bool {
        self.position == 0
    }
}

impl fmt::Display for NoPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |oid: &Oid| if *oid == ANY_POLICY { "anyPolicy".to_owned() } else { oid.to_string() };
        let list = |oids: &[Oid]| oids.iter().map(name).collect::<Vec<_>>().join(", ");
        match self.position {
            0 => f.write_str("the certificate")?,
            position => write!(f, "certificate {position}")?,
        }
        match self.found.as_slice() {
            found if self.by_mapping => {
                return write!(f, " maps {}, which its issuers inhibit (inhibitPolicyMapping)", list(found));
            }
            [] => f.write_str(" has no certificatePolicies")?,
            found => write!(f, " has {}", list(found))?,
        }
        write!(f, ", and its issuers allow {}", list(&self.allowed))
    }
}

fn of_ca(position: usize) -> String {
    if position == 0 { String::new() } else { format!("certificate {position} has ") }
}
