//! Accepting connections: mutual TLS on TCP, and the Unix socket of local operators. Who the peer is, is known before
//! gRPC sees a byte.
//!
//! Accepting never waits for a peer: every connection is accepted at once, and has a seat (`connections.rs`) that
//! another one gets when all are taken and this one is idle. A connection has to say something within seconds, to
//! finish its handshake, and to have a call now and then.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    sync::mpsc,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};

use super::{
    access::{Access, Refused},
    connection::Connection,
    farewell,
    peer::Peer,
    status::{self, Excess},
    transport::Transport,
};
use crate::{
    connections::{Activity, Handshake, Limits, Reason, Seat, Seats, source},
    handshake::handshake,
    identity::{Duties, Identity, Role},
    live::Live,
    local_user,
};

/// Whether the Unix socket can be bound, as far as that shows. Gives whether that of a daemon that is gone lies there.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] if something else has this name.
pub(crate) fn check_socket(path: &Path) -> io::Result<bool> {
    let in_use = |what: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => in_use("another process listens on it; stop it, or choose another path"),
            Err(_) => Ok(true),
        },
        Ok(_) => in_use("there is a file of this name; remove it, or choose another path"),
        Err(_) => Ok(false),
    }
}

/// Binds the Unix socket, for its owner and group only. The socket of a daemon that is gone is replaced.
///
/// # Errors
/// Any I/O error, and those of [`check_socket`].
pub(crate) fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    if check_socket(path)? {
        fs::remove_file(path)?;
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
    tls: Arc<Live<ServerConfig>>,
    socket: Option<(UnixListener, SocketRole)>,
    access: Arc<Access>,
    limits: Limits,
) -> impl Stream<Item = io::Result<Connection>> {
    let (connections, incoming) = mpsc::channel(64);
    let seats = Seats::new("grpc", limits.tls, limits.tls.div_ceil(4));
    let server = TlsServer { tls, seats, access: Arc::clone(&access), connections: connections.clone() };
    tokio::spawn(server.accept(tcp, limits.handshakes));
    if let Some((socket, role)) = socket {
        let seats = Seats::new("socket", limits.socket, limits.socket.div_ceil(2));
        tokio::spawn(accept_local(socket, role, access, seats, connections));
    }
    ReceiverStream::new(incoming)
}

type Connections = mpsc::Sender<io::Result<Connection>>;

/// What becomes of a TCP connection.
#[derive(Clone)]
struct TlsServer {
    /// The settings of each handshake are those of its moment.
    tls: Arc<Live<ServerConfig>>,
    /// By identity, for connections whose handshake is done.
    seats: Arc<Seats<Arc<str>>>,
    access: Arc<Access>,
    connections: Connections,
}

impl TlsServer {
    async fn accept(self, listener: TcpListener, handshakes: usize) {
        let handshakes = Seats::of_tls("grpc", handshakes, handshakes.div_ceil(2));
        loop {
            handshakes.settle().await;
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.connections.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let activity = Activity::new();
                    // There are no calls yet, so one of them always makes room.
                    if let Ok(seat) = handshakes.take(source(address.ip()), Arc::clone(&activity)) {
                        tokio::spawn(self.clone().greet(stream, address, seat, activity));
                    }
                }
                Err(error) => handshakes.cannot_accept(&error).await,
            }
        }
    }

    async fn greet(self, stream: TcpStream, address: SocketAddr, mut seat: Seat<IpAddr>, activity: Arc<Activity>) {
        let Some(stream) = handshake(stream, address, || self.tls.get(), &mut seat, &activity).await else { return };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.map_or(&[][..], |certificate| certificate.as_ref());
        let peer = Peer::from_certificate(certificate, &self.access);
        let transport = Transport::Tls(Box::new(stream));
        // The handshake of a session that is resumed verifies no certificate.
        if let Err(refused) = peer.check_access() {
            seat.shook_hands(match refused {
                Refused::Expired(_) => Handshake::Expired,
                Refused::Revoked { .. } | Refused::Listed => Handshake::Revoked,
            });
            seat.refused(Reason::Revoked, || format!("{address}: {refused}"));
            return farewell::begin(transport, status::no_access(&refused));
        }
        seat.shook_hands(Handshake::Ok);
        tracing::debug!(%peer, %address, "connected");
        admit(transport, peer, &self.seats, &self.connections).await;
    }
}

/// The role that users of the Unix socket have, and the duties if that is operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketRole {
    pub(crate) role: Role,
    pub(crate) duties: Duties,
}

impl SocketRole {
    /// Who a process is that connects; none if there is no such role for users of this machine.
    fn identity(self, user: u32, process: Option<i32>) -> Option<Identity> {
        let process = process.and_then(|process| u32::try_from(process).ok());
        let identity = Identity::new(self.role, &local_user::name(user, process)).ok()?;
        match self.role {
            Role::Operator => identity.limited_to(self.duties).ok(),
            Role::Station | Role::Auditor => Some(identity),
        }
    }
}

async fn accept_local(
    listener: UnixListener,
    role: SocketRole,
    access: Arc<Access>,
    seats: Arc<Seats<Arc<str>>>,
    connections: Connections,
) {
    loop {
        seats.settle().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.closed() => return,
        };
        match accepted.and_then(|(stream, _)| stream.peer_cred().map(|user| (stream, user))) {
            Ok((stream, user)) => {
                let Some(identity) = role.identity(user.uid(), user.pid()) else { continue };
                admit(Transport::Unix(stream), Peer::local(identity, &access), &seats, &connections).await;
            }
            Err(error) => seats.cannot_accept(&error).await,
        }
    }
}

/// Passes a connection on if there is a seat for it; otherwise its client is told why there is none.
async fn admit(transport: Transport, peer: Peer, seats: &Arc<Seats<Arc<str>>>, connections: &Connections) {
    let identity = Arc::from(peer.name());
    match seats.take_within(identity, peer.most_connections(), Arc::clone(peer.activity())) {
        Ok(seat) => {
            // An error means that the daemon goes down.
            let _ = connections.send(Ok(Connection::new(transport, peer, seat))).await;
        }
        Err(full) => {
            seats.refused(Reason::Limit, || format!("{peer}: {full}"));
            farewell::begin(transport, status::too_many(&Excess::Connections(full)));
        }
    }
}
