//! How an HSM comes back after an outage, and what the daemon does meanwhile.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tonic::Code;

use crate::{
    hsm::site_with_two_tokens,
    hsm_codes::insist,
    support::{
        faults::{Faults, Load},
        site::{Answer, Daemon, Site, csr, must_refuse, request, wait_until},
        token::{Hsm, succeeded, text},
    },
};

const SETTINGS: &str = "sessions = 3\ncall_limit_seconds = 2\nwait_seconds = 3";

fn sessions(daemon: &Daemon) -> f64 {
    daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""])
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_session_does_not_hide_a_dead_module() {
    let site = Site::new();
    let faults = Faults::one_module(&site, SETTINGS);
    let daemon = site.start();
    site.create_order("o", 1000);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d0", "o", csr("d0"))).await.issued();
    wait_until("the audit key has signed, and is idle from now on", || site.path("data/checkpoint").exists());
    for device in ["d1", "d2"] {
        let initialised = faults.seen("C_Initialize");
        faults.set("dead");
        faults.set("");
        let began = Instant::now();
        insist(&mut stream, &request(device, "o", csr(device))).await;
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        wait_until("it was initialised", || faults.seen("C_Initialize") > initialised);
        wait_until("all sessions are back", || {
            sessions(&daemon) == 3.0 && daemon.metric("birthmark_hsm_sessions", &["issuer=\"audit\""]) == 1.0
        });
    }
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn token_seen_after_initialising_only_is_used_again() {
    if Hsm::under_test() != Hsm::SoftHsm {
        return;
    }
    let (site, faults) = site_with_two_tokens();
    let daemon = site.start();
    site.create_order("o", 1_000_000);
    let load = Load::start(&site, &daemon, "o").await;
    load.more(50);
    faults.set("vanish second");
    wait_until("the token is left out", || sessions(&daemon) == 2.0);
    faults.set("");
    wait_until("the token is taken back", || sessions(&daemon) == 4.0);
    load.more(50);
    assert_eq!(load.refused(), 0, "a station saw an error");
    faults.counts("C_Initialize", 2);
    load.finish(&site, "o").await;
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn session_limit_in_any_code_is_lived_with() {
    for (code, wanted) in [
        ("CKR_SESSION_COUNT", "16"),
        ("CKR_ARGUMENTS_BAD", "16"),
        ("CKR_GENERAL_ERROR", "\"auto\""),
        ("CKR_DEVICE_MEMORY", "\"auto\""),
        ("CKR_FUNCTION_FAILED", "16"),
        ("CKR_TOKEN_NOT_PRESENT", "16"),
        ("CKR_PIN_EXPIRED", "16"),
        ("0x80000042", "16"),
    ] {
        let site = Site::new();
        let faults = Faults::between(&site, &format!("sessions = {wanted}\ncall_limit_seconds = 2"));
        // The anchor and three.
        faults.set_before_start(&format!("fail C_OpenSession {code} calls 5..1000000"));
        let daemon = site.start();
        let opened = sessions(&daemon);
        assert!((1.0..=3.0).contains(&opened), "{code}: {opened}");
        assert!(wanted != "16" || opened == 3.0 && site.log().contains("fewer sessions than wanted"), "{code}");
        site.create_order("o", 1000);
        let mut stream = site.stream(&daemon, "line1/t1").await;
        stream.ask(request("d0", "o", csr("d0"))).await.issued();
        // A session that is lost cannot be replaced while the limit is less than before; the others go on.
        faults.set(&format!("fail C_Sign CKR_SESSION_HANDLE_INVALID calls 1..1\nfail C_OpenSession {code}"));
        for number in 1..20 {
            let device = format!("d{number}");
            stream.ask(request(&device, "o", csr(&device))).await.issued();
        }
        assert_eq!(daemon.get("/readyz").0, 200, "{code}");
        faults.set("");
        wait_until("all sessions are back", || sessions(&daemon) == opened);
        daemon.end();
        // The first session has to open.
        faults.set_before_start(&format!("fail C_OpenSession {code}"));
        must_refuse(&site, &[code, "issuers.main.key_uri"]);
    }
}

/// A key that comes when another pool has every session of the token gets one of them: at the start, and when all come back
/// after an outage and the token has still less room.
#[tokio::test(flavor = "multi_thread")]
async fn full_token_has_a_session_for_each_key() {
    let site = Site::new();
    let faults = Faults::one_module(&site, "sessions = 16\ncall_limit_seconds = 5\nwait_seconds = 10");
    let of_audit = |daemon: &Daemon| daemon.metric("birthmark_hsm_sessions", &["issuer=\"audit\""]);
    // The anchor and three.
    faults.set_before_start("sessions 4");
    let daemon = site.start();
    wait_until("both keys have sessions", || (sessions(&daemon), of_audit(&daemon)) == (2.0, 1.0));
    assert!(site.log().contains("so that another key in this token can sign"), "{}", site.log());
    site.create_order("o", 1000);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d0", "o", csr("d0"))).await.issued();
    wait_until("the audit key has signed", || site.path("data/checkpoint").exists());
    for (round, room) in ["sessions 4", "sessions 3"].into_iter().enumerate() {
        let initialised = faults.seen("C_Initialize");
        faults.set(&format!("{room}\ndead"));
        faults.set(room);
        let device = format!("late{round}");
        insist(&mut stream, &request(&device, "o", csr(&device))).await;
        wait_until("it was initialised", || faults.seen("C_Initialize") > initialised);
        let expected = if room == "sessions 4" { 2.0 } else { 1.0 };
        wait_until("both keys have sessions", || (sessions(&daemon), of_audit(&daemon)) == (expected, 1.0));
    }
    daemon.end();
}

/// How often each event is in the journal, which must be whole.
fn events(site: &Site) -> BTreeMap<String, usize> {
    let mut events = BTreeMap::new();
    for line in succeeded(&site.token.birthmark(&["journal", "dump", "data"])).lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        *events.entry(entry["event"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn outage_does_not_grow_the_journal() {
    let site = Site::new();
    let faults = Faults::between(&site, "sessions = 3\ncall_limit_seconds = 2\nwait_seconds = 10");
    let daemon = site.start();
    site.create_order("o", 1_000_000);
    site.create_order("p", 1000);
    let mut stream = site.stream(&daemon, "line1/other").await;
    let (d0, first) = (request("d0", "p", csr("d0")), request("d1", "p", csr("d1")));
    let certificate = stream.ask(d0.clone()).await.issued().certificate;
    // A short outage is waited for.
    faults.set("fail * CKR_DEVICE_ERROR");
    stream.send(first).await;
    wait_until("it is out", || daemon.get("/readyz").0 == 503);
    faults.set("");
    Answer::of(stream.receive().await.unwrap().unwrap()).issued();

    // A long one is not; what does not need the HSM works on.
    let load = Load::start(&site, &daemon, "o").await;
    load.more(20);
    faults.set("fail * CKR_DEVICE_ERROR");
    wait_until("it is out", || daemon.get("/readyz").0 == 503);
    wait_until("stations are refused again and again", || load.refused() > 1000);
    let replay = stream.ask(d0).await.issued();
    assert!(replay.replay && replay.certificate == certificate);
    faults.set("");
    let issued = load.finish(&site, "o").await + 2;
    daemon.end();
    let events = events(&site);
    assert_eq!(events["issued"] as u64, issued, "{events:?}");
    // What had been reserved when it went out: at most the stations' windows.
    let abandoned = events.get("abandoned").copied().unwrap_or_default();
    assert!(abandoned <= 64, "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_login_is_retried_by_an_operator() {
    let site = Site::new();
    let faults = Faults::two_modules(&site, SETTINGS);
    let daemon = site.start();
    site.create_order("o", 1000);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("first", "o", csr("first"))).await.issued();
    let retry = |more: &[&str]| site.operator(&[&["hsm", "retry"], more].concat());
    for (code, wrong_pin) in [
        ("CKR_PIN_EXPIRED", false),
        ("CKR_PIN_LOCKED", false),
        ("CKR_USER_PIN_NOT_INITIALIZED", false),
        ("CKR_PIN_INCORRECT", true),
        ("CKR_PIN_LEN_RANGE", true),
        ("CKR_PIN_INVALID", true),
    ] {
        let logins = faults.seen("C_Login");
        faults.set(&format!("lose-sessions\nfail C_Login {code}"));
        stream.ask(request(code, "o", csr(code))).await.must_be(Code::Unavailable, "HSM_UNAVAILABLE");
        faults.set("");
        assert_eq!(daemon.get("/readyz").0, 503, "{code}");
        faults.counts("C_Login", logins + 1);
        if wrong_pin {
            // The same PIN again would be a try for nothing.
            let refused = retry(&["main"]);
            assert_eq!(refused.status.code(), Some(1));
            assert!(text(&refused.stdout).contains("--same-pin"), "{}", text(&refused.stdout));
            faults.counts("C_Login", logins + 1);
            assert!(succeeded(&retry(&["--same-pin"])).contains("signs"));
        } else {
            assert!(succeeded(&retry(&[])).contains("signs"));
        }
        insist(&mut stream, &request(code, "o", csr(code))).await;
        wait_until("all sessions are back", || sessions(&daemon) == 3.0);
        faults.counts("C_Login", logins + 2);
    }
    assert!(site.log().contains("operator:local-") && site.log().contains("an operator has the HSM tried again"));
    assert_eq!(daemon.metric("birthmark_hsm_retries_total", &[]), 9.0);
    let unknown = retry(&["nobody"]);
    assert!(!unknown.status.success() && text(&unknown.stderr).contains("audit, main"), "{}", text(&unknown.stderr));
    daemon.end();
}

#[test]
fn pin_file_in_any_encoding_costs_no_try() {
    if Hsm::under_test() != Hsm::SoftHsm {
        return;
    }
    let site = Site::new();
    let check = || {
        let uri = site.token.uri(";object=issuing");
        text(&site.token.birthmark(&["hsm", "check", &uri, "--config", "birthmark.toml"]).stdout)
    };
    let utf16: Vec<u8> = "\u{feff}123456\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (pin, says) in [
        (b"\xef\xbb\xbf123456\r\n".as_slice(), None),
        (&utf16, None),
        (&utf16[2..], Some("without a byte order mark")),
        (b"123456\0", Some("U+0000")),
        (b"123456\n654321\n", Some("several lines")),
        (b"\xef\xbb\xbf", Some("is empty")),
    ] {
        std::fs::write(site.path("pin"), pin).unwrap();
        let said = check();
        match says {
            None => assert!(said.contains("no tries lost") && !said.contains("FAILED"), "{said}"),
            Some(says) => assert!(said.contains(says) && !said.contains("refused the PIN"), "{pin:?}: {said}"),
        }
    }
    std::fs::write(site.path("pin"), "123456").unwrap();
    assert!(check().contains("no tries lost"));
}

#[test]
fn daemon_that_crashes_leaves_no_core_dump() {
    let site = Site::new();
    let mut daemon = site.start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    daemon.signal(Signal::ABORT);
    let status = daemon.wait();
    assert!(status.signal() == Some(6) && !status.core_dumped(), "{status}");
}
