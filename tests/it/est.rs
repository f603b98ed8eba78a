//! EST (RFC 7030, RFC 8951), judged by clients that are not ours: curl with OpenSSL, and strongSwan's pki.

mod shared;
mod vending;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::KeyPair;

use crate::support::{
    faults::Faults,
    site::{Daemon, Site, certificate, csr, csr_of, wait_until},
    token::{succeeded, text},
};

/// A site with EST and the order `o1`; `profile` are more lines of its profile.
fn site(quantity: u64, profile: &str) -> (Site, Daemon) {
    site_with(quantity, "", profile)
}

/// The same with more lines of the section `[est]`.
fn site_with(quantity: u64, est: &str, profile: &str) -> (Site, Daemon) {
    let site = Site::new();
    site.configure(|text| {
        let section = format!("[est]\nlisten = \"127.0.0.1:0\"\n{est}\n[ledger]\n");
        text.replace("[ledger]\n", &section) + profile
    });
    let daemon = site.start();
    site.create_order("o1", quantity);
    (site, daemon)
}

fn port(site: &Site) -> u64 {
    let ready: serde_json::Value = serde_json::from_slice(&fs::read(site.path("ready.json")).unwrap()).unwrap();
    ready["est"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

/// An answer over HTTP.
struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    fn must_be(&self, status: u16, says: &str) {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{body}");
        assert!(body.contains(says) || self.headers.to_lowercase().contains(says), "{says:?}: {}{body}", self.headers);
    }

    /// The one certificate of a certs-only answer, DER, as OpenSSL finds it.
    #[track_caller]
    fn certificate(&self, site: &Site) -> Vec<u8> {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        assert!(self.headers.to_lowercase().contains("content-type: application/pkcs7-mime; smime-type=certs-only"));
        let certificates = certificates(site, &self.body);
        assert_eq!(certificates.len(), 1);
        certificates[0].clone()
    }
}

/// The certificates of base64 CMS, as OpenSSL finds them, in their order.
fn certificates(site: &Site, body: &[u8]) -> Vec<Vec<u8>> {
    let compact: Vec<u8> = body.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    fs::write(site.path("answer.p7"), BASE64_STANDARD.decode(compact).unwrap()).unwrap();
    site.token.openssl(&["cms", "-cmsout", "-inform", "DER", "-in", "answer.p7", "-noout", "-print"]);
    let pem = site.token.openssl(&["pkcs7", "-inform", "DER", "-in", "answer.p7", "-print_certs"]);
    pem::parse_many(pem).unwrap().into_iter().map(|block| block.into_contents()).collect()
}

/// curl, with the client certificate and key of a folder (`cert.pem`, `key.pem`) if one is given.
fn curl(site: &Site, identity: Option<&Path>, path: &str, more: &[&str]) -> Answer {
    let mut command = Command::new("curl");
    command.current_dir(site.path("")).args([
        "-s",
        "-S",
        "--cacert",
        "ca/station-ca.pem",
        "-D",
        "headers",
        "-o",
        "body",
    ]);
    if let Some(identity) = identity {
        command.arg("--cert").arg(identity.join("cert.pem")).arg("--key").arg(identity.join("key.pem"));
    }
    command.args(["-w", "%{http_code}"]).args(more);
    let _ = fs::remove_file(site.path("body"));
    let run = command.arg(format!("https://localhost:{}/.well-known/est/{path}", port(site))).output().unwrap();
    let status = succeeded(&run).parse().unwrap();
    let headers = fs::read_to_string(site.path("headers")).unwrap();
    Answer { status, headers, body: fs::read(site.path("body")).unwrap_or_default() }
}

/// Enrols with a CSR, DER.
fn enroll(site: &Site, identity: Option<&Path>, path: &str, csr: &[u8], more: &[&str]) -> Answer {
    fs::write(site.path("request"), BASE64_STANDARD.encode(csr)).unwrap();
    let post = ["-H", "Content-Type: application/pkcs10", "--data-binary", "@request"];
    curl(site, identity, path, &[&post, more].concat())
}

/// A CSR with the subject of the device's certificate, as RFC 7030 demands of who enrols again.
fn again_csr(key: &KeyPair, device: &str) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "Acme");
    params.distinguished_name.push(rcgen::DnType::CommonName, device);
    params.serialize_request(key).unwrap().der().to_vec()
}

/// A folder with a device's certificate and key, as a client of TLS has them.
fn device_identity(site: &Site, name: &str, der: &[u8], key: &KeyPair) -> PathBuf {
    site.token.write(&format!("{name}/cert.pem"), &pem::encode(&pem::Pem::new("CERTIFICATE", der)));
    site.token.write_secret(&format!("{name}/key.pem"), &key.serialize_pem());
    site.path(name)
}

/// HTTP/1.1 and 2, base64 with and without line breaks: the same certificate, which is the ledger's and verifies under the
/// chain that cacerts has.
#[test]
fn station_enrolls_devices_as_registration_authority() {
    let (site, daemon) = site(10, "");
    let station = site.identity("station", "line1/t1");
    let request = csr("d1");
    let first = enroll(&site, Some(&station), "device~o1/simpleenroll", &request, &["--http1.1"]).certificate(&site);
    let again = enroll(&site, Some(&station), "device~o1/simpleenroll", &request, &["--http2"]);
    assert!(again.headers.starts_with("HTTP/2 200"), "{}", again.headers);
    assert_eq!(again.certificate(&site), first);
    // With line breaks, and as PEM, as some clients send it.
    let text = BASE64_STANDARD.encode(&request);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\r\n").collect::<String>();
    for body in [lines, pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", request.clone()))] {
        site.token.write("lines", &body);
        let post = ["-H", "Content-Type: application/pkcs10; charset=x", "--data-binary", "@lines"];
        assert_eq!(curl(&site, Some(&station), "device~o1/simpleenroll", &post).certificate(&site), first);
    }
    let record = succeeded(&site.operator(&["record", "show", "d1", "--json"]));
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!([&record["order"], &record["station"]], ["o1", "line1/t1"], "{record}");
    assert_eq!(pem::parse(record["certificate_pem"].as_str().unwrap()).unwrap().contents(), first);
    assert_eq!(site.order("o1")["issued"], 1);
    // It is one of the stations that ops and the page see.
    let of = |name: &str| daemon.metric(name, &["station=\"line1/t1\""]);
    assert_eq!(of("birthmark_station_certificates_total"), 4.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - of("birthmark_station_last_contact_timestamp_seconds")).abs() < 120.0);
    wait_until("its connections are over", || of("birthmark_station_connected") == 0.0);

    // Everybody may have the chain: the whole one, and nobody else's.
    let chain = curl(&site, None, "device/cacerts", &[]);
    assert_eq!(chain.status, 200);
    let chain = certificates(&site, &chain.body);
    assert_eq!(chain, [certificate(&site.path("ca/issuer.pem")), certificate(&site.path("ca/root.pem"))]);
    assert_eq!(certificates(&site, &curl(&site, None, "cacerts", &[]).body).len(), 2);
    // The key types, as ASN.1.
    let attributes = curl(&site, None, "device/csrattrs", &[]);
    attributes.must_be(200, "application/csrattrs");
    let compact: Vec<u8> = attributes.body.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    fs::write(site.path("attributes"), BASE64_STANDARD.decode(compact).unwrap()).unwrap();
    let shown = site.token.openssl(&["asn1parse", "-inform", "DER", "-in", "attributes"]);
    assert!(shown.contains("id-ecPublicKey") && shown.contains("prime256v1"), "{shown}");
    daemon.end();
}

/// RFC 7030's statuses, one by one, each with a sentence.
#[test]
fn est_refusal_has_its_status_and_a_sentence() {
    let (site, daemon) = site(1, "");
    let station = site.identity("station", "line1/t1");
    let enroll = |csr: &[u8], more: &[&str]| enroll(&site, Some(&station), "device~o1/simpleenroll", csr, more);
    let ask = |path: &str, more: &[&str]| curl(&site, Some(&station), path, more);
    enroll(&csr("d1"), &[]).certificate(&site);

    enroll(&csr("d2"), &[]).must_be(403, "ORDER_EXHAUSTED");
    enroll(b"no CSR", &[]).must_be(400, "CSR_MALFORMED");
    enroll(&csr("no id"), &[]).must_be(400, "names no device");
    enroll(&csr("d1"), &[]).must_be(409, "DEVICE_HAS_CERTIFICATE");
    let fixture = fs::read(crate::support::fixtures::fixture("bad/signed-by-another-key.der")).unwrap();
    enroll(&fixture, &[]).must_be(400, "POP_INVALID");
    let post = ["-H", "Content-Type: application/pkcs10", "--data-binary"];
    ask("device~o1/simpleenroll", &[&post[..], &["%%%"]].concat()).must_be(400, "not base64");
    site.token.write("long", &"A".repeat(50_000));
    ask("device~o1/simpleenroll", &[&post[..], &["@long"]].concat()).must_be(413, "too long");
    ask("device~o1/simpleenroll", &["-d", "x=y"]).must_be(415, "application/pkcs10");
    ask("device~o1/simpleenroll", &[]).must_be(405, "allow: post");
    ask("device~o1/cacerts", &["-d", "x"]).must_be(405, "allow: get");
    ask("simpleenroll", &[&post[..], &["AAAA"]].concat()).must_be(400, "say which profile");
    ask("device~/csrattrs", &[]).must_be(400, "not a label");
    ask("nothing/csrattrs", &[]).must_be(404, "no profile");
    ask("device/serverkeygen", &["-d", "x"]).must_be(404, "simplereenroll");
    super::est::enroll(&site, Some(&station), "device~o9/simpleenroll", &csr("d3"), &[]).must_be(404, "ORDER_UNKNOWN");

    // Strangers, and peers with another role.
    let nobody = super::est::enroll(&site, None, "device~o1/simpleenroll", &csr("d4"), &[]);
    nobody.must_be(401, "www-authenticate: basic realm=");
    let operator = site.identity("operator", "anna");
    super::est::enroll(&site, Some(&operator), "device~o1/simpleenroll", &csr("d4"), &[]).must_be(403, "role station");
    assert!(daemon.metric("birthmark_est_requests_total", &["operation=\"simpleenroll\"", "status=\"401\""]) >= 1.0);
    site.create_order("o2", 5);
    daemon.end();

    // What may pass says when to come again.
    site.configure(|text| {
        let text = text.replace("[ledger]\n", "[ledger]\nmin_free_mib = 4294967295\n");
        text.replace("[ledger]\n", "[est]\nlisten = \"127.0.0.1:0\"\n\n[ledger]\n")
    });
    let daemon = site.start();
    let away = super::est::enroll(&site, Some(&station), "device~o2/simpleenroll", &csr("d5"), &[]);
    away.must_be(503, "retry-after: ");
    daemon.end();
}

/// While the HSM is away an enrolment is refused for now, and the same one gives the certificate when it is back: one.
#[test]
fn est_while_the_hsm_is_away_says_when_to_come_again() {
    let site = Site::new();
    let faults = Faults::between(&site, "sessions = 2\ncall_limit_seconds = 1\nwait_seconds = 1");
    let text = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    let with_est = text.replace("[ledger]\n", "[est]\nlisten = \"127.0.0.1:0\"\n\n[ledger]\n");
    site.token.write("birthmark.toml", &with_est);
    let daemon = site.start();
    site.create_order("o1", 2);
    let station = site.identity("station", "line1/t1");
    let ask = |csr: &[u8]| enroll(&site, Some(&station), "device~o1/simpleenroll", csr, &[]);
    ask(&csr("d1")).certificate(&site);
    faults.set("fail * CKR_DEVICE_ERROR");
    let request = csr("d2");
    let away = ask(&request);
    away.must_be(503, "HSM_UNAVAILABLE");
    let headers = away.headers.to_lowercase();
    let after = headers.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!((1..=60).contains(&after.trim().parse::<u64>().unwrap()), "{after}");
    // What needs no key is there all the same.
    assert_eq!(curl(&site, None, "device/cacerts", &[]).status, 200);
    faults.set("");
    wait_until("the HSM is back", || ask(&request).status == 200);
    let certificate = ask(&request).certificate(&site);
    assert_eq!(ask(&request).certificate(&site), certificate);
    assert_eq!(site.order("o1")["issued"], 2);
    daemon.end();
}

/// A device enrols again by its live certificate alone: for the same key it gets what it has, for a new one only where the
/// profile allows renewal, and then the old one is superseded.
#[test]
fn device_enrolls_again_by_its_live_certificate() {
    let (site, daemon) = site(
        10,
        "renewal = true\n\n[profiles.fixed]\nissuer = \"main\"\nsubject = [\"CN={device_id}\"]\nvalidity_days = 7300\norder_requirement = \"optional\"\nsubject_alt_names = [\"uri:urn:birthmark:station:line1/{device_id}\"]\n",
    );
    let station = site.identity("station", "line1/t1");
    let (old, new, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let first = enroll(&site, Some(&station), "device~o1/simpleenroll", &again_csr(&old, "d1"), &[]).certificate(&site);
    let device = device_identity(&site, "d1", &first, &old);
    let again = |csr: &[u8]| enroll(&site, Some(&device), "device/simplereenroll", csr, &[]);
    assert_eq!(again(&again_csr(&old, "d1")).certificate(&site), first);
    again(&again_csr(&old, "d2")).must_be(400, "subject");
    enroll(&site, Some(&device), "device/simpleenroll", &again_csr(&new, "d1"), &[]).must_be(403, "simplereenroll");

    let second = again(&again_csr(&new, "d1")).certificate(&site);
    assert_ne!(second, first);
    // The reply was lost: the old certificate and the new key once more.
    assert_eq!(again(&again_csr(&new, "d1")).certificate(&site), second);
    again(&again_csr(&other, "d1")).must_be(403, "not live");
    let renewed = device_identity(&site, "d1-new", &second, &new);
    let by_new = enroll(&site, Some(&renewed), "device/simplereenroll", &again_csr(&new, "d1"), &[]);
    assert_eq!(by_new.certificate(&site), second);
    let dump = succeeded(&site.token.birthmark(&["journal", "dump", "data", "--device", "d1"]));
    assert!(dump.contains("superseded") && dump.contains("\"actor\":\"device:d1\""), "{dump}");
    assert_eq!((&site.order("o1")["issued"], &site.order("o1")["revoked"]), (&2.into(), &1.into()));
    succeeded(&site.token.birthmark(&["journal", "verify", "data"]));

    // Where the profile does not allow it; and a device whose name is a station's is none.
    let key = KeyPair::generate().unwrap();
    let fixed = enroll(&site, Some(&station), "fixed/simpleenroll", &csr_of(&key, "t1"), &[]).certificate(&site);
    let fixed = device_identity(&site, "fixed", &fixed, &key);
    enroll(&site, Some(&fixed), "fixed/simplereenroll", &csr_of(&new, "t1"), &[]).must_be(403, "renewed");
    enroll(&site, Some(&fixed), "device~o1/simpleenroll", &csr("d9"), &[]).must_be(403, "enrols again");
    succeeded(&site.operator(&["record", "scrap", "t1", "--reason", "cracked"]));
    enroll(&site, Some(&fixed), "fixed/simplereenroll", &csr_of(&key, "t1"), &[]).must_be(403, "scrapped");
    // The station, as registration authority, may have it made again.
    let key = KeyPair::generate().unwrap();
    enroll(&site, Some(&station), "fixed/simplereenroll", &csr_of(&key, "t1"), &[]).certificate(&site);
    daemon.end();
}

/// strongSwan's client.
fn pki(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new("pki");
    let run = command.args(arguments).current_dir(site.path("")).output();
    run.expect("pki (Debian: strongswan-pki) must be installed")
}

#[test]
fn strongswan_gets_chain_and_certificate() {
    // It knows no labels.
    let (site, daemon) = site_with(10, "default_label = \"device~o1\"\n", "");
    let url = format!("https://localhost:{}", port(&site));
    let station = site.identity("station", "line1/t1");
    fs::write(site.path("request.der"), csr("d1")).unwrap();
    let [certificate_file, key] = ["cert.pem", "key.pem"].map(|name| station.join(name).display().to_string());
    let (common, station) =
        (["--cacert", "ca/station-ca.pem"], ["--cert", certificate_file.as_str(), "--key", key.as_str()]);
    let chain = ["--estca", "--url", &url, "--caout", "est-ca.pem", "--outform", "pem"];
    let fetched = pki(&site, &[&chain[..], &common].concat());
    assert!(fetched.status.success(), "{}", text(&fetched.stderr));
    let enrol = ["--est", "--url", &url, "--in", "request.der", "--outform", "pem", "--cacert", "ca/issuer.pem"];
    let root = ["--cacert", "ca/root.pem"];
    let enrolled = pki(&site, &[&enrol[..], &common, &root, &station].concat());
    assert!(enrolled.status.success(), "{}", text(&enrolled.stderr));
    assert_eq!(site.order("o1")["issued"], 1);
    site.token.write("d1.pem", &text(&enrolled.stdout));
    let record = succeeded(&site.operator(&["record", "show", "d1", "--pem"]));
    assert_eq!(certificate(&site.path("d1.pem")), pem::parse(record).unwrap().contents());
    daemon.end();
}

/// What the daemon holds for clients that do nothing is little, and others are served meanwhile.
#[test]
fn silent_clients_of_est_keep_nobody_out() {
    let (site, daemon) = site(10, "");
    let port = u16::try_from(port(&site)).unwrap();
    let silent: Vec<_> = (0..600).map(|_| std::net::TcpStream::connect(("127.0.0.1", port))).collect();
    let station = site.identity("station", "line1/t1");
    enroll(&site, Some(&station), "device~o1/simpleenroll", &csr("d1"), &["--max-time", "20"]).certificate(&site);
    drop(silent);
    daemon.end();
}

/// A body that does not come is answered, in time, and not waited for.
#[test]
fn est_body_that_does_not_arrive_is_a_timeout() {
    use std::io::{Read, Write};
    let (site, daemon) = site(1, "");
    let station = site.identity("station", "line1/t1");
    let mut client = Command::new("openssl");
    client.current_dir(site.path("")).args(["s_client", "-quiet", "-connect", &format!("localhost:{}", port(&site))]);
    client.args(["-CAfile", "ca/station-ca.pem"]).arg("-cert").arg(station.join("cert.pem"));
    client.arg("-key").arg(station.join("key.pem"));
    client.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut client = client.spawn().unwrap();
    let mut input = client.stdin.take().unwrap();
    let head = "POST /.well-known/est/device~o1/simpleenroll HTTP/1.1\r\nHost: localhost\r\nContent-Type: \
                application/pkcs10\r\nContent-Length: 900\r\n\r\nMIIB";
    input.write_all(head.as_bytes()).unwrap();
    let began = std::time::Instant::now();
    let mut answer = [0; 64];
    let read = client.stdout.take().unwrap().read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!((9..20).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    client.kill().unwrap();
    client.wait().unwrap();
    daemon.end();
}

/// What EST refuses is in the ledger like what the streams refuse: by station, order, reason and device.
#[test]
fn est_refusal_is_recorded_in_the_ledger() {
    let (site, daemon) = site(1, "");
    let station = site.identity("station", "line1/t1");
    enroll(&site, Some(&station), "device~o1/simpleenroll", &csr("d1"), &[]).certificate(&site);
    enroll(&site, Some(&station), "device~o1/simpleenroll", &csr("d1"), &[]).must_be(409, "DEVICE_HAS_CERTIFICATE");
    enroll(&site, Some(&station), "device~o1/simpleenroll", &csr("d2"), &[]).must_be(403, "ORDER_EXHAUSTED");
    daemon.end();
    let dump = succeeded(&site.token.birthmark(&["journal", "dump", "data"]));
    let recorded: Vec<_> = dump.lines().filter(|line| line.contains("\"refused\"")).collect();
    for words in [["DEVICE_HAS_CERTIFICATE", "d1"], ["ORDER_EXHAUSTED", "o1"]] {
        let found =
            recorded.iter().any(|line| line.contains("line1/t1") && words.iter().all(|word| line.contains(word)));
        assert!(found, "{words:?}: {recorded:?}");
    }
}
