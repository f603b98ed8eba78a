//! The status page, as people see it: in headless Chromium, light and dark, on a monitor and on a phone, under load and with each
//! fault. Its numbers are those of `/metrics`; it says nothing in the console, asks nobody else, and axe-core finds nothing.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tonic::Code;

use crate::{
    readiness_faults::{Clock, ServerIdentity},
    support::{
        faults::Faults,
        site::{Daemon, Port, Site, csr, request, wait_until},
    },
};

/// A browser, which tests/page/page.py drives.
struct Browser {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Browser {
    fn start() -> Browser {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut process = Command::new(root.join("tests/.venv/bin/python"))
            .arg(root.join("tests/page/page.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/.venv is missing; `make tests/.venv/ready` makes it");
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        Browser { process, input, output }
    }

    #[track_caller]
    fn ask(&mut self, command: Value) -> Value {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{command}: {error}: {line:?}"));
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer["answer"].clone()
    }

    fn open(&mut self, daemon: &Daemon, scheme: &str, size: &str) {
        self.ask(json!({"do": "open", "url": url(daemon), "scheme": scheme, "size": size}));
    }

    #[track_caller]
    fn until(&mut self, expression: &str) {
        self.ask(json!({"do": "until", "expression": expression, "seconds": 20}));
    }

    fn text(&mut self, selector: &str) -> String {
        let expression = format!("document.querySelector({}).innerText", json!(selector));
        self.ask(json!({"do": "value", "expression": expression})).as_str().unwrap().to_owned()
    }

    /// Nothing is wrong with the page as it is; what the console may say is named.
    #[track_caller]
    fn check(&mut self, may_say: Option<&str>) {
        let found = self.ask(json!({"do": "check"}));
        assert_eq!((&found["violations"], &found["elsewhere"]), (&json!([]), &json!([])), "{found}");
        let said = found["console"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        let said: Vec<_> = said.filter(|line| may_say.is_none_or(|may| !line.contains(may))).collect();
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(found["sticks_out"], false, "it is wider than the screen");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends when nobody asks any more.
        self.input = None;
        let _ = self.process.wait();
    }
}

fn url(daemon: &Daemon) -> String {
    format!("http://{}/", daemon.http)
}

const ROWS: &str = "document.querySelectorAll('#order-rows > tr').length";

fn state(word: &str) -> String {
    format!("document.getElementById('state').innerText === {}", json!(word))
}

/// Under load, in each scheme and size, with names that are markup and longer than the screen; and the numbers agree.
#[tokio::test(flavor = "multi_thread")]
async fn page_shows_what_metrics_say_in_every_scheme_and_size() {
    let site = Site::new();
    let daemon = site.start();
    let mut browser = Browser::start();
    browser.open(&daemon, "light", "desktop");
    browser.until(&state("Ready"));
    browser.check(None);
    let empty = browser.text("#orders");
    assert!(empty.contains("no open order"), "{empty}");

    let long = format!("{}-x", "order-of-the-plant-".repeat(3));
    for (order, quantity) in [("o1", 40), ("used-up", 2), (&long, 5)] {
        site.create_order(order, quantity);
    }
    let mut stream = site.stream(&daemon, "line1/t1").await;
    for number in 0..20 {
        let device = format!("d{number}");
        stream.ask(request(&device, "o1", csr(&device))).await.issued();
    }
    for device in ["u1", "u2"] {
        stream.ask(request(device, "used-up", csr(device))).await.issued();
    }
    stream.ask(request("u3", "used-up", csr("u3"))).await.must_be(Code::ResourceExhausted, "ORDER_EXHAUSTED");
    stream.ask(request("d20", "o1", vec![1, 2, 3])).await.must_be(Code::InvalidArgument, "CSR_MALFORMED");

    for (scheme, size) in [("light", "desktop"), ("dark", "desktop"), ("light", "phone"), ("dark", "phone")] {
        browser.open(&daemon, scheme, size);
        browser.until(&format!("{ROWS} === 3 && document.getElementById('refused').innerText === '2'"));
        browser.check(None);
    }
    let certificates = daemon.metric("birthmark_certificates_total", &["replay=\"false\""]);
    assert_eq!(browser.text("#rate-sub"), format!("{certificates} in the ledger"));
    assert_eq!(browser.text("#refused"), daemon.metric("birthmark_refused_requests_total", &[]).to_string());
    let station = browser.text("#station-rows > tr:first-child");
    for said in ["line1/t1", "connected", "22", "the order is used up (ORDER_EXHAUSTED)", "what was sent is no CSR"] {
        assert!(station.contains(said), "{said}: {station}");
    }
    let orders = browser.text("#order-rows");
    for said in ["20 of 40 (50.0 %)", "2 of 2 (100.0 %)", "complete", &long] {
        assert!(orders.contains(said), "{said}: {orders}");
    }
    let sessions = daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""]);
    let hsm = browser.text("#hsm");
    assert!(hsm.contains(&format!("{sessions} of {sessions}")), "{hsm}");
    daemon.end();
}

/// With keys alone the orders are reached at once and the focus is seen; a screen reader reads the state first, every table by its
/// columns, charts in words, and nothing that has no name.
#[tokio::test(flavor = "multi_thread")]
async fn page_is_used_by_keyboard_and_read_aloud() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 4);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();
    let mut browser = Browser::start();
    browser.open(&daemon, "dark", "phone");
    browser.until(&format!("{ROWS} === 1 && document.getElementById('order-rows').innerText.includes('1 of 4')"));

    let skip = browser.ask(json!({"do": "press", "key": "TAB"}));
    assert_eq!((skip["at"].as_str(), skip["seen"].as_bool()), (Some("#orders"), Some(true)), "{skip}");
    assert_ne!(skip["outline"], "none", "{skip}");
    let orders = browser.ask(json!({"do": "press", "key": "ENTER"}));
    assert_eq!(orders["at"], "orders", "{orders}");
    assert_eq!(browser.ask(json!({"do": "value", "expression": "scrollY > 0"})), json!(true));

    let read: Vec<(String, String)> = serde_json::from_value(browser.ask(json!({"do": "read"}))).unwrap();
    let place = |role: &str, name: &str| read.iter().position(|(r, n)| r == role && n.contains(name));
    let must = |role: &str, name: &str| place(role, name).unwrap_or_else(|| panic!("no {role} {name:?}: {read:?}"));
    let headings: Vec<_> = read.iter().filter(|(role, _)| role == "heading").map(|(_, name)| name.as_str()).collect();
    assert_eq!(headings.first(), Some(&"Ready"), "{read:?}");
    must("status", "");
    assert!(must("table", "Open orders") < must("columnheader", "Expected end"));
    assert!(must("columnheader", "Progress") < must("cell", "1 of 4"));
    assert!(must("table", "Stations") < must("columnheader", "Refusals since the start"));
    must("image", "Certificates over the last hour");
    let nameless = ["heading", "image", "table", "link", "columnheader", "region"];
    for (role, name) in &read {
        assert!(!nameless.contains(&role.as_str()) || !name.is_empty(), "a {role} without a name: {read:?}");
    }
    daemon.end();
}

/// The page says within a second what `/readyz` says, when it begins and when it is over; and at once when the daemon is gone and
/// back.
#[tokio::test(flavor = "multi_thread")]
async fn page_flips_within_a_second_and_comes_back_by_itself() {
    let site = Site::new();
    // The next daemon listens where this one does.
    let port = Port::hold().unwrap();
    let fixed = format!("[http]\nlisten = \"{}\"", port.address());
    site.configure(|usual| usual.replace("[http]\nlisten = \"127.0.0.1:0\"", &fixed));
    let faults = Faults::in_configuration(&site, "sessions = 2\nwait_seconds = 1");
    let mut daemon = site.start();
    site.create_order("o1", 10);
    let mut browser = Browser::start();
    browser.open(&daemon, "dark", "desktop");
    browser.until(&state("Ready"));
    let mut stream = site.stream(&daemon, "line1/t1").await;
    // The machine may do something else for a second, but not each time.
    let mut late = Vec::new();
    let flips = [("fail C_Sign CKR_DEVICE_ERROR", 503, "Not ready"), ("", 200, "Ready")];
    for (script, code, word) in flips.into_iter().cycle().take(3 * flips.len()) {
        browser.ask(json!({"do": "watch", "expression": state(word)}));
        faults.set(script);
        while daemon.get("/readyz").0 != code {
            // Sessions find out when they have something to sign.
            stream.ask(request("d1", "o1", csr("d1"))).await;
        }
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seen = Duration::from_millis(browser.ask(json!({"do": "watched"})).as_u64().unwrap());
        if seen >= begun + Duration::from_secs(1) {
            late.push((word, seen.saturating_sub(begun)));
        }
        if code == 503 {
            assert!(browser.text("#causes").contains("hsm of issuer main"), "{}", browser.text("#causes"));
            assert!(browser.text("#hsm").contains("does not sign"), "{}", browser.text("#hsm"));
            // For who cannot see it.
            assert!(browser.text("#said").starts_with("Not ready: hsm of issuer main"), "{}", browser.text("#said"));
            browser.check(None);
        }
    }
    assert!(late.len() < flips.len(), "{late:?} later");
    daemon.kill();
    drop(stream);
    browser.until(&state("No connection to the daemon"));
    let said = browser.text("#causes");
    assert!(said.starts_with("since ") && said.contains("when it was ready"), "{said}");
    browser.check(Some("/status/events"));
    let daemon = site.start();
    browser.until(&state("Ready"));
    browser.check(Some("/status/events"));
    daemon.end();
}

/// Faults of the clock, of the journal's second disk and of the daemon's own certificate are told in words, and are gone when they
/// are over.
#[tokio::test(flavor = "multi_thread")]
async fn page_tells_faults_of_clock_mirror_and_certificate() {
    let site = Site::new();
    fs::create_dir(site.path("mirror")).unwrap();
    site.configure(|text| text.replace("path = \"data\"", "path = \"data\"\nmirror = \"mirror\""));
    let (clock, daemon) = Clock::start(&site);
    let (identity, mirror, away) = (ServerIdentity::of(&site), site.path("mirror"), site.path("away"));
    type Fault<'f> = (&'f str, &'f str, &'f dyn Fn(), &'f dyn Fn());
    let faults: [Fault<'_>; 4] = [
        ("Not ready", "the clock (", &|| clock.set("+10d"), &|| clock.set("+0")),
        ("Not ready", "the clock (", &|| clock.set("-1d"), &|| clock.set("+0")),
        ("Not ready", "server certificate: expired at", &|| identity.expire(), &|| identity.put_back()),
        ("Ready, with a warning", "journal mirror", &|| fs::rename(&mirror, &away).unwrap(), &|| {
            fs::rename(&away, &mirror).unwrap();
        }),
    ];
    let mut browser = Browser::start();
    browser.open(&daemon, "light", "desktop");
    browser.until(&state("Ready"));
    for (word, cause, begin, end) in faults {
        begin();
        browser.until(&state(word));
        let said = browser.text("#causes");
        assert!(said.contains(cause), "{cause}: {said}");
        browser.check(None);
        end();
        browser.until(&state("Ready"));
        assert_eq!(browser.text("#causes"), "");
    }
    daemon.end();
}

/// A disk that is too full is said in the state; without JavaScript too.
#[tokio::test(flavor = "multi_thread")]
async fn page_without_script_has_the_state_and_its_causes() {
    let site = Site::new();
    site.configure(|text| text.replace("path = \"data\"", "path = \"data\"\nmin_free_mib = 1000000000"));
    let daemon = site.start();
    wait_until("it is not ready", || daemon.get("/readyz").0 == 503);
    let mut browser = Browser::start();
    for script in [true, false] {
        browser.ask(json!({"do": "open", "url": url(&daemon), "size": "phone", "script": script}));
        let text = browser.text("main");
        for said in ["Not ready", "ledger", "MiB"] {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert_eq!(text.contains("needs JavaScript"), !script, "{text}");
    }
    daemon.end();
}

/// Pages that are open are bounded, and one too many hears so; those that do not read cost the daemon nothing for long.
#[test]
fn listeners_beyond_the_limit_are_refused() {
    let site = Site::new();
    let daemon = site.start();
    let listen = || {
        let mut stream = std::net::TcpStream::connect(daemon.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET /status/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut head = String::new();
        let mut reader = BufReader::new(stream);
        reader.read_line(&mut head).unwrap();
        (head, reader)
    };
    let open: Vec<_> = (0..32).map(|_| listen()).collect();
    assert!(
        open.iter().all(|(head, _)| head.contains(" 200 ")),
        "{:?}",
        open.iter().map(|(head, _)| head).collect::<Vec<_>>()
    );
    let (refused, _) = listen();
    assert!(refused.contains(" 503 "), "{refused}");
    assert_eq!(daemon.get("/readyz").0, 200, "others are answered");
    drop(open);
    wait_until("there is room again", || listen().0.contains(" 200 "));
    daemon.end();
}
