//! Which URIs a certificate may have: RFC 3986 with a scheme, in ASCII, and with a host wherever there is an authority
//! (RFC 5280 section 4.2.1.6).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{name::is_dns_name, quote::shortened};

/// Checks a URI.
pub(super) fn check_uri(uri: &str) -> Result<(), String> {
    fault(uri).map_or(Ok(()), |fault| {
        let uri = shortened(uri);
        Err(format!(
            "\"{uri}\" is not a URI: {fault}; use one such as https://example.com/device or urn:example:device"
        ))
    })
}

fn fault(uri: &str) -> Option<&'static str> {
    let Some((scheme, rest)) = uri.split_once(':').filter(|(_, rest)| !rest.is_empty()) else {
        return Some("it has no scheme, or nothing after it");
    };
    let first = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    if !first || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return Some("its scheme is not letters, digits, +, - and .");
    }
    let (rest, fragment) = rest.split_once('#').map_or((rest, ""), |(rest, fragment)| (rest, fragment));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            if let Some(fault) = authority_fault(authority) {
                return Some(fault);
            }
            path
        }
    };
    if let Some(fault) = characters(path, b":@/") {
        return Some(fault);
    }
    characters(query, b":@/?").or_else(|| characters(fragment, b":@/?"))
}

fn authority_fault(authority: &str) -> Option<&'static str> {
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (host, ""),
    };
    if port.len() > 5 || port.parse::<u16>().is_err() && !port.is_empty() {
        return Some("its port is above 65535");
    }
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok() || is_dns_name(host),
    };
    if !good {
        return Some("its host is neither a DNS name nor an address");
    }
    characters(user, b":")
}

/// Section 2: unreserved and sub-delims, percent-encoded octets, and what else this part may have.
fn characters(part: &str, more: &[u8]) -> Option<&'static str> {
    let mut octets = part.bytes();
    while let Some(octet) = octets.next() {
        if octet == b'%' {
            if ![octets.next(), octets.next()].iter().all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit()))
            {
                return Some("a % is not followed by two hex digits");
            }
        } else if !octet.is_ascii_alphanumeric() && !b"-._~!$&'()*+,;=".contains(&octet) && !more.contains(&octet) {
            return Some("it has a character that must be percent-encoded");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_is_held_to_rfc_3986_and_needs_a_host() {
        for uri in [
            "https://example.com",
            "https://example.com:8443/a/b?c=d/?#e",
            "https://user@example.com/",
            "https://192.0.2.1/x",
            "https://[2001:db8::1]:443/x",
            "urn:acme:device:A:1",
            "urn:uuid:2f1e5f38-3b6a-4f53-8f3c-1f0b0a1f6b1c",
            "tag:x,2026:%7e",
            "ldap://ldap.example.com/cn=crl?certificateRevocationList",
        ] {
            assert_eq!(check_uri(uri), Ok(()), "{uri}");
        }
        for uri in [
            "https:///x",
            "file:///x",
            "https://",
            "https://exa_mple.com",
            "https://[::g]/",
            "https://a:99999/",
            "https://a:x/",
            "urn:x:%zz",
            "urn:x:%4",
            "urn:x:[",
            "urn:x:a b",
            "urn:x:é",
            "urn:x:\u{0}",
            "urn:x#a#b",
            "urn:",
            "x",
            "1x:y",
            ":y",
            "https://@/",
        ] {
            assert!(check_uri(uri).is_err(), "{uri}");
        }
    }
}
