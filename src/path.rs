//! Path validation (RFC 5280 section 6): whether the certificates that a CA would issue are valid below it.
//!
//! rustls-webpki, which the TLS side uses, validates end entities for TLS and does not check what a CA's own chain needs
//! before there is one (the anchor's path length, key identifiers, criticality), and certval requires strict DER. So path
//! validation is written here, over the octets as received, and only here: the start, `profile check` and `ceremony import`
//! use it. The trust anchor, the last of the chain, has to obey the same rules, as OpenSSL and GnuTLS demand; only its
//! extensions about policies have no effect, as in OpenSSL.

mod constraints;
mod fault;
mod policies;

use const_oid::{
    ObjectIdentifier,
    db::rfc5280::{
        ANY_EXTENDED_KEY_USAGE, ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS, ID_CE_CERTIFICATE_POLICIES,
        ID_CE_CRL_DISTRIBUTION_POINTS, ID_CE_EXT_KEY_USAGE, ID_CE_INHIBIT_ANY_POLICY, ID_CE_ISSUER_ALT_NAME,
        ID_CE_KEY_USAGE, ID_CE_NAME_CONSTRAINTS, ID_CE_POLICY_CONSTRAINTS, ID_CE_POLICY_MAPPINGS,
        ID_CE_SUBJECT_ALT_NAME, ID_CE_SUBJECT_KEY_IDENTIFIER, ID_PE_AUTHORITY_INFO_ACCESS,
    },
};

pub(crate) use self::fault::{Fault, PathError};
use self::policies::Policies;
use crate::{
    asn1::{DerError, Oid},
    signer::{self, PublicKey, VerifyError},
    x509::{AuthorityKeyIdentifier, Certificate, GeneralName, KEY_CERT_SIGN, Name},
    x509_time::Time,
};

/// Checks what does not depend on the time or on what is issued. The chain has the issuing CA first, then each
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
        let constraints =
            certificate.basic_constraints().map_err(|error| wrong(malformed("basicConstraints", error)))?;
        // Section 6.1.4 (l): self-issued CAs are not counted.
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
            // Section 6.1.3 (b) and (c): self-issued CAs are exempt.
            if !lower.is_self_issued() {
                check_names(certificate, lower, position + 1).map_err(wrong)?;
            }
        }
    }
    check_policies(chain, None)
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
    let own = PathError::of_end_entity;
    if let Some(issuer) = chain.first() {
        check_issuer_name(certificate, issuer).map_err(own)?;
        check_key_identifier(certificate, issuer).map_err(own)?;
    }
    check_extensions(certificate).map_err(own)?;
    for (index, ca) in chain.iter().enumerate() {
        let wrong = |fault| PathError::at(index, ca, fault);
        check_names(ca, certificate, 0).map_err(wrong)?;
        check_purposes(ca, certificate).map_err(wrong)?;
    }
    check_policies(chain, Some(certificate))
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

fn malformed(extension: &'static str, error: DerError) -> Fault {
    Fault::Extension { extension, error }
}

/// The extensions that verifiers know, so that they may be critical. (GnuTLS 3.7 knows neither policyMappings nor
/// policyConstraints, which RFC 5280 demands to be critical; OpenSSL does.)
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
    let [signed, outer] = &certificate.algorithms;
    if signed != outer {
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
    match certificate.basic_constraints().map_err(|error| malformed("basicConstraints", error))? {
        Some(constraints) if constraints.ca => {}
        _ => return Err(Fault::NotACa),
    }
    if !certificate.extension(ID_CE_BASIC_CONSTRAINTS).is_some_and(|extension| extension.critical) {
        return Err(Fault::ConstraintsNotCritical);
    }
    match certificate.key_usage().map_err(|error| malformed("keyUsage", error))? {
        Some(usage) if usage & KEY_CERT_SIGN != 0 => {}
        // Old roots have none, and verifiers accept that.
        None if anchor && !issuing => {}
        _ => return Err(Fault::MayNotSign),
    }
    match certificate.subject_key_identifier().map_err(|error| malformed("subjectKeyIdentifier", error))? {
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
    let identifier =
        certificate.authority_key_identifier().map_err(|error| malformed("authorityKeyIdentifier", error))?;
    let Some(AuthorityKeyIdentifier { key_identifier, issuer: names, serial_number }) = identifier else {
        return Ok(());
    };
    let issuers = issuer.subject_key_identifier().map_err(|error| malformed("subjectKeyIdentifier", error))?;
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
    let key = PublicKey::of(issuer).map_err(Fault::Key)?;
    let [_, algorithm] = &certificate.algorithms;
    signer::verify(&key, algorithm, certificate.tbs(), &certificate.signature).map_err(|error| match error {
        VerifyError::Wrong => Fault::OwnSignature,
        error => Fault::Unverifiable(error.to_string()),
    })
}

/// A root whose signature is not its own was changed, unless its previous key signed it (RFC 4210 section 4.4), which is
/// not in the chain. A root signed with an algorithm that is no longer verified is trusted for its key, not its signature.
fn check_anchor(certificate: &Certificate) -> Result<(), Fault> {
    let identifier = check_key_identifier(certificate, certificate);
    match verify(certificate, certificate) {
        Err(Fault::OwnSignature) if matches!(identifier, Err(Fault::KeyIdentifier(_))) => Ok(()),
        Err(fault @ (Fault::OwnSignature | Fault::Key(_))) => Err(fault),
        Err(_) | Ok(()) => identifier,
    }
}

/// `below` is the position of the certificate in the chain, counted from 1; 0 is an end entity.
fn check_names(ca: &Certificate, certificate: &Certificate, below: usize) -> Result<(), Fault> {
    let constraints = ca.name_constraints().map_err(|error| malformed("nameConstraints", error))?;
    let Some(constraints) = constraints else { return Ok(()) };
    constraints::check(&constraints, certificate).map_err(|fault| Fault::NameConstraints { below, fault })
}

/// Checks that a policy is valid for the path if a CA in it demands one (sections 6.1.2 to 6.1.5). The trust anchor's own
/// extensions about policies have no effect (section 6.1.1 (d)). Without an end entity: that there can be one.
fn check_policies(chain: &[Certificate], end_entity: Option<&Certificate>) -> Result<(), PathError> {
    let anchors = usize::from(chain.last().is_some_and(Certificate::is_self_issued));
    let cas = chain.get(..chain.len() - anchors).unwrap_or_default();
    let mut policies = Policies::new(cas.len() as u64 + 1);
    for (index, ca) in cas.iter().enumerate().rev() {
        policies.enter(ca, index + 1, false).map_err(|fault| PathError::at(index, ca, fault))?;
        policies.leave(ca, index + 1).map_err(|fault| PathError::at(index, ca, fault))?;
    }
    if let Some(certificate) = end_entity {
        policies.enter(certificate, 0, true).map_err(PathError::of_end_entity)?;
    }
    let Some((position, reason)) = policies.finish(end_entity.is_some()) else { return Ok(()) };
    let fault = Fault::ExplicitPolicy(reason);
    let demanding = position.checked_sub(1).and_then(|index| Some((index, cas.get(index)?)));
    Err(match demanding {
        Some((index, ca)) => PathError::at(index, ca, fault),
        None => PathError::of_end_entity(fault),
    })
}

/// A CA's extendedKeyUsage limits what it issues to these purposes: no RFC says so, but verifiers do it.
fn check_purposes(ca: &Certificate, certificate: &Certificate) -> Result<(), Fault> {
    let purposes =
        |of_whom: &Certificate| of_whom.extended_key_usage().map_err(|error| malformed("extKeyUsage", error));
    let (Some(allowed), Some(wanted)) = (purposes(ca)?, purposes(certificate)?) else { return Ok(()) };
    let any = |purpose: &Oid| *purpose == ANY_EXTENDED_KEY_USAGE;
    if allowed.iter().chain(&wanted).any(any) || wanted.is_empty() || wanted.iter().any(|one| allowed.contains(one)) {
        return Ok(());
    }
    Err(Fault::Purposes(wanted.iter().map(Oid::to_string).collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests;
