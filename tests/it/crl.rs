//! Revocation lists, from the revocation to what other programs make of the list.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use birthmark::proto::IssuedCertificate;
use jiff::{SignedDuration, Timestamp};

use crate::support::{
    faults::Faults,
    site::{Daemon, Port, Site, csr, csr_of, request, wait_until},
    token::{succeeded, text},
};

/// How the usual configuration makes lists in these tests.
const LISTS: &str = "\n[crl]\nfolder = \"www\"\ninterval = \"1h\"\nvalid = \"1d\"\ngather = \"1s\"\n";

/// An answer of the HTTP port: status, head, body.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

fn ask(daemon: &Daemon, method: &str, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(daemon.http).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = text(&answer[..end]);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: answer[end + 4..].to_vec() }
}

fn site_with_lists(lists: &str, change: impl FnOnce(String) -> String) -> Site {
    let site = Site::new();
    site.configure(|usual| change(usual) + lists);
    site
}

async fn issue(site: &Site, daemon: &Daemon, devices: &[&str]) -> Vec<IssuedCertificate> {
    let mut stream = site.stream(daemon, "line1/t1").await;
    let mut issued = Vec::new();
    for device in devices {
        issued.push(stream.ask(request(device, "o1", csr(device))).await.issued());
        let der = &issued.last().unwrap().certificate;
        fs::write(site.path(&format!("{device}.der")), der).unwrap();
        site.token.openssl(&[
            "x509",
            "-inform",
            "DER",
            "-in",
            &format!("{device}.der"),
            "-out",
            &format!("{device}.pem"),
        ]);
    }
    issued
}

/// The list as the port serves it, in `list.der` and `list.pem`.
fn fetch(site: &Site, daemon: &Daemon, path: &str) -> Option<u64> {
    let answer = ask(daemon, "GET", path, "");
    if answer.status != 200 {
        return None;
    }
    fs::write(site.path("list.der"), &answer.body).unwrap();
    site.token.openssl(&["crl", "-inform", "DER", "-in", "list.der", "-out", "list.pem"]);
    number(&shown(site))
}

fn shown(site: &Site) -> String {
    text(&openssl(site, &["crl", "-in", "list.pem", "-noout", "-text", "-crlnumber"]).stdout)
}

fn number(shown: &str) -> Option<u64> {
    let hex = shown.lines().find_map(|line| line.strip_prefix("crlNumber=0x").or(line.strip_prefix("crlNumber=")))?;
    u64::from_str_radix(hex, 16).ok()
}

fn openssl(site: &Site, arguments: &[&str]) -> std::process::Output {
    Command::new("openssl").args(arguments).current_dir(site.path("")).output().unwrap()
}

/// Whether OpenSSL takes a device's certificate beside the fetched list; what it said otherwise.
fn openssl_takes(site: &Site, device: &str) -> Result<(), String> {
    let file = format!("{device}.pem");
    let run = openssl(
        site,
        &[
            "verify",
            "-crl_check",
            "-x509_strict",
            "-CAfile",
            "ca/root.pem",
            "-untrusted",
            "ca/issuer.pem",
            "-CRLfile",
            "list.pem",
            &file,
        ],
    );
    if run.status.success() { Ok(()) } else { Err(text(&run.stderr) + &text(&run.stdout)) }
}

fn revoke(site: &Site, device: &str) {
    succeeded(&site.operator(&["record", "revoke", device, "--reason", "keyCompromise"]));
}

/// A revocation is on the published list within five seconds, OpenSSL and GnuTLS judge by it, a scrapped certificate is
/// there too and can be revoked afterwards, and the folder has what the port serves.
#[tokio::test(flavor = "multi_thread")]
async fn crl_has_a_revocation_within_five_seconds() {
    let site = site_with_lists(LISTS, |usual| usual);
    let daemon = site.start();
    site.create_order("o1", 100);
    issue(&site, &daemon, &["live", "gone", "broken"]).await;
    wait_until("the first list", || fetch(&site, &daemon, "/crl/main.crl").is_some());
    let first = fetch(&site, &daemon, "/crl/main.crl").unwrap();
    for device in ["live", "gone", "broken"] {
        openssl_takes(&site, device).unwrap();
    }

    revoke(&site, "gone");
    let begun = Instant::now();
    wait_until("the next list", || fetch(&site, &daemon, "/crl/main.crl").unwrap() > first);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let refused = openssl_takes(&site, "gone").unwrap_err();
    assert!(refused.contains("revoked"), "{refused}");
    openssl_takes(&site, "live").unwrap();
    assert!(shown(&site).contains("Key Compromise"), "{}", shown(&site));

    let second = fetch(&site, &daemon, "/crl/main.crl").unwrap();
    succeeded(&site.operator(&["record", "scrap", "broken", "--reason", "cracked"]));
    wait_until("the scrapped one", || fetch(&site, &daemon, "/crl/main.crl").unwrap() > second);
    assert!(shown(&site).contains("Cessation Of Operation"), "{}", shown(&site));
    openssl_takes(&site, "broken").unwrap_err();
    let third = fetch(&site, &daemon, "/crl/main.crl").unwrap();
    revoke(&site, "broken");
    wait_until("the revoked one", || fetch(&site, &daemon, "/crl/main.crl").unwrap() > third);
    assert!(!shown(&site).contains("Cessation Of Operation"), "{}", shown(&site));

    gnutls_judges(&site);
    assert_eq!(fs::read(site.path("www/crl/main.crl")).unwrap(), fs::read(site.path("list.der")).unwrap());
    assert_eq!(fs::read(site.path("www/ca/main.cer")).unwrap(), ask(&daemon, "GET", "/ca/main.cer", "").body);
    let metrics = daemon.get("/metrics").1;
    assert!(metrics.contains("birthmark_crl_entries{issuer=\"main\"} 2"), "{metrics}");
    daemon.end();
    let counts = succeeded(&site.token.birthmark(&["journal", "verify", "data", "--json"]));
    let counts: serde_json::Value = serde_json::from_str(&counts).unwrap();
    assert!(counts["counts"]["crls"].as_u64().unwrap() >= 4, "{counts}");
}

/// GnuTLS verifies the fetched list, and takes the live certificate and not the revoked one.
fn gnutls_judges(site: &Site) {
    let certtool = |arguments: &[&str]| {
        let run = Command::new("certtool").args(arguments).current_dir(site.path("")).output().unwrap();
        text(&run.stdout) + &text(&run.stderr)
    };
    let verified = certtool(&["--verify-crl", "--load-ca-certificate", "ca/issuer.pem", "--infile", "list.pem"]);
    assert!(verified.contains("Verified"), "{verified}");
    let of = |device: &str| {
        let chain = [format!("{device}.pem"), "ca/issuer.pem".into(), "ca/root.pem".into()];
        let chain: String = chain.iter().map(|file| fs::read_to_string(site.path(file)).unwrap()).collect();
        fs::write(site.path("chain.pem"), chain).unwrap();
        certtool(&[
            "--verify",
            "--load-ca-certificate",
            "ca/issuer.pem",
            "--load-crl",
            "list.pem",
            "--infile",
            "chain.pem",
        ])
    };
    let (live, gone) = (of("live"), of("gone"));
    assert!(live.contains("Chain verification output: Verified"), "{live}");
    assert!(gone.contains("revoked"), "{gone}");
    assert!(go_judges(site, &["live", "gone"]).unwrap().contains("live.pem: good\ngone.pem: revoked 1"));
}

/// What caches need: ETag, Last-Modified, Cache-Control, 304 and HEAD; and what is not there.
#[tokio::test(flavor = "multi_thread")]
async fn crl_over_http_is_what_caches_need() {
    let site = site_with_lists(LISTS, |usual| usual);
    let daemon = site.start();
    wait_until("the first list", || fetch(&site, &daemon, "/crl/main.crl").is_some());
    let whole = ask(&daemon, "GET", "/crl/main.crl", "");
    assert_eq!(whole.header("content-type"), Some("application/pkix-crl"));
    assert_eq!(whole.header("cache-control"), Some("public, max-age=3600"));
    let (tag, date) = (whole.header("etag").unwrap(), whole.header("last-modified").unwrap());
    for header in [format!("If-None-Match: {tag}\r\n"), format!("If-Modified-Since: {date}\r\n")] {
        let again = ask(&daemon, "GET", "/crl/main.crl", &header);
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(tag)), "{header}");
    }
    assert_eq!(ask(&daemon, "GET", "/crl/main.crl", "If-None-Match: \"other\"\r\n").status, 200);
    let head = ask(&daemon, "HEAD", "/crl/main.crl", "");
    let length = whole.body.len().to_string();
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, Some(length.as_str())));
    let ca = ask(&daemon, "GET", "/ca/main.cer", "");
    assert_eq!((ca.status, ca.header("content-type")), (200, Some("application/pkix-cert")));
    for path in ["/crl/other.crl", "/crl/../ca/main.cer", "/crl/main.crl/", "/ca/", "/crl/%2e%2e/data"] {
        assert_eq!(ask(&daemon, "GET", path, "").status, 404, "{path}");
    }
    daemon.end();
}

/// A daemon that is killed at any moment never uses a number again or a lower one, and what was published is served at once
/// by the next daemon.
#[tokio::test(flavor = "multi_thread")]
async fn crl_numbers_rise_across_kills() {
    let site = site_with_lists(&LISTS.replace("\"1s\"", "\"0s\""), |usual| usual);
    let mut newest = 0;
    for round in 0..4_u64 {
        let mut daemon = site.start();
        if round == 0 {
            site.create_order("o1", 100);
        } else {
            let served = fetch(&site, &daemon, "/crl/main.crl").expect("the list of the run before is served at once");
            assert!(served >= newest, "{served} after {newest}");
        }
        let device = format!("d{round}");
        issue(&site, &daemon, &[&device]).await;
        wait_until("a list", || fetch(&site, &daemon, "/crl/main.crl").is_some());
        revoke(&site, &device);
        std::thread::sleep(Duration::from_millis(100 * round));
        newest = fetch(&site, &daemon, "/crl/main.crl").unwrap();
        daemon.kill();
    }
    fs::remove_dir_all(site.path("data/index")).unwrap();
    let daemon = site.start();
    wait_until("all revocations", || {
        fetch(&site, &daemon, "/crl/main.crl");
        shown(&site).matches("Serial Number:").count() == 4
    });
    daemon.end();
    let dumped = succeeded(&site.token.birthmark(&["journal", "dump", "data"]));
    let numbers = dumped.lines().filter_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        (entry["event"] == "crl_issued").then(|| entry["number"].as_u64().unwrap())
    });
    let numbers: Vec<_> = numbers.collect();
    assert!(numbers.len() >= 5 && numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

/// The Go judge's answer about the fetched list.
fn go_judges(site: &Site, devices: &[&str]) -> Result<String, String> {
    let judge = concat!(env!("CARGO_MANIFEST_DIR"), "/target/go-judge");
    let files = devices.iter().map(|device| format!("{device}.pem"));
    let run = Command::new(judge)
        .args(["crl", "ca/issuer.pem", "list.der"])
        .args(files)
        .current_dir(site.path(""))
        .output()
        .expect("target/go-judge, which `make test` builds");
    if run.status.success() { Ok(text(&run.stdout)) } else { Err(text(&run.stderr)) }
}

/// Four lists instead of one: each certificate names its own, OpenSSL and Go take it with that list and with no other, and
/// the number of shards stays what it was.
#[tokio::test(flavor = "multi_thread")]
async fn crl_shard_is_the_one_its_certificates_name() {
    let site = site_with_lists(LISTS, |usual| {
        let points = "crl_distribution_points = [\"http://pki.example/crl/main-1/{crl_shard}.crl\"]\n";
        let usual = usual.replace("[issuers.main]\n", "[issuers.main]\ncrl_shards = 4\n");
        usual.replace("[profiles.device]\n", &format!("[profiles.device]\n{points}"))
    });
    let daemon = site.start();
    site.create_order("o1", 100);
    let devices = ["a", "b", "c", "d", "e", "f", "g", "h"];
    issue(&site, &daemon, &devices).await;
    let path = |shard: usize| format!("/crl/main-1/{shard}.crl");
    for shard in 0..4 {
        wait_until("every list", || fetch(&site, &daemon, &path(shard)).is_some());
    }
    let shard_of = |device: &str| {
        let shown = text(&openssl(&site, &["x509", "-in", &format!("{device}.pem"), "-noout", "-text"]).stdout);
        let url =
            shown.lines().find_map(|line| line.trim().strip_prefix("URI:http://pki.example/crl/main-1/")).unwrap();
        url.strip_suffix(".crl").unwrap().parse::<usize>().unwrap()
    };
    for device in devices {
        let own = shard_of(device);
        for shard in 0..4 {
            fetch(&site, &daemon, &path(shard)).unwrap();
            assert_eq!(openssl_takes(&site, device).is_ok(), shard == own, "{device} {shard}");
            assert_eq!(go_judges(&site, &[device]).is_ok(), shard == own, "{device} {shard}");
        }
    }
    revoke(&site, "c");
    let own = shard_of("c");
    wait_until("the shard has it", || {
        fetch(&site, &daemon, &path(own)).unwrap();
        go_judges(&site, &["c"]).unwrap().contains("c.pem: revoked 1")
    });
    assert!(openssl_takes(&site, "c").unwrap_err().contains("revoked"));
    assert_eq!(ask(&daemon, "GET", "/crl/main.crl", "").status, 404);
    daemon.end();
    let told = succeeded(&site.token.birthmark(&[
        "crl",
        "write",
        "--config",
        "birthmark.toml",
        "--issuer",
        "main",
        "--out",
        "u",
    ]));
    assert_eq!(told.lines().count(), 5, "{told}");
    let shown = ["crl", "show", &format!("u/crl/main/{own}.crl"), "--json"];
    let shown: serde_json::Value = serde_json::from_str(&succeeded(&site.token.birthmark(&shown))).unwrap();
    assert_eq!(shown["entries"][0]["reason"], "keyCompromise", "{shown}");

    let configured = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    site.token.write("birthmark.toml", &configured.replace("crl_shards = 4", "crl_shards = 8"));
    let said = site.refuse_to_start();
    assert!(said.contains("divided among 4 revocation list"), "{said}");
}

/// While the HSM is away the last list stays served, and `/readyz` says so before it expires.
#[tokio::test(flavor = "multi_thread")]
async fn crl_without_the_hsm_stays_and_is_told() {
    let lists = LISTS.replace("\"1h\"", "\"1s\"").replace("\"1d\"", "\"10s\"");
    let site = Site::new();
    let faults = Faults::between(&site, "");
    let configured = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    site.token.write("birthmark.toml", &(configured + &lists));
    let daemon = site.start();
    wait_until("the first list", || fetch(&site, &daemon, "/crl/main.crl").is_some());
    let told =
        |what: &str| daemon.get("/readyz").1.lines().any(|line| line.starts_with("degraded: ") && line.contains(what));
    let logged =
        |what: &str| site.log().lines().any(|line| line.contains(what) && line.contains("revocation list of issuer"));
    faults.set("fail C_Sign CKR_DEVICE_ERROR");
    wait_until("it is told", || told(" expires at "));
    wait_until("it is logged", || logged(" degraded"));
    assert!(fetch(&site, &daemon, "/crl/main.crl").is_some());
    faults.set("");
    wait_until("it is over", || daemon.get("/readyz") == (200, "ready\n".to_owned()));
    wait_until("that is logged", || logged("no longer degraded"));
    daemon.end();
}

/// The entry of a certificate that expires stays for one list that was made afterwards, and then leaves (RFC 5280 section
/// 3.3).
#[tokio::test(flavor = "multi_thread")]
async fn crl_has_an_expired_certificate_once_more() {
    let site = Site::new();
    let expiry = Timestamp::now().round(jiff::Unit::Second).unwrap() + SignedDuration::from_secs(20);
    let lists = LISTS.replace("gather = \"1s\"", "gather = \"0s\"").replace("\"1h\"", "\"1s\"");
    site.configure(|usual| usual.replace("validity_days = 7300", &format!("not_after = \"{expiry}\"")) + &lists);
    let daemon = site.start();
    site.create_order("o1", 1);
    issue(&site, &daemon, &["short"]).await;
    revoke(&site, "short");
    let listed = || fetch(&site, &daemon, "/crl/main.crl").is_some_and(|_| shown(&site).contains("Serial Number:"));
    wait_until("the list has it", listed);
    wait_until("a list without it", || !listed());
    daemon.end();
    let dumped = succeeded(&site.token.birthmark(&["journal", "dump", "data"]));
    let lists = dumped.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let after = lists.filter(|entry| entry["event"] == "crl_issued").filter_map(|entry| {
        let made: Timestamp = entry["this_update"].as_str().unwrap().parse().unwrap();
        (made > expiry).then(|| entry["entries"].as_u64().unwrap())
    });
    // Lists have times in whole seconds, so the second one may be of the same second as the first.
    let after: Vec<_> = after.collect();
    assert!(after.starts_with(&[1, 0]) || after.starts_with(&[1, 1, 0]), "{after:?}");
}

/// A daemon serves the list of the run before from its start, though the HSM signs nothing any more once its key was tried.
#[tokio::test(flavor = "multi_thread")]
async fn crl_of_the_last_run_is_served_until_there_is_a_new_one() {
    let site = Site::new();
    site.configure(|usual| usual + LISTS);
    let faults = Faults::in_configuration(&site, "sessions = 1\nwait_seconds = 1");
    let daemon = site.start();
    wait_until("the first list", || fetch(&site, &daemon, "/crl/main.crl").is_some());
    let number = fetch(&site, &daemon, "/crl/main.crl");
    daemon.end();
    faults.set_before_start("fail C_Sign CKR_DEVICE_ERROR calls 2..1000000");
    let daemon = site.start();
    wait_until("a new list fails", || site.log().contains("no revocation list; trying again"));
    assert_eq!(fetch(&site, &daemon, "/crl/main.crl"), number);
    daemon.end();
}

/// Mosquitto with the list as `crlfile` refuses a revoked device and takes a live one.
#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_refuses_a_revoked_device_and_takes_a_live_one() {
    let site = site_with_lists(LISTS, |usual| usual);
    let daemon = site.start();
    site.create_order("o1", 100);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    for device in ["live", "gone"] {
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(site.path(&format!("{device}.key")), key.serialize_pem()).unwrap();
        let issued = stream.ask(request(device, "o1", csr_of(&key, device))).await.issued();
        fs::write(site.path(&format!("{device}.der")), &issued.certificate).unwrap();
        site.token.openssl(&[
            "x509",
            "-inform",
            "DER",
            "-in",
            &format!("{device}.der"),
            "-out",
            &format!("{device}.pem"),
        ]);
    }
    revoke(&site, "gone");
    wait_until("the list has it", || {
        fetch(&site, &daemon, "/crl/main.crl").is_some() && shown(&site).contains("Serial Number:")
    });
    daemon.end();

    let port = Port::hold().unwrap();
    let cas = fs::read_to_string(site.path("ca/root.pem")).unwrap()
        + &fs::read_to_string(site.path("ca/issuer.pem")).unwrap();
    fs::write(site.path("cas.pem"), cas).unwrap();
    let folder = site.path("");
    let at = |name: &str| folder.join(name).display().to_string();
    let user = if rustix::process::geteuid().is_root() { "user root\n" } else { "" };
    let configuration = format!(
        "listener {} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\ncrlfile {}\n\
         use_identity_as_username true\n{user}",
        port.number(),
        at("cas.pem"),
        at("tls/cert.pem"),
        at("tls/key.pem"),
        at("list.pem")
    );
    fs::write(site.path("mosquitto.conf"), configuration).unwrap();
    let log = fs::File::create(site.path("mosquitto.log")).unwrap();
    let mut broker = Command::new("/usr/sbin/mosquitto");
    broker.args(["-v", "-c"]).arg(site.path("mosquitto.conf"));
    let broker = broker.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let _broker = Ended(broker);
    wait_until("the broker listens", || TcpStream::connect(port.address()).is_ok());
    let connect = |device: &str| {
        let (certificate, key) = (format!("{device}.pem"), format!("{device}.key"));
        let mut command = Command::new("mosquitto_pub");
        command.args([
            "-h",
            "localhost",
            "-p",
            &port.number().to_string(),
            "--cafile",
            "ca/station-ca.pem",
            "--cert",
            &certificate,
        ]);
        command.args(["--key", &key, "-t", "t", "-m", "m", "-q", "1"]).current_dir(site.path("")).output().unwrap()
    };
    let log = || fs::read_to_string(site.path("mosquitto.log")).unwrap();
    let live = connect("live");
    assert!(live.status.success(), "{} {}", text(&live.stderr), log());
    let gone = connect("gone");
    assert!(!gone.status.success(), "{}", log());
    // It tells the client first.
    wait_until("the broker says why", || log().contains("certificate verify failed"));
}

/// A process that ends with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
