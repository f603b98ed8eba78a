//! Devices that ask by a code of their own.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::CertificateDer};

use super::{Answer, enroll, port, site};
use crate::support::{
    site::{Site, certificate, csr},
    token::{refused, succeeded},
};

/// Makes codes for devices, and gives them.
pub(super) fn codes(site: &Site, file: &str, devices: &[&str], more: &[&str]) -> BTreeMap<String, String> {
    site.token.write("devices.txt", &devices.join("\n"));
    let create = ["vend", "create", "--order", "o1", "--devices", "devices.txt", "--out", file];
    succeeded(&site.operator(&[&create[..], more].concat()));
    let text = fs::read_to_string(site.path(file)).unwrap();
    let lines = text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    lines.map(|cells| (cells[0].clone(), cells[1].clone())).collect()
}

pub(super) fn ask(site: &Site, path: &str, device: &str, code: &str, csr: &[u8]) -> Answer {
    enroll(site, None, path, csr, &["-u", &format!("{device}:{code}")])
}

fn state(site: &Site, device: &str) -> String {
    let listed = succeeded(&site.operator(&["vend", "list", "--order", "o1", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let found = listed.as_array().unwrap().iter().find(|code| code["device_id"] == device).unwrap();
    found["state"].as_str().unwrap().to_owned()
}

/// A code opens one certificate, its own device's; nobody else's, and no second one. It is nowhere but in its file.
#[test]
fn code_opens_one_certificate_of_its_device() {
    let (site, daemon) = site(10, "");
    let codes = codes(&site, "codes.csv", &["d1", "a:b", "d3"], &["--qr", "qr"]);
    assert_eq!(fs::metadata(site.path("codes.csv")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(site.path("qr/a:b.svg")).unwrap().starts_with("<svg "));
    let again = ["vend", "create", "--order", "o1", "--devices", "devices.txt", "--out"];
    refused(&site.operator(&[&again[..], &["codes.csv"]].concat()), &["is there already"]);
    refused(&site.operator(&[&again[..], &["other.csv"]].concat()), &["CODE_REFUSED", "cancel that one first"]);
    assert_eq!(state(&site, "d1"), "open");

    let (request, other) = (csr("d1"), csr("d1"));
    ask(&site, "simpleenroll", "d1", &codes["d3"], &request).must_be(401, "www-authenticate: basic");
    ask(&site, "simpleenroll", "nobody", &codes["d1"], &request).must_be(401, "no such code");
    let typo = codes["d1"].replace(&codes["d1"][..1], if codes["d1"].starts_with('0') { "1" } else { "0" });
    ask(&site, "simpleenroll", "d1", &typo, &request).must_be(401, "code");
    ask(&site, "device~o2/simpleenroll", "d1", &codes["d1"], &request).must_be(403, "device~o1");
    let typed = codes["d1"].to_lowercase().replace('-', "");
    let first = ask(&site, "simpleenroll", "d1", &typed, &request).certificate(&site);
    assert_eq!(state(&site, "d1"), "used");
    for path in ["simpleenroll", "device/simpleenroll", "device~o1/simplereenroll"] {
        assert_eq!(ask(&site, path, "d1", &codes["d1"], &request).certificate(&site), first, "{path}");
    }
    ask(&site, "simpleenroll", "d1", &codes["d1"], &other).must_be(409, "DEVICE_HAS_CERTIFICATE");
    ask(&site, "simpleenroll", "a:b", &codes["a:b"], &csr("a:b")).certificate(&site);

    // After a scrap the code stays used; a new one gives the reissue.
    succeeded(&site.operator(&["record", "scrap", "d1", "--reason", "cracked"]));
    ask(&site, "simpleenroll", "d1", &codes["d1"], &other).must_be(403, "used before");
    let newer = super::vending::codes(&site, "newer.csv", &["d1"], &[]);
    ask(&site, "simpleenroll", "d1", &codes["d1"], &other).must_be(401, "no such code");
    ask(&site, "simpleenroll", "d1", &newer["d1"], &other).certificate(&site);

    // Cancelled, and expired.
    succeeded(&site.operator(&["vend", "cancel", "d3"]));
    ask(&site, "simpleenroll", "d3", &codes["d3"], &csr("d3")).must_be(401, "cancelled");
    refused(&site.operator(&["vend", "cancel", "d9"]), &["CODE_UNKNOWN"]);
    let short = super::vending::codes(&site, "short.csv", &["d4"], &["--valid", "2s"]);
    thread::sleep(Duration::from_millis(2100));
    ask(&site, "simpleenroll", "d4", &short["d4"], &csr("d4")).must_be(401, "expired");
    assert_eq!([state(&site, "d3"), state(&site, "d4")], ["cancelled", "expired"]);

    let dump = succeeded(&site.token.birthmark(&["journal", "dump", "data"]));
    assert!(dump.contains("vending_codes_created") && dump.contains("vending_code_cancelled"), "{dump}");
    succeeded(&site.token.birthmark(&["journal", "verify", "data"]));
    daemon.end();
    for text in [site.log(), dump, String::from_utf8_lossy(&contents(&site.path("data"))).into_owned()] {
        assert!(codes.values().chain(newer.values()).all(|code| !text.contains(code.as_str())));
    }
    // The index is rebuilt with what it knew of the codes.
    fs::remove_dir_all(site.path("data/index")).unwrap();
    let daemon = site.start();
    assert_eq!([state(&site, "d1"), state(&site, "d3")], ["used", "cancelled"]);
    ask(&site, "simpleenroll", "d1", &newer["d1"], &other).certificate(&site);
    daemon.end();
}

/// A file of codes that open nothing is not left behind, and the list of an order is that of its codes as well.
#[test]
fn codes_that_would_open_nothing_are_not_made() {
    let (site, daemon) = site(1, "");
    let list = format!("# the batch of May\nd1,{}\nd2\n", "0a".repeat(32));
    site.token.write("list.txt", &list);
    site.token.write("other.txt", "d2\nd3\n");
    succeeded(&site.operator(&[
        "order",
        "create",
        "listed",
        "--profile",
        "device",
        "--quantity",
        "2",
        "--devices",
        "list.txt",
    ]));
    let create = |order: &str, list: &str, more: &[&str]| {
        let words = ["vend", "create", "--order", order, "--devices", list, "--out", "codes.csv"];
        site.operator(&[&words[..], more].concat())
    };
    refused(&create("lsited", "list.txt", &[]), &["ORDER_UNKNOWN"]);
    assert!(!site.path("codes.csv").exists());
    succeeded(&create("listed", "list.txt", &["--qr", "qr"]));
    fs::remove_file(site.path("codes.csv")).unwrap();
    succeeded(&site.operator(&["vend", "cancel", "d2"]));
    refused(&create("listed", "other.txt", &[]), &["DEVICE_NOT_ON_ORDER", "\"d3\""]);
    daemon.end();
    fs::remove_file(site.path("codes.csv")).unwrap();
    assert!(!create("listed", "list.txt", &[]).status.success() && !site.path("codes.csv").exists());
}

/// All that is in a folder.
fn contents(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        all.extend(if path.is_dir() { contents(&path) } else { fs::read(&path).unwrap() });
    }
    all
}

/// A client without a certificate.
fn client(site: &Site) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate(&site.path("ca/station-ca.pem")))).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// One request on a connection of its own; the status and the body.
fn post(config: &Arc<ClientConfig>, port: u64, credentials: &str, csr: &[u8]) -> io::Result<(u16, String)> {
    let stream = TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap()))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let connection = ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap());
    let mut tls = StreamOwned::new(connection.map_err(io::Error::other)?, stream);
    let (credentials, body) = (BASE64_STANDARD.encode(credentials), BASE64_STANDARD.encode(csr));
    write!(
        tls,
        "POST /.well-known/est/device~o1/simpleenroll HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: \
         Basic {credentials}\r\nContent-Type: application/pkcs10\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    // Without a close_notify the answer is as whole as its length says.
    if let Err(error) = tls.read_to_string(&mut answer)
        && error.kind() != io::ErrorKind::UnexpectedEof
    {
        return Err(error);
    }
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
    let length = head.to_lowercase().split_once("content-length: ").map(|(_, rest)| rest.to_owned());
    let length = length.and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    match (status, length) {
        (Some(status), Some(length)) if length == body.len() => Ok((status, body.to_owned())),
        _ => Err(cut()),
    }
}

/// A thousand guesses at once open nothing, are hardly looked at, and are counted.
#[test]
fn thousand_parallel_guesses_are_refused_and_counted() {
    let (site, daemon) = site(10, "");
    let codes = codes(&site, "codes.csv", &["d1", "d2"], &[]);
    let (config, port) = (client(&site), port(&site));
    let request = csr("d1");
    let statuses = Mutex::new(HashMap::<u16, usize>::new());
    thread::scope(|scope| {
        for worker in 0..50 {
            let (config, statuses, request) = (&config, &statuses, &request);
            scope.spawn(move || {
                for guess in 0..20_u128 {
                    let guessed = birthmark::vending::Code::generate().unwrap().to_text();
                    let (status, _) = post(config, port, &format!("d1:{guessed}"), request)
                        .unwrap_or_else(|error| panic!("{worker} {guess}: {error}"));
                    *statuses.lock().unwrap().entry(status).or_default() += 1;
                }
            });
        }
    });
    let statuses = statuses.into_inner().unwrap();
    let of = |status: u16| statuses.get(&status).copied().unwrap_or_default();
    assert_eq!(of(401) + of(429), 1000, "{statuses:?}");
    // Ten of one device, and one more each half minute.
    assert!((10..40).contains(&of(401)), "{statuses:?}");
    assert_eq!(site.order("o1")["issued"], 0);
    assert_eq!(daemon.metric("birthmark_vending_guesses_total", &["result=\"limited\""]) as usize, of(429));
    assert!(site.log().contains("vending codes are being guessed"));
    // Another device, by the same address, as long as that has not guessed too much by itself.
    let (status, body) = post(&config, port, &format!("d2:{}", codes["d2"]), &csr("d2")).unwrap();
    assert_eq!(status, 200, "{body}");
    daemon.end();
}

/// Whatever is killed when, and however many ask at once with however many keys: one certificate a code (invariants 3 to 5).
#[test]
fn code_gives_one_certificate_however_often_killed() {
    let (site, daemon) = site(100, "");
    let names: Vec<_> = (0..8).map(|number| format!("d{number}")).collect();
    let codes = codes(&site, "codes.csv", &names.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let config = client(&site);
    let stop = AtomicBool::new(false);
    let given = Mutex::new(BTreeMap::<String, Vec<String>>::new());
    let address = Mutex::new(port(&site));
    thread::scope(|scope| {
        for (device, code) in &codes {
            for _ in 0..2 {
                let (config, stop, given, address) = (&config, &stop, &given, &address);
                scope.spawn(move || {
                    let request = csr(device);
                    while !stop.load(Ordering::Relaxed) {
                        let port = *address.lock().unwrap();
                        // A daemon that is killed gives no answer, or none that is whole.
                        if let Ok((200, body)) = post(config, port, &format!("{device}:{code}"), &request) {
                            given.lock().unwrap().entry(device.clone()).or_default().push(body);
                        }
                        thread::sleep(Duration::from_millis(20));
                    }
                });
            }
        }
        let mut daemon = daemon;
        for round in 0..4 {
            thread::sleep(Duration::from_millis(60 + 90 * round));
            daemon.kill();
            daemon = site.start();
            *address.lock().unwrap() = port(&site);
        }
        let all = || names.iter().all(|device| given.lock().unwrap().contains_key(device));
        crate::support::site::wait_until("every device has its certificate", all);
        stop.store(true, Ordering::Relaxed);
        daemon.end();
    });
    for (device, bodies) in given.into_inner().unwrap() {
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{device} got two certificates");
        let dump = succeeded(&site.token.birthmark(&["journal", "dump", "data", "--device", &device]));
        assert_eq!(dump.matches("\"event\":\"issued\"").count(), 1, "{dump}");
    }
    succeeded(&site.token.birthmark(&["journal", "verify", "data"]));
}
