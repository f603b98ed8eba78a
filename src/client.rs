//! The connection of the command line to the daemon (mutual TLS over the network, or the Unix socket on its machine),
//! and the daemon's answers as people read them.

use std::{
    error::Error as StdError,
    ffi::OsString,
    fmt,
    fs::File,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustls::AlertDescription;
use rustls_pki_types::UnixTime;
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri},
};
use tonic_types::{RpcStatusExt, StatusExt, pb};

use crate::{
    pem,
    quote::quoted,
    text_file::{self, EncodingError, TextError},
};

/// Where the daemon listens for local operators unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/birthmark/admin.sock";

/// The longest file of an identity, in bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// Connecting includes the TLS handshake; a healthy line network needs milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which daemon to speak with and as whom; part of every command that speaks with one.
// The environment is read by hand and not by clap: a flag must win over the other flag's variable instead of
// conflicting with it.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The daemon's address, as https://HOST:PORT; needs --identity [env: BIRTHMARK_SERVER]
    #[arg(long, value_name = "URL", conflicts_with = "socket")]
    pub server: Option<String>,

    /// A folder with cert.pem, key.pem and ca.pem, as "birthmark station enroll" makes it [env: BIRTHMARK_IDENTITY]
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    pub identity: Option<PathBuf>,

    /// The daemon's Unix socket, for operators on its machine [env: BIRTHMARK_SOCKET] [default: /run/birthmark/admin.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// A daemon that can be connected to, again and again.
#[derive(Clone, Debug)]
pub struct Daemon {
    endpoint: Endpoint,
    address: String,
    /// What else the user could say, if the address was nobody's choice.
    hint: &'static str,
}

/// Why there is no connection, as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address or the identity cannot be used; nothing was sent.
    #[error("{0}")]
    Settings(String),
    /// Something else listens there.
    #[error(
        "{0} does not speak TLS: it is not the address of the daemon's gRPC port ([server] listen), but perhaps of its HTTP \
         port"
    )]
    NotTls(String),
    /// The daemon did not answer, or one side refused the other's certificate.
    #[error("cannot connect to the daemon at {address}: {cause}")]
    Connect {
        /// The URL or the socket's path.
        address: String,
        /// What went wrong.
        cause: String,
        /// Trying again cannot help: certificates have to be put right first.
        lasting: bool,
    },
}

impl Connection {
    /// Reads the identity and prepares the connection; does not connect yet.
    ///
    /// # Errors
    /// [`ClientError::Settings`].
    pub fn daemon(&self) -> Result<Daemon, ClientError> {
        match self.target(|name| std::env::var_os(name))? {
            Target::Server { url, identity } => Daemon::at_server(&url, &identity),
            Target::Socket { path, hint } => Daemon::at_socket(&path, hint),
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

    fn target(&self, environment: impl Fn(&str) -> Option<OsString>) -> Result<Target, ClientError> {
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
            (Some(_), Some(_)) => Err(ClientError::Settings(
                "BIRTHMARK_SERVER and BIRTHMARK_SOCKET are both set; unset one, or say --server or --socket".into(),
            )),
            (Some(url), None) => match self.identity.clone().or(environment("BIRTHMARK_IDENTITY").map(PathBuf::from)) {
                Some(identity) => Ok(Target::Server { url, identity }),
                None => Err(ClientError::Settings(format!(
                    "{url} needs --identity DIR, the folder that \"birthmark station enroll\" made"
                ))),
            },
            (None, Some(path)) => socket(path.into()),
            (None, None) if flags => {
                Err(ClientError::Settings("--identity needs --server https://HOST:PORT".to_owned()))
            }
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

impl Daemon {
    fn at_server(url: &str, identity: &Path) -> Result<Self, ClientError> {
        let uri: Uri = url
            .parse()
            .ok()
            .filter(|uri: &Uri| {
                uri.scheme_str() == Some("https")
                    && uri.host().is_some_and(|host| !host.is_empty())
                    && uri.port().is_some()
            })
            .ok_or_else(|| {
                ClientError::Settings(format!("{} is not an address of the form https://HOST:PORT", quoted(url)))
            })?;
        // Only the first call has an effect; another provider that is already there serves as well.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ca = read(&identity.join("ca.pem"))?;
        let blocks = pem::blocks(&ca).unwrap_or_default();
        let ca: String = blocks
            .iter()
            .filter(|block| block.is_certificate())
            .map(|block| pem::certificate_pem(&block.der))
            .collect();
        if ca.is_empty() {
            let path = identity.join("ca.pem");
            return Err(ClientError::Settings(format!("{} holds no PEM certificate", path.display())));
        }
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .identity(Identity::from_pem(read(&identity.join("cert.pem"))?, read_key(&identity.join("key.pem"))?))
            .timeout(CONNECT_TIMEOUT);
        let endpoint = Endpoint::from(uri).tls_config(tls).map_err(|error| {
            let cause = innermost(&error);
            ClientError::Settings(format!("the identity in {} cannot be used: {cause}", identity.display()))
        })?;
        Ok(Daemon { endpoint: tuned(endpoint), address: url.to_owned(), hint: "" })
    }

    fn at_socket(path: &Path, hint: &'static str) -> Result<Self, ClientError> {
        let unusable = || ClientError::Settings(format!("the socket's path {} cannot be used", path.display()));
        let text = path.to_str().ok_or_else(unusable)?;
        let endpoint = Endpoint::from_shared(format!("unix://{text}")).map_err(|_| unusable())?;
        Ok(Daemon { endpoint: tuned(endpoint), address: text.to_owned(), hint })
    }

    /// Opens a new connection.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn connect(&self) -> Result<Channel, ClientError> {
        let cause = match tokio::time::timeout(CONNECT_TIMEOUT, self.endpoint.connect()).await {
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
        let (cause, lasting) = match certificate_trouble(&cause) {
            Some(trouble) => (trouble, true),
            None => (format!("{}{}", innermost(&cause), self.hint), false),
        };
        Err(ClientError::Connect { address: self.address.clone(), cause, lasting })
    }

    /// Whether nobody said which daemon, so that it is the one at [`DEFAULT_SOCKET`].
    pub fn is_default(&self) -> bool {
        !self.hint.is_empty()
    }

    /// The URL or the socket's path, for people.
    pub fn address(&self) -> &str {
        &self.address
    }
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        // A daemon that lost its power sends no FIN: without pings a station would wait for it for ever.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        // An export is one long stream: 64 KiB a round trip would be slow over a site's network.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20)
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    let failed = |error: TextError| ClientError::Settings(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    let octets = text_file::read_octets(file, LONGEST_FILE).map_err(failed)?;
    match text_file::decode(&octets) {
        Ok(text) => Ok(text.into_owned().into_bytes()),
        // Text beside the PEM may be in any encoding.
        Err(EncodingError::Utf8Invalid { .. }) => Ok(octets),
        Err(error) => Err(failed(error.into())),
    }
}

/// As [`read`], but nobody else may have read the key before.
fn read_key(path: &Path) -> Result<Vec<u8>, ClientError> {
    let mode = path.metadata().map_or(0, |metadata| metadata.permissions().mode() & 0o7777);
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(ClientError::Settings(format!(
            "the private key {path} can be used by others (mode {mode:04o}); run chmod 600 {path}, and enroll again if \
             somebody may have read it"
        )));
    }
    read(path)
}

/// An error that the daemon (or the way to it) gave, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The gRPC status code.
    pub code: Code,
    /// The daemon's reason such as `ORDER_EXHAUSTED`, from `google.rpc.ErrorInfo`.
    pub reason: Option<String>,
    /// One sentence.
    pub message: String,
    /// When the daemon suggests to try again, from `google.rpc.RetryInfo`.
    pub retry_after: Option<Duration>,
    /// One side refused the other's TLS certificate; trying again cannot help.
    pub certificate_refused: bool,
}

impl Failure {
    /// The reason for programs: the daemon's own, or the name of the status code.
    pub fn reason(&self) -> String {
        self.reason.clone().unwrap_or_else(|| code_name(self.code).to_owned())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let trouble = status.source().and_then(certificate_trouble);
        let certificate_refused = trouble.is_some();
        let message = match (trouble, status.source()) {
            (Some(trouble), _) => trouble,
            // Not from the daemon but from the transport, whose outermost message says as good as nothing.
            (None, Some(source)) => format!("the connection failed: {}", innermost(source)),
            (None, None) => status.message().to_owned(),
        };
        Failure {
            code: status.code(),
            reason: status.get_details_error_info().map(|info| info.reason),
            message,
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            certificate_refused,
        }
    }
}

impl From<&pb::Status> for Failure {
    fn from(status: &pb::Status) -> Self {
        Failure {
            code: Code::from_i32(status.code),
            reason: status.get_details_error_info().map(|info| info.reason),
            message: status.message.clone(),
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            certificate_refused: false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.reason, self.message.as_str()) {
            (Some(reason), "") => f.write_str(reason),
            (Some(reason), message) => write!(f, "{message} ({reason})"),
            (None, "") => f.write_str(self.code.description()),
            (None, message) => f.write_str(message),
        }
    }
}

impl StdError for Failure {}

/// A moment of the protocol as RFC 3339 in UTC, to the second; none if it is outside of the years -9999 to 9999.
pub fn rfc3339(time: &prost_types::Timestamp) -> Option<String> {
    jiff::Timestamp::from_second(time.seconds).ok().map(|time| time.to_string())
}

/// The status code as the gRPC documentation writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether what came is no TLS at all.
fn speaks_no_tls(error: &(dyn StdError + 'static)) -> bool {
    use rustls::{Error, InvalidMessage::InvalidContentType};
    let mut errors = chain(error).filter_map(|error| error.downcast_ref::<Error>());
    errors.any(|error| matches!(error, Error::InvalidMessage(InvalidContentType)))
}

/// A sentence if the cause of `error` is that one side refused the other's certificate.
fn certificate_trouble(error: &(dyn StdError + 'static)) -> Option<String> {
    use rustls::{CertificateError, Error};
    let refused_here = chain(error).find_map(|error| match error.downcast_ref::<Error>()? {
        Error::InvalidCertificate(error) => Some(match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the daemon's certificate does not come from the CA in the identity's ca.pem".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the daemon's certificate is not for this host name: {error}")
            }
            CertificateError::NotValidYetContext { time, not_before } => format!(
                "the daemon's certificate is valid from {} on, and this computer's clock says {}; set the clock",
                moment(*not_before),
                moment(*time)
            ),
            CertificateError::ExpiredContext { time, not_after } => format!(
                "the daemon's certificate expired on {}, and this computer's clock says {}; renew the certificate, or set \
                 the clock",
                moment(*not_after),
                moment(*time)
            ),
            error => format!("the daemon's certificate is not valid: {error}"),
        }),
        _ => None,
    });
    // With TLS 1.3 the daemon's refusal comes after the handshake, to HTTP/2, which keeps an error's text only.
    let refused_there = || {
        let text = innermost(error);
        let alert = text.strip_prefix("received fatal alert: ")?;
        let about_certificate = REFUSALS.iter().any(|refusal| format!("{refusal:?}") == alert);
        about_certificate.then(|| format!("the daemon refused the identity's certificate (TLS alert {alert})"))
    };
    refused_here.or_else(refused_there)
}

/// As RFC 3339.
fn moment(time: UnixTime) -> String {
    let time = i64::try_from(time.as_secs()).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or("a time that is none".to_owned(), |time| time.to_string())
}

/// The alerts with which a server refuses a client's certificate (RFC 8446 section 6.2).
const REFUSALS: &[AlertDescription] = &[
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
    AlertDescription::CertificateRequired,
];

/// The message of the last error of the chain: tonic's and hyper's own ones only say "transport error".
fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().unwrap_or(error).to_string()
}

/// The error and what caused it, outermost first.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| cause(*error))
}

/// `io::Error::source` skips the error that it wraps, so that one is looked up.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // A test ends before its files matter.
mod tests;
