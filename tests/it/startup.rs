//! What stands in the way of a start is told in one sentence that says what to do.

use std::{fs, net::TcpListener, os::unix::net::UnixListener, process::Command};

use rustix::fs::{CWD, FileType};

use crate::support::{
    site::{Site, must_refuse, without_progress},
    token::{LABEL, Token, module, refused, succeeded, text},
};

/// As [`must_refuse`], after a change of the usual configuration.
#[track_caller]
fn must_refuse_when(site: &Site, from: &str, to: &str, says: &[&str]) {
    configure(site, from, to);
    must_refuse(site, says);
}

#[track_caller]
fn configure(site: &Site, from: &str, to: &str) {
    site.configure(|usual| {
        assert!(usual.contains(from), "{from:?} is not in {usual}");
        usual.replace(from, to)
    });
}

/// The line of `birthmark.toml` that contains this text, as errors name it.
fn line(site: &Site, part: &str) -> String {
    let text = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    let number = text.lines().position(|line| line.contains(part)).expect("no such line") + 1;
    format!("birthmark.toml:{number}: ")
}

/// What pkcs11-tool tells about the token.
fn token_flags(token: &Token) -> String {
    let run = Command::new("pkcs11-tool")
        .args(["--module", module().to_str().unwrap(), "--list-token-slots"])
        .env("SOFTHSM2_CONF", token.path("softhsm2.conf"))
        .output()
        .expect("pkcs11-tool (Debian: opensc) must be installed");
    let said = succeeded(&run);
    said.lines().find(|line| line.contains("token flags")).expect("no token flags").to_owned()
}

/// A PIN that cannot be used refuses the start, and is not tried again.
#[test]
fn pin_that_cannot_be_used_refuses_the_start() {
    let site = Site::new();
    let before = token_flags(&site.token);

    site.token.write_secret("pin", "000000\n");
    let sentence = ["token \"birthmark\" refused the PIN", "tried once", "correct the PIN"];
    must_refuse(&site, &[&sentence[..], &[&line(&site, "object=issuing")]].concat());
    // One failed login at most is noted by the token, and a good one makes it forget.
    let after = token_flags(&site.token);
    assert!(!after.contains("final user PIN try") && !after.contains("locked"), "{before} {after}");

    site.token.set_mode("pin", 0o644);
    must_refuse(&site, &["pin is open to others (mode 0644)", "chmod 600"]);
    let check = site.token.birthmark(&["serve", "--check", "--config", "birthmark.toml"]);
    let said = text(&check.stderr);
    assert!(said.contains(&line(&site, "object=issuing")) && said.contains("pin is open to others"), "{said}");
    site.token.write_secret("pin", "\n");
    must_refuse(&site, &["pin is empty"]);
    fs::remove_file(site.path("pin")).unwrap();
    must_refuse(&site, &["pin cannot be read", "No such file"]);
    // It has no reader, so to open it would block.
    rustix::fs::mknodat(CWD, site.path("pin"), FileType::Fifo, 0o600.into(), 0).unwrap();
    must_refuse(&site, &["pin: it is not a file but a pipe"]);
    let uri = format!("pkcs11:token={LABEL};object=issuing?module-path={}&pin-source=file:pin", module().display());
    let check = site.token.birthmark(&["hsm", "check", &uri, "--config", "birthmark.toml"]);
    assert!(text(&check.stdout).contains("not a file but a pipe") && !check.status.success(), "{check:?}");
    fs::remove_file(site.path("pin")).unwrap();

    // Only line ends are taken off: a PIN may end in a blank. It is tried, and the refusal names the blank, not the PIN.
    site.token.write_secret("pin", "123456 \n");
    must_refuse(&site, &["refused the PIN", "begins or ends with a blank"]);
    assert!(!site.refuse_to_start().contains("123456"));
    fs::remove_file(site.path("pin")).unwrap();

    configure(&site, "&pin-source=file:pin", "");
    must_refuse(&site, &["no PIN for token", "pin-source", "BIRTHMARK_PIN", "issuers.main.key_uri"]);
    configure(&site, "pin-source=file:pin", "pin-value=123456");
    must_refuse(&site, &["pin-value", "mode 600"]);

    site.token.write_secret("pin", "123456");
    site.configure(|usual| usual);
    site.start().end();
}

/// A module, a token or a key that is missing refuses the start.
#[test]
fn module_token_or_key_that_is_missing_refuses_the_start() {
    let site = Site::new();
    let module = module().to_str().unwrap();
    must_refuse_when(&site, module, "/opt/none.so", &["there is no PKCS#11 module /opt/none.so", "module-path"]);
    must_refuse_when(&site, module, "birthmark.toml", &["birthmark.toml cannot be used", "PKCS#11 library"]);
    let other = &format!("token={LABEL};object=issuing");
    must_refuse_when(&site, other, "token=other;object=issuing", &["no token with label \"other\"", "\"birthmark\""]);
    must_refuse_when(
        &site,
        "object=issuing",
        "object=missing",
        &["no private key with label \"missing\"", "\"issuing\"", "issuers.main.key_uri"],
    );
    must_refuse_when(&site, ";object=issuing", "", &["names no key", "object=LABEL"]);
    must_refuse_when(
        &site,
        "{config_dir}/softhsm2.conf",
        "{config_dir}/none.conf",
        &["PKCS#11 module", "issuers.main.key_uri"],
    );
}

/// A key that could leave the HSM refuses the start (invariant 7).
#[test]
fn key_that_could_leave_the_hsm_refuses_the_start() {
    let site = Site::new();
    let made = Command::new("pkcs11-tool")
        .args(["--module", module().to_str().unwrap(), "--token-label", LABEL, "--login", "--pin", "123456"])
        .args(["--keypairgen", "--key-type", "EC:prime256v1", "--label", "movable", "--id", "78"])
        .args(["--sensitive", "--extractable", "--usage-sign"])
        .env("SOFTHSM2_CONF", site.path("softhsm2.conf"))
        .output()
        .unwrap();
    succeeded(&made);
    let new_key = "make a new key with birthmark ceremony";
    let extractable = "key \"movable\" is marked CKA_EXTRACTABLE";
    must_refuse_when(&site, "object=issuing", "object=movable", &[extractable, new_key, "issuers.main.key_uri"]);
}

/// Certificates that do not fit each other or their key refuse the start.
#[test]
fn certificates_that_do_not_fit_refuse_the_start() {
    let site = Site::new();
    must_refuse_when(
        &site,
        "object=issuing",
        "object=station-ca",
        &["does not belong to key \"station-ca\"", "SHA-256", "issuers.main.key_uri"],
    );
    must_refuse_when(
        &site,
        "[\"ca/issuer.pem\", \"ca/root.pem\"]",
        "[\"ca/root.pem\", \"ca/issuer.pem\"]",
        &["issuers.main.chain", "certificate 1"],
    );
    must_refuse_when(&site, "\"ca/issuer.pem\"", "\"tls/cert.pem\"", &["issuers.main.chain", "not a CA"]);
    must_refuse_when(&site, "\"ca/issuer.pem\"", "\"ca/none.pem\"", &["issuers.main.chain", "ca/none.pem"]);
    must_refuse_when(&site, "\"ca/issuer.pem\"", "\"tls/key.pem\"", &["issuers.main.chain", "tls/key.pem"]);

    let identity = site.identity("operator", "anna");
    let key = identity.join("key.pem").display().to_string();
    must_refuse_when(&site, "\"tls/key.pem\"", &format!("\"{key}\""), &["server.key", "tls/cert.pem", &key]);
    must_refuse_when(&site, "\"tls/key.pem\"", "\"tls/none.pem\"", &["server.key", "tls/none.pem"]);
    must_refuse_when(&site, "\"tls/cert.pem\"", "\"tls/key.pem\"", &["server.certificate", "tls/key.pem"]);
    must_refuse_when(
        &site,
        "client_ca = \"ca/station-ca.pem\"",
        "client_ca = \"ca/none.pem\"",
        &["server.client_ca", "ca/none.pem"],
    );
}

/// Paths that are taken or cannot be used refuse the start.
#[test]
fn paths_taken_or_unusable_refuse_the_start() {
    let site = Site::new();
    site.token.write("data", "a file");
    must_refuse(&site, &["data", "ledger.path"]);
    fs::remove_file(site.path("data")).unwrap();

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (section, before) in [("[server]", site.address().to_string()), ("[http]", "127.0.0.1:0".into())] {
        let key = format!("{section}\nlisten = \"{before}\"");
        must_refuse_when(
            &site,
            &key,
            &format!("{section}\nlisten = \"{address}\""),
            &[&address, &section.replace(['[', ']'], ""), "listen", "in use"],
        );
    }
    site.configure(|usual| usual);
    site.token.write("run/admin.sock", "a file");
    must_refuse(&site, &["server.socket", "run/admin.sock"]);
    assert_eq!(fs::read_to_string(site.path("run/admin.sock")).unwrap(), "a file");
    fs::remove_file(site.path("run/admin.sock")).unwrap();
    let listener = UnixListener::bind(site.path("run/admin.sock")).unwrap();
    must_refuse(&site, &["server.socket", "another process listens on it"]);
    assert!(!site.path("data/journal").exists(), "nothing is begun where the daemon cannot listen");
    // A socket on which nobody listens any more is replaced.
    drop(listener);
    assert!(site.path("run/admin.sock").exists());

    let daemon = site.start();
    must_refuse_when(&site, &daemon.grpc.to_string(), "127.0.0.1:0", &["data", "another birthmark daemon"]);
    site.create_order("o1", 1);
    daemon.end();
}

/// An error of the configuration names file, line and key.
#[test]
fn configuration_error_names_file_line_and_key() {
    let site = Site::new();
    refused(
        &site.token.birthmark(&["serve", "--config", "none.toml"]),
        &["cannot read the configuration none.toml", "No such file"],
    );
    let cases: &[(&str, &str, &[&str])] = &[
        ("[ledger]", "[ledger", &["unclosed table"]),
        ("path = \"data\"", "path = \"data\"\nsize = 5", &["ledger.size", "there is no key `size`"]),
        ("issuer = \"main\"", "issuer = \"min\"", &["profiles.device.issuer", "no issuer \"min\"", "\"main\""]),
        ("\"CN={device_id}\"", "\"CN={device}\"", &["profiles.device.subject", "{device_id}"]),
        ("\"CN={device_id}\"", "\"Common={device_id}\"", &["profiles.device.subject"]),
        ("\"CN={device_id}\"", "\"CN=fixed\"", &["profiles.device.subject", "must contain {device_id}"]),
        ("validity_days = 7300", "validity_days = 9500", &["profiles.device.validity_days", "outlive", "main"]),
        ("validity_days = 7300", "validity_days = 0", &["profiles.device.validity_days", "1 to 36525"]),
        (
            "validity_days = 7300",
            "validity_days = \"long\"",
            &["profiles.device.validity_days", "it takes a whole number"],
        ),
        ("[\"p256\", \"p384\"", "[\"p255\", \"p384\"", &["profiles.device.key_types", "p255", "p256"]),
        ("socket = \"run", "window = 0\nsocket = \"run", &["server.window", "1 to 65536"]),
        ("[http]\nlisten = \"127.0.0.1:0\"", "[http]\nlisten = \"localhost\"", &["http.listen", "127.0.0.1:8443"]),
        ("[ledger]\npath = \"data\"", "[ledger]", &["ledger: the key `path` is missing"]),
    ];
    for (from, to, says) in cases {
        configure(&site, from, to);
        let text = fs::read_to_string(site.path("birthmark.toml")).unwrap();
        let place = text.find(to).unwrap();
        // The last line of what was changed, or the one of the section.
        let lines = text[..place].matches('\n').count() + 1..=text[..place + to.len()].matches('\n').count() + 1;
        let run = site.token.birthmark(&["serve", "--config", "birthmark.toml"]);
        let said = crate::support::token::text(&run.stderr);
        refused(&run, &[*says, &["birthmark.toml"]].concat());
        let named = lines.clone().any(|line| said.contains(&format!("birthmark.toml:{line}: ")));
        assert!(
            named && without_progress(&said).lines().count() == 1,
            "{to}: none of the lines {lines:?} is named in: {said}"
        );
        assert!(!said.contains("panicked"), "{said}");
    }
}
