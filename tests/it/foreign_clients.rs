//! Clients that are not ours: what a station's maker would write against the proto, in Python.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::support::{
    fixtures::{fixture, good},
    site::{Daemon, Site, csr, judge},
    token::{succeeded, text},
};

/// A program of tests/python, as the station `line1/t1`.
fn python(site: &Site, daemon: &Daemon, program: &str) -> Command {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    let python = tests.join(".venv/bin/python");
    assert!(python.exists(), "{} is missing; `make test` makes it", python.display());
    let mut command = Command::new(python);
    command.arg(tests.join("python").join(program)).args(["--server", &format!("localhost:{}", daemon.grpc.port())]);
    command.arg("--identity").arg(site.identity("station", "line1/t1")).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A Python client made from the proto gets certificates and refusals.
#[test]
fn python_client_from_the_proto_gets_certificates_and_refusals() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 100);
    fs::create_dir(site.path("csrs")).unwrap();
    fs::create_dir(site.path("certs")).unwrap();
    let mut devices = Vec::new();
    for fixture_of in good() {
        let device = fixture_of.file.replace('.', "-");
        fs::copy(fixture("csr").join(&fixture_of.file), site.path(&format!("csrs/{device}.csr"))).unwrap();
        devices.push(device);
    }
    let csrs = |devices: &[String]| devices.iter().map(|id| site.path(&format!("csrs/{id}.csr"))).collect::<Vec<_>>();
    let run = |files: &[PathBuf]| {
        let mut command = python(&site, &daemon, "client.py");
        command.args(["--order", "o1", "--profile", "device", "--strict", "--out"]).arg(site.path("certs"));
        command.args(files).output().unwrap()
    };
    let lines = |output: String| -> Vec<BTreeMap<String, Value>> {
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };

    let answered = lines(succeeded(&run(&csrs(&devices))));
    assert_eq!(answered[0]["profiles"][0]["name"], "device");
    assert_eq!(answered[0]["issuers"][0]["chain"].as_array().unwrap().len(), 2);
    assert_eq!(answered.len(), 1 + devices.len());
    let mut certificates = Vec::new();
    for answer in &answered[1..] {
        let device = answer["device_id"].as_str().unwrap();
        assert_eq!([&answer["issuer"], &answer["replay"]], [&Value::from("main"), &Value::from(false)], "{answer:?}");
        let record = succeeded(&site.operator(&["record", "show", device, "--json"]));
        let record: Value = serde_json::from_str(&record).unwrap();
        for field in ["certificate_id", "serial_number"] {
            assert_eq!(answer[field], record[field], "{device}");
        }
        let der = fs::read(site.path(&format!("certs/{device}.der"))).unwrap();
        let path = site.path(&format!("certs/{device}.pem"));
        fs::write(&path, pem::encode(&pem::Pem::new("CERTIFICATE", der))).unwrap();
        certificates.push(path);
    }
    judge(&site, "openssl", &certificates);

    // The same again, with bad ones among them.
    let mut files = csrs(&devices);
    for bad in ["garbage.der", "signed-by-another-key.der", "rsa1024.der"] {
        files.push(fixture("bad").join(bad));
    }
    let again = run(&files);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again.stderr));
    let (issued, refused): (Vec<_>, Vec<_>) =
        lines(text(&again.stdout)).into_iter().skip(1).partition(|answer| answer.contains_key("certificate_id"));
    assert_eq!(issued.len(), devices.len());
    assert!(issued.iter().all(|answer| answer["replay"] == true));
    let reasons: BTreeMap<_, _> = refused
        .iter()
        .map(|answer| {
            (answer["device_id"].as_str().unwrap(), [&answer["code"], &answer["reason"], &answer["retry_delay"]])
        })
        .collect();
    for (device, reason) in
        [("garbage", "CSR_MALFORMED"), ("signed-by-another-key", "POP_INVALID"), ("rsa1024", "KEY_WEAK")]
    {
        assert_eq!(reasons[device], [&Value::from("INVALID_ARGUMENT"), &Value::from(reason), &Value::Null]);
    }
    daemon.end();
}

/// grpcurl, which knows the protocol by reflection alone, as the station `line1/t1`.
fn grpcurl(site: &Site, daemon: &Daemon, method: &str, request: &Value) -> Output {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/grpcurl");
    assert!(program.exists(), "{} is missing; `make test` makes it", program.display());
    let mut command = Command::new(program);
    command.current_dir(site.identity("station", "line1/t1"));
    command.args(["-cacert", "ca.pem", "-cert", "cert.pem", "-key", "key.pem", "-max-time", "30"]);
    command.args(["-d", &request.to_string(), &format!("localhost:{}", daemon.grpc.port()), method]);
    command.output().unwrap()
}

/// A shell gets a certificate with its chain by one call, and sees why there is none.
#[test]
fn grpcurl_gets_a_certificate_or_prints_the_reason() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 1);
    let issue = |device: &str, csr: &[u8]| -> Value {
        let csr = BASE64_STANDARD.encode(csr);
        let request =
            json!({ "device_id": device, "order": "o1", "profile": "device", "csr": csr, "with_chain": true });
        let told = succeeded(&grpcurl(&site, &daemon, "birthmark.v1.Issuance/IssueOne", &request));
        serde_json::from_str(&told).unwrap()
    };
    let reply = issue("a", &csr("a"));
    assert_eq!(reply["issued"]["chain"].as_array().unwrap().len(), 2, "{reply}");
    for (device, csr, reason) in [("b", csr("b"), "ORDER_EXHAUSTED"), ("c", b"no CSR".to_vec(), "CSR_MALFORMED")] {
        let reply = issue(device, &csr);
        assert_eq!([&reply["reason"], &reply["error"]["details"][0]["reason"]], [reason, reason], "{reply}");
    }
    let refused = grpcurl(&site, &daemon, "birthmark.v1.Admin/CloseOrder", &json!({ "id": "o1" }));
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("ROLE_REQUIRED"), "{said}");
    assert!(!said.contains("not recognized"), "{said}");
    daemon.end();
}

/// A client that knows nothing finds its way by reflection.
#[test]
fn reflection_client_that_knows_nothing_finds_its_way() {
    let site = Site::new();
    let daemon = site.start();
    let told = succeeded(&python(&site, &daemon, "reflect.py").output().unwrap());
    for part in [
        "birthmark.v1.Issuance",
        "birthmark.v1.Admin",
        "grpc.health.v1.Health",
        "rpc Issue(stream birthmark.v1.IssueRequest) returns (stream birthmark.v1.IssueReply);",
        "rpc IssueOne(birthmark.v1.IssueRequest) returns (birthmark.v1.IssueReply);",
        "v1alpha: google.rpc.ErrorInfo domain metadata reason",
        "v1alpha: google.rpc.RetryInfo retry_delay",
        "health: SERVING",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    daemon.end();
}
