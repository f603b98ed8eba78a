//! The security log at a receiver of syslog: messages as RFC 5424 has them, over a Unix socket, UDP (RFC 5426) or TCP (RFC 6587).

use std::{
    fmt, fs,
    io::{self, Write},
    net::{TcpStream, ToSocketAddrs, UdpSocket},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use serde_json::Value;
use tracing::Level;

use super::{record::Record, sink::Sink};

/// How long a receiver may take for one message, or to be connected to.
const LIMIT: Duration = Duration::from_secs(2);

/// The facility of security messages that are not for everybody (authpriv, RFC 5424 section 6.2.1).
const FACILITY: u8 = 10;

/// The longest message in a datagram, in octets: receivers take 2,048 at least (RFC 5425 section 4.3.1 says so of TLS).
const DATAGRAM: usize = 2048;

/// The structured data's name. 32473 is the enterprise number of examples (RFC 5612).
const SD_ID: &str = "birthmark@32473";

/// Where a receiver is: `unix:/dev/log`, `udp://host:514` or `tcp://host:601`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A datagram socket of this machine.
    Unix(PathBuf),
    /// Host and port.
    Udp(String),
    /// Host and port.
    Tcp(String),
}

/// The text names no receiver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} names no receiver of syslog; it is written as unix:/dev/log, udp://HOST:PORT or tcp://HOST:PORT", crate::quote::quoted(.0))]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let is_place = |place: &&str| {
            place
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
        };
        let unix = text.strip_prefix("unix:").filter(|path| path.starts_with('/'));
        let udp = text.strip_prefix("udp://").filter(is_place);
        let tcp = text.strip_prefix("tcp://").filter(is_place);
        match (unix, udp, tcp) {
            (Some(path), _, _) => Ok(Address::Unix(path.into())),
            (_, Some(place), _) => Ok(Address::Udp(place.to_owned())),
            (_, _, Some(place)) => Ok(Address::Tcp(place.to_owned())),
            _ => Err(AddressError(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Udp(place) => write!(f, "udp://{place}"),
            Address::Tcp(place) => write!(f, "tcp://{place}"),
        }
    }
}

/// A receiver.
pub(super) struct Syslog {
    address: Address,
    host: String,
    connection: Option<Connection>,
}

enum Connection {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Syslog {
    pub(super) fn new(address: Address) -> Syslog {
        Syslog { address, host: host(), connection: None }
    }

    fn connect(&self) -> io::Result<Connection> {
        match &self.address {
            Address::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(LIMIT))?;
                Ok(Connection::Unix(socket))
            }
            Address::Udp(place) => {
                let to = resolve(place)?;
                let from: &str = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(from)?;
                socket.connect(to)?;
                Ok(Connection::Udp(socket))
            }
            Address::Tcp(place) => {
                let stream = TcpStream::connect_timeout(&resolve(place)?, LIMIT)?;
                stream.set_write_timeout(Some(LIMIT))?;
                Ok(Connection::Tcp(stream))
            }
        }
    }
}

fn resolve(place: &str) -> io::Result<std::net::SocketAddr> {
    place.to_socket_addrs()?.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}

impl Sink for Syslog {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut message = message(record, &self.host);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        match &mut connection {
            Connection::Unix(socket) => socket.send(message.as_bytes()).map(drop)?,
            Connection::Udp(socket) => {
                message.truncate(message.floor_char_boundary(DATAGRAM));
                // Nobody says whether it arrives; that nobody listened is known of the one before, at most.
                let _ = socket.send(message.as_bytes());
            }
            Connection::Tcp(stream) => {
                // Octet counting (RFC 6587 section 3.4.1): a message may have line ends.
                stream.write_all(format!("{} {message}", message.len()).as_bytes())?;
            }
        }
        // One that failed is connected anew.
        self.connection = Some(connection);
        Ok(())
    }
}

/// A message as RFC 5424 section 6 has it.
fn message(record: &Record, host: &str) -> String {
    let severity = match record.level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    let (priority, time, process) = (FACILITY * 8 + severity, record.time, std::process::id());
    let parameters = record.fields.iter().map(|(name, value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // SD-NAME is at most 32 printable characters, which names of fields are.
        format!(" {}=\"{}\"", &name[..name.len().min(32)], escaped(&text))
    });
    let data =
        if record.fields.is_empty() { "-".to_owned() } else { format!("[{SD_ID}{}]", parameters.collect::<String>()) };
    format!("<{priority}>1 {time:.6} {host} birthmark {process} security {data} {}", plain(&record.message))
}

/// What stands in quotes: `"`, `\` and `]` are escaped (RFC 5424 section 6.3.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in plain(text).chars() {
        if matches!(character, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

/// Without control characters, which would begin another message for some receivers: `#` and their number in octal digits.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => out.push_str(&format!("#{:03o}", u32::from(character))),
            false => out.push(character),
        }
    }
    out
}

/// This machine's name, as far as HOSTNAME may have it.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(char::is_ascii_graphic).take(255).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: Vec<(&'static str, Value)>) -> Record {
        let time = "2026-03-01T06:00:00.25Z".parse().unwrap();
        Record { time, level: Level::WARN, message: "refused a\nthing".into(), fields }
    }

    /// RFC 5424 section 6.3.3, and nobody begins a message of his own with a line end.
    #[test]
    fn message_is_that_of_rfc_5424_whatever_is_in_it() {
        let fields = vec![("reason", "a \"b\" c\\d]e\r\n<34>1 - - x".into()), ("number", 7.into())];
        let process = std::process::id();
        assert_eq!(
            message(&record(fields), "line7"),
            format!(
                "<84>1 2026-03-01T06:00:00.250000Z line7 birthmark {process} security [birthmark@32473 \
                 reason=\"a \\\"b\\\" c\\\\d\\]e#015#012<34>1 - - x\" number=\"7\"] refused a#012thing"
            )
        );
        assert!(message(&record(Vec::new()), "-").contains(" security - refused"));
    }

    #[test]
    fn address_is_a_socket_or_host_and_port() {
        for text in ["unix:/dev/log", "udp://10.0.0.1:514", "tcp://[::1]:601", "tcp://logs.example:601"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "/dev/log", "unix:log", "udp://host", "tcp://:601", "tls://host:6514", "udp://host:0"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
