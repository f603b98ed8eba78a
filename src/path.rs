//! Path validation (RFC 5280 section 6): whether the certificates that a CA would issue are valid below it.
//!
//! rustls-webpki, which the TLS side has, validates an end entity for TLS and passes over what a CA's own chain must hold
//! before there is one (path length of the anchor, key identifiers, criticality), and certval wants strict DER. So it is
//! written here, over the octets that came, and in one place: the start, `profile check`, `ceremony import` and the tests
//! use it. The trust anchor, the last of the chain, is held to the same rules: OpenSSL and GnuTLS do so.

mod constraints;

use std::fmt;

use const_oid::{
    ObjectIdentifier,
    db::rfc5280::{
        ANY_EXTENDED_KEY_USAGE, ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS, ID_CE_CERTIFICATE_POLICIES,
        ID_CE_CRL_DISTRIBUTION_POINTS, ID_CE_EXT_KEY_USAGE, ID_CE_INHIBIT_ANY_POLICY, ID_CE_ISSUER_ALT_NAME,
        ID_CE_KEY_USAGE, ID_CE_NAME_CONSTRAINTS, ID_CE_POLICY_CONSTRAINTS, ID_CE_POLICY_MAPPINGS,
        ID_CE_SUBJECT_ALT_NAME, ID_CE_SUBJECT_KEY_IDENTIFIER, ID_PE_AUTHORITY_INFO_ACCESS,
    },
};

use crate::{
    asn1::{DerError, Oid},
    signer::{self, SpkiError, VerifyError},
    x509::{AuthorityKeyIdentifier, Certificate, GeneralName, KEY_CERT_SIGN, Name},
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
    fn at(index: usize, certificate: &Certificate, fault: Fault) -> PathError {
        PathError { position: index + 1, subject: certificate.subject.to_string(), fault }
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
#[allow(missing_docs)] // The sentences say what the fields are.
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
    #[error("its name constraints cannot be met: {0} (section 4.2.1.10)")]
    NameConstraints(String),
    #[error("its extendedKeyUsage allows none of the purposes of the certificate: {0} (section 4.2.1.12)")]
    Purposes(String),
}

/// Checks all of a chain that does not depend on the moment or on what is issued: the issuing CA first, then each
/// certificate that issued the one before it, up to an anchor or as far as it goes.
///
/// # Errors
/// The first certificate that would make what is issued invalid, and why.
pub(crate) fn check(chain: &[Certificate]) -> Result<(), PathError> {
    let mut below = 0;
    for (index, certificate) in chain.iter().enumerate() {
        let wrong = |fault| PathError::at(index, certificate, fault);
        let anchor = index + 1 == chain.len() && certificate.is_self_issued();
        check_ca(certificate, index == 0, anchor).map_err(wrong)?;
        let constraints = certificate.basic_constraints().map_err(|error| wrong(of("basicConstraints", error)))?;
        // Section 6.1.4 (l): CAs that issued themselves are not counted.
        if let Some(allowed) = constraints.and_then(|constraints| constraints.path_length).filter(|most| *most < below)
        {
            return Err(wrong(Fault::PathLength { allowed, found: below }));
        }
        below += u64::from(!certificate.is_self_issued());
        match chain.get(index + 1) {
            Some(issuer) => check_issued_by(certificate, issuer).map_err(wrong)?,
            None if anchor => check_anchor(certificate).map_err(wrong)?,
            None => {}
        }
        for (position, lower) in chain.iter().enumerate().take(index) {
            // Section 6.1.4 (b); what a CA issued to itself is exempt.
            if !lower.is_self_issued() {
                check_names(certificate, lower).map_err(|fault| {
                    wrong(match fault {
                        Fault::NameConstraints(what) => {
                            Fault::NameConstraints(format!("certificate {} has {what}", position + 1))
                        }
                        fault => fault,
                    })
                })?;
            }
        }
    }
    Ok(())
}

/// Checks that all of a chain is valid at a moment (section 6.1.3 (a) (2)).
///
/// # Errors
/// The first certificate that is not.
pub(crate) fn check_validity(chain: &[Certificate], moment: Time) -> Result<(), PathError> {
    for (index, certificate) in chain.iter().enumerate() {
        if moment < certificate.not_before {
            return Err(PathError::at(index, certificate, Fault::NotYetValid(certificate.not_before)));
        }
        if moment > certificate.not_after {
            return Err(PathError::at(index, certificate, Fault::Expired(certificate.not_after)));
        }
    }
    Ok(())
}

/// Checks that a chain allows a certificate that its first CA issued, apart from the signature and the validity.
///
/// # Errors
/// The first certificate that forbids it, and why; or what is wrong with the certificate itself.
pub(crate) fn check_end_entity(chain: &[Certificate], certificate: &Certificate) -> Result<(), PathError> {
    let own = |fault| PathError { position: 0, subject: String::new(), fault };
    if let Some(issuer) = chain.first() {
        check_issuer_name(certificate, issuer).map_err(own)?;
        check_key_identifier(certificate, issuer).map_err(own)?;
    }
    check_extensions(certificate).map_err(own)?;
    for (index, ca) in chain.iter().enumerate() {
        let wrong = |fault| PathError::at(index, ca, fault);
        check_names(ca, certificate).map_err(wrong)?;
        check_purposes(ca, certificate).map_err(wrong)?;
    }
    Ok(())
}

/// Checks that `issuer` issued `certificate`: names, key identifiers, signature.
///
/// # Errors
/// What does not fit.
pub(crate) fn check_issued_by(certificate: &Certificate, issuer: &Certificate) -> Result<(), Fault> {
    check_issuer_name(certificate, issuer)?;
    check_key_identifier(certificate, issuer)?;
    verify(certificate, issuer).map_err(|error| match error {
        Fault::OwnSignature => Fault::Signature,
        error => error,
    })
}

fn of(extension: &'static str, error: DerError) -> Fault {
    Fault::Extension { extension, error }
}

/// The extensions that verifiers know, so that they may be critical. Those about policies do not change anything for who
/// demands none, which is how devices' certificates are verified.
const KNOWN: [ObjectIdentifier; 14] = [
    ID_CE_AUTHORITY_KEY_IDENTIFIER,
    ID_CE_BASIC_CONSTRAINTS,
    ID_CE_CERTIFICATE_POLICIES,
    ID_CE_CRL_DISTRIBUTION_POINTS,
    ID_CE_EXT_KEY_USAGE,
    ID_CE_INHIBIT_ANY_POLICY,
    ID_CE_ISSUER_ALT_NAME,
    ID_CE_KEY_USAGE,
    ID_CE_NAME_CONSTRAINTS,
    ID_CE_POLICY_CONSTRAINTS,
    ID_CE_POLICY_MAPPINGS,
    ID_CE_SUBJECT_ALT_NAME,
    ID_CE_SUBJECT_KEY_IDENTIFIER,
    ID_PE_AUTHORITY_INFO_ACCESS,
];

fn check_ca(certificate: &Certificate, issuing: bool, anchor: bool) -> Result<(), Fault> {
    if certificate.version != 2 {
        return Err(Fault::Version(certificate.version + 1));
    }
    let [within, beside] = &certificate.algorithms;
    if within != beside {
        return Err(Fault::Algorithms);
    }
    check_extensions(certificate)?;
    if let Some(unknown) =
        certificate.extensions.iter().find(|found| found.critical && !KNOWN.iter().any(|known| found.oid == *known))
    {
        return Err(Fault::UnknownCritical(unknown.oid.clone()));
    }
    if certificate.subject.is_empty() {
        return Err(Fault::EmptySubject);
    }
    match certificate.basic_constraints().map_err(|error| of("basicConstraints", error))? {
        Some(constraints) if constraints.ca => {}
        _ => return Err(Fault::NotACa),
    }
    if !certificate.extension(ID_CE_BASIC_CONSTRAINTS).is_some_and(|extension| extension.critical) {
        return Err(Fault::ConstraintsNotCritical);
    }
    match certificate.key_usage().map_err(|error| of("keyUsage", error))? {
        Some(usage) if usage & KEY_CERT_SIGN != 0 => {}
        // Old roots have none, and no verifier misses it.
        None if anchor && !issuing => {}
        _ => return Err(Fault::MayNotSign),
    }
    match certificate.subject_key_identifier().map_err(|error| of("subjectKeyIdentifier", error))? {
        Some([]) => Err(Fault::EmptyKeyIdentifier),
        None if issuing => Err(Fault::NoKeyIdentifier),
        _ => Ok(()),
    }
}

fn check_extensions(certificate: &Certificate) -> Result<(), Fault> {
    let extensions = &certificate.extensions;
    for (index, extension) in extensions.iter().enumerate() {
        if extensions.iter().take(index).any(|earlier| earlier.oid == extension.oid) {
            return Err(Fault::Duplicate(extension.oid.clone()));
        }
    }
    Ok(())
}

fn check_issuer_name(certificate: &Certificate, issuer: &Certificate) -> Result<(), Fault> {
    if certificate.issuer.as_der() == issuer.subject.as_der() {
        return Ok(());
    }
    let [name, next] = [&certificate.issuer, &issuer.subject].map(Name::to_string);
    if certificate.issuer.same_text(&issuer.subject) {
        return Err(Fault::StringType(next));
    }
    Err(Fault::Issuer { issuer: name, next })
}

fn check_key_identifier(certificate: &Certificate, issuer: &Certificate) -> Result<(), Fault> {
    let identifier = certificate.authority_key_identifier().map_err(|error| of("authorityKeyIdentifier", error))?;
    let Some(AuthorityKeyIdentifier { key_identifier, issuer: names, serial_number }) = identifier else {
        return Ok(());
    };
    let issuers = issuer.subject_key_identifier().map_err(|error| of("subjectKeyIdentifier", error))?;
    if let (Some(own), Some(issuers)) = (&key_identifier, issuers)
        && own != issuers
    {
        return Err(Fault::KeyIdentifier("subjectKeyIdentifier"));
    }
    if serial_number.is_some_and(|number| number != issuer.serial_number) {
        return Err(Fault::KeyIdentifier("serial number"));
    }
    let directory = names.iter().find_map(|name| match name {
        GeneralName::Directory(name) => Some(name),
        _ => None,
    });
    if directory.is_some_and(|name| !name.same_text(&issuer.issuer)) {
        return Err(Fault::KeyIdentifier("issuer"));
    }
    Ok(())
}

fn verify(certificate: &Certificate, issuer: &Certificate) -> Result<(), Fault> {
    let key = issuer.public_key().map_err(Fault::Key)?;
    let [_, algorithm] = &certificate.algorithms;
    signer::verify(&key, algorithm, certificate.tbs(), &certificate.signature).map_err(|error| match error {
        VerifyError::Wrong => Fault::OwnSignature,
        error => Fault::Unverifiable(error.to_string()),
    })
}

/// A root whose signature is not its own was changed, unless its last key signed it (RFC 4210 section 4.4), which is not
/// here; one that is signed with what nobody verifies any more is trusted for its key, not for its signature.
fn check_anchor(certificate: &Certificate) -> Result<(), Fault> {
    let identifier = check_key_identifier(certificate, certificate);
    match verify(certificate, certificate) {
        Err(Fault::OwnSignature) if matches!(identifier, Err(Fault::KeyIdentifier(_))) => Ok(()),
        Err(fault @ (Fault::OwnSignature | Fault::Key(_))) => Err(fault),
        Err(_) | Ok(()) => identifier,
    }
}

fn check_names(ca: &Certificate, certificate: &Certificate) -> Result<(), Fault> {
    let constraints = ca.name_constraints().map_err(|error| of("nameConstraints", error))?;
    let Some(constraints) = constraints else { return Ok(()) };
    constraints::check(&constraints, certificate).map_err(Fault::NameConstraints)
}

/// A CA with an extendedKeyUsage limits what it issues to these purposes: no standard says so, all verifiers do.
fn check_purposes(ca: &Certificate, certificate: &Certificate) -> Result<(), Fault> {
    let purposes = |of_whom: &Certificate| of_whom.extended_key_usage().map_err(|error| of("extKeyUsage", error));
    let (Some(allowed), Some(wanted)) = (purposes(ca)?, purposes(certificate)?) else { return Ok(()) };
    let any = |purpose: &Oid| *purpose == ANY_EXTENDED_KEY_USAGE;
    if allowed.iter().chain(&wanted).any(any) || wanted.is_empty() || wanted.iter().any(|one| allowed.contains(one)) {
        return Ok(());
    }
    Err(Fault::Purposes(wanted.iter().map(Oid::to_string).collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests;
