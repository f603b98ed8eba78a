//! A daemon that can be connected to.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use birthmark_base::{
    durable, pem,
    text_file::{self, EncodingError, TextError},
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};

use super::error::{ClientError, SettingsError};
use crate::failure::cause::{certificate_refusal, innermost, speaks_no_tls};

/// The longest file of an identity, in bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// Connecting includes the TLS handshake; a healthy line network needs milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A daemon that can be connected to, again and again.
#[derive(Clone, Debug)]
pub struct Daemon {
    endpoint: Endpoint,
    /// Its address and the folder of the identity, which is read again for each connection: it may be renewed.
    server: Option<(Uri, PathBuf)>,
    address: String,
    /// What else the user could say, if the default address was used.
    hint: &'static str,
}

impl Daemon {
    pub(super) fn at_server(url: &str, identity: &Path) -> Result<Self, SettingsError> {
        let uri: Uri = url
            .parse()
            .ok()
            .filter(|uri: &Uri| {
                uri.scheme_str() == Some("https")
                    && uri.host().is_some_and(|host| !host.is_empty())
                    && uri.port().is_some()
            })
            .ok_or_else(|| SettingsError::Address(url.to_owned()))?;
        let endpoint = secured(&uri, identity)?;
        Ok(Daemon { endpoint, server: Some((uri, identity.to_owned())), address: url.to_owned(), hint: "" })
    }

    /// The folder of the identity that it is spoken with; none on the Unix socket.
    pub fn identity(&self) -> Option<&Path> {
        self.server.as_ref().map(|(_, identity)| identity.as_path())
    }

    pub(super) fn at_socket(path: &Path, hint: &'static str) -> Result<Self, SettingsError> {
        let unusable = || SettingsError::Socket(path.to_owned());
        let text = path.to_str().ok_or_else(unusable)?;
        let endpoint = Endpoint::from_shared(format!("unix://{text}")).map_err(|_| unusable())?;
        Ok(Daemon { endpoint: tuned(endpoint), server: None, address: text.to_owned(), hint })
    }

    /// Opens a new connection.
    ///
    /// # Errors
    /// [`ClientError::Connect`] and [`ClientError::NotTls`].
    pub async fn connect(&self) -> Result<Channel, ClientError> {
        let endpoint = match &self.server {
            // What was read before serves as well while the folder, perhaps on a share, cannot be read.
            Some((uri, identity)) => secured(uri, identity).unwrap_or_else(|_| self.endpoint.clone()),
            None => self.endpoint.clone(),
        };
        let cause = match tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await {
            Ok(Ok(channel)) => return Ok(channel),
            Ok(Err(error)) => error,
            Err(_) => {
                let cause = format!("no answer within {} s", CONNECT_TIMEOUT.as_secs());
                return Err(ClientError::Connect { address: self.address.clone(), cause, lasting: false });
            }
        };
        if speaks_no_tls(&cause) {
            return Err(ClientError::NotTls(self.address.clone()));
        }
        let (cause, lasting) = match certificate_refusal(&cause) {
            Some(refusal) => (refusal, true),
            None => (format!("{}{}", innermost(&cause), self.hint), false),
        };
        Err(ClientError::Connect { address: self.address.clone(), cause, lasting })
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

/// The daemon at this address, spoken with as this identity.
fn secured(uri: &Uri, identity: &Path) -> Result<Endpoint, SettingsError> {
    // Only the first call has an effect; another provider that is already there serves as well.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // What a renewal with a new key was at when it was killed; in a folder that cannot be written there is none.
    let _ = durable::take_staged(identity, &["key.pem", "cert.pem"]);
    let ca = read(&identity.join("ca.pem"))?;
    let blocks = pem::blocks(&ca).unwrap_or_default();
    let ca: String =
        blocks.iter().filter(|block| block.is_certificate()).map(|block| pem::certificate_pem(&block.der)).collect();
    if ca.is_empty() {
        return Err(SettingsError::NoCertificate(identity.join("ca.pem")));
    }
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(read(&identity.join("cert.pem"))?, read_key(&identity.join("key.pem"))?))
        .timeout(CONNECT_TIMEOUT);
    let endpoint = Endpoint::from(uri.clone())
        .tls_config(tls)
        .map_err(|error| SettingsError::Identity { folder: identity.to_owned(), cause: innermost(&error) })?;
    Ok(tuned(endpoint))
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

fn read(path: &Path) -> Result<Vec<u8>, SettingsError> {
    let failed = |source: TextError| SettingsError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    let octets = text_file::read_octets(file, LONGEST_FILE).map_err(failed)?;
    match text_file::decode(&octets) {
        Ok(text) => Ok(text.into_owned().into_bytes()),
        // Text beside the PEM may be in any encoding.
        Err(EncodingError::Utf8Invalid { .. }) => Ok(octets),
        Err(error) => Err(failed(error.into())),
    }
}

/// As [`read`], but the file must not be readable by others.
fn read_key(path: &Path) -> Result<Vec<u8>, SettingsError> {
    check_private(path)?;
    read(path)
}

#[cfg(unix)]
fn check_private(path: &Path) -> Result<(), SettingsError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = path.metadata().map_or(0, |metadata| metadata.permissions().mode() & 0o7777);
    if mode & 0o077 != 0 {
        return Err(SettingsError::KeyExposed { path: path.to_owned(), mode });
    }
    Ok(())
}

/// On Windows the access control list of the folder says who may read the key, and no program that its user starts can
/// tell whether that list is as it should be.
#[cfg(not(unix))]
fn check_private(_: &Path) -> Result<(), SettingsError> {
    Ok(())
}
