//! The beginning of a connection, up to the end of its TLS handshake.

use std::{hash::Hash, io, net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::{ServerConfig, pki_types::UnixTime};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::connections::{Activity, Handshake, Reason, Seat};

/// A client speaks first, and at once.
const FIRST_OCTET: Duration = Duration::from_secs(3);

/// A client that takes longer for the TLS handshake is not one of ours.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a connection stays open that was refused for what came on it: who comes again as soon as it is closed comes less often.
const LINGER: Duration = Duration::from_secs(1);

/// The type of the record that each handshake begins with (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Why there is no TLS connection, for the log and for the metrics, and what is left of the other one.
type Refused = (Reason, Handshake, String, Option<TcpStream>);

/// Makes a TLS connection of a TCP connection, with the settings of the moment; none if it was refused, which is counted then. Whoever
/// takes the connection counts the others.
pub(crate) async fn handshake<S: Clone + Eq + Hash>(
    stream: TcpStream,
    address: SocketAddr,
    settings: impl FnOnce() -> Arc<ServerConfig>,
    seat: &mut Seat<S>,
    activity: &Activity,
) -> Option<TlsStream<TcpStream>> {
    // Replies are small and wanted at once. Without it they are only later.
    let _ = stream.set_nodelay(true);
    let greeted = tokio::select! {
        greeted = greet(stream, settings, activity) => greeted,
        () = seat.told_to_leave() => {
            Err((Reason::Crowded, Handshake::Crowded, "too many handshakes are under way".into(), None))
        }
    };
    let (reason, result, what, stream) = match greeted {
        Ok(stream) => return Some(stream),
        Err(refused) => refused,
    };
    seat.shook_hands(result);
    seat.refused(reason, || format!("{address}: {what}"));
    if let Some(stream) = stream {
        // Every other connection goes before this one, and what else comes on it wakes nobody.
        activity.forget();
        let _held = stream.into_std();
        tokio::select! {
            () = sleep(LINGER) => {}
            () = seat.told_to_leave() => {}
        }
    }
    None
}

/// Why a handshake failed, for people.
fn told(error: &io::Error) -> String {
    use rustls::{CertificateError, Error};
    let moment = |time: UnixTime| {
        let seconds = i64::try_from(time.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        seconds.map_or("a time that is none".to_owned(), |time| time.to_string())
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            format!("the client's certificate expired on {}", moment(*not_after))
        }
        Some(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            format!("the client's certificate is valid from {} on", moment(*not_before))
        }
        _ => error.to_string(),
    }
}

async fn greet(
    stream: TcpStream,
    settings: impl FnOnce() -> Arc<ServerConfig>,
    activity: &Activity,
) -> Result<TlsStream<TcpStream>, Refused> {
    // Before the client has said something that may be TLS there is no TLS state either.
    let mut first = [0];
    match timeout(FIRST_OCTET, stream.peek(&mut first)).await {
        Err(_) => {
            return Err((Reason::Silent, Handshake::Silent, format!("nothing came within {FIRST_OCTET:?}"), None));
        }
        Ok(Err(error)) => return Err((Reason::Handshake, Handshake::failed(&error), error.to_string(), None)),
        Ok(Ok(0)) => {
            return Err((Reason::Handshake, Handshake::HungUp, "it was closed before a handshake".into(), None));
        }
        Ok(Ok(_)) if first != [HANDSHAKE_RECORD] => {
            return Err((Reason::Handshake, Handshake::NoTls, "what came is no TLS handshake".into(), Some(stream)));
        }
        Ok(Ok(_)) => activity.hear(),
    }
    match timeout(HANDSHAKE, TlsAcceptor::from(settings()).accept(stream).into_fallible()).await {
        Ok(stream) => {
            stream.map_err(|(error, stream)| (Reason::Handshake, Handshake::failed(&error), told(&error), Some(stream)))
        }
        Err(_) => Err((Reason::Silent, Handshake::Silent, format!("no TLS handshake within {HANDSHAKE:?}"), None)),
    }
}
