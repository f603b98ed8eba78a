//! What keeps the daemon from issuing is in `/readyz` and in the log, when it begins and when it ends; and what must
//! not end it.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd};
use rustix::process::Signal;
use tonic::Code;

use crate::{
    support::{
        site::{Site, csr, request, wait_until},
        token::succeeded,
    },
    tls::SoftCa,
};

/// This long after now, as a certificate's time.
fn soon(seconds: u64) -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(seconds)
}

/// Gives the daemon another TLS certificate.
fn serve_with(site: &Site, change: impl FnOnce(&mut CertificateParams)) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    fs::write(site.path("tls/cert.pem"), SoftCa::new("Server CA").certify(&params, &key)).unwrap();
    fs::write(site.path("tls/key.pem"), key.serialize_pem()).unwrap();
}

/// The lines of the log that have all of these words.
fn lines(site: &Site, words: &[&str]) -> usize {
    site.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[test]
fn invalid_server_certificate_is_not_ready() {
    let site = Site::new();
    for (not_before, not_after, says) in [
        ((2019, 1, 1), (2020, 1, 1), "expired at 2020-01-01"),
        ((2998, 1, 1), (2999, 1, 1), "not valid before 2998-01-01"),
    ] {
        serve_with(&site, |params| {
            params.not_before = date_time_ymd(not_before.0, not_before.1, not_before.2);
            params.not_after = date_time_ymd(not_after.0, not_after.1, not_after.2);
        });
        let daemon = site.start();
        let (status, obstacles) = daemon.get("/readyz");
        let told = format!("server certificate: {says}");
        assert!(status == 503 && obstacles.lines().any(|line| line.starts_with(&told)), "{status} {obstacles}");
        assert_eq!(daemon.metric("birthmark_ready", &[]), 0.0);
        assert_eq!(lines(&site, &["not ready", "server certificate", says]), 1, "{}", site.log());
        // Operators on this machine are not kept out. After the certificate's notAfter it may be the clock that is
        // wrong, so nothing new is recorded, and what says so names both causes.
        let expired = not_after.0 <= 2026;
        let clock = obstacles.lines().find(|line| line.starts_with("ledger: ")).unwrap_or_default();
        let causes =
            ["server.certificate", "the clock is wrong", "the certificate has expired", "as soon as they are replaced"];
        assert_eq!(causes.iter().all(|cause| clock.contains(cause)), expired, "{obstacles}");
        succeeded(&site.operator(&["order", "list"]));
        let created = site.operator(&["order", "create", "o1", "--profile", "device", "--quantity", "1"]);
        assert_eq!(created.status.success(), !expired, "{created:?}");
        daemon.end();
    }
    assert_eq!(lines(&site, &[" ready"]), lines(&site, &["not ready"]), "{}", site.log());
}

#[test]
fn server_certificate_that_expires_is_told_when_it_does() {
    let site = Site::new();
    serve_with(&site, |params| params.not_after = date_time_ymd(1970, 1, 1) + soon(40));
    let daemon = site.start();
    assert_eq!(daemon.get("/readyz").0, 200);
    wait_until("the log says so", || lines(&site, &["WARN", "server certificate", "expires soon"]) == 1);
    let not_after = daemon.metric("birthmark_server_certificate_not_after_timestamp_seconds", &[]);
    let left = not_after - jiff::Timestamp::now().as_second() as f64;
    assert!((0.0..=40.0).contains(&left), "{left}");
    wait_until("it has expired", || daemon.get("/readyz").0 == 503);
    wait_until("the log says so", || lines(&site, &["not ready", "server certificate", "expired at"]) == 1);
    daemon.end();
}

#[test]
fn expired_station_ca_is_not_ready() {
    let site = Site::new();
    let old = SoftCa::with("Old", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let usual = fs::read_to_string(site.path("ca/station-ca.pem")).unwrap();
    site.token.write("ca/clients.pem", &old.pem());
    site.configure(|text| text.replace("client_ca = \"ca/station-ca.pem\"", "client_ca = \"ca/clients.pem\""));
    let daemon = site.start();
    let (status, obstacles) = daemon.get("/readyz");
    assert!(status == 503 && obstacles.starts_with("station CA: expired at 2020-01-01"), "{status} {obstacles}");
    assert_eq!(lines(&site, &["not ready", "station CA", "expired at 2020-01-01"]), 1, "{}", site.log());
    daemon.end();

    // The new one beside it is enough.
    site.token.write("ca/clients.pem", &(old.pem() + &usual));
    let daemon = site.start();
    let (status, ready) = daemon.get("/readyz");
    assert!(status == 200 && ready.contains("degraded: station CA: expired at 2020-01-01"), "{status} {ready}");
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_that_expires_is_not_ready() {
    let site = Site::new();
    let root = SoftCa::new("Root");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Short");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(1970, 1, 1) + soon(40);
    // For the key in the token.
    let issuing = crate::support::site::key_of(&crate::support::site::certificate(&site.path("ca/issuer.pem")));
    let key = rcgen::SubjectPublicKeyInfo::from_der(&issuing).unwrap();
    site.token.write("ca/short.pem", &root.certify(&params, &key));
    site.token.write("ca/short-root.pem", &root.pem());
    site.configure(|text| {
        text.replace(
            "chain = [\"ca/issuer.pem\", \"ca/root.pem\"]",
            "chain = [\"ca/short.pem\", \"ca/short-root.pem\"]",
        )
        .replace("validity_days = 7300", "not_after = \"issuer\"")
    });
    let daemon = site.start();
    assert_eq!(daemon.get("/readyz"), (200, "ready\n".into()));
    site.create_order("o1", 5);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    stream.ask(request("d1", "o1", csr("d1"))).await.issued();
    wait_until("it has expired", || daemon.get("/readyz").0 == 503);
    let (_, obstacles) = daemon.get("/readyz");
    assert!(obstacles.starts_with("profile device: "), "{obstacles}");
    stream.ask(request("d2", "o1", csr("d2"))).await.must_be(Code::FailedPrecondition, "ISSUER_EXPIRING");
    wait_until("the log says so", || lines(&site, &["not ready", "profile device"]) == 1);
    assert_eq!(daemon.metric("birthmark_ready", &[]), 0.0);
    daemon.end();
}

#[test]
fn low_disk_is_in_the_log_and_not_ready() {
    let site = Site::new();
    site.configure(|text| text.replace("path = \"data\"", "path = \"data\"\nmin_free_mib = 4294967295"));
    let daemon = site.start();
    assert_eq!(daemon.get("/readyz").0, 503);
    assert_eq!(lines(&site, &["not ready", "ledger"]), 1, "{}", site.log());
    assert_eq!(lines(&site, &["INFO ready"]), 0, "{}", site.log());
    daemon.end();
    site.configure(|usual| usual);
    let daemon = site.start();
    wait_until("the log says so", || lines(&site, &["INFO ready"]) == 1);
    daemon.end();
}

#[test]
fn signals_that_ask_for_nothing_end_nothing() {
    let site = Site::new();
    let mut daemon = site.start();
    let file = site.path("ready.json");
    let signals = [
        (Signal::HUP, "SIGHUP"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::XFSZ, "SIGXFSZ"),
    ];
    for (signal, name) in signals {
        daemon.signal(signal);
        wait_until("the log says so", || lines(&site, &[name, "received"]) == 1);
        assert!(daemon.is_running() && daemon.get("/readyz").0 == 200, "{name}");
    }
    daemon.signal(Signal::PIPE);
    assert_eq!(daemon.get("/readyz").0, 200);
    assert!(file.exists());
    daemon.signal(Signal::QUIT);
    assert!(daemon.wait().success());
    assert_eq!(lines(&site, &["SIGQUIT", "shutting down"]), 1, "{}", site.log());
    assert!(!file.exists(), "the ready file is still there");
}
