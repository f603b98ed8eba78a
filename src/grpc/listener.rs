//! Connections: mutual TLS on TCP, and the Unix socket of local operators. Who the peer is, is known before gRPC sees
//! a byte.
//!
//! Nobody is waited for: every connection is accepted at once, and has a seat (`connections.rs`) that another one gets when
//! all are taken and nothing happens on it. A connection has to say something within seconds, to finish its handshake,
//! and to have a call now and then.

use std::{
    fs,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
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
    sync::mpsc,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::server::Connected;
use zeroize::Zeroizing;

use super::peer::Peer;
use crate::{
    connections::{Activity, Limits, Reason, Seat, Seats, source},
    pem,
    text_file::{self, TextError},
};

/// A client speaks first, and at once.
const FIRST_OCTET: Duration = Duration::from_secs(3);

/// A client that takes longer for the TLS handshake is not one of ours.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// HTTP/2 begins with the client's preface (RFC 9113 section 3.4).
const PREFACE: Duration = Duration::from_secs(10);

/// How long a connection may be without a call. Clients connect again when they have one.
const IDLE: Duration = Duration::from_secs(300);

/// An accepted connection. To the HTTP/2 server above it looks closed by its peer when it has been idle for too long or
/// has to make room.
#[derive(Debug)]
pub struct Connection {
    stream: Transport,
    peer: Peer,
    seat: Seat<Arc<str>>,
    /// When to look whether it is idle.
    look: Pin<Box<Sleep>>,
    heard: bool,
    ended: bool,
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
    let private_key = read_private_key(key).map_err(of(Setting::Key, key))?;
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

/// The longest PEM file with a private key, in bytes.
const KEY_FILE: u64 = 1 << 20;

/// Reads the first private key of a PEM file that only its owner may read.
fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let failed = |error: TextError| format!("cannot read the private key: {error}");
    let file = text_file::open_regular(path).map_err(failed)?;
    let mode = file.metadata().map_err(|error| failed(error.into()))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "others than its owner may use the private key (mode {mode:o}); make it private with chmod 600, and a new \
             key if others had the chance to read this one"
        ));
    }
    let octets = Zeroizing::new(text_file::read_octets(file, KEY_FILE).map_err(failed)?);
    let text = text_file::decode(&octets).map_err(|error| failed(error.into()))?;
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|error| format!("cannot read the private key: {}", describe_pem_error(&error)))
}

/// What is wrong with the PEM of the key, without the file's name.
fn describe_pem_error(error: &PemError) -> String {
    match error {
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
pub(crate) fn incoming(
    tcp: TcpListener,
    tls: Arc<ServerConfig>,
    socket: Option<UnixListener>,
    limits: Limits,
) -> impl Stream<Item = io::Result<Connection>> {
    let (connections, incoming) = mpsc::channel(64);
    let seats = Seats::new("grpc", limits.tls, limits.tls.div_ceil(4));
    let server = TlsServer { acceptor: TlsAcceptor::from(tls), seats, connections: connections.clone() };
    tokio::spawn(server.accept(tcp, limits.handshakes));
    if let Some(socket) = socket {
        let seats = Seats::new("socket", limits.socket, limits.socket.div_ceil(2));
        tokio::spawn(accept_local(socket, seats, connections));
    }
    ReceiverStream::new(incoming)
}

type Connections = mpsc::Sender<io::Result<Connection>>;

/// What becomes of a TCP connection.
#[derive(Clone)]
struct TlsServer {
    acceptor: TlsAcceptor,
    /// By identity, for connections whose handshake is done.
    seats: Arc<Seats<Arc<str>>>,
    connections: Connections,
}

impl TlsServer {
    async fn accept(self, listener: TcpListener, handshakes: usize) {
        let handshakes = Seats::new("grpc", handshakes, handshakes.div_ceil(2));
        loop {
            handshakes.settle().await;
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.connections.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let activity = Activity::new();
                    // Nobody has calls here, so one of them always makes room.
                    if let Some(seat) = handshakes.take(source(address.ip()), Arc::clone(&activity)) {
                        tokio::spawn(self.clone().greet(stream, address, seat, activity));
                    }
                }
                Err(error) => handshakes.cannot_accept(&error).await,
            }
        }
    }

    async fn greet(self, stream: TcpStream, address: SocketAddr, mut seat: Seat<IpAddr>, activity: Arc<Activity>) {
        // Replies are small and wanted at once. Without it they are only later.
        let _ = stream.set_nodelay(true);
        let handshake = async {
            // Before the client has said something there is no TLS state either.
            if timeout(FIRST_OCTET, stream.readable()).await.is_err() {
                return Err((Reason::Silent, format!("nothing came within {FIRST_OCTET:?}")));
            }
            activity.hear();
            match timeout(HANDSHAKE, self.acceptor.accept(stream)).await {
                Ok(stream) => stream.map_err(|error| (Reason::Handshake, error.to_string())),
                Err(_) => Err((Reason::Silent, format!("no TLS handshake within {HANDSHAKE:?}"))),
            }
        };
        let greeted = tokio::select! {
            greeted = handshake => greeted,
            () = seat.told_to_leave() => Err((Reason::Crowded, "too many handshakes are under way".into())),
        };
        match greeted {
            Ok(stream) => {
                let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let peer = Peer::from_certificate(certificate.map_or(&[], |certificate| certificate.as_ref()));
                tracing::debug!(%peer, %address, "connected");
                let transport = Transport::Tls(Box::new(stream));
                Connection::admit(transport, peer, &self.seats, &self.connections).await;
            }
            Err((reason, what)) => seat.refused(reason, || format!("{address}: {what}")),
        }
    }
}

async fn accept_local(listener: UnixListener, seats: Arc<Seats<Arc<str>>>, connections: Connections) {
    loop {
        seats.settle().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.closed() => return,
        };
        match accepted.and_then(|(stream, _)| stream.peer_cred().map(|user| (stream, user.uid()))) {
            Ok((stream, user)) => {
                Connection::admit(Transport::Unix(stream), Peer::local(user), &seats, &connections).await;
            }
            Err(error) => seats.cannot_accept(&error).await,
        }
    }
}

impl Connection {
    /// Passes a connection on if there is a seat for it.
    async fn admit(stream: Transport, peer: Peer, seats: &Arc<Seats<Arc<str>>>, connections: &Connections) {
        let Some(seat) = seats.take(Arc::from(peer.to_string()), Arc::clone(peer.activity())) else {
            return seats.refused(Reason::Limit, || peer.to_string());
        };
        let look = Box::pin(sleep(PREFACE));
        // An error means that the daemon goes down.
        let _ = connections.send(Ok(Connection { stream, peer, seat, look, heard: false, ended: false })).await;
    }

    /// Whether it has made room for another one or has been idle for too long; otherwise it will be looked at again.
    fn has_ended(&mut self, context: &mut Context<'_>) -> bool {
        if !self.ended && self.seat.poll_told_to_leave(context).is_ready() {
            self.seat.refused(Reason::Crowded, || self.peer.to_string());
            self.ended = true;
        }
        while !self.ended && self.look.as_mut().poll(context).is_ready() {
            let allowed = if self.heard { IDLE } else { PREFACE };
            let quiet = self.peer.activity().quiet_since().map_or(Duration::ZERO, |since| since.elapsed());
            if quiet < allowed {
                self.look.as_mut().reset(Instant::now() + (allowed - quiet));
                continue;
            }
            if self.heard {
                tracing::debug!(peer = %self.peer, "closed an idle connection");
            } else {
                self.seat.refused(Reason::Silent, || self.peer.to_string());
            }
            self.ended = true;
        }
        self.ended
    }
}

impl Connection {
    /// The other end, before its first call.
    pub(super) fn peer_mut(&mut self) -> &mut Peer {
        &mut self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.stream {
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if polled.is_ready() {
            if !self.heard && !buf.filled().is_empty() {
                self.heard = true;
                self.peer.activity().hear();
            }
            return polled;
        }
        // Nothing read is the end, as if the peer had closed the connection.
        if self.has_ended(cx) { Poll::Ready(Ok(())) } else { Poll::Pending }
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
