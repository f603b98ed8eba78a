//! Every return code of PKCS#11, from an HSM that is idle and from one that is busy, with the audit key in the same
//! module and in another one: each CSR ends with one certificate.

use std::time::Duration;

use birthmark::proto::{IssueRequest, IssuedCertificate};
use tonic::Code;

use crate::support::{
    faults::{Faults, Load},
    site::{Answer, IssueStream, Site, csr, request, wait_until},
};

/// Quick to notice, and shorter than an outage, so that requests are refused and sent again too.
const SETTINGS: &str = "sessions = 3\ncall_limit_seconds = 2\nwait_seconds = 1";

/// How many codes `make test` leaves out for each that it tries.
const SAMPLE: usize = 15;

/// Asks until there is a certificate, as a station does.
pub(crate) async fn insist(stream: &mut IssueStream, request: &IssueRequest) -> IssuedCertificate {
    loop {
        match stream.ask(request.clone()).await {
            Answer::Issued(issued) => return issued,
            Answer::Refused { code: Code::Unavailable, reason, retry: true, .. } if reason == "HSM_UNAVAILABLE" => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => panic!("{}: {other:?}", request.request_id),
        }
    }
}

async fn try_codes(site: Site, faults: Faults, codes: Vec<&'static str>) {
    let mut daemon = site.start();
    site.create_order("idle", 10_000);
    site.create_order("o", 10_000_000);
    let mut stream = site.stream(&daemon, "line1/idle").await;
    stream.ask(request("first", "idle", csr("first"))).await.issued();
    let working = || daemon_sessions(&daemon) == 3.0;
    for code in &codes {
        // All that the one request meets, after a time without any: every session fails, that of the audit key unseen.
        faults.set(&format!("fail * {code}"));
        let request = request(code, "idle", csr(code));
        stream.send(request.clone()).await;
        wait_until(code, || faults.seen("C_SignInit.script") > 0);
        faults.set("");
        match Answer::of(stream.receive().await.unwrap().unwrap()) {
            Answer::Issued(_) => {}
            _ => drop(insist(&mut stream, &request).await),
        }
        // And the module forgets everything at the same time.
        faults.set("dead");
        faults.set("");
        insist(&mut stream, &crate::support::site::request(&format!("dead-{code}"), "idle", csr(code))).await;
        wait_until(code, working);
    }
    let load = Load::start(&site, &daemon, "o").await;
    for code in &codes {
        faults.set(&format!("fail C_SignInit {code} rate 0.2\nfail C_Sign {code} rate 0.2"));
        load.more(10);
        faults.set(&format!("fail * {code}"));
        wait_until(code, || daemon.get("/readyz").0 == 503);
        faults.set("");
        load.more(10);
        wait_until(code, working);
    }
    assert_eq!(site.order("idle")["issued"], 1 + 2 * codes.len());
    println!("{} codes: {} certificates, {} refusals", codes.len(), load.issued(), load.refused());
    load.finish(&site, "o").await;
    assert!(daemon.is_running() && !site.log().contains("panicked"), "{}", site.log());
    daemon.end();
}

fn daemon_sessions(daemon: &crate::support::site::Daemon) -> f64 {
    daemon.metric("birthmark_hsm_sessions", &["issuer=\"main\""])
}

fn sample() -> Vec<&'static str> {
    pkcs11_fault::return_codes().step_by(SAMPLE).collect()
}

/// Some return codes, with all keys in one module, lose nothing.
#[tokio::test(flavor = "multi_thread")]
async fn code_from_one_module_loses_nothing() {
    let site = Site::new();
    let faults = Faults::one_module(&site, SETTINGS);
    try_codes(site, faults, sample()).await;
}

/// Some return codes, with the audit key in another module, lose nothing.
#[tokio::test(flavor = "multi_thread")]
async fn code_from_one_of_two_modules_loses_nothing() {
    let site = Site::new();
    let faults = Faults::two_modules(&site, SETTINGS);
    try_codes(site, faults, sample()).await;
}

/// Minutes: `make soak`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; make soak runs it"]
async fn code_of_any_kind_from_one_module_loses_nothing() {
    let site = Site::new();
    let faults = Faults::one_module(&site, SETTINGS);
    try_codes(site, faults, pkcs11_fault::return_codes().collect()).await;
}

/// All return codes, with the audit key in another module, lose nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; make soak runs it"]
async fn code_of_any_kind_from_one_of_two_modules_loses_nothing() {
    let site = Site::new();
    let faults = Faults::two_modules(&site, SETTINGS);
    try_codes(site, faults, pkcs11_fault::return_codes().collect()).await;
}
