//! The real Prometheus, with the rules loaded, scrapes daemons under load and with faults: every panel of the dashboard and every
//! query of the documentation has an answer, and alerts fire for what they are for and for nothing else.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tonic::Code;

use crate::{
    storage::faketime,
    support::{
        faults::Load,
        site::{Daemon, PATIENCE, Site, csr, request, wait_until},
        token::succeeded,
    },
};

/// How far the clock of the daemon with faults is ahead.
const AHEAD: &str = "+120s";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Prometheus that scrapes and evaluates every second; killed when dropped.
struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    fn start(folder: &Path, targets: &[SocketAddr]) -> Prometheus {
        fs::create_dir(folder).unwrap();
        let targets: Vec<_> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let config = format!(
            "global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 1s}}\nrule_files: [birthmark.rules.yml]\n\
             scrape_configs:\n  - job_name: birthmark\n    static_configs: [{{targets: [{}]}}]\n",
            targets.join(", ")
        );
        fs::write(folder.join("prometheus.yml"), config).unwrap();
        fs::write(folder.join("birthmark.rules.yml"), quick_rules()).unwrap();
        let log = folder.join("log");
        let process = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .expect("prometheus (Debian: prometheus) must be installed");
        let listens = || {
            let log = fs::read_to_string(&log).unwrap();
            let line = log.lines().find(|line| line.contains("msg=\"Listening on\""))?.to_owned();
            line.rsplit_once("address=")?.1.trim().parse().ok()
        };
        let mut prometheus = Prometheus { process, address: ([127, 0, 0, 1], 0).into() };
        wait_until("Prometheus listens", || listens().is_some());
        prometheus.address = listens().unwrap();
        // It listens before it has read its storage.
        wait_until("Prometheus is ready", || prometheus.get("/-/ready").starts_with("HTTP/1.0 200"));
        prometheus
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    /// The labels and the value of each series that answers a query now.
    fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let encoded = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let response = self.get(&format!("/api/v1/query?query={encoded}"));
        let body = response.split_once("\r\n\r\n").unwrap().1;
        let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {response}"));
        assert_eq!(body["status"], "success", "{query}: {body}");
        let series = body["data"]["result"].as_array().unwrap().iter();
        let number = |series: &Value| series["value"][1].as_str().unwrap().parse().unwrap();
        series.map(|series| (series["metric"].clone(), number(series))).collect()
    }

    /// What alerts fire at this address, with their labels.
    fn firing(&self, daemon: &Daemon) -> Vec<String> {
        let found = self.query(&format!("ALERTS{{alertstate=\"firing\", instance=\"{}\"}}", daemon.http));
        found.iter().map(|(labels, _)| labels["alertname"].as_str().unwrap().to_owned()).collect()
    }

    fn fires(&self, daemon: &Daemon, alert: &str) -> bool {
        self.firing(daemon).iter().any(|firing| firing == alert)
    }
}

/// The rules as they are, but for times: seconds in place of minutes and hours.
fn quick_rules() -> String {
    let mut rules = fs::read_to_string(root().join("packaging/prometheus/birthmark.rules.yml")).unwrap();
    for (usual, quick) in [
        ("for: 1m\n", "for: 5s\n"),
        ("for: 2m\n", "for: 5s\n"),
        ("for: 5m\n", "for: 5s\n"),
        ("for: 10m\n", "for: 5s\n"),
        ("for: 15m\n", "for: 5s\n"),
        ("[5m]", "[10s]"),
        ("[10m]", "[10s]"),
        ("[15m]", "[10s]"),
        ("> 3 * 3600", "> 8"),
        ("> 26 * 3600", "> 8"),
    ] {
        assert!(rules.contains(usual), "{usual}");
        rules = rules.replace(usual, quick);
    }
    rules
}

/// The queries of a dashboard's panels, with their titles.
fn panels() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("packaging/grafana/birthmark.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let queries = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    };
    let found: Vec<_> = dashboard["panels"].as_array().unwrap().iter().flat_map(queries).collect();
    found
        .into_iter()
        .map(|(title, query)| (title, query.replace("$instance", ".+").replace("$__rate_interval", "10s")))
        .collect()
}

/// The questions of docs/metrics.md and their queries.
fn questions() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let row = |line: &str| {
        let (question, query) = line.strip_prefix("| ")?.strip_suffix("` |")?.split_once(" | `")?;
        Some((question.to_owned(), query.replace("\\|", "|").replace("[5m]", "[10s]")))
    };
    text.split("## Alerts").next().unwrap().lines().filter_map(row).collect()
}

/// Waits until each of these queries has an answer that is a number.
fn must_answer(prometheus: &Prometheus, queries: &[(String, String)]) {
    assert!(queries.len() > 20, "{queries:?}");
    let mut empty: Vec<_> = queries.iter().collect();
    let begun = Instant::now();
    wait_until("every query has an answer", || {
        empty.retain(|(_, query)| prometheus.query(query).iter().all(|(_, value)| value.is_nan()));
        assert!(begun.elapsed() < PATIENCE / 2 || empty.is_empty(), "without an answer: {empty:?}");
        empty.is_empty()
    });
}

/// A daemon with faults: its clock is ahead, its disk is nearly full, no checkpoint is made, and a station's certificate ends.
fn ill() -> (Site, Daemon) {
    let site = Site::new();
    let room = rustix::fs::statvfs(site.path("")).unwrap();
    let free_mib = (room.f_bavail * room.f_frsize) >> 20;
    site.configure(|usual| {
        let usual =
            usual.replacen("path = \"data\"\n", &format!("path = \"data\"\nmin_free_mib = {}\n", free_mib * 6 / 10), 1);
        usual + "\n[crl]\ngather = \"1s\"\n\n[destinations.cloud]\nformat = \"jsonl\"\n"
    });
    let library = faketime().expect("faketime (Debian: faketime) must be installed");
    let daemon = site.start_as(|mut command| {
        command.env("LD_PRELOAD", library).env("FAKETIME", AHEAD).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    });
    site.create_order("o1", 1000);
    site.create_order("o2", 1000);
    succeeded(&site.operator(&["order", "pause", "o2", "--reason", "a test"]));
    succeeded(&site.operator(&["station", "enroll", "line2/old", "--days", "3", "--out", "identities/old"]));
    (site, daemon)
}

/// A client that speaks no TLS.
fn speak_no_tls(daemon: &Daemon) {
    let mut stream = TcpStream::connect(daemon.grpc).unwrap();
    write!(stream, "GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_for_each_fault_and_not_otherwise() {
    let well = Site::new();
    well.configure(|usual| usual.replacen("[audit]\n", "[audit]\ninterval = \"1s\"\n", 1));
    let healthy = well.start();
    well.create_order("o1", 1_000_000);
    let load = Load::start(&well, &healthy, "o1").await;
    let (site, daemon) = ill();
    let mut stream = site.stream(&daemon, "line1/t1").await;
    for number in 0..20 {
        let device = format!("d{number}");
        stream.ask(request(&device, "o1", csr(&device))).await.issued();
    }
    succeeded(&site.operator(&["export", "create", "cloud", "--out", "bundles"]));
    succeeded(&site.operator(&["backup", "backup", "--data", "data"]));
    stream.ask(request("late", "o1", csr("late"))).await.issued();
    let prometheus = Prometheus::start(&well.path("prometheus"), &[healthy.http, daemon.http]);

    must_answer(&prometheus, &panels());
    for alert in [
        "BirthmarkClock",
        "BirthmarkDiskLow",
        "BirthmarkCheckpointOld",
        "BirthmarkStationCertificateEnds",
        "BirthmarkExportBacklog",
        "BirthmarkExportUnacknowledged",
    ] {
        wait_until(alert, || prometheus.fires(&daemon, alert));
    }
    for alert in ["BirthmarkRefusalsRising", "BirthmarkHsmAway", "BirthmarkNotReady"] {
        assert!(!prometheus.fires(&daemon, alert), "{alert}: {:?}", prometheus.firing(&daemon));
    }

    speak_no_tls(&daemon);
    let mut watching = site.token.command(&["journal", "watch"]);
    let watching = watching.env("BIRTHMARK_SOCKET", site.path("run/admin.sock")).stdout(Stdio::null());
    let mut watching = watching.spawn().unwrap();
    for number in 0..50 {
        let device = format!("d{number}");
        stream.ask(request(&device, "none", csr(&device))).await.must_be(Code::NotFound, "ORDER_UNKNOWN");
    }
    wait_until("BirthmarkRefusalsRising", || prometheus.fires(&daemon, "BirthmarkRefusalsRising"));

    fs::rename(site.path("tokens"), site.path("tokens-away")).unwrap();
    // Each session finds out for itself, when it has something to sign.
    for number in 0.. {
        let device = format!("away{number}");
        stream.ask(request(&device, "o1", csr(&device))).await;
        if daemon.get("/readyz").0 == 503 {
            break;
        }
    }
    for alert in ["BirthmarkHsmAway", "BirthmarkNotReady"] {
        wait_until(alert, || prometheus.fires(&daemon, alert));
    }
    must_answer(&prometheus, &questions());
    watching.kill().unwrap();
    watching.wait().unwrap();
    fs::rename(site.path("tokens-away"), site.path("tokens")).unwrap();
    for alert in ["BirthmarkHsmAway", "BirthmarkNotReady", "BirthmarkRefusalsRising"] {
        wait_until(alert, || !prometheus.fires(&daemon, alert));
    }

    let wrongly = prometheus
        .query(&format!("count_over_time(ALERTS{{instance=\"{}\", alertstate=\"firing\"}}[10m])", healthy.http));
    assert!(wrongly.is_empty(), "of the healthy daemon: {wrongly:?}");
    let wrongly = prometheus.query("count_over_time(ALERTS{alertname=\"BirthmarkDown\", alertstate=\"firing\"}[10m])");
    assert!(wrongly.is_empty(), "{wrongly:?}");
    // It may have fired before the first scrape, with times so short.
    assert!(prometheus.query("ALERTS{alertname=\"BirthmarkNoMetrics\"}").is_empty());
    assert!(load.issued() > 100);
    load.abandon().await;
    healthy.end();
    daemon.end();
}

/// Both forms are what Prometheus' own parsers take, and say the same; what orders come to may change between two looks.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_text_is_read_by_the_parsers_of_both_forms() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 10);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();
    let asked = |accept: &str, file: &str| -> PathBuf {
        let mut connection = TcpStream::connect(daemon.http).unwrap();
        write!(connection, "GET /metrics HTTP/1.0\r\nAccept: {accept}\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let kind = if accept.contains("openmetrics") { "application/openmetrics-text" } else { "text/plain" };
        assert!(head.contains(&format!("content-type: {kind}; version=")), "{head}");
        fs::write(site.path(file), body).unwrap();
        site.path(file)
    };
    let open = asked("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "open");
    let plain = asked("text/plain;version=0.0.4", "plain");
    let judge = "import sys\n\
                 from prometheus_client import parser\n\
                 from prometheus_client.openmetrics import parser as openmetrics\n\
                 def read(module, file):\n \
                 return {(s.name, *sorted(s.labels.items())) for f in module.text_string_to_metric_families(open(file).read()) for s in f.samples if s.name.startswith('birthmark_') and not s.name.startswith('birthmark_order_')}\n\
                 def bounds(series):\n \
                 return {tuple(('le', float(p[1])) if p[0] == 'le' else p for p in s) for s in series}\n\
                 o, p = read(openmetrics, sys.argv[1]), read(parser, sys.argv[2])\n\
                 assert bounds(o) == bounds(p), bounds(o) ^ bounds(p)\n\
                 print(len(o))\n";
    let python = root().join("tests/.venv/bin/python");
    let judged = Command::new(python).args(["-c", judge]).args([&open, &plain]).output().unwrap();
    let series: usize = succeeded(&judged).trim().parse().unwrap();
    assert!(series > 300, "{series}");
    daemon.end();
}

/// The rules are what `promtool` takes, and their own tests hold: each alert fires for its fault, alone, and not before.
#[test]
fn alerts_pass_their_tests_in_promtool() {
    for arguments in [["check", "rules", "birthmark.rules.yml"], ["test", "rules", "birthmark.rules.test.yml"]] {
        let mut promtool = Command::new("promtool");
        promtool.args(arguments).current_dir(root().join("packaging/prometheus"));
        succeeded(&promtool.output().expect("promtool (Debian: prometheus) must be installed"));
    }
    let text = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (rules, tests) =
        (text("packaging/prometheus/birthmark.rules.yml"), text("packaging/prometheus/birthmark.rules.test.yml"));
    let runbooks = text("docs/runbooks.md");
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 20, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("name: {alert} fires\n")), "{alert} is not tested");
        assert!(runbooks.contains(&format!("\n## {alert}\n")), "{alert} has no runbook");
        assert!(rules.contains(&format!("runbook: docs/runbooks.md#{}\n", alert.to_lowercase())), "{alert}");
    }
}

/// A client that is refused in the handshake is counted by why.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_counted_by_why_they_failed() {
    let (site, other) = (Site::new(), Site::new());
    let daemon = site.start();
    let count = |result: &str| {
        daemon.metric("birthmark_tls_handshakes_total", &["port=\"grpc\"", &format!("result=\"{result}\"")])
    };
    assert_eq!(daemon.metric("birthmark_tls_handshakes_total", &[]), 0.0, "all are there from the start");
    let stranger = other.identity("station", "line1/t1");
    let handshake = |arguments: &[&str]| {
        let address = daemon.grpc.to_string();
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &address, "-alpn", "h2"]).args(arguments).stdin(Stdio::null());
        openssl.output().unwrap();
    };
    handshake(&[]);
    wait_until("no certificate", || count("no_certificate") == 1.0);
    let file = |name: &str| stranger.join(name).to_str().unwrap().to_owned();
    handshake(&["-cert", &file("cert.pem"), "-key", &file("key.pem")]);
    wait_until("an unknown CA", || count("unknown_ca") == 1.0);
    handshake(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    wait_until("an old version", || count("incompatible") == 1.0);
    speak_no_tls(&daemon);
    wait_until("no TLS", || count("no_tls") == 1.0);
    drop(TcpStream::connect(daemon.grpc).unwrap());
    wait_until("hung up", || count("hung_up") == 1.0);
    let _stream = site.stream(&daemon, "line1/t1").await;
    wait_until("a station", || count("ok") >= 1.0);
    tokio::time::sleep(Duration::from_millis(100)).await;
    daemon.end();
}
