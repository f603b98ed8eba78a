//! The causes of a failed connection: what of TLS went wrong, and on which side.

use std::{error::Error as StdError, io};

use rustls_pki_types::UnixTime;

/// Whether the other side does not speak TLS.
pub(crate) fn speaks_no_tls(error: &(dyn StdError + 'static)) -> bool {
    use rustls::{Error, InvalidMessage::InvalidContentType};
    let mut errors = chain(error).filter_map(|error| error.downcast_ref::<Error>());
    errors.any(|error| matches!(error, Error::InvalidMessage(InvalidContentType)))
}

/// A sentence if the cause of `error` is that one side refused the other's certificate.
pub(crate) fn certificate_refusal(error: &(dyn StdError + 'static)) -> Option<String> {
    use rustls::{CertificateError, Error};
    let refused_here = chain(error).find_map(|error| match error.downcast_ref::<Error>()? {
        Error::InvalidCertificate(error) => Some(match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the daemon's certificate does not come from the CA in the identity's ca.pem".to_owned()
            }
            CertificateError::NotValidForName => {
                "the daemon's certificate is not for this host name; use a name that it has".to_owned()
            }
            CertificateError::NotValidForNameContext { expected, presented } => format!(
                "the daemon's certificate is not for {}, but for {}; use a name that it has, or have a certificate made that has \
                 this one (birthmark station enroll --role server --dns)",
                expected.to_str(),
                names(presented)
            ),
            CertificateError::NotValidYetContext { time, not_before } => format!(
                "the daemon's certificate is valid from {} on, and this computer's clock says {}; set the clock",
                moment(*not_before),
                moment(*time)
            ),
            CertificateError::ExpiredContext { time, not_after } => format!(
                "the daemon's certificate expired on {}, and this computer's clock says {}; renew the certificate, or set \
                 the clock",
                moment(*not_after),
                moment(*time)
            ),
            error => format!("the daemon's certificate is not valid: {error}"),
        }),
        _ => None,
    });
    // With TLS 1.3 the daemon's refusal comes after the handshake, to HTTP/2, which keeps an error's text only.
    let refused_there = || {
        let text = innermost(error);
        let alert = text.strip_prefix("received fatal alert: ")?;
        let (_, why) = REFUSALS.iter().find(|(refusal, _)| *refusal == alert)?;
        Some(format!("the daemon refused the identity's certificate: {why}"))
    };
    refused_here.or_else(refused_there)
}

/// The names of a certificate as rustls tells them, such as `DnsName("localhost")`.
fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name at all".to_owned();
    }
    let name = |told: &String| match told.split_once('(') {
        Some((_, name)) => name.trim_end_matches(')').trim_matches('"').to_owned(),
        None => told.clone(),
    };
    presented.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// As RFC 3339.
fn moment(time: UnixTime) -> String {
    let time = i64::try_from(time.as_secs()).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or("a time that is none".to_owned(), |time| time.to_string())
}

/// The alerts with which a server refuses a client's certificate (RFC 8446 section 6.2), by rustls' names, and what they mean.
const REFUSALS: &[(&str, &str)] = &[
    ("CertificateExpired", "it has expired, or this computer or the daemon's has a wrong clock; renew it"),
    ("CertificateRevoked", "it was revoked; ask the site's operator for a new one"),
    ("UnknownCA", "it does not come from the daemon's station CA; is it the identity of another site?"),
    ("CertificateRequired", "it was not sent; the identity's cert.pem and key.pem belong together"),
    ("DecryptError", "its signature is wrong; the identity's cert.pem and key.pem do not belong together"),
    ("BadCertificate", "it is damaged, or not one that stations have; ask the site's operator for a new one"),
    ("UnsupportedCertificate", "it is not one that stations have; ask the site's operator for a new one"),
    ("CertificateUnknown", "the daemon's log says why; ask the site's operator"),
    ("AccessDenied", "it may not be used here; ask the site's operator"),
];

/// Why nothing could be reached, and what to look at.
pub(crate) fn unreachable(error: &(dyn StdError + 'static)) -> String {
    let text = innermost(error);
    if text.starts_with("failed to lookup address information") {
        return "no computer of this name is known here; is the name right, and the network up?".to_owned();
    }
    let kind = chain(error).filter_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind).last();
    match kind {
        Some(io::ErrorKind::NotFound) => {
            "there is no such socket; does the daemon run, and is the path right?".to_owned()
        }
        Some(io::ErrorKind::PermissionDenied) => {
            "this user may not use it; who is a member of the socket's group may".to_owned()
        }
        Some(io::ErrorKind::ConnectionRefused) => "nobody listens there; does the daemon run?".to_owned(),
        _ => text,
    }
}

/// The message of the last error of the chain: tonic's and hyper's own ones only say "transport error".
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().unwrap_or(error).to_string()
}

/// The error and what caused it, outermost first.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| cause(*error))
}

/// `io::Error::source` skips the error that it wraps, so that one is looked up.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
