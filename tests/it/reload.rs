//! The configuration read anew while the daemon runs.

use std::{fs, time::Duration};

use rustix::process::Signal;
use tonic::Code;

use crate::{
    stations::must_be_refused,
    support::{
        faults::Load,
        site::{Answer, IssueStream, Site, csr, request, wait_until},
        token::{refused, succeeded, text},
    },
    tls::SoftCa,
};

fn configuration(site: &Site) -> String {
    fs::read_to_string(site.path("birthmark.toml")).unwrap()
}

fn change(site: &Site, from: &str, to: &str) {
    let text = configuration(site);
    assert!(text.contains(from), "{text}");
    site.token.write("birthmark.toml", &text.replacen(from, to, 1));
}

fn reload(site: &Site) -> serde_json::Value {
    serde_json::from_str(&succeeded(&site.operator(&["reload", "--json"]))).unwrap()
}

/// What changed is in force for the next request of an open stream; what is wrong changes nothing at all.
#[tokio::test(flavor = "multi_thread")]
async fn reload_is_taken_whole_or_not_at_all() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("lot", 100);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("a", "lot", csr("a"))).await.issued();
    let with_profile = |device: &str, profile: &str| {
        let mut request = request(device, "lot", csr(device));
        request.profile = profile.to_owned();
        request
    };
    stream.ask(with_profile("b", "later")).await.must_be(Code::NotFound, "PROFILE_UNKNOWN");

    // A new profile and other days, with a fault beside them.
    let good = configuration(&site);
    let profile = "[profiles.later]\nissuer = \"main\"\norder_requirement = \"optional\"\n";
    let wanted = good.replace("validity_days = 7300", "validity_days = 100") + profile;
    let refusals = || site.log().matches("the one before stays in force").count();
    for (fault, says) in [
        ("validity_days = 0\n", "profiles.later.validity_days"),
        ("key_types = [\"p257\"]\n", "p257"),
        ("nonsense = 1\n", "there is no key `nonsense`"),
    ] {
        site.token.write("birthmark.toml", &format!("{wanted}{fault}"));
        refused(&site.operator(&["reload"]), &["birthmark.toml:", says, "CONFIGURATION_REFUSED"]);
        let before = refusals();
        daemon.signal(Signal::HUP);
        wait_until("the log tells of the signal", || refusals() > before);
        stream.ask(with_profile("b", "later")).await.must_be(Code::NotFound, "PROFILE_UNKNOWN");
    }
    site.token.write("birthmark.toml", &wanted);
    let told = reload(&site);
    assert_eq!(told["changed"], serde_json::json!(["profiles.device", "profiles.later"]));
    assert_eq!(told["needs_restart"], serde_json::json!([]));
    let mut request = with_profile("b", "later");
    request.order = String::new();
    stream.ask(request).await.issued();

    // What cannot change is named, and the rest taken.
    change(&site, "path = \"data\"", "path = \"data\"\nmin_free_mib = 1");
    change(&site, "validity_days = 100", "validity_days = 50");
    let told = reload(&site);
    assert_eq!(told["changed"], serde_json::json!(["profiles.device"]));
    assert_eq!(told["needs_restart"], serde_json::json!(["ledger.min_free_mib"]));
    let before = site.log().matches("the configuration was reloaded").count();
    daemon.signal(Signal::HUP);
    wait_until("it is reloaded", || site.log().matches("the configuration was reloaded").count() > before);

    // The log's level.
    assert!(!site.log().contains(" DEBUG "));
    site.token.write("birthmark.toml", &(configuration(&site) + "\n[log]\nlevel = \"debug\"\n"));
    reload(&site);
    drop(site.stream(&daemon, "line1/t2").await);
    wait_until("the log is at debug", || site.log().contains("DEBUG"));
    change(&site, "level = \"debug\"", "level = \"debgu\"");
    refused(&site.operator(&["reload"]), &["debgu"]);
    change(&site, "level = \"debgu\"", "level = \"info\"");
    // It was named before, and the daemon has not been started again.
    assert_eq!(reload(&site)["needs_restart"], serde_json::json!(["ledger.min_free_mib"]));
    // What only a start takes would keep it from starting.
    let fine = configuration(&site);
    site.token.write("birthmark.toml", &(fine.clone() + "\n[destinations.cloud]\nformat = \"nope\"\n"));
    refused(&site.operator(&["reload"]), &["destinations.cloud"]);
    site.token.write("birthmark.toml", &fine);
    stream.ask(crate::support::site::request("c", "lot", csr("c"))).await.issued();
    daemon.end();

    // The journal has each configuration once, with who loaded it.
    let dumped = succeeded(&site.token.birthmark(&["journal", "dump", "data"]));
    let loaded: Vec<serde_json::Value> = dumped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let loaded: Vec<_> = loaded.iter().filter(|entry| entry["event"] == "configuration_loaded").collect();
    assert_eq!(loaded[0]["actor"], "daemon", "{loaded:?}");
    assert!(loaded[1]["actor"].as_str().unwrap().starts_with("operator:"), "{loaded:?}");
    assert!(loaded[1]["text"].as_str().unwrap().contains("[profiles.later]"));
    assert!(loaded.windows(2).all(|pair| pair[0]["configuration_sha256"] != pair[1]["configuration_sha256"]));
}

fn replace_server_certificate(site: &Site) {
    succeeded(&site.token.birthmark(&[
        "station",
        "enroll",
        "birthmark",
        "--config",
        "birthmark.toml",
        "--role",
        "server",
        "--dns",
        "localhost",
        "--ip",
        "127.0.0.1",
        "--out",
        "renewed",
    ]));
}

/// The certificate that the daemon presents.
fn presented(daemon: &crate::support::site::Daemon) -> String {
    presented_at(&format!("localhost:{}", daemon.grpc.port()))
}

fn presented_at(address: &str) -> String {
    let output = std::process::Command::new("openssl")
        .args(["s_client", "-connect", address, "-alpn", "h2"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = text(&output.stdout);
    let begin = said.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("{said} {}", text(&output.stderr)));
    let end = said.find("-----END CERTIFICATE-----").unwrap();
    said[begin..end].to_owned()
}

/// Files that were replaced are taken without a word from anybody, when both halves fit; streams go on.
#[tokio::test(flavor = "multi_thread")]
async fn renewed_server_certificate_is_taken_when_both_halves_fit() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("lot", 100);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("a", "lot", csr("a"))).await.issued();
    let before = presented(&daemon);
    replace_server_certificate(&site);
    fs::rename(site.path("renewed/cert.pem"), site.path("tls/cert.pem")).unwrap();
    wait_until("the half is noticed", || site.log().contains("do not fit yet"));
    assert_eq!(presented(&daemon), before);
    fs::rename(site.path("renewed/key.pem"), site.path("tls/key.pem")).unwrap();
    wait_until("both are taken", || site.log().contains("certificate files were replaced, and are in use"));
    assert_ne!(presented(&daemon), before);
    stream.ask(request("b", "lot", csr("b"))).await.issued();
    site.stream(&daemon, "line1/t2").await.ask(request("c", "lot", csr("c"))).await.issued();
    daemon.end();
}

/// Reloads one after the other under full load lose no reply, and drop no stream.
#[tokio::test(flavor = "multi_thread")]
async fn reload_under_load_loses_no_reply() {
    let site = Site::new();
    site.start().end();
    let daemon = site.start();
    site.create_order("lot", 1_000_000);
    let load = Load::start(&site, &daemon, "lot").await;
    load.more(50);
    for round in 0..20 {
        let (from, to) = (7300 - round, 7300 - round - 1);
        change(&site, &format!("validity_days = {from}"), &format!("validity_days = {to}"));
        assert_eq!(reload(&site)["changed"], serde_json::json!(["profiles.device"]));
        load.more(5);
    }
    assert_eq!(load.refused(), 0);
    let issued = load.finish(&site, "lot").await;
    println!("{issued} certificates, 20 reloads, none lost");
    daemon.end();
}

/// A lease that a wait for the database outlasts is warned of, at its own line.
#[test]
fn configuration_check_warns_of_a_short_lease_at_its_line() {
    let site = Site::new();
    let shared = "[ledger]\npath = \"data\"\ndatabase = \"postgresql://birthmark@127.0.0.1:1/birthmark?sslmode=disable\"\n\
                  daemon = \"one\"\npatience = \"20s\"\nlease = \"20s\"\n";
    site.configure(|text| text.replace("[ledger]\npath = \"data\"\n", shared));
    let run = site.token.birthmark(&["serve", "--check", "--config", "birthmark.toml"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let line = 1 + configuration(&site).lines().position(|line| line.starts_with("lease")).unwrap();
    let said = [text(&run.stdout), text(&run.stderr)].concat();
    let warning = format!("birthmark.toml:{line}: ledger.lease: should be longer than ledger.patience");
    assert!(said.contains(&warning), "{said}");
}

/// `serve --check` tells all faults at once, with file and line.
#[test]
fn configuration_check_tells_all_that_is_wrong() {
    let site = Site::new();
    let serve = ["serve", "--check", "--config", "birthmark.toml"];
    succeeded(&site.token.birthmark(&serve));
    let good = configuration(&site);
    let bad = good
        .replace("certificate = \"tls/cert.pem\"", "certificate = \"tls/none.pem\"\nwindow = 0\nnonsense = 1")
        .replace("validity_days = 7300", "validity_days = 0\nkees = []\nkey_types = []\ndevice_id = \"(\"")
        .replace("[http]\nlisten", "[http]\nlisten = \"nowhere\"\n# listen")
        + "[profiles.other]\nissuer = \"unknown\"\n[refused_keys]\nblock_list = \"none.txt\"\n[issuers.second]\nchain = [\"none.pem\"]\nkey_uri = \"no uri\"\n[destinations.cloud]\nformat = \"nope\"\n";
    site.token.write("birthmark.toml", &bad);
    let run = site.token.birthmark(&serve);
    assert_eq!(run.status.code(), Some(1));
    let said = text(&run.stderr);
    for says in [
        "tls/none.pem",
        "server.window",
        "nonsense",
        "kees",
        "validity_days",
        "key_types",
        "profiles.device.device_id",
        "block_list",
        "issuers.second.chain",
        "issuers.second.key_uri",
        "destinations.cloud.format",
        "http.listen",
    ] {
        assert!(said.contains(says), "{says}: {said}");
    }
    assert!(!said.contains("` is missing"), "{said}");
    // What a table lacks, or nobody knows, keeps nothing else from being told; what the file lacks ends it.
    site.token.write("birthmark.toml", &(bad.replace("listen = \"nowhere\"", "") + "[audti]\nkey_uri = \"\"\n[est]\n"));
    let said = text(&site.token.birthmark(&serve).stderr);
    assert!(
        ["http: the key `listen` is missing", "audti", "est: the key", "kees"].iter().all(|says| said.contains(says)),
        "{said}"
    );
    site.token.write("birthmark.toml", "[environment]\n");
    let said = text(&site.token.birthmark(&serve).stderr);
    assert_eq!(said.matches("` is missing").count(), 1, "{said}");
    assert!(!site.path("data").exists());
}

/// What EST presents on its port.
fn presented_by_est(site: &Site) -> String {
    let ready: serde_json::Value = serde_json::from_slice(&fs::read(site.path("ready.json")).unwrap()).unwrap();
    let port = ready["est"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    presented_at(&format!("localhost:{port}"))
}

/// Whom the daemon lets in, who enrols, what needs a second operator, EST's certificate: taken while it runs, and nobody's
/// stream ends. What cannot be taken is named, also where only a file is another.
#[tokio::test(flavor = "multi_thread")]
async fn reload_takes_what_the_edge_works_with() {
    let signs_lists = |params: &mut rcgen::CertificateParams| params.key_usages.push(rcgen::KeyUsagePurpose::CrlSign);
    let known = SoftCa::with("Known", signs_lists);
    let site = Site::new();
    site.configure(|usual| usual.replace("[ledger]\n", "[est]\nlisten = \"127.0.0.1:0\"\n[ledger]\n"));
    // The first start gives the configuration its ports.
    site.start().end();
    let daemon = site.start();
    site.create_order("lot", 100);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("a", "lot", csr("a"))).await.issued();

    // A CA of stations that the daemon did not know, with its list.
    let identity = known.identity(&site, "t9", &["urn:birthmark:station:line1/t9"], |params| {
        params.serial_number = Some(vec![0x11, 0x22].into());
    });
    must_be_refused(&daemon, &identity).await;
    let both = fs::read_to_string(site.path("ca/station-ca.pem")).unwrap() + &known.pem();
    site.token.write("ca/clients.pem", &both);
    site.token.write("ca/clients.crl", &known.crl(&[], 1));
    change(
        &site,
        "client_ca = \"ca/station-ca.pem\"",
        "client_ca = \"ca/clients.pem\"\nclient_crl = \"ca/clients.crl\"",
    );
    let told = reload(&site);
    assert_eq!(told["changed"], serde_json::json!(["server.client_ca", "server.client_crl"]));
    assert_eq!(told["needs_restart"], serde_json::json!([]));
    let mut other = IssueStream::open(daemon.connect(identity.clone()).await).await.unwrap();
    other.ask(request("b", "lot", csr("b"))).await.issued();
    // The list is watched from now on.
    site.token.write("ca/clients.crl", &known.crl(&[&[0x11, 0x22]], 2));
    let status = tokio::time::timeout(Duration::from_secs(10), other.receive()).await.unwrap().unwrap_err();
    Answer::of_call(&status).must_be(Code::Unauthenticated, "CERTIFICATE_REVOKED");
    // Without the list it may connect again.
    change(&site, "\nclient_crl = \"ca/clients.crl\"", "");
    reload(&site);
    let mut other = IssueStream::open(daemon.connect(identity).await).await.unwrap();
    other.ask(request("c", "lot", csr("c"))).await.issued();

    // What needs a second operator, and who enrols.
    let station_ca = configuration(&site);
    let station_ca = &station_ca[station_ca.find("[station_ca]").unwrap()..];
    let station_ca = station_ca[..station_ca[1..].find('[').map_or(station_ca.len(), |end| end + 1)].to_owned();
    change(&site, &station_ca, "[approval]\norders_above = 10\n\n");
    let told = reload(&site);
    assert_eq!(told["changed"], serde_json::json!(["approval", "station_ca"]));
    assert_eq!(told["needs_restart"], serde_json::json!([]));
    let create = ["order", "create", "large", "--profile", "device", "--quantity", "11"];
    refused(&site.operator(&create), &["second operator"]);
    change(&site, "[approval]\norders_above = 10\n\n", &station_ca);
    reload(&site);
    succeeded(&site.operator(&create));
    site.identity("station", "line1/t5");

    // EST has the certificate of the gRPC port, and keeps up with it.
    let before = presented_by_est(&site);
    assert_eq!(before, presented(&daemon));
    replace_server_certificate(&site);
    for file in ["cert.pem", "key.pem"] {
        fs::rename(site.path(&format!("renewed/{file}")), site.path(&format!("tls/{file}"))).unwrap();
    }
    wait_until("both are taken", || site.log().contains("certificate files were replaced, and are in use"));
    assert_ne!(presented_by_est(&site), before);
    assert_eq!(presented_by_est(&site), presented(&daemon));
    change(&site, "[est]\n", "[est]\ndefault_label = \"device~none\"\n");
    change(&site, "default_label = \"device~none\"", "default_label = \"none\"");
    refused(&site.operator(&["reload"]), &["est.default_label", "there is no profile"]);
    change(&site, "default_label = \"none\"", "default_label = \"device\"");
    assert_eq!(reload(&site)["changed"], serde_json::json!(["est.default_label"]));

    // What is read at a start only.
    let chain = site.path("ca/issuer.pem");
    let content = fs::read(&chain).unwrap();
    fs::remove_file(&chain).unwrap();
    fs::write(&chain, content).unwrap();
    let told = reload(&site);
    let named = told["needs_restart"][0].as_str().unwrap();
    assert!(named.starts_with("issuers.main.chain") && named.contains("was replaced"), "{told}");
    stream.ask(request("d", "lot", csr("d"))).await.issued();
    daemon.end();
}
