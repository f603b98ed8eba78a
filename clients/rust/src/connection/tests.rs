//! Addresses, identities and what goes wrong with them.

use std::{error::Error as StdError, fs, os::unix::fs::PermissionsExt, path::Path};

use tonic::transport::{Certificate, Identity};

use super::*;
use crate::Failure;

fn target(connection: Connection, environment: &[(&str, &str)]) -> Result<Target, String> {
    connection
        .target(|name| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        .map_err(|error| error.to_string())
}

#[test]
fn connection_flag_wins_over_every_variable() {
    let all = [("BIRTHMARK_SERVER", "https://a:1"), ("BIRTHMARK_IDENTITY", "/id"), ("BIRTHMARK_SOCKET", "/s")];
    let socket = Connection { socket: Some("/flag".into()), ..Connection::default() };
    assert_eq!(target(socket, &all), Ok(Target::Socket { path: "/flag".into(), hint: "" }));
    let server = Connection { server: Some("https://b:2".into()), ..Connection::default() };
    assert_eq!(target(server, &all), Ok(Target::Server { url: "https://b:2".into(), identity: "/id".into() }));
}

/// Variables stand in for flags, and the default is the local socket.
#[test]
fn connection_without_flags_uses_variables_then_socket() {
    let server = [("BIRTHMARK_SERVER", "https://a:1"), ("BIRTHMARK_IDENTITY", "/id")];
    assert_eq!(
        target(Connection::default(), &server),
        Ok(Target::Server { url: "https://a:1".into(), identity: "/id".into() })
    );
    let local = target(Connection::default(), &[("BIRTHMARK_SERVER", "")]);
    assert!(matches!(local, Ok(Target::Socket { path, .. }) if path == Path::new(DEFAULT_SOCKET)));
}

#[test]
fn connection_settings_that_are_incomplete_name_the_rest() {
    let both = [("BIRTHMARK_SERVER", "https://a:1"), ("BIRTHMARK_SOCKET", "/s")];
    for (connection, environment, word) in [
        (Connection { server: Some("https://a:1".into()), ..Connection::default() }, &[][..], "--identity"),
        (Connection { identity: Some("/id".into()), ..Connection::default() }, &[], "--server"),
        (Connection::default(), &both, "both set"),
    ] {
        let error = target(connection, environment).map_err(|error| error.contains(word));
        assert_eq!(error, Err(true), "{word}");
    }
}

#[test]
fn server_url_without_https_or_port_is_refused() {
    for url in ["", "host", "host:1", "http://host:1", "https://host", "https://:1"] {
        let error = Daemon::at_server(url, Path::new("/nowhere")).map(|_| ()).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("https://HOST:PORT")), "{url}");
    }
}

/// A CA and what it issues, as PEM files of an identity.
struct Pki {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    ca: String,
}

impl Pki {
    fn new() -> Result<Self, rcgen::Error> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key)?.pem();
        Ok(Pki { issuer: rcgen::Issuer::new(params, key), ca })
    }

    /// Certificate and key.
    fn issue(&self, name: &str) -> Result<(String, String), rcgen::Error> {
        self.issue_for(name, [2020, 4000])
    }

    /// The same, valid between the beginnings of two years.
    fn issue_for(&self, name: &str, [from, until]: [i32; 2]) -> Result<(String, String), rcgen::Error> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new([name.to_owned()])?;
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    fn identity(&self, ca: &Pki) -> Result<tempfile::TempDir, Box<dyn StdError>> {
        let folder = tempfile::tempdir()?;
        let (cert, key) = self.issue("station")?;
        for (name, content) in [("cert.pem", &cert), ("key.pem", &key), ("ca.pem", &ca.ca)] {
            fs::write(folder.path().join(name), content)?;
        }
        fs::set_permissions(folder.path().join("key.pem"), fs::Permissions::from_mode(0o600))?;
        Ok(folder)
    }

    /// A server of no service that wants a certificate of this CA and has one for `name`; gives its port.
    async fn serve(&self, name: &str) -> Result<u16, Box<dyn StdError>> {
        self.serve_with(self.issue(name)?).await
    }

    async fn serve_with(&self, (cert, key): (String, String)) -> Result<u16, Box<dyn StdError>> {
        use tonic::transport::{Server, ServerTlsConfig, server::TcpIncoming};
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(cert, key))
            .client_ca_root(Certificate::from_pem(&self.ca));
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?;
        let port = incoming.local_addr()?.port();
        let (_, health) = tonic_health::server::health_reporter();
        tokio::spawn(Server::builder().tls_config(tls)?.add_service(health).serve_with_incoming(incoming));
        Ok(port)
    }
}

/// Connects and makes a call: TLS 1.3 lets a client connect before the server has looked at its certificate.
async fn call(port: u16, identity: &tempfile::TempDir) -> Result<(), String> {
    let daemon = Daemon::at_server(&format!("https://localhost:{port}"), identity.path());
    let channel = daemon.map_err(|error| error.to_string())?.connect().await.map_err(|error| match error {
        ClientError::Connect { lasting: true, .. } => format!("lasting: {error}"),
        error => error.to_string(),
    })?;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let reply = health.check(tonic_health::pb::HealthCheckRequest::default()).await.map_err(Failure::from);
    reply.map(|_| ()).map_err(|failure| match failure.certificate_refused {
        true => format!("lasting: {failure}"),
        false => failure.to_string(),
    })
}

/// A certificate that one side refuses is a lasting error, a daemon that is away is not.
#[tokio::test]
async fn refused_certificate_is_distinguished_from_an_outage() -> Result<(), Box<dyn StdError>> {
    let (ours, theirs) = (Pki::new()?, Pki::new()?);
    let good = ours.identity(&ours)?;
    let port = ours.serve("localhost").await?;
    assert_eq!(call(port, &good).await, Ok(()));
    for (port, identity, message) in [
        (port, theirs.identity(&ours)?, "refused the identity's certificate"),
        (port, ours.identity(&theirs)?, "does not come from the CA"),
        (ours.serve("elsewhere").await?, ours.identity(&ours)?, "not for localhost, but for elsewhere"),
        (
            ours.serve_with(ours.issue_for("localhost", [2020, 2021])?).await?,
            ours.identity(&ours)?,
            "expired on 2021-01-01T00:00:00Z, and this computer's clock says",
        ),
        (
            ours.serve_with(ours.issue_for("localhost", [3000, 3001])?).await?,
            ours.identity(&ours)?,
            "valid from 3000-01-01T00:00:00Z on",
        ),
    ] {
        let error = call(port, &identity).await.err().unwrap_or_default();
        assert!(error.starts_with("lasting: ") && error.contains(message), "{error}");
    }
    let away = held_port()?;
    let error = call(away.local_addr()?.port(), &good).await.err().unwrap_or_default();
    assert!(error.contains("nobody listens there") && !error.starts_with("lasting"), "{error}");
    Ok(())
}

/// A port at which nobody listens while this is held.
fn held_port() -> std::io::Result<tokio::net::TcpSocket> {
    let held = tokio::net::TcpSocket::new_v4()?;
    held.bind(([127, 0, 0, 1], 0).into())?;
    Ok(held)
}

/// A daemon's refusal of the identity is heard by whoever connects, each time, before a call is made.
#[tokio::test]
async fn refusal_of_an_identity_is_heard_by_each_connection() -> Result<(), Box<dyn StdError>> {
    let (ours, theirs) = (Pki::new()?, Pki::new()?);
    let (port, identity) = (ours.serve("localhost").await?, theirs.identity(&ours)?);
    let daemon = Daemon::at_server(&format!("https://localhost:{port}"), identity.path())?;
    for _ in 0..30 {
        let error = daemon.connect().await.map(drop).err();
        let heard = matches!(&error, Some(ClientError::Connect { lasting: true, cause, .. }) if cause.contains("refused the identity"));
        assert!(heard, "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn port_without_tls_is_named() -> Result<(), Box<dyn StdError>> {
    use tokio::io::AsyncWriteExt;
    let pki = Pki::new()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let daemon = Daemon::at_server(&format!("https://localhost:{port}"), pki.identity(&pki)?.path())?;
    assert!(matches!(daemon.connect().await, Err(ClientError::NotTls(_))));
    Ok(())
}

#[test]
fn identity_key_readable_by_others_is_refused() -> Result<(), Box<dyn StdError>> {
    let pki = Pki::new()?;
    let identity = pki.identity(&pki)?;
    for (mode, taken) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o644, false)] {
        fs::set_permissions(identity.path().join("key.pem"), fs::Permissions::from_mode(mode))?;
        let error = Daemon::at_server("https://localhost:1", identity.path()).err().map(|error| error.to_string());
        assert_eq!(error.is_none(), taken, "{mode:o}: {error:?}");
        assert!(error.is_none_or(|error| error.contains("chmod 600")));
    }
    Ok(())
}

#[test]
fn unusable_identity_is_named() -> Result<(), Box<dyn StdError>> {
    let pki = Pki::new()?;
    let at = |identity: &tempfile::TempDir| {
        let daemon = Daemon::at_server("https://localhost:1", identity.path());
        daemon.err().map(|error| error.to_string()).unwrap_or_default()
    };
    for (name, content, message) in [
        ("ca.pem", "", "holds no PEM certificate"),
        ("cert.pem", "", "cannot be used"),
        ("key.pem", &pki.issue("other")?.1, "cannot be used"),
    ] {
        let identity = pki.identity(&pki)?;
        fs::write(identity.path().join(name), content)?;
        assert!(at(&identity).contains(message), "{name}: {}", at(&identity));
        fs::remove_file(identity.path().join(name))?;
        assert!(at(&identity).contains(name), "{}", at(&identity));
    }
    Ok(())
}

/// One that is away, one with a certificate for another name and one of another CA: the one that is left serves. With the fourth
/// gone as well, the error names each.
#[tokio::test]
async fn server_that_is_away_is_passed_over_at_once() -> Result<(), Box<dyn StdError>> {
    let (ours, theirs) = (Pki::new()?, Pki::new()?);
    let identity = ours.identity(&ours)?;
    let away = held_port()?;
    let bad = [away.local_addr()?.port(), ours.serve("elsewhere").await?, theirs.serve("localhost").await?];
    let good = ours.serve("localhost").await?;
    let list =
        |ports: &[u16]| ports.iter().map(|port| format!("https://localhost:{port}")).collect::<Vec<_>>().join(",");
    let daemon = Daemon::at_server(&list(&[&bad[..], &[good]].concat()), identity.path())?;
    let began = std::time::Instant::now();
    let mut health = tonic_health::pb::health_client::HealthClient::new(daemon.connect().await?);
    health.check(tonic_health::pb::HealthCheckRequest::default()).await?;
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    let none = Daemon::at_server(&list(&bad), identity.path())?.connect().await;
    let (cause, lasting) = match none {
        Err(ClientError::Connect { cause, lasting, .. }) => (cause, lasting),
        other => (format!("{other:?}"), true),
    };
    assert!(!lasting, "{cause}");
    for word in ["nobody listens there", "not for localhost", "does not come from the CA", &bad[2].to_string()] {
        assert!(cause.contains(word), "{cause}");
    }
    Ok(())
}
