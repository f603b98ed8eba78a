//! `birthmark station enroll`

use std::{fs, os::unix::fs::PermissionsExt};

use crate::support::token::{Hsm, Token, environment, refused, succeeded};

/// A token with a station CA, and a configuration that names it.
fn site() -> Token {
    let token = Token::new();
    let step = r#"
[[step]]
do = "station-ca"
key = "station-ca"
key_type = "KEY"
subject = ["O=Acme", "CN=Acme Stations"]
days = 1000
certificate = "ca/station-ca.pem"
"#;
    let step = step.replace("KEY", Hsm::under_test().key_type());
    token.write("ceremony.toml", &(token.ceremony_head() + &step));
    succeeded(&token.birthmark(&["ceremony", "ceremony.toml", "--yes"]));
    let configuration = format!(
        r#"
[environment]
{}

[server]
listen = "127.0.0.1:0"
certificate = "server/cert.pem"
key = "server/key.pem"
client_ca = "ca/station-ca.pem"

[ledger]
path = "data"

[station_ca]
certificate = "ca/station-ca.pem"
key_uri = "{}"

[issuers.device]
chain = ["ca/issuer.pem"]
key_uri = "pkcs11:token=unused;object=unused?module-path=/unused"

[profiles.device]
issuer = "device"
subject = ["CN={{device_id}}"]
validity_days = 10
"#,
        environment(),
        token.uri(";object=station-ca")
    );
    token.write("birthmark.toml", &configuration);
    token
}

fn enroll(token: &Token, arguments: &[&str]) -> std::process::Output {
    token.birthmark(&[&["station", "enroll"], arguments].concat())
}

/// A peer has its URI and client authentication only.
#[test]
fn peer_certificate_has_its_uri_and_client_auth_only() {
    let token = site();
    for (name, role, folder, uri) in [
        ("line1/tester3", "station", "line1-tester3", "urn:birthmark:station:line1/tester3"),
        ("anna", "operator", "anna", "urn:birthmark:operator:anna"),
        ("audit-1", "auditor", "audit-1", "urn:birthmark:auditor:audit-1"),
    ] {
        let printed = succeeded(&enroll(&token, &[name, "--role", role]));
        assert!(printed.contains(uri), "{printed}");
        let certificate = format!("{folder}/cert.pem");
        let ca = format!("{folder}/ca.pem");
        token.openssl(&["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", &ca, &certificate]);
        let shown = token.openssl(&["x509", "-in", &certificate, "-noout", "-text"]);
        let lines: Vec<_> = shown.lines().map(str::trim).collect();
        for line in [&format!("URI:{uri}"), "TLS Web Client Authentication", "Digital Signature", "CA:FALSE"] {
            assert!(lines.contains(&line), "{line} is not in {shown}");
        }
        let key = format!("{folder}/key.pem");
        assert_eq!(fs::metadata(token.path(&key)).unwrap().permissions().mode() & 0o777, 0o600);
        let of_key = token.openssl(&["pkey", "-in", &key, "-pubout"]);
        assert_eq!(of_key, token.openssl(&["x509", "-in", &certificate, "-noout", "-pubkey"]));
    }
    refused(&enroll(&token, &["line1/tester3"]), &["exists"]);
}

/// A server has its names and server authentication.
#[test]
fn server_certificate_has_its_names_and_server_auth() {
    let token = site();
    let names = ["--dns", "birthmark.line1.example", "--ip", "127.0.0.1", "--ip", "::1"];
    let arguments = [&["birthmark", "--role", "server", "--out", "server", "--json"][..], &names].concat();
    let printed: serde_json::Value = serde_json::from_str(&succeeded(&enroll(&token, &arguments))).unwrap();
    assert_eq!(printed["certificate"], "server/cert.pem");
    let host = ["-verify_hostname", "birthmark.line1.example", "-verify_ip", "127.0.0.1"];
    let verify = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "server/ca.pem"];
    token.openssl(&[&verify[..], &host, &["server/cert.pem"]].concat());
    refused(&enroll(&token, &["other", "--role", "server"]), &["--dns"]);
    refused(&enroll(&token, &["other", "--role", "server", "--dns", "a b"]), &["not a DNS name"]);
    assert!(!token.path("other").exists());
}

/// What cannot be enrolled is refused before anything is written.
#[test]
fn enrolment_that_is_impossible_writes_nothing() {
    let token = site();
    refused(&enroll(&token, &["tester3"]), &["<line>/<station>"]);
    refused(&enroll(&token, &["line 1/tester3"]), &["not a usable name"]);
    refused(&enroll(&token, &["anna/b", "--role", "operator"]), &["only a station"]);
    refused(&enroll(&token, &["line1/tester3", "--dns", "x.example"]), &["only a server"]);
    refused(&enroll(&token, &["line1/tester3", "--days", "1001"]), &["after its station CA", "fewer days"]);
    refused(&enroll(&token, &["line1/tester3", "--config", "none.toml"]), &["cannot read the configuration none.toml"]);
    assert!(!token.path("line1-tester3").exists());
}

/// The station CA may be named on the command line.
#[test]
fn station_ca_on_the_command_line_is_used() {
    let token = site();
    let uri = token.uri(";object=station-ca");
    let arguments = ["l/s", "--ca-certificate", "ca/station-ca.pem", "--ca-key", &uri];
    let mut command = token.command(&[&["station", "enroll"], &arguments[..]].concat());
    let (variable, file) = Hsm::under_test().configuration();
    succeeded(&command.env(variable, token.path(file)).output().unwrap());
    token.openssl(&["verify", "-x509_strict", "-CAfile", "ca/station-ca.pem", "l-s/cert.pem"]);
}
