//! Name constraints (RFC 5280 section 4.2.1.10): which names a CA's certificates may have.

use crate::{
    asn1::DerError,
    name::EMAIL_ADDRESS,
    quote::shortened,
    x509::{Certificate, GeneralName, NameConstraints, starts_with},
};

/// Why a certificate's names do not satisfy name constraints. The sentences go on from "the certificate has" or stand by
/// themselves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{reason}")]
pub struct NameFault {
    reason: Reason,
    in_alternative_names: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("a malformed subjectAltName: {0}")]
    Malformed(DerError),
    #[error("{name}, which is excluded ({subtree})")]
    Excluded { name: String, subtree: String },
    #[error("{name}, which is not permitted (only {})", .permitted.join(", "))]
    NotPermitted { name: String, permitted: Vec<String> },
    #[error("{0}, which has no host to compare")]
    NoHost(String),
    // Section 4.2.1.10: a verifier that cannot compare a constrained name refuses it.
    #[error("{0}, whose constraints verifiers cannot compare")]
    Incomparable(String),
}

impl NameFault {
    /// Whether it is a name in the subjectAltName, not the subject.
    pub(crate) fn in_alternative_names(&self) -> bool {
        self.in_alternative_names
    }
}

/// Checks the subject and the alternative names of a certificate.
pub(super) fn check(constraints: &NameConstraints, certificate: &Certificate) -> Result<(), NameFault> {
    let of_alternatives = |reason| NameFault { reason, in_alternative_names: true };
    let alternatives = certificate.subject_alt_names().map_err(|error| of_alternatives(Reason::Malformed(error)))?;
    alternatives.iter().try_for_each(|name| check_name(constraints, name)).map_err(of_alternatives)?;
    let subject = (!certificate.subject.is_empty()).then(|| GeneralName::Directory(certificate.subject.clone()));
    // Addresses in the subject count as addresses.
    let addresses = certificate.subject.values(EMAIL_ADDRESS).into_iter().map(GeneralName::Email);
    let mut names = subject.into_iter().chain(addresses);
    let checked = names.try_for_each(|name| check_name(constraints, &name));
    checked.map_err(|reason| NameFault { reason, in_alternative_names: false })
}

fn check_name(constraints: &NameConstraints, name: &GeneralName) -> Result<(), Reason> {
    let of_its_kind = |subtree: &&GeneralName| same_kind(name, subtree);
    for excluded in constraints.excluded.iter().filter(of_its_kind) {
        if matches(name, excluded)? {
            return Err(Reason::Excluded { name: show(name), subtree: show(excluded) });
        }
    }
    let permitted: Vec<_> = constraints.permitted.iter().filter(of_its_kind).collect();
    for subtree in &permitted {
        if matches(name, subtree)? {
            return Ok(());
        }
    }
    if permitted.is_empty() {
        return Ok(());
    }
    Err(Reason::NotPermitted { name: show(name), permitted: permitted.into_iter().map(show).collect() })
}

fn same_kind(one: &GeneralName, two: &GeneralName) -> bool {
    match (one, two) {
        (GeneralName::Other(one), GeneralName::Other(two)) => one == two,
        (GeneralName::Unknown(one), GeneralName::Unknown(two)) => one == two,
        _ => std::mem::discriminant(one) == std::mem::discriminant(two),
    }
}

/// Whether a name lies in a subtree of its kind.
fn matches(name: &GeneralName, subtree: &GeneralName) -> Result<bool, Reason> {
    match (name, subtree) {
        (GeneralName::Directory(name), GeneralName::Directory(subtree)) => Ok(starts_with(name, subtree)),
        (GeneralName::Dns(name), GeneralName::Dns(subtree)) => Ok(within_domain(name, subtree)),
        (GeneralName::Email(name), GeneralName::Email(subtree)) => Ok(email_within(name, subtree)),
        (GeneralName::Uri(uri), GeneralName::Uri(subtree)) => {
            let host = host(uri).ok_or_else(|| Reason::NoHost(show(name)))?;
            Ok(host_within(host, subtree))
        }
        (GeneralName::Ip(name), GeneralName::Ip(subtree)) => Ok(ip_within(name, subtree)),
        _ => Err(Reason::Incomparable(show(name))),
    }
}

/// A DNS name within a domain, itself included; a leading dot, which the RFC does not have here, excludes itself.
fn within_domain(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_ascii_lowercase(), domain.to_ascii_lowercase());
    match domain.strip_prefix('.') {
        Some(above) => name.strip_suffix(above).is_some_and(|rest| rest.ends_with('.')),
        None => {
            domain.is_empty() || name.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        }
    }
}

/// A host is exactly the constraint, or below it if that begins with a dot.
fn host_within(host: &str, constraint: &str) -> bool {
    if constraint.starts_with('.') { within_domain(host, constraint) } else { host.eq_ignore_ascii_case(constraint) }
}

fn email_within(address: &str, constraint: &str) -> bool {
    let Some((mailbox, host)) = address.rsplit_once('@') else { return false };
    match constraint.rsplit_once('@') {
        Some((wanted, wanted_host)) => mailbox == wanted && host.eq_ignore_ascii_case(wanted_host),
        None => host_within(host, constraint),
    }
}

/// The host of a URI with an authority, if it is a name.
fn host(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    (!host.is_empty() && !host.starts_with('[')).then_some(host)
}

fn ip_within(address: &[u8], subtree: &[u8]) -> bool {
    let (network, mask) = subtree.split_at(subtree.len() / 2);
    network.len() == address.len()
        && address.iter().zip(network).zip(mask).all(|((address, network), mask)| address & mask == network & mask)
}

fn show(name: &GeneralName) -> String {
    match name {
        GeneralName::Directory(name) => format!("the name \"{name}\""),
        GeneralName::Dns(name) => format!("the DNS name \"{}\"", shortened(name)),
        GeneralName::Email(address) => format!("the address \"{}\"", shortened(address)),
        GeneralName::Uri(uri) => format!("the URI \"{}\"", shortened(uri)),
        GeneralName::Ip(address) => format!("the IP address {}", hex::encode(address)),
        GeneralName::Other(oid) => format!("an otherName of the type {oid}"),
        GeneralName::Unknown(tag) => format!("a name of the tag 0x{tag:02x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_within_its_subtree() {
        let dns = |name: &str| GeneralName::Dns(name.into());
        let email = |name: &str| GeneralName::Email(name.into());
        let uri = |name: &str| GeneralName::Uri(name.into());
        for (name, subtree, within) in [
            (dns("a.example.com"), dns("example.com"), true),
            (dns("EXAMPLE.com"), dns("example.COM"), true),
            (dns("notexample.com"), dns("example.com"), false),
            (dns("example.com"), dns(".example.com"), false),
            (dns("a.example.com"), dns(".example.com"), true),
            (dns("a"), dns(""), true),
            (email("a@example.com"), email("example.com"), true),
            (email("a@b.example.com"), email("example.com"), false),
            (email("a@b.example.com"), email(".example.com"), true),
            (email("a@example.com"), email("a@EXAMPLE.com"), true),
            (email("A@example.com"), email("a@example.com"), false),
            (uri("https://u@a.example.com:8443/x"), uri(".example.com"), true),
            (uri("https://example.com/x"), uri("example.com"), true),
            (uri("https://a.example.com/x"), uri("example.com"), false),
            (GeneralName::Ip(vec![10, 1, 2, 3]), GeneralName::Ip(vec![10, 1, 0, 0, 255, 255, 0, 0]), true),
            (GeneralName::Ip(vec![10, 2, 2, 3]), GeneralName::Ip(vec![10, 1, 0, 0, 255, 255, 0, 0]), false),
            (GeneralName::Ip(vec![10, 2, 2, 3]), GeneralName::Ip(vec![0; 32]), false),
        ] {
            assert_eq!(matches(&name, &subtree), Ok(within), "{name:?} in {subtree:?}");
        }
        assert!(matches(&uri("urn:acme:device:1"), &uri("example.com")).unwrap_err().to_string().contains("no host"));
        let other = GeneralName::Other("1.3.6.1.5.5.7.8.4".parse().unwrap());
        assert!(matches(&other, &other).unwrap_err().to_string().contains("cannot compare"));
    }

    #[test]
    fn name_is_checked_by_constraints_of_its_kind_only() {
        let dns = |name: &str| GeneralName::Dns(name.into());
        let constraints = NameConstraints {
            permitted: vec![dns("example.com"), dns("example.org")],
            excluded: vec![dns("bad.example.com"), GeneralName::Email("example.com".into())],
        };
        for (name, good) in [
            (dns("a.example.com"), true),
            (dns("example.org"), true),
            (dns("x.bad.example.com"), false),
            (dns("example.net"), false),
            (GeneralName::Uri("urn:x".into()), true),
            (GeneralName::Email("a@example.com".into()), false),
        ] {
            assert_eq!(check_name(&constraints, &name).is_ok(), good, "{name:?}");
        }
    }
}
