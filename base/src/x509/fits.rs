//! Whether a certificate can be the work of the CA that stands beside it.

use super::{certificate::Certificate, name::Name};
use crate::asn1::DerError;

/// Why a certificate is not the work of a CA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// One of the two is not DER.
    #[error("a certificate cannot be read: {0}")]
    Unreadable(#[from] DerError),
    /// X.501 names are compared as octets, as Go, webpki and pyca do.
    #[error(
        "its issuer is \"{issuer}\", and the CA's subject is \"{subject}\"{}",
        if .issuer.to_string() == .subject.to_string() { ", in other octets" } else { "" }
    )]
    Name {
        /// The certificate's issuer.
        issuer: Box<Name>,
        /// The CA's subject.
        subject: Box<Name>,
    },
    /// The CA has the name, and another key.
    #[error("its authorityKeyIdentifier is {authority}, and the CA's subjectKeyIdentifier is {subject}")]
    Key {
        /// The certificate's authorityKeyIdentifier, in hex.
        authority: String,
        /// The CA's subjectKeyIdentifier, in hex.
        subject: String,
    },
}

/// Whether the CA can have issued the certificate: its subject is the certificate's issuer, octet for octet (RFC 5280
/// section 7.1), and its subjectKeyIdentifier the certificate's authorityKeyIdentifier, where both are there (section
/// 4.2.1.1). The signature was verified before the certificate was recorded.
///
/// # Errors
/// What does not fit.
pub fn fits(certificate: &Certificate, ca: &Certificate) -> Result<(), Misfit> {
    if certificate.issuer.as_der() != ca.subject.as_der() {
        let (issuer, subject) = (Box::new(certificate.issuer.clone()), Box::new(ca.subject.clone()));
        return Err(Misfit::Name { issuer, subject });
    }
    let authority = certificate.authority_key_identifier()?.and_then(|authority| authority.key_identifier);
    match (authority, ca.subject_key_identifier()?) {
        (Some(authority), Some(subject)) if authority != subject => {
            Err(Misfit::Key { authority: hex::encode(authority), subject: hex::encode(subject) })
        }
        _ => Ok(()),
    }
}

/// As [`fits`], of DER.
///
/// # Errors
/// What does not fit, or is no certificate.
pub fn fits_der(certificate: &[u8], ca: &[u8]) -> Result<(), Misfit> {
    fits(&Certificate::from_der(certificate)?, &Certificate::from_der(ca)?)
}
