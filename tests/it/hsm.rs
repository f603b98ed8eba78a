//! An HSM that fails, as stations and ops meet it. Longer with BIRTHMARK_SOAK_SECONDS.

use std::time::{Duration, Instant};

use crate::support::{
    faults::{Faults, Load},
    site::{Site, csr, request, wait_until},
    token::{Hsm, Token, succeeded, text},
};

/// Quick to notice, so that the tests are quick.
const SETTINGS: &str = "sessions = 4\ncall_limit_seconds = 1\nwait_seconds = 2";

/// A signature is one C_SignInit and one C_Sign.
#[tokio::test(flavor = "multi_thread")]
async fn signature_is_one_sign_init_and_one_sign() {
    let site = Site::new();
    let faults = Faults::between(&site, SETTINGS);
    let daemon = site.start();
    site.create_order("o", 1000);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("first", "o", csr("first"))).await.issued();
    faults.set("");
    let began = Instant::now();
    for number in 0..100 {
        let device = format!("d{number}");
        stream.ask(request(&device, "o", csr(&device))).await.issued();
    }
    wait_until("the report is written", || faults.seen("C_Sign.script") >= 100);
    // Where the machine pauses, an idle session makes a test signature.
    let probes = began.elapsed().as_millis() as u64 / 400 + 1;
    for (name, calls) in faults.report() {
        let signs = matches!(name.as_str(), "C_Sign.script" | "C_SignInit.script");
        let expected = if signs { 100..=100 + probes } else { 0..=0 };
        assert!(!name.ends_with(".script") || expected.contains(&calls), "{name}: {calls}");
    }
    daemon.end();
}

/// The checks of an HSM are printed as a table, without the PIN.
#[test]
fn hsm_check_prints_its_checks_as_a_table() {
    let token = Token::new();
    let key_type = Hsm::under_test().key_type();
    let step = format!(
        "[[step]]\ndo = \"root\"\nkey = \"root\"\nkey_type = \"{key_type}\"\nsubject = [\"CN=Root\"]\ndays = 9\n\
         certificate = \"root.pem\"\n"
    );
    token.write("ceremony.toml", &(token.ceremony_head() + &step));
    succeeded(&token.birthmark(&["ceremony", "ceremony.toml", "--yes"]));
    let (variable, file) = Hsm::under_test().configuration();
    let check = |uri: &str, more: &[&str]| {
        let mut command = token.command(&[&["hsm", "check", uri], more].concat());
        command.env(variable, token.path(file)).output().unwrap()
    };
    let uri = token.uri(";object=root");
    let table = succeeded(&check(&uri, &["--certificate", "root.pem"]));
    for what in
        ["module", "token flags", "session limit", "mechanism", "extractable", "test signature", "best sessions"]
    {
        assert!(table.lines().any(|line| line.starts_with(what) && line.contains("ok")), "{what}: {table}");
    }
    assert!(!table.contains("123456"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&succeeded(&check(&uri, &["--json"]))).unwrap();
    assert_eq!((&json["ok"], &json["checks"][0]["what"]), (&true.into(), &"module".into()));
    let missing = check(&token.uri(";object=none"), &[]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stdout).contains("FAILED") && text(&missing.stdout).contains("\"root\""));
}

/// A fault, whether the daemon is out while it lasts, and the code that is counted.
struct Case {
    script: &'static str,
    out: bool,
    code: &'static str,
}

const CASES: &[Case] = &[
    Case { script: "lose-sessions", out: false, code: "CKR_" },
    Case {
        script: "fail C_Sign CKR_SESSION_HANDLE_INVALID calls 1..10",
        out: false,
        code: "CKR_SESSION_HANDLE_INVALID",
    },
    Case {
        script: "fail C_SignInit CKR_OBJECT_HANDLE_INVALID rate 0.1",
        out: false,
        code: "CKR_OBJECT_HANDLE_INVALID",
    },
    Case { script: "fail C_SignInit CKR_USER_NOT_LOGGED_IN rate 0.1", out: false, code: "CKR_USER_NOT_LOGGED_IN" },
    Case { script: "fail C_Sign CKR_DEVICE_ERROR rate 0.1", out: false, code: "CKR_DEVICE_ERROR" },
    Case { script: "fail C_Sign 0x80001234 rate 0.1", out: false, code: "0x80001234" },
    Case { script: "fail C_Sign CKR_PIN_EXPIRED calls 1..2", out: false, code: "CKR_PIN_EXPIRED" },
    Case { script: "wrong-signature rate 0.1", out: false, code: "" },
    Case { script: "latency C_Sign 3ms jitter 4ms\nparallel 2", out: false, code: "" },
    Case { script: "hang C_Sign 3s calls 5..6", out: false, code: "" },
    Case { script: "fail C_Sign CKR_DEVICE_ERROR", out: true, code: "CKR_DEVICE_ERROR" },
    Case { script: "fail C_SignInit CKR_PIN_EXPIRED", out: true, code: "CKR_PIN_EXPIRED" },
    Case {
        script: "fail C_Sign CKR_GENERAL_ERROR\nfail C_OpenSession CKR_GENERAL_ERROR",
        out: true,
        code: "CKR_GENERAL_ERROR",
    },
    Case { script: "fail * CKR_TOKEN_NOT_PRESENT", out: true, code: "CKR_TOKEN_NOT_PRESENT" },
    Case { script: "wrong-signature", out: true, code: "SIGNATURE_WRONG" },
    Case { script: "remove birthmark", out: true, code: "CKR_DEVICE_REMOVED" },
    Case {
        script: "fail C_Sign CKR_CRYPTOKI_NOT_INITIALIZED\nfail C_Initialize CKR_GENERAL_ERROR",
        out: true,
        code: "CKR_CRYPTOKI_NOT_INITIALIZED",
    },
];

/// Every fault alone costs time and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn fault_of_every_kind_costs_time_and_nothing_else() {
    let site = Site::new();
    let faults = Faults::between(&site, SETTINGS);
    let mut daemon = site.start();
    let pid = daemon.pid();
    site.create_order("o", 1_000_000);
    let load = Load::start(&site, &daemon, "o").await;
    load.more(50);
    for Case { script, out, code } in CASES {
        let errors = daemon.metric("birthmark_hsm_errors_total", &[code]);
        faults.set(script);
        if *out {
            wait_until(script, || daemon.get("/readyz").0 == 503);
            wait_until(script, || daemon.metric("birthmark_hsm_breaker_open", &[]) == 1.0);
            wait_until("the metrics say so", || {
                let sessions = daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""]);
                (daemon.metric("birthmark_ready", &[]), sessions) == (0.0, 0.0)
            });
            // It lasts longer than requests wait: they are refused, and asked again.
            let refused = load.refused();
            wait_until("requests are refused", || load.refused() > refused);
            faults.set("");
            wait_until("it is ready again", || daemon.get("/readyz").0 == 200);
            load.more(50);
        } else {
            load.more(200);
            // Some failures happen to follow one another, which is an outage until the next probe.
            wait_until(script, || daemon.get("/readyz").0 == 200);
            faults.set("");
        }
        if !code.is_empty() {
            wait_until(script, || daemon.metric("birthmark_hsm_errors_total", &[code]) > errors);
        }
        wait_until("all sessions are back", || {
            let sessions = daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""]);
            (sessions, daemon.metric("birthmark_hsm_breaker_open", &[])) == (4.0, 0.0)
        });
    }

    // Everything is refused until the module is initialised again, which happens by itself.
    let initialised = faults.seen("C_Initialize");
    faults.set("dead");
    wait_until("the module was initialised again", || faults.seen("C_Initialize") > initialised);
    load.more(50);

    // Two hung, two gave wrong signatures: the metrics know.
    assert!(daemon.metric("birthmark_hsm_call_timeouts_total", &[]) >= 2.0);
    assert!(daemon.metric("birthmark_hsm_wrong_signatures_total", &[]) >= 2.0);
    wait_until("the calls that hung came back", || daemon.metric("birthmark_hsm_calls_hung", &[]) == 0.0);
    assert_eq!(pid, daemon.pid());
    assert!(daemon.is_running());
    load.finish(&site, "o").await;
    assert!(!site.log().contains("panicked"));
    daemon.end();
}

/// Mixed faults lose nothing.
#[tokio::test(flavor = "multi_thread")]
async fn faults_in_any_mix_lose_nothing() {
    let seconds = std::env::var("BIRTHMARK_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let site = Site::new();
    let faults = Faults::between(&site, SETTINGS);
    let mut daemon = site.start();
    site.create_order("o", 10_000_000);
    let load = Load::start(&site, &daemon, "o").await;
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut random = 0x5eed_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    while Instant::now() < until {
        let mut script = String::new();
        for _ in 0..=next(3) {
            let line = match next(10) {
                0 => "lose-sessions",
                1 => "fail C_SignInit CKR_SESSION_CLOSED rate 0.02",
                2 => "fail C_Sign CKR_DEVICE_ERROR rate 0.05",
                3 => "wrong-signature rate 0.02",
                4 => "latency C_Sign 2ms jitter 3ms\nparallel 2",
                5 => "hang C_Sign 2s calls 20..20",
                6 => "dead",
                7 => "remove birthmark",
                8 => "fail C_OpenSession CKR_SESSION_COUNT rate 0.5",
                _ => "fail C_Login CKR_FUNCTION_FAILED rate 0.5",
            };
            script += line;
            script += "\n";
        }
        faults.set(&script);
        tokio::time::sleep(Duration::from_millis(300 + next(1200))).await;
        faults.set("");
        tokio::time::sleep(Duration::from_millis(next(600))).await;
    }
    faults.set("");
    wait_until("it is ready again", || daemon.get("/readyz").0 == 200);
    load.more(200);
    assert!(daemon.is_running());
    let (refused, issued) = (load.refused(), load.finish(&site, "o").await);
    assert!(issued > 500, "{issued}");
    println!("{issued} certificates, {refused} refusals in {seconds} s of mixed faults");
    assert!(!site.log().contains("panicked"), "{}", site.log());
    daemon.end();
}

/// A call that hangs does not hinder shutdown.
#[tokio::test(flavor = "multi_thread")]
async fn call_that_hangs_does_not_hinder_shutdown() {
    let site = Site::new();
    let faults = Faults::between(&site, "sessions = 2\ncall_limit_seconds = 1\nwait_seconds = 2");
    let daemon = site.start();
    site.create_order("o", 1000);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("first", "o", csr("first"))).await.issued();
    faults.set("hang C_Sign 600s");
    let mut answers = Vec::new();
    for number in 0..4 {
        stream.send(request(&format!("d{number}"), "o", csr("d"))).await;
    }
    for _ in 0..4 {
        answers.push(crate::support::site::Answer::of(stream.receive().await.unwrap().unwrap()));
    }
    for answer in answers {
        answer.must_be(tonic::Code::Unavailable, "HSM_UNAVAILABLE");
    }
    assert_eq!(daemon.get("/readyz").0, 503);
    assert!(daemon.metric("birthmark_hsm_calls_hung", &[]) >= 2.0);
    // Each call that hangs costs a thread; their number is limited.
    let hung = daemon.metric("birthmark_hsm_calls_hung", &[]);
    assert!(hung <= 2.0 * 2.0 + 2.0, "{hung}");
    let began = Instant::now();
    daemon.end();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// A PIN that is refused is tried once.
#[tokio::test(flavor = "multi_thread")]
async fn pin_that_is_refused_is_tried_once() {
    let site = Site::new();
    let faults = Faults::between(&site, SETTINGS);
    let daemon = site.start();
    site.create_order("o", 1000);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("first", "o", csr("first"))).await.issued();
    let logins = faults.seen("C_Login");
    faults.set("lose-sessions\nfail C_Login CKR_PIN_EXPIRED");
    stream.ask(request("second", "o", csr("second"))).await.must_be(tonic::Code::Unavailable, "HSM_UNAVAILABLE");
    let (status, reason) = daemon.get("/readyz");
    assert!(status == 503 && reason.contains("CKR_PIN_EXPIRED"), "{reason}");
    faults.set("");
    for number in 0..3 {
        let device = format!("d{number}");
        stream.ask(request(&device, "o", csr(&device))).await.must_be(tonic::Code::Unavailable, "HSM_UNAVAILABLE");
    }
    faults.counts("C_Login", logins + 1);
    daemon.end();
}

/// A site whose issuer has its key in two tokens, "birthmark" and "second", of one module.
pub(crate) fn site_with_two_tokens() -> (Site, Faults) {
    let site = Site::new();
    site.token.init_token("second");
    let folder = &site.token;
    // A key made outside, so that both tokens can have it; real HSMs clone theirs.
    folder.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "shared.key"]);
    folder.openssl(&[
        "req",
        "-x509",
        "-new",
        "-key",
        "shared.key",
        "-subj",
        "/CN=Shared",
        "-days",
        "10000",
        "-out",
        "ca/shared.pem",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign",
    ]);
    for token in ["birthmark", "second"] {
        let import = ["--import", "shared.key", "--token", token, "--label", "shared", "--id", "77", "--pin", "123456"];
        let mut command = std::process::Command::new("softhsm2-util");
        command.args(import).env("SOFTHSM2_CONF", site.path("softhsm2.conf")).current_dir(site.path(""));
        succeeded(&command.output().unwrap());
    }
    let faults = Faults::between(&site, "sessions = 2\ncall_limit_seconds = 2\nwait_seconds = 10");
    let text = std::fs::read_to_string(site.path("birthmark.toml")).unwrap();
    let fault_module = crate::support::faults::fault_module();
    let uri = |token: &str| {
        format!("\"pkcs11:token={token};object=shared?module-path={}&pin-source=file:pin\"", fault_module.display())
    };
    let (before, issuer) = text.split_at(text.find("[issuers.main]").unwrap());
    let old = issuer.lines().find(|line| line.starts_with("key_uri = ")).unwrap();
    let issuer = issuer.replacen(old, &format!("key_uri = [{}, {}]", uri("birthmark"), uri("second")), 1);
    let issuer = issuer.replacen("[\"ca/issuer.pem\", \"ca/root.pem\"]", "[\"ca/shared.pem\"]", 1);
    site.token.write("birthmark.toml", &format!("{before}{issuer}"));
    for name in ["root", "issuer"] {
        std::fs::copy(site.path("ca/shared.pem"), site.path(&format!("ca/{name}.pem"))).unwrap();
    }
    (site, faults)
}

/// One of two tokens may go and come back.
#[tokio::test(flavor = "multi_thread")]
async fn token_of_two_may_go_and_come_back() {
    if Hsm::under_test() != Hsm::SoftHsm {
        eprintln!("only SoftHSM's tool imports a key for both tokens");
        return;
    }
    let (site, faults) = site_with_two_tokens();
    let daemon = site.start();
    site.create_order("o", 1_000_000);
    let load = Load::start(&site, &daemon, "o").await;
    load.more(100);
    assert_eq!(daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""]), 4.0);
    for token in ["second", "birthmark", "second"] {
        faults.set(&format!("remove {token}"));
        wait_until("the token is left out", || {
            daemon.metric("birthmark_hsm_breaker_open", &[&format!("token=\"{token}\"")]) == 1.0
        });
        load.more(200);
        let (status, degraded) = daemon.get("/readyz");
        assert!(status == 200 && degraded.contains("degraded: hsm of issuer main: ") && degraded.contains(token));
        assert_eq!(daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""]), 2.0);
        faults.set("");
        wait_until("the token is taken back", || daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""]) == 4.0);
        load.more(100);
    }
    // A token whose calls hang is replaced by the other one, too.
    faults.set("hang C_Sign 4s token second");
    load.more(200);
    faults.set("");
    assert_eq!(load.refused(), 0, "a station saw an error");
    // The module was not started again under the other token.
    faults.counts("C_Initialize", 1);
    load.finish(&site, "o").await;
    daemon.end();

    // One that hangs at the start is taken in when it does not.
    faults.set_before_start("hang C_OpenSession 600s token second");
    let daemon = site.start();
    assert!(daemon.get("/readyz").1.contains("degraded"));
    assert_eq!(daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""]), 2.0);
    daemon.end();
}

/// An HSM that does not answer refuses the start.
#[test]
fn hsm_that_does_not_answer_refuses_the_start() {
    let site = Site::new();
    let faults = Faults::between(&site, SETTINGS);
    faults.set_before_start("hang C_OpenSession 600s");
    let began = Instant::now();
    crate::support::site::must_refuse(&site, &["the HSM does not answer", "issuers.main.key_uri"]);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

/// Not a test: the figures of benches/RESULTS.md. `cargo test --release --test it figures -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run it alone and in release"]
async fn daemon_figures_are_printed() {
    let site = Site::new();
    let faults = Faults::between(&site, "sessions = 32");
    for (name, sessions, script) in
        [("latency=5ms/parallel=32", 32, "latency C_Sign 5ms\nparallel 32"), ("no latency", 1, "")]
    {
        let text = std::fs::read_to_string(site.path("birthmark.toml")).unwrap();
        let line = text.lines().find(|line| line.starts_with("sessions = ")).unwrap();
        site.token.write("birthmark.toml", &text.replace(line, &format!("sessions = {sessions}")));
        let order = format!("o{sessions}");
        let daemon = site.start();
        site.create_order(&order, 10_000_000);
        // Their own part of the work is done before.
        let stations = 4;
        let each = if sessions == 1 { 10_000 } else { 8_000 };
        let requests: Vec<Vec<_>> = (0..stations)
            .map(|station| {
                (0..each)
                    .map(|number| {
                        let device = format!("{order}-{station}-{number}");
                        request(&device, &order, csr(&device))
                    })
                    .collect()
            })
            .collect();
        let mut streams = Vec::new();
        for station in 0..stations {
            streams.push(site.stream(&daemon, &format!("line1/t{station}")).await);
        }
        faults.set(script);
        let began = Instant::now();
        let tasks: Vec<_> = streams
            .into_iter()
            .zip(requests)
            .map(|(mut stream, requests)| {
                tokio::spawn(async move {
                    let mut open = 0;
                    for request in requests {
                        stream.send(request).await;
                        open += 1;
                        while open >= 200 {
                            crate::support::site::Answer::of(stream.receive().await.unwrap().unwrap()).issued();
                            open -= 1;
                        }
                    }
                    for _ in 0..open {
                        crate::support::site::Answer::of(stream.receive().await.unwrap().unwrap()).issued();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let rate = f64::from(stations * each) / began.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_millis(50));
        let report = faults.report();
        let pause = |name: &str| report.get(name).map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1e3);
        println!(
            "{name}: {rate:.0} certificates/s; pause between C_Sign and C_SignInit p50 {} µs, p90 {} µs, p99 {} µs",
            pause("pause.p50.ns"),
            pause("pause.p90.ns"),
            pause("pause.p99.ns")
        );
        faults.set("");
        daemon.end();
    }
}
