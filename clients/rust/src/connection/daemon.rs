//! A daemon that can be connected to.

use std::{
    fs::File,
    future::poll_fn,
    path::{Path, PathBuf},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use birthmark_base::{
    durable, pem,
    secret_file::{self, SecretFileError},
    text_file::{self, EncodingError, TextError},
};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use zeroize::Zeroizing;

use super::{
    error::{ClientError, SettingsError},
    servers::{Candidate, Servers, host},
    tls::{IdentityFiles, Tls},
};
use crate::failure::cause::{certificate_refusal, innermost, speaks_no_tls, unreachable};

/// The longest file of an identity, in bytes.
const LONGEST_FILE: usize = 1 << 20;

/// Connecting includes the TLS handshake; a healthy line network needs milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// After which time the next daemon is tried as well.
const NEXT: Duration = Duration::from_secs(1);

/// A daemon that can be connected to, again and again, or several that serve one ledger.
#[derive(Clone, Debug)]
pub struct Daemon {
    way: Way,
    address: String,
    /// What else the user could say, if the default address was used.
    hint: &'static str,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of each connection")]
enum Way {
    Socket(Endpoint),
    /// Each as it was read first, and the folder of the identity, which is read again for each connection: it
    /// may be renewed.
    Servers {
        servers: Servers,
        first: Vec<(Candidate, Secured)>,
        identity: PathBuf,
    },
}

impl Daemon {
    pub(super) fn at_server(list: &str, identity: &Path) -> Result<Self, SettingsError> {
        let servers = Servers::parse(list)?;
        let first = servers.uris().iter().map(|uri| {
            let candidate = Candidate { uri: uri.clone(), address: None };
            let secured = secured(&candidate, identity)?;
            Ok((candidate, secured))
        });
        let first = first.collect::<Result<_, SettingsError>>()?;
        let way = Way::Servers { servers, first, identity: identity.to_owned() };
        Ok(Daemon { way, address: list.to_owned(), hint: "" })
    }

    /// The folder of the identity that it is spoken with; none on the Unix socket.
    pub fn identity(&self) -> Option<&Path> {
        match &self.way {
            Way::Servers { identity, .. } => Some(identity),
            Way::Socket(_) => None,
        }
    }

    pub(super) fn at_socket(path: &Path, hint: &'static str) -> Result<Self, SettingsError> {
        let unusable = || SettingsError::Socket(path.to_owned());
        let text = path.to_str().ok_or_else(unusable)?;
        let endpoint = Endpoint::from_shared(format!("unix://{text}")).map_err(|_| unusable())?;
        Ok(Daemon { way: Way::Socket(tuned(endpoint)), address: text.to_owned(), hint })
    }

    /// Opens a new connection. Of several daemons it is the first that answers, in an order of this identity's own; the next one
    /// is tried when one fails, or has not answered for a second.
    ///
    /// # Errors
    /// [`ClientError::Connect`] and [`ClientError::NotTls`].
    pub async fn connect(&self) -> Result<Channel, ClientError> {
        let (servers, first, identity, candidates) = match &self.way {
            Way::Socket(endpoint) => {
                return connected(endpoint.connect()).await.map_err(|fault| self.error(vec![(String::new(), fault)]));
            }
            Way::Servers { servers, first, identity } => {
                let certificate = read(&identity.join("cert.pem")).unwrap_or_default();
                (servers, first, identity, servers.in_order(&certificate).await)
            }
        };
        let (mut waiting, mut trying) = (candidates.into_iter().peekable(), Vec::<Attempt>::new());
        let mut faults = Vec::new();
        loop {
            if let Some(candidate) = waiting.next() {
                // What was read before serves as well while the folder, perhaps on a share, cannot be read.
                let known =
                    || first.iter().find(|(known, _)| known.uri == candidate.uri).map(|(_, known)| known.clone());
                let Some(Secured { endpoint, tls }) = secured(&candidate, identity).ok().or_else(known) else {
                    continue;
                };
                trying.push(Box::pin(async move { (connected(tls.connect(endpoint)).await, candidate) }));
            }
            let answered = match waiting.peek() {
                Some(_) => match timeout(NEXT, first_of(&mut trying)).await {
                    Ok(answered) => answered,
                    Err(_) => continue,
                },
                None => first_of(&mut trying).await,
            };
            match answered {
                Some((Ok(channel), candidate)) => {
                    servers.connected(candidate);
                    return Ok(channel);
                }
                Some((Err(fault), candidate)) => faults.push((candidate.name(), fault)),
                None => return Err(self.error(faults)),
            }
        }
    }

    /// The daemon of the newest connection is of no use for now: the next connection is made to another one, if there is one.
    pub(crate) fn leave(&self) {
        if let Way::Servers { servers, .. } = &self.way {
            servers.leave();
        }
    }

    /// Why none of them was to be had.
    fn error(&self, faults: Vec<(String, Fault)>) -> ClientError {
        if !faults.is_empty() && faults.iter().all(|(_, fault)| matches!(fault, Fault::NotTls)) {
            return ClientError::NotTls(self.address.clone());
        }
        let lasting = !faults.is_empty() && faults.iter().all(|(_, fault)| !matches!(fault, Fault::Passing(_)));
        let one = faults.len() == 1;
        let causes = faults.into_iter().map(|(name, fault)| {
            let cause = match fault {
                Fault::NotTls => "it does not speak TLS".to_owned(),
                Fault::Lasting(cause) => cause,
                Fault::Passing(cause) => format!("{cause}{}", self.hint),
            };
            if one { cause } else { format!("{name}: {cause}") }
        });
        let cause = causes.collect::<Vec<_>>().join("; ");
        ClientError::Connect { address: self.address.clone(), cause, lasting }
    }

    /// Whether no daemon was named, so that it is the one at [`super::DEFAULT_SOCKET`].
    pub fn is_default(&self) -> bool {
        !self.hint.is_empty()
    }

    /// The URL or the socket's path, for people.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// Why there is no connection to one daemon.
enum Fault {
    NotTls,
    Lasting(String),
    Passing(String),
}

type Attempt = Pin<Box<dyn Future<Output = (Result<Channel, Fault>, Candidate)> + Send>>;

/// What the first attempt that ends comes to; none if there is none.
async fn first_of(attempts: &mut Vec<Attempt>) -> Option<(Result<Channel, Fault>, Candidate)> {
    poll_fn(|context| {
        if attempts.is_empty() {
            return Poll::Ready(None);
        }
        let ended = attempts.iter_mut().enumerate().find_map(|(index, attempt)| match attempt.as_mut().poll(context) {
            Poll::Ready(end) => Some((index, end)),
            Poll::Pending => None,
        });
        match ended {
            Some((index, end)) => {
                drop(attempts.swap_remove(index));
                Poll::Ready(Some(end))
            }
            None => Poll::Pending,
        }
    })
    .await
}

async fn connected(
    connecting: impl Future<Output = Result<Channel, tonic::transport::Error>>,
) -> Result<Channel, Fault> {
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) if speaks_no_tls(&error) => Err(Fault::NotTls),
        Ok(Err(error)) => Err(match certificate_refusal(&error) {
            Some(refusal) => Fault::Lasting(refusal),
            None => Fault::Passing(unreachable(&error)),
        }),
        Err(_) => Err(Fault::Passing(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

/// A daemon at an address, spoken with as an identity.
#[derive(Clone, Debug)]
struct Secured {
    endpoint: Endpoint,
    tls: Tls,
}

/// The daemon at this address, spoken with as this identity.
fn secured(candidate: &Candidate, identity: &Path) -> Result<Secured, SettingsError> {
    // What a renewal with a new key was at when it was killed; in a folder that cannot be written there is none.
    let _ = durable::take_staged(identity, &["key.pem", "cert.pem"]);
    let ca = read(&identity.join("ca.pem"))?;
    let blocks = pem::blocks(&ca).unwrap_or_default();
    let ca: Vec<_> = blocks.into_iter().filter(pem::Block::is_certificate).map(|block| block.der).collect();
    if ca.is_empty() {
        return Err(SettingsError::NoCertificate(identity.join("ca.pem")));
    }
    let (certificate, key) = (read(&identity.join("cert.pem"))?, read_key(&identity.join("key.pem"))?);
    let tls = Tls::new(host(&candidate.uri), IdentityFiles { folder: identity, ca, certificate, key })?;
    // The certificate is that of the name, whichever of its addresses this is. That TLS is spoken is this module's affair.
    let authority = match candidate.address {
        Some(address) => address.to_string(),
        None => candidate.uri.authority().map(ToString::to_string).unwrap_or_default(),
    };
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|error| SettingsError::Identity { folder: identity.to_owned(), cause: innermost(&error) })?;
    Ok(Secured { endpoint: tuned(endpoint.origin(candidate.uri.clone())), tls })
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        // A daemon that lost its power sends no FIN: without pings a station would wait for it forever.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        // An export is one long stream: 64 KiB a round trip would be slow over a site's network.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SettingsError> {
    let failed = |source: TextError| SettingsError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    let octets = text_file::read_octets(file, LONGEST_FILE as u64).map_err(failed)?;
    in_utf8(Zeroizing::new(octets)).map_err(|error| failed(error.into()))
}

/// As [`read`], but only the file's owner may have access to it.
fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, SettingsError> {
    let failed = |source: TextError| SettingsError::File { path: path.to_owned(), source };
    let octets = secret_file::read(path, LONGEST_FILE).map_err(|fault| match fault {
        SecretFileError::Exposed { mode } => SettingsError::KeyExposed { path: path.to_owned(), mode },
        SecretFileError::File(source) => failed(source),
    })?;
    in_utf8(octets).map_err(|error| failed(error.into()))
}

/// The octets as UTF-8, as far as they are text: what is beside the PEM may be in any encoding.
fn in_utf8(octets: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, EncodingError> {
    match text_file::decode(&octets) {
        Ok(text) => Ok(Zeroizing::new(text.into_owned().into_bytes())),
        Err(EncodingError::Utf8Invalid { .. }) => Ok(octets),
        Err(error) => Err(error),
    }
}
