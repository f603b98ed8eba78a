//! Which daemon to speak with and as whom: mutual TLS over the network, or the Unix socket on its machine.

use std::{ffi::OsString, path::PathBuf};

pub use self::{
    daemon::Daemon,
    error::{ClientError, SettingsError},
    marked::{AS_OF, MarkedChannel},
};

mod daemon;
mod error;
mod marked;
mod servers;
mod tls;

/// Where the daemon listens for local operators unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/birthmark/admin.sock";

/// Which daemon to speak with and as whom. Environment variables stand in for what is not given: `BIRTHMARK_SERVER`,
/// `BIRTHMARK_IDENTITY` and `BIRTHMARK_SOCKET`.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// The daemon's address, as `https://HOST:PORT`, or those of several daemons that serve one ledger, with commas between
    /// them; needs an identity.
    pub server: Option<String>,
    /// A folder with `cert.pem`, `key.pem` and `ca.pem`, as `birthmark station enroll` makes it.
    pub identity: Option<PathBuf>,
    /// The daemon's Unix socket, for operators on its machine; [`DEFAULT_SOCKET`] if nothing is given.
    pub socket: Option<PathBuf>,
}

impl Connection {
    /// Reads the identity and prepares the connection; does not connect yet.
    ///
    /// # Errors
    /// [`ClientError::Settings`].
    pub fn daemon(&self) -> Result<Daemon, ClientError> {
        match self.target(|name| std::env::var_os(name))? {
            Target::Server { url, identity } => Ok(Daemon::at_server(&url, &identity)?),
            Target::Socket { path, hint } => Ok(Daemon::at_socket(&path, hint)?),
        }
    }

    /// The flags that make this connection again, for a command that is printed.
    pub fn arguments(&self) -> Vec<String> {
        let path = |path: &PathBuf| path.display().to_string();
        let flags = [
            ("--server", self.server.clone()),
            ("--identity", self.identity.as_ref().map(path)),
            ("--socket", self.socket.as_ref().map(path)),
        ];
        flags.into_iter().filter_map(|(flag, value)| Some([flag.to_owned(), value?])).flatten().collect()
    }

    fn target(&self, environment: impl Fn(&str) -> Option<OsString>) -> Result<Target, SettingsError> {
        let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
        let socket = |path: PathBuf| Ok(Target::Socket { path, hint: "" });
        if let Some(path) = &self.socket {
            return socket(path.clone());
        }
        // A flag that belongs to --server also decides against the other's variable.
        let flags = self.server.is_some() || self.identity.is_some();
        let server = match &self.server {
            Some(url) => Some(url.clone()),
            None => environment("BIRTHMARK_SERVER").map(|url| url.to_string_lossy().into_owned()),
        };
        let socket_variable = environment("BIRTHMARK_SOCKET").filter(|_| !flags);
        match (server, socket_variable) {
            (Some(_), Some(_)) => Err(SettingsError::TwoDaemons),
            (Some(url), None) => match self.identity.clone().or(environment("BIRTHMARK_IDENTITY").map(PathBuf::from)) {
                Some(identity) => Ok(Target::Server { url, identity }),
                None => Err(SettingsError::NoIdentity(url)),
            },
            (None, Some(path)) => socket(path.into()),
            (None, None) if flags => Err(SettingsError::NoServer),
            (None, None) => Ok(Target::Socket {
                path: DEFAULT_SOCKET.into(),
                hint: "; say --socket PATH, or --server URL with --identity DIR",
            }),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    Server { url: String, identity: PathBuf },
    Socket { path: PathBuf, hint: &'static str },
}

#[cfg(all(test, unix))]
#[expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]
mod tests;
