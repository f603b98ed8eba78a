//! The causes of a failed connection: what of TLS went wrong, and on which side.

use std::{error::Error as StdError, io};

use rustls::AlertDescription;
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
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the daemon's certificate is not for this host name: {error}")
            }
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
        let about_certificate = REFUSALS.iter().any(|refusal| format!("{refusal:?}") == alert);
        about_certificate.then(|| format!("the daemon refused the identity's certificate (TLS alert {alert})"))
    };
    refused_here.or_else(refused_there)
}

/// As RFC 3339.
fn moment(time: UnixTime) -> String {
    let time = i64::try_from(time.as_secs()).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or("a time that is none".to_owned(), |time| time.to_string())
}

/// The alerts with which a server refuses a client's certificate (RFC 8446 section 6.2).
const REFUSALS: &[AlertDescription] = &[
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
    AlertDescription::CertificateRequired,
];

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
