//! Where the daemon listens, and the file that says so.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, UnixListener};
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

/// Where the daemon listens.
pub(super) struct Listening {
    pub(super) tcp: TcpListener,
    pub(super) http: Option<TcpListener>,
    pub(super) est: Option<TcpListener>,
    pub(super) socket: Option<(PathBuf, UnixListener)>,
}

pub(super) async fn listen(config: &Config) -> Result<Listening, ConfigError> {
    let bind = |address: &Spanned<SocketAddr>, key: &'static str| {
        let (address, span) = (*address.get_ref(), address.span());
        async move {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|error| config.error_at(span, key, format!("cannot listen on {address}: {error}")))
        }
    };
    let tcp = bind(&config.server.listen, "server.listen").await?;
    let http = match &config.http {
        Some(http) => Some(bind(&http.listen, "http.listen").await?),
        None => None,
    };
    let est = match &config.est {
        Some(est) => Some(bind(&est.listen, "est.listen").await?),
        None => None,
    };
    // The last that can fail: the socket's file would be left over.
    let mut socket = None;
    if let Some(setting) = &config.server.socket {
        let path = config.resolve(setting.get_ref());
        let bound = listener::bind_socket(&path).map_err(|error| {
            let message = format!("cannot listen on {}: {error}", path.display());
            config.error_at(setting.span(), "server.socket", message)
        })?;
        socket = Some((path, bound));
    }
    Ok(Listening { tcp, http, est, socket })
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
