//! Stations, operators and auditors as objects: enrolled through the daemon or by a signed list, renewed, revoked.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use birthmark::proto::{GetIssuerRequest, issuance_client::IssuanceClient};
use tonic::Code;

use crate::{
    support::{
        site::{Answer, Daemon, IssueStream, Site, csr, request, wait_until},
        token::{refused, succeeded, text},
    },
    tls::{SoftCa, site_that_trusts},
};

/// What `station list --json` has of one name.
fn listed(site: &Site, name: &str) -> serde_json::Value {
    let all: serde_json::Value =
        serde_json::from_str(&succeeded(&site.operator(&["station", "list", "--json"]))).unwrap();
    let mut found = all.as_array().unwrap().iter().filter(|station| station["name"] == name).cloned();
    found.next().unwrap_or_default()
}

fn enroll(site: &Site, arguments: &[&str]) -> serde_json::Value {
    let enrolled = site.token.birthmark(&[&["station", "enroll", "--json"], arguments].concat());
    serde_json::from_str(&succeeded(&enrolled)).unwrap()
}

/// A new connection of this identity is refused, whatever it calls.
pub(crate) async fn must_be_refused(daemon: &Daemon, identity: &std::path::Path) {
    let connection =
        birthmark::client::Connection { server: Some(daemon.url()), identity: Some(identity.into()), socket: None };
    if let Ok(channel) = connection.daemon().unwrap().connect().await {
        // The alert or, if it comes too late for this client, an end without a word.
        let status = IssuanceClient::new(channel).get_issuer(GetIssuerRequest::default()).await.unwrap_err();
        let failure = birthmark::client::Failure::from(status);
        assert!(failure.reason.is_none_or(|reason| reason == "CERTIFICATE_REVOKED"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_station_is_cut_off_within_a_second() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 20);
    let identity = site.identity("station", "line1/t1");
    let [mut revoked, mut other] = [site.stream(&daemon, "line1/t1").await, site.stream(&daemon, "line1/t2").await];
    revoked.ask(request("d1", "o1", csr("d1"))).await.issued();
    let before = listed(&site, "station:line1/t1");
    assert_eq!((&before["state"], &before["issued"]), (&"connected".into(), &1.into()), "{before}");
    assert!(before["certificates"][0]["enrolled_by"].as_str().unwrap().starts_with("operator:local-"), "{before}");

    succeeded(&site.operator(&["station", "revoke", "line1/t1", "--reason", "the tester was stolen"]));
    let begun = Instant::now();
    let status = revoked.receive().await.unwrap_err();
    println!("revoked to cut: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    Answer::of_call(&status).must_be(Code::Unauthenticated, "CERTIFICATE_REVOKED");
    must_be_refused(&daemon, &identity).await;
    other.ask(request("d2", "o1", csr("d2"))).await.issued();
    let shown = succeeded(&site.operator(&["station", "show", "line1/t1"]));
    assert!(shown.contains("the tester was stolen") && shown.contains("revoked by"), "{shown}");
    // `station sign` says so and stops.
    site.token.write("d3.jsonl", &crate::support::site::json_line("d3", &csr("d3")));
    refused(&site.sign("line1/t1", "o1", "d3.jsonl", "certs").output().unwrap(), &["refused", "certificate"]);
    daemon.end();

    // After a restart too, and after the index was lost; a new certificate is taken, the old one is not.
    let daemon = site.start();
    must_be_refused(&daemon, &identity).await;
    daemon.end();
    fs::remove_dir_all(site.path("data/index")).unwrap();
    let daemon = site.start();
    must_be_refused(&daemon, &identity).await;
    assert_eq!(listed(&site, "station:line1/t1")["state"], "revoked");
    enroll(&site, &["line1/t1", "--out", "again"]);
    let mut stream = IssueStream::open(daemon.connect(site.path("again")).await).await.unwrap();
    stream.ask(request("d3", "o1", csr("d3"))).await.issued();
    must_be_refused(&daemon, &identity).await;
    // The key that was revoked gets no other certificate.
    let csr =
        site.token.openssl(&["req", "-new", "-key", &identity.join("key.pem").display().to_string(), "-subj", "/"]);
    site.token.write("old.csr", &csr);
    let again = site.token.birthmark(&["station", "enroll", "line1/t1", "--csr", "old.csr", "--out", "old"]);
    refused(&again, &["was revoked", "KEY_BLOCKED"]);
    daemon.end();
    succeeded(&site.token.birthmark(&["journal", "verify", "--config", "birthmark.toml"]));
}

/// An operator is a peer as any other; the socket is not.
#[tokio::test(flavor = "multi_thread")]
async fn revoked_operator_is_refused() {
    let site = Site::new();
    let daemon = site.start();
    let anna = site.identity("operator", "anna");
    let channel = daemon.connect(anna.clone()).await;
    IssuanceClient::new(channel.clone()).get_issuer(GetIssuerRequest::default()).await.unwrap();
    succeeded(&site.operator(&["station", "revoke", "operator:anna", "--reason", "left"]));
    let refused = IssuanceClient::new(channel).get_issuer(GetIssuerRequest::default()).await;
    assert!(refused.is_err());
    must_be_refused(&daemon, &anna).await;
    let unknown = site.operator(&["station", "revoke", "nobody", "--reason", "x"]);
    crate::support::token::refused(&unknown, &["station:nobody", "REQUEST_INVALID"]);
    // One that was never enrolled here may have a certificate of the CA all the same.
    succeeded(&site.operator(&["station", "revoke", "auditor:never-seen", "--reason", "x"]));
    assert_eq!(listed(&site, "auditor:never-seen")["revoked"], true);
    daemon.end();
}

/// A TLS session that is resumed verifies no certificate, and does not need to.
#[tokio::test(flavor = "multi_thread")]
async fn resumed_session_of_a_revoked_station_is_refused() {
    let site = Site::new();
    let daemon = site.start();
    let identity = site.identity("station", "line1/t1").display().to_string();
    let (certificate, key) = (format!("{identity}/cert.pem"), format!("{identity}/key.pem"));
    let connect = |version: &str, session: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &daemon.grpc.to_string(), "-CAfile", "ca/station-ca.pem", "-alpn", "h2"]);
        command.args([version, "-cert", &certificate, "-key", &key]).args(session).current_dir(site.path(""));
        // HTTP/2's preface, and SETTINGS; then nothing, so that what comes back is seen.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        drop(input);
        child.wait_with_output().unwrap()
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let session = format!("session{version}");
        connect(version, &["-sess_out", &session]);
        assert!(text(&connect(version, &["-sess_in", &session]).stdout).contains("Reused, TLS"), "{version}");
        // A ticket of TLS 1.3 is used once.
        connect(version, &["-sess_out", &session]);
    }
    succeeded(&site.operator(&["station", "revoke", "line1/t1", "--reason", "stolen"]));
    let refusals = || daemon.metric("birthmark_connections_refused_total", &["reason=\"revoked\""]);
    for (number, version) in ["-tls1_2", "-tls1_3"].into_iter().enumerate() {
        let session = format!("session{version}");
        let resumed = connect(version, &["-sess_in", &session]);
        assert!(text(&resumed.stdout).contains("Reused, TLS"), "{version}: {}", text(&resumed.stdout));
        wait_until("the resumed connection is refused", || refusals() >= (number + 1) as f64);
    }
    daemon.end();
}

/// The journal has who enrolled whom, also where the certificate was made without a daemon.
#[tokio::test(flavor = "multi_thread")]
async fn enrolment_without_a_daemon_is_imported() {
    let site = Site::new();
    let offline = enroll(&site, &["line1/t7", "--out", "t7"]);
    assert_eq!(offline["recorded"], false);
    let list = site.path("enrolments.jsonl");
    let daemon = site.start();
    // It works all the same, and is shown as what it is.
    let stream = IssueStream::open(daemon.connect(site.path("t7")).await).await.unwrap();
    assert_eq!(listed(&site, "station:line1/t7")["state"], "not recorded");
    drop(stream);
    let lines = fs::read_to_string(&list).unwrap();
    for (wrong, why) in [
        (lines.replace("line1/t7", "line1/t8"), "client_ca"),
        (lines.replace("operator:local-", "operator:other-"), "client_ca"),
        ("{}\n".to_owned(), "is not a line"),
    ] {
        site.token.write("wrong.jsonl", &wrong);
        refused(&site.operator(&["station", "import", "wrong.jsonl"]), &["line 1", why]);
    }
    // A file that ends before anything is in it is no list.
    site.token.write("cut.jsonl", "\n");
    refused(&site.operator(&["station", "import", "cut.jsonl"]), &["there is no enrolment in cut.jsonl"]);
    for _ in 0..2 {
        let list = list.display().to_string();
        assert!(succeeded(&site.operator(&["station", "import", &list])).contains("recorded"));
    }
    let imported = listed(&site, "station:line1/t7");
    assert_eq!(imported["certificates"].as_array().unwrap().len(), 1, "{imported}");
    assert!(imported["certificates"][0]["enrolled_by"].as_str().unwrap().starts_with("operator:local-"), "{imported}");
    // A list from before a revocation brings nobody back.
    let late = enroll(&site, &["line1/t9", "--offline", "--out", "t9", "--list", "late.jsonl"]);
    assert!(late["list"].as_str().unwrap().ends_with("late.jsonl"), "{late}");
    succeeded(&site.operator(&["station", "revoke", "line1/t9", "--reason", "stolen"]));
    let path = site.path("late.jsonl").display().to_string();
    succeeded(&site.operator(&["station", "import", &path]));
    must_be_refused(&daemon, &site.path("t9")).await;
    daemon.end();
    let dump = succeeded(&site.token.birthmark(&["journal", "dump", "--config", "birthmark.toml"]));
    assert!(dump.lines().any(|line| line.contains("station_enrolled") && line.contains("listed_by")), "{dump}");
    succeeded(&site.token.birthmark(&["journal", "verify", "--config", "birthmark.toml"]));
}

/// The key is made on the tester and stays there; the station renews by itself, and Windows gets one file.
#[tokio::test(flavor = "multi_thread")]
async fn station_key_made_on_the_tester_is_certified_and_renewed() {
    let site = Site::new();
    let daemon = site.start();
    succeeded(&site.token.birthmark(&["station", "request", "line1/t1", "--out", "tester"]));
    refused(&site.token.birthmark(&["station", "request", "line1/t1", "--out", "tester"]), &["exists"]);
    enroll(&site, &["line1/t1", "--csr", "tester/request.csr", "--out", "tester", "--days", "10"]);
    assert_eq!(listed(&site, "station:line1/t1")["certificates"][0]["method"], "csr");
    site.create_order("o1", 5);
    let before = fs::read_to_string(site.path("tester/cert.pem")).unwrap();
    let url = daemon.url();
    let connection = ["--server", &url, "--identity", "tester"];

    // Not from the start on, but when it is asked for.
    let sign = |device: &str| {
        let file = format!("{device}.jsonl");
        site.token.write(&file, &crate::support::site::json_line(device, &csr(device)));
        let arguments = ["station", "sign", "--order", "o1", "--profile", "device", "--in", &file, "--out", "certs"];
        site.token.command(&[&arguments[..], &connection].concat()).output().unwrap()
    };
    succeeded(&sign("d1"));
    assert_eq!(fs::read_to_string(site.path("tester/cert.pem")).unwrap(), before);
    // Certificates have whole seconds, and a renewal must live longer.
    std::thread::sleep(Duration::from_secs(1));
    succeeded(&site.token.birthmark(&[&["station", "renew"], &connection[..]].concat()));
    let renewed = fs::read_to_string(site.path("tester/cert.pem")).unwrap();
    assert_ne!(renewed, before);
    site.token.openssl(&["verify", "-purpose", "sslclient", "-CAfile", "ca/station-ca.pem", "tester/cert.pem"]);
    succeeded(&sign("d2"));
    let found = listed(&site, "station:line1/t1");
    let methods: Vec<_> = found["certificates"].as_array().unwrap().iter().map(|one| one["method"].clone()).collect();
    assert_eq!(methods, ["csr", "renewal"]);
    assert_eq!(found["certificates"][1]["enrolled_by"], "station:line1/t1");
    // Whoever renews again and again has none that lives longer.
    let [first, second] = [0, 1].map(|number| {
        let time =
            |name: &str| found["certificates"][number][name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        time("not_after").duration_since(time("not_before")).as_secs()
    });
    assert!((second - first).abs() <= 1, "{first} s, then {second} s");

    site.token.write("password", "a secret\n");
    let pkcs12 = ["station", "pkcs12", "--identity", "tester", "--out", "t1.p12", "--password-file", "password"];
    site.token.set_mode("password", 0o644);
    refused(&site.token.birthmark(&pkcs12), &["password: it is open to others", "chmod 600"]);
    site.token.set_mode("password", 0o600);
    succeeded(&site.token.birthmark(&pkcs12));
    let dumped = site.token.openssl(&["pkcs12", "-in", "t1.p12", "-nodes", "-passin", "pass:a secret", "-info"]);
    assert_eq!(dumped.matches("BEGIN CERTIFICATE").count(), 2, "{dumped}");
    assert!(dumped.contains("BEGIN PRIVATE KEY"), "{dumped}");
    daemon.end();
}

/// A new key ends the old one's certificates, also on streams that are open; whoever has a copy of the old key is out. Killed
/// between the files, the next connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn renewal_with_a_new_key_ends_the_old_one() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 20);
    let identity = site.identity("station", "line1/t1");
    let copy = site.path("stolen");
    fs::create_dir(&copy).unwrap();
    for file in ["cert.pem", "key.pem", "ca.pem"] {
        fs::copy(identity.join(file), copy.join(file)).unwrap();
    }
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();
    // Certificates have whole seconds, and a renewal must live longer.
    std::thread::sleep(Duration::from_secs(1));
    let url = daemon.url();
    let folder = identity.display().to_string();
    let renew = ["station", "renew", "--new-key", "--server", &url, "--identity", &folder];
    succeeded(&site.token.birthmark(&renew));
    let begun = Instant::now();
    let status = tokio::time::timeout(Duration::from_secs(10), stream.receive()).await.unwrap().unwrap_err();
    println!("renewed to cut: {:?}", begun.elapsed());
    Answer::of_call(&status).must_be(Code::Unauthenticated, "CERTIFICATE_REVOKED");
    assert_ne!(fs::read(identity.join("key.pem")).unwrap(), fs::read(copy.join("key.pem")).unwrap());
    must_be_refused(&daemon, &copy).await;
    site.stream(&daemon, "line1/t1").await.ask(request("d2", "o1", csr("d2"))).await.issued();
    let found = listed(&site, "station:line1/t1");
    let revoked: Vec<_> = found["certificates"].as_array().unwrap().iter().map(|one| one["revoked"].clone()).collect();
    assert_eq!(revoked, [true, false], "{found}");
    // The same key goes on to be renewed, and ends nothing.
    std::thread::sleep(Duration::from_secs(1));
    succeeded(&site.token.birthmark(&["station", "renew", "--server", &url, "--identity", &folder]));
    site.stream(&daemon, "line1/t1").await.ask(request("d3", "o1", csr("d3"))).await.issued();

    // Killed after the key was renamed, and before the certificate was.
    fs::rename(identity.join("cert.pem"), identity.join("cert.pem.new")).unwrap();
    fs::copy(copy.join("cert.pem"), identity.join("cert.pem")).unwrap();
    site.stream(&daemon, "line1/t1").await.ask(request("d4", "o1", csr("d4"))).await.issued();
    assert!(!identity.join("cert.pem.new").exists());
    // A certificate that the daemon never recorded can take no other's place.
    daemon.end();
    fs::remove_dir_all(site.path("data/index")).unwrap();
    let daemon = site.start();
    must_be_refused(&daemon, &copy).await;
    site.stream(&daemon, "line1/t1").await.ask(request("d5", "o1", csr("d5"))).await.issued();
    daemon.end();
    succeeded(&site.token.birthmark(&["journal", "verify", "--config", "birthmark.toml"]));
}

/// `station sign` renews over a certificate of whose life a third is over.
#[tokio::test(flavor = "multi_thread")]
async fn station_sign_renews_from_a_third_of_its_life_on() {
    let known = SoftCa::new("Known");
    let site = site_that_trusts(&known);
    let daemon = site.start();
    site.create_order("o1", 5);
    let day = Duration::from_hours(24);
    for (name, age, renews) in [("young", day, false), ("old", 5 * day, true)] {
        let urn = format!("urn:birthmark:station:line1/{name}");
        let identity = known.identity(&site, name, &[&urn], |params| {
            params.not_before = (SystemTime::now() - age).into();
            params.not_after = (SystemTime::now() + 5 * day).into();
        });
        let before = fs::read_to_string(identity.join("cert.pem")).unwrap();
        let file = format!("{name}.jsonl");
        site.token.write(&file, &crate::support::site::json_line(name, &csr(name)));
        let arguments =
            ["station", "sign", "--order", "o1", "--profile", "device", "--in", &file, "--out", "certs", "--server"];
        let run = site.token.command(&arguments).arg(daemon.url()).arg("--identity").arg(&identity).output().unwrap();
        succeeded(&run);
        assert_eq!(text(&run.stderr).contains("is renewed"), renews, "{}", text(&run.stderr));
        assert_eq!(fs::read_to_string(identity.join("cert.pem")).unwrap() != before, renews, "{name}");
    }
    daemon.end();
}

/// A list of the station CA does what `station revoke` does, as soon as the file is there.
#[tokio::test(flavor = "multi_thread")]
async fn station_on_a_revocation_list_is_cut_off() {
    let signs_lists = |params: &mut rcgen::CertificateParams| params.key_usages.push(rcgen::KeyUsagePurpose::CrlSign);
    let known = SoftCa::with("Known", signs_lists);
    let site = site_that_trusts(&known);
    site.token.write("ca/clients.crl", &known.crl(&[], 1));
    let configuration = fs::read_to_string(site.path("birthmark.toml")).unwrap();
    let with_list = "client_ca = \"ca/clients.pem\"\nclient_crl = \"ca/clients.crl\"";
    site.token.write("birthmark.toml", &configuration.replace("client_ca = \"ca/clients.pem\"", with_list));
    let daemon = site.start();
    site.create_order("o1", 5);
    let identity = known.identity(&site, "t1", &["urn:birthmark:station:line1/t1"], |params| {
        params.serial_number = Some(vec![0x11, 0x22].into());
    });
    let mut stream = IssueStream::open(daemon.connect(identity.clone()).await).await.unwrap();
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();
    // One that another CA has signed changes nothing.
    site.token.write("ca/clients.crl", &SoftCa::with("Known", signs_lists).crl(&[&[0x11, 0x22]], 2));
    wait_until("the log says so", || site.log().contains("the one before stands"));
    stream.ask(request("d2", "o1", csr("d2"))).await.issued();
    site.token.write("ca/clients.crl", &known.crl(&[&[0x11, 0x22]], 3));
    let status = tokio::time::timeout(Duration::from_secs(10), stream.receive()).await.unwrap().unwrap_err();
    Answer::of_call(&status).must_be(Code::Unauthenticated, "CERTIFICATE_REVOKED");
    must_be_refused(&daemon, &identity).await;
    daemon.end();
    site.token.write("ca/clients.crl", "no list\n");
    let said = site.refuse_to_start();
    assert!(said.contains("server.client_crl") && said.contains("revocation list"), "{said}");
}

/// One command at the start of a shift.
#[tokio::test(flavor = "multi_thread")]
async fn station_check_tells_what_is_in_the_way() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 5);
    let (url, identity) = (daemon.url(), site.identity("station", "line1/t1").display().to_string());
    let check = |arguments: &[&str]| {
        let daemon = ["--server", &url, "--identity", &identity];
        site.token.birthmark(&[&["station", "check"], arguments, &daemon].concat())
    };
    let good = succeeded(&check(&["--order", "o1", "--profile", "device"]));
    for says in ["clock", "valid for 36", "ready", "o1 is open; 5 of 5 left", "may be used", "a signature took"] {
        assert!(good.contains(says), "{says}: {good}");
    }
    succeeded(&site.operator(&["order", "pause", "o1"]));
    let paused = check(&["--order", "o1", "--json"]);
    assert_eq!(paused.status.code(), Some(1));
    let paused: serde_json::Value = serde_json::from_str(&text(&paused.stdout)).unwrap();
    let failed = paused["checks"].as_array().unwrap().iter().find(|check| check["result"] == "fail").unwrap();
    assert!(paused["ok"] == false && failed["message"].as_str().unwrap().contains("paused"), "{paused}");
    // What is wrong with the order keeps nothing else from being told.
    let unknown = check(&["--order", "none", "--profile", "device"]);
    let told = text(&unknown.stdout);
    assert!(unknown.status.code() == Some(1) && told.contains("there is no order \"none\""), "{told}");
    assert!(told.contains("a signature took"), "{told}");
    let other = check(&["--profile", "other"]);
    assert!(!other.status.success() && text(&other.stdout).contains("it may use: device"), "{}", text(&other.stdout));
    daemon.end();
}

/// Certificates that no order was charged for are listed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_without_an_order_are_listed() {
    let site = Site::new();
    site.configure(|usual| {
        usual.replace("validity_days = 7300", "validity_days = 7300\norder_requirement = \"optional\"")
    });
    let daemon = site.start();
    site.create_order("o1", 5);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    for (device, order) in [("d1", ""), ("d2", "o1"), ("d3", "")] {
        stream.ask(request(device, order, csr(device))).await.issued();
    }
    let mut admin = daemon.admin().await;
    let listed = admin.list_records(birthmark::proto::ListRecordsRequest { order: String::new() }).await.unwrap();
    let mut records = listed.into_inner();
    let mut devices = Vec::new();
    while let Some(record) = records.message().await.unwrap() {
        devices.push(record.device_id);
    }
    assert_eq!(devices, ["d1", "d3"]);
    let printed = succeeded(&site.operator(&["record", "list", "--without-order"]));
    // Serial numbers have digits of all kinds.
    let printed: Vec<_> = printed.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(printed, ["d1", "d3"]);
    daemon.end();
}
