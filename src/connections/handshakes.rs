//! What becomes of TLS handshakes, for the metrics.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use crate::metrics;

/// What became of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    Ok,
    /// The client showed no certificate.
    NoCertificate,
    /// The client's certificate is of another CA.
    UnknownCa,
    /// The client's certificate has expired, or is not valid yet.
    Expired,
    Revoked,
    /// The client's certificate is unfit for another reason.
    BadCertificate,
    /// The client does not take the daemon's certificate.
    RefusedOurs,
    /// Something else than TLS was spoken.
    NoTls,
    /// There is no version, cipher or protocol that both know.
    Incompatible,
    /// The client broke it off.
    HungUp,
    /// It was not done in time.
    Silent,
    /// There were too many, and it made room for another.
    Crowded,
    Other,
}

impl Handshake {
    const ALL: [Handshake; 13] = [
        Handshake::Ok,
        Handshake::NoCertificate,
        Handshake::UnknownCa,
        Handshake::Expired,
        Handshake::Revoked,
        Handshake::BadCertificate,
        Handshake::RefusedOurs,
        Handshake::NoTls,
        Handshake::Incompatible,
        Handshake::HungUp,
        Handshake::Silent,
        Handshake::Crowded,
        Handshake::Other,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Handshake::Ok => "ok",
            Handshake::NoCertificate => "no_certificate",
            Handshake::UnknownCa => "unknown_ca",
            Handshake::Expired => "expired",
            Handshake::Revoked => "revoked",
            Handshake::BadCertificate => "bad_certificate",
            Handshake::RefusedOurs => "refused_ours",
            Handshake::NoTls => "no_tls",
            Handshake::Incompatible => "incompatible",
            Handshake::HungUp => "hung_up",
            Handshake::Silent => "silent",
            Handshake::Crowded => "crowded",
            Handshake::Other => "other",
        }
    }

    /// Why one failed.
    pub(crate) fn failed(error: &io::Error) -> Handshake {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Handshake::refused(error),
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    Handshake::HungUp
                }
                _ => Handshake::Other,
            },
        }
    }

    fn refused(error: &Error) -> Handshake {
        match error {
            Error::NoCertificatesPresented => Handshake::NoCertificate,
            Error::InvalidCertificate(error) => match error {
                // A CA of the same name with another key did not sign it.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Handshake::UnknownCa,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Handshake::Expired,
                CertificateError::Revoked => Handshake::Revoked,
                _ => Handshake::BadCertificate,
            },
            Error::AlertReceived(alert) => match alert {
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::UnsupportedCertificate => Handshake::RefusedOurs,
                AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => Handshake::Incompatible,
                AlertDescription::CloseNotify | AlertDescription::UserCanceled => Handshake::HungUp,
                _ => Handshake::Other,
            },
            Error::InvalidMessage(_) => Handshake::NoTls,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Handshake::Incompatible,
            _ => Handshake::Other,
        }
    }

    /// Has all of them counted from 0 on.
    pub(super) fn prepare(port: &'static str) {
        metrics::known_handshakes(port, Handshake::ALL.into_iter().map(Handshake::as_str));
    }

    pub(super) fn count(self, port: &'static str) {
        metrics::tls_handshake(port, self.as_str());
    }
}
