//! Connections: mutual TLS on TCP, and the Unix socket of local operators. Who the peer is, is known before gRPC sees
//! a byte.

use std::{
    fs,
    io::{self, IoSlice},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject},
    },
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::server::Connected;

use super::peer::Peer;
use crate::{metrics, pem};

/// A client that takes longer for the TLS handshake is not one of ours.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many handshakes may be under way; more wait in the kernel's backlog.
const HANDSHAKES: usize = 256;

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    stream: Transport,
    peer: Peer,
}

#[derive(Debug)]
enum Transport {
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// A TLS setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The daemon's certificate.
    Certificate,
    /// Its private key.
    Key,
    /// The CA of clients.
    ClientCa,
}

/// Reads the TLS settings: TLS 1.3 and 1.2, and only clients with a certificate from `client_ca`.
///
/// # Errors
/// Which setting is wrong, and a sentence that names the file.
pub fn tls(certificate: &Path, key: &Path, client_ca: &Path) -> Result<Arc<ServerConfig>, (Setting, String)> {
    let of = |setting, path: &Path| {
        let path = path.display().to_string();
        move |message: String| (setting, format!("{path}: {message}"))
    };
    let of_client_ca = of(Setting::ClientCa, client_ca);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let read = |path: &Path| match pem::read_certificates(path) {
        Ok(certificates) => Ok(certificates.into_iter().map(CertificateDer::from).collect::<Vec<_>>()),
        Err(error) => Err(format!("cannot read the certificates: {error}")),
    };
    for root in read(client_ca).map_err(&of_client_ca)? {
        roots.add(root).map_err(|error| of_client_ca(format!("not a CA certificate: {error}")))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| of_client_ca(error.to_string()))?;
    let chain = read(certificate).map_err(of(Setting::Certificate, certificate))?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| {
        let message = format!("cannot read the private key: {}", describe_pem_error(&error));
        of(Setting::Key, key)(message)
    })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| of(Setting::Certificate, certificate)(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private_key)
        .map_err(|error| {
            let certificate = certificate.display();
            of(Setting::Key, key)(format!("it does not belong to the certificate {certificate}: {error}"))
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// What is wrong with the PEM of the key, without the file's name.
fn describe_pem_error(error: &PemError) -> String {
    match error {
        PemError::Io(error) => error.to_string(),
        PemError::NoItemsFound => "there is none in it".into(),
        error => error.to_string(),
    }
}

/// Binds the Unix socket, for its owner and group only. A socket that a dead daemon left behind is replaced.
///
/// # Errors
/// Any I/O error, and [`io::ErrorKind::AddrInUse`] if something else has this name.
pub fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process listens on it; stop it, or choose another path",
                ));
            }
            Err(_) => fs::remove_file(path)?,
        },
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "there is a file of this name; remove it, or choose another path",
            ));
        }
        Err(_) => {}
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Accepts connections until the stream is dropped.
pub fn incoming(
    tcp: TcpListener,
    tls: Arc<ServerConfig>,
    socket: Option<UnixListener>,
) -> impl Stream<Item = io::Result<Connection>> {
    let (connections, incoming) = mpsc::channel(64);
    tokio::spawn(accept_tls(tcp, TlsAcceptor::from(tls), connections.clone()));
    if let Some(socket) = socket {
        tokio::spawn(accept_local(socket, connections));
    }
    ReceiverStream::new(incoming)
}

type Connections = mpsc::Sender<io::Result<Connection>>;

async fn accept_tls(listener: TcpListener, acceptor: TlsAcceptor, connections: Connections) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    while let Ok(place) = Arc::clone(&handshakes).acquire_owned().await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                wait_after(&error).await;
                continue;
            }
        };
        let (acceptor, connections) = (acceptor.clone(), connections.clone());
        tokio::spawn(async move {
            // Replies are small and wanted at once. Without it they are only later.
            let _ = stream.set_nodelay(true);
            let failure = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    let peer = Peer::from_certificate(certificate.map_or(&[], |certificate| certificate.as_ref()));
                    tracing::debug!(%peer, %address, "connected");
                    let _ = connections.send(Ok(Connection { stream: Transport::Tls(Box::new(stream)), peer })).await;
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no TLS handshake within {HANDSHAKE:?}"),
            };
            drop(place);
            metrics::connection_refused();
            tracing::warn!(%address, reason = failure, "refused a connection");
        });
    }
}

async fn accept_local(listener: UnixListener, connections: Connections) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.closed() => return,
        };
        match accepted.and_then(|(stream, _)| stream.peer_cred().map(|user| (stream, user.uid()))) {
            Ok((stream, user)) => {
                let connection = Connection { stream: Transport::Unix(stream), peer: Peer::local(user) };
                let _ = connections.send(Ok(connection)).await;
            }
            Err(error) => wait_after(&error).await,
        }
    }
}

/// An accept that fails (no file descriptor left, say) would fail again at once.
async fn wait_after(error: &io::Error) {
    tracing::error!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Transport::Tls(stream) => stream.is_write_vectored(),
            Transport::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
