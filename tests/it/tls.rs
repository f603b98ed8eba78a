//! Who may connect, and what the daemon does with everybody else.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use birthmark::{
    client::Connection,
    proto::{GetIssuerRequest, issuance_client::IssuanceClient},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use tonic::Code;

use crate::support::{
    site::{Answer, Daemon, IssueStream, Process, Site, csr, request, wait_until},
    token::{self, text},
};

/// A CA in software, for identities that `station enroll` would not make.
pub(crate) struct SoftCa(CertifiedIssuer<'static, KeyPair>);

impl SoftCa {
    pub(crate) fn new(name: &str) -> SoftCa {
        SoftCa::with(name, |_| {})
    }

    /// One whose certificate is changed before it is signed.
    pub(crate) fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> SoftCa {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        change(&mut params);
        SoftCa(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of this key.
    pub(crate) fn certify(&self, params: &CertificateParams, key: &impl rcgen::PublicKeyData) -> String {
        params.signed_by(key, &self.0).unwrap().pem()
    }

    /// A revocation list with these serial numbers, PEM.
    pub(crate) fn crl(&self, serial_numbers: &[&[u8]], number: u64) -> String {
        let now = std::time::SystemTime::now();
        let revoked = serial_numbers.iter().map(|serial_number| rcgen::RevokedCertParams {
            serial_number: serial_number.to_vec().into(),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        });
        let params = rcgen::CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_hours(24)).into(),
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// An identity folder with a certificate of these URIs, after `change`.
    pub(crate) fn identity(
        &self,
        site: &Site,
        name: &str,
        uris: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> PathBuf {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let folder = site.path(&format!("soft/{name}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        write_private(&folder.join("key.pem"), &key.serialize_pem());
        fs::copy(site.path("ca/station-ca.pem"), folder.join("ca.pem")).unwrap();
        folder
    }
}

/// Writes a private key as its users must have it: for its owner alone.
fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A site whose daemon takes clients of this CA as well.
pub(crate) fn site_that_trusts(ca: &SoftCa) -> Site {
    let site = Site::new();
    let both = fs::read_to_string(site.path("ca/station-ca.pem")).unwrap() + &ca.0.pem();
    site.token.write("ca/clients.pem", &both);
    site.configure(|usual| usual.replace("client_ca = \"ca/station-ca.pem\"", "client_ca = \"ca/clients.pem\""));
    site
}

/// How often the daemon has refused a connection.
fn refused(daemon: &Daemon) -> f64 {
    daemon.metric("birthmark_connections_refused_total", &[])
}

/// The daemon must have refused a connection since, and still serve.
async fn must_have_refused_another(site: &Site, daemon: &Daemon, before: f64) {
    // The client may know of its refusal before the daemon has counted it.
    wait_until("the refused connection is counted", || refused(daemon) > before);
    let mut client = IssuanceClient::new(site.connect(daemon, "station", "line1/t1").await);
    assert_eq!(client.get_issuer(GetIssuerRequest::default()).await.unwrap().into_inner().profiles.len(), 1);
}

/// `openssl s_client` towards the daemon, with the arguments.
fn s_client(site: &Site, daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &daemon.grpc.to_string(), "-CAfile", "ca/station-ca.pem", "-alpn", "h2"]);
    command.args(["-verify_return_error", "-verify_hostname", "localhost"]).args(arguments);
    command.current_dir(site.path("")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Strangers do not get through the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn stranger_does_not_get_through_the_handshake() {
    let known = SoftCa::new("Known");
    let foreign = SoftCa::new("Foreign");
    let site = site_that_trusts(&known);
    let daemon = site.start();
    let station = &["urn:birthmark:station:line1/t1"];
    let identities = [
        foreign.identity(&site, "foreign", station, |_| {}),
        known.identity(&site, "expired", station, |params| params.not_after = date_time_ymd(2020, 1, 1)),
        known.identity(&site, "not-yet", station, |params| params.not_before = date_time_ymd(2999, 1, 1)),
        known.identity(&site, "server", station, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }),
    ];
    for identity in identities {
        let before = refused(&daemon);
        let connection = Connection { server: Some(daemon.url()), identity: Some(identity.clone()), socket: None };
        // With TLS 1.3 a client learns of its refusal only after the handshake, when it first reads.
        if let Ok(channel) = connection.daemon().unwrap().connect().await {
            assert!(IssueStream::open(channel).await.is_err(), "{}", identity.display());
        }
        must_have_refused_another(&site, &daemon, before).await;
    }
    daemon.end();
}

/// A station is told that its certificate is refused, and does not wait forever.
#[tokio::test(flavor = "multi_thread")]
async fn station_with_a_refused_certificate_is_told_and_stops() {
    let known = SoftCa::new("Known");
    let site = site_that_trusts(&known);
    let daemon = site.start();
    let line = crate::support::site::json_line("d1", &csr("d1"));
    site.token.write("d1.jsonl", &line);
    let uri = &["urn:birthmark:station:line1/t1"];
    let identities = [
        known.identity(&site, "expired", uri, |params| params.not_after = date_time_ymd(2020, 1, 1)),
        SoftCa::new("Foreign").identity(&site, "foreign", uri, |_| {}),
    ];
    for identity in identities {
        let run = sign_as(&site, &daemon, &identity).output().unwrap();
        token::refused(&run, &["refused", "certificate"]);
    }
    for identity in [known.identity(&site, "no-role", &[], |_| {}), site.identity("operator", "anna")] {
        let run = sign_as(&site, &daemon, &identity).output().unwrap();
        token::refused(&run, &["ROLE_REQUIRED", "identity of a station", "station enroll"]);
    }
    daemon.end();
}

fn sign_as(site: &Site, daemon: &Daemon, identity: &Path) -> Command {
    let arguments = ["station", "sign", "--order", "o1", "--profile", "device", "--in", "d1.jsonl", "--out", "certs"];
    let mut command = site.token.command(&arguments);
    command.args(["--server", &daemon.url(), "--identity"]).arg(identity);
    command
}

/// Whoever has no clear role may do nothing.
#[tokio::test(flavor = "multi_thread")]
async fn peer_without_a_clear_role_may_do_nothing() {
    let ca = SoftCa::new("Known");
    let site = site_that_trusts(&ca);
    let daemon = site.start();
    site.create_order("o1", 5);
    let station = "urn:birthmark:station:line1/t1";
    let good = ca.identity(&site, "good", &[station, "https://example.com/"], |_| {});
    let mut stream = IssueStream::open(daemon.connect(good).await).await.unwrap();
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();

    let cases: &[(&str, &[&str])] = &[
        ("none", &[]),
        ("another-uri", &["https://example.com/"]),
        ("two-roles", &[station, "urn:birthmark:operator:anna"]),
        ("two-stations", &[station, "urn:birthmark:station:line1/t2"]),
        ("no-station", &["urn:birthmark:station:line1"]),
        ("too-deep", &["urn:birthmark:station:line1/t1/x"]),
        ("no-such-role", &["urn:birthmark:root:anna"]),
        ("upper-case", &["URN:BIRTHMARK:STATION:line1/t1"]),
        ("empty-name", &["urn:birthmark:operator:"]),
        ("space", &["urn:birthmark:station:line1/t 1"]),
    ];
    for (name, uris) in cases {
        let channel = daemon.connect(ca.identity(&site, name, uris, |_| {})).await;
        let opened = IssueStream::open(channel.clone()).await.err().unwrap_or_else(|| panic!("{name}: a stream"));
        let known = IssuanceClient::new(channel).get_issuer(GetIssuerRequest::default()).await.unwrap_err();
        for status in [opened, known] {
            Answer::of_call(&status).must_be(Code::Unauthenticated, "ROLE_REQUIRED");
        }
    }
    // A role in the CN or in metadata is none.
    let named = ca.identity(&site, "urn-in-cn", &[], |params| {
        params.distinguished_name.push(DnType::CommonName, station);
    });
    let mut client = IssuanceClient::new(daemon.connect(named).await);
    let mut pretender = tonic::Request::new(GetIssuerRequest::default());
    pretender.metadata_mut().insert("role", "operator".parse().unwrap());
    let status = client.get_issuer(pretender).await.unwrap_err();
    Answer::of_call(&status).must_be(Code::Unauthenticated, "ROLE_REQUIRED");
    assert_eq!(site.order("o1")["issued"], 1);
    daemon.end();
}

/// Only TLS 1.2 or 1.3 with client certificates is spoken.
#[tokio::test(flavor = "multi_thread")]
async fn connection_without_mutual_tls_of_today_is_refused() {
    let site = Site::new();
    let daemon = site.start();
    let identity = site.identity("station", "line1/t1").display().to_string();
    let (certificate, key) = (format!("{identity}/cert.pem"), format!("{identity}/key.pem"));
    let with_identity = ["-cert", &certificate, "-key", &key];

    for version in ["-tls1_2", "-tls1_3"] {
        let before = refused(&daemon);
        // -quiet reads on, so that it sees what TLS 1.3 says after the handshake.
        let run = s_client(&site, &daemon, &[version, "-quiet"]).output().unwrap();
        assert!(text(&run.stderr).contains("alert"), "{version} without a certificate: {}", text(&run.stderr));
        must_have_refused_another(&site, &daemon, before).await;

        // A preface of HTTP/2 with empty SETTINGS is answered by SETTINGS.
        let mut client = Process::spawn(
            s_client(&site, &daemon, &[&[version, "-quiet"], &with_identity[..]].concat()).stdin(Stdio::piped()),
        )
        .unwrap();
        client
            .child()
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .unwrap();
        let mut frame = [0; 9];
        client.child().stdout.as_mut().unwrap().read_exact(&mut frame).unwrap();
        assert_eq!(frame[3], 4, "{version}: {frame:?}");
        assert_eq!(refused(&daemon), before + 1.0, "{version}");
    }
    for (version, ciphers) in [("-tls1_1", "ALL:@SECLEVEL=0"), ("-tls1", "ALL:@SECLEVEL=0")] {
        let before = refused(&daemon);
        let run =
            s_client(&site, &daemon, &[&[version, "-cipher", ciphers], &with_identity[..]].concat()).output().unwrap();
        assert!(text(&run.stderr).contains("SSL alert number"), "{version}: {}", text(&run.stderr));
        must_have_refused_another(&site, &daemon, before).await;
    }
    for bytes in
        ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".as_bytes(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0xff; 4000]]
    {
        let before = refused(&daemon);
        let mut plain = TcpStream::connect(daemon.grpc).unwrap();
        plain.write_all(bytes).unwrap();
        plain.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // It hangs up, perhaps after an alert, perhaps with a reset.
        let _ = plain.read_to_end(&mut Vec::new());
        must_have_refused_another(&site, &daemon, before).await;
    }
    assert!(!site.log().contains("panicked"), "{}", site.log());
    daemon.end();
}

/// The socket of a daemon that was killed is replaced.
#[test]
fn socket_of_a_daemon_that_was_killed_is_replaced() {
    let site = Site::new();
    let mut daemon = site.start();
    daemon.kill();
    assert!(site.path("run/admin.sock").exists());
    let daemon = site.start();
    site.create_order("o1", 1);
    daemon.end();
    assert!(!site.path("run/admin.sock").exists());
}

#[test]
fn key_that_others_may_read_refuses_the_start() {
    let site = Site::new();
    let key = site.path("tls/key.pem");
    for mode in [0o644, 0o640, 0o604, 0o601] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        let said = site.refuse_to_start();
        let says = ["server.key", "key.pem", &format!("mode {mode:o}"), "chmod 600"];
        assert!(says.iter().all(|says| said.contains(says)), "{said}");
    }
    fs::set_permissions(&key, Permissions::from_mode(0o400)).unwrap();
    site.start().end();
}
