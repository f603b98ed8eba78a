//! Where the daemon listens, and the file that says so.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use toml::Spanned;

use super::error::ServeError;
use crate::{
    config::{Config, ConfigError},
    connections::{self, Limits},
    durable::{self, Access},
    grpc::listener,
};

/// Where the daemon listens, with the ports that the system gave.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Addresses {
    /// mTLS.
    pub grpc: SocketAddr,
    /// The Unix socket.
    pub socket: Option<PathBuf>,
    /// Metrics and health.
    pub http: Option<SocketAddr>,
    /// EST.
    pub est: Option<SocketAddr>,
}

/// How many connections the kernel keeps that the daemon has not accepted yet.
const BACKLOG: u32 = 1024;

/// Where the daemon listens.
pub(super) struct Listening {
    pub(super) tcp: TcpListener,
    pub(super) http: Option<TcpListener>,
    pub(super) est: Option<TcpListener>,
    pub(super) socket: Option<(PathBuf, UnixListener)>,
}

/// The ports that the daemon has to itself, though it does not listen yet: nobody is kept waiting who could be refused.
pub(super) struct Ports {
    grpc: TcpSocket,
    http: Option<TcpSocket>,
    est: Option<TcpSocket>,
}

/// An address, and the setting that has it.
type Setting<'a> = (&'a Spanned<SocketAddr>, &'static str);

fn settings(config: &Config) -> (Setting<'_>, Option<Setting<'_>>, Option<Setting<'_>>) {
    let http = config.http.as_ref().map(|http| (&http.listen, "http.listen"));
    let est = config.est.as_ref().map(|est| (&est.listen, "est.listen"));
    ((&config.server.listen, "server.listen"), http, est)
}

fn unusable(config: &Config, (address, key): Setting<'_>, error: &io::Error) -> ConfigError {
    config.error_at(address.span(), key, format!("cannot listen on {}: {error}", address.get_ref()))
}

fn no_socket(config: &Config, setting: &Spanned<PathBuf>, path: &Path, error: &io::Error) -> ConfigError {
    config.error_at(setting.span(), "server.socket", format!("cannot listen on {}: {error}", path.display()))
}

impl Ports {
    /// Takes the ports of the configuration. That the Unix socket is free is looked at as well: it is bound at the end.
    pub(super) fn bind(config: &Config) -> Result<Ports, ConfigError> {
        let bind = |setting: Setting<'_>| {
            let address = *setting.0.get_ref();
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            let bound = socket.and_then(|socket| {
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                Ok(socket)
            });
            bound.map_err(|error| unusable(config, setting, &error))
        };
        if let Some(setting) = &config.server.socket {
            let path = config.resolve(setting.get_ref());
            listener::check_socket(&path).map_err(|error| no_socket(config, setting, &path, &error))?;
        }
        let (grpc, http, est) = settings(config);
        Ok(Ports { grpc: bind(grpc)?, http: http.map(bind).transpose()?, est: est.map(bind).transpose()? })
    }

    /// Listens there, and on the Unix socket.
    pub(super) fn listen(self, config: &Config) -> Result<Listening, ConfigError> {
        let listen = |socket: TcpSocket, setting: Setting<'_>| {
            socket.listen(BACKLOG).map_err(|error| unusable(config, setting, &error))
        };
        let (grpc, http, est) = settings(config);
        let tcp = listen(self.grpc, grpc)?;
        let http = self.http.zip(http).map(|(socket, setting)| listen(socket, setting)).transpose()?;
        let est = self.est.zip(est).map(|(socket, setting)| listen(socket, setting)).transpose()?;
        // The last that can fail: the socket's file would be left over.
        let mut socket = None;
        if let Some(setting) = &config.server.socket {
            let path = config.resolve(setting.get_ref());
            let bound = listener::bind_socket(&path).map_err(|error| no_socket(config, setting, &path, &error))?;
            socket = Some((path, bound));
        }
        Ok(Listening { tcp, http, est, socket })
    }
}

impl Listening {
    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            grpc: self.tcp.local_addr()?,
            socket: self.socket.as_ref().map(|(path, _)| path.clone()),
            http: self.http.as_ref().map(TcpListener::local_addr).transpose()?,
            est: self.est.as_ref().map(TcpListener::local_addr).transpose()?,
        })
    }
}

/// How many connections each port may have, of the files that the process may still open.
pub(super) fn connection_limits() -> Limits {
    let most = connections::raise_descriptor_limit();
    let limits = Limits::new(most.saturating_sub(connections::open_descriptors()));
    if most < Limits::FEW_DESCRIPTORS {
        tracing::warn!(
            most,
            connections = limits.tls,
            "the process may open few files; raise its limit (LimitNOFILE=)"
        );
    }
    limits
}

/// The file that tells where the daemon listens; it is there only while it does.
pub(super) struct ReadyFile<'a>(&'a Path);

impl<'a> ReadyFile<'a> {
    /// Removes the file of a daemon that was killed: it would speak for this one.
    pub(super) fn new(path: &'a Path) -> Self {
        let _ = fs::remove_file(path);
        ReadyFile(path)
    }

    pub(super) fn write(&self, addresses: &Addresses) -> Result<(), ServeError> {
        let text = serde_json::to_string_pretty(addresses).map_err(io::Error::from);
        let written = text.and_then(|text| durable::write(self.0, text.as_bytes(), Access::Public));
        written.map_err(|source| ServeError::ReadyFile { path: self.0.to_owned(), source })
    }
}

impl Drop for ReadyFile<'_> {
    fn drop(&mut self) {
        // It may be gone already; there is nothing else to do about it.
        let _ = fs::remove_file(self.0);
    }
}
