//! `birthmark station sign` as a station uses it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use rcgen::KeyPair;
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    fixtures::fixture,
    site::{Process, Site, certificate, csr, csr_of, json_line, key_of, wait_until},
    token::{refused, succeeded, text},
};

/// A site with a daemon and the order `o1`.
fn site(quantity: u64) -> (Site, crate::support::site::Daemon) {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", quantity);
    (site, daemon)
}

fn sign(site: &Site, input: &str, more: &[&str]) -> Output {
    site.sign("line1/t1", "o1", input, "certs").args(more).output().unwrap()
}

fn pem_csr(der: &[u8]) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))
}

#[track_caller]
fn must_exit(run: &Output, code: i32, says: &[&str]) {
    let said = text(&run.stderr);
    assert_eq!(run.status.code(), Some(code), "{said}");
    for word in says {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Bad CSRs of a folder are reported beside the good ones.
#[test]
fn folder_with_bad_csrs_reports_them_and_signs_the_good() {
    let (site, daemon) = site(10);
    site.token.write("csrs/a.csr", &pem_csr(&csr("a")));
    fs::write(site.path("csrs/b.der"), csr("b")).unwrap();
    fs::copy(fixture("csr/openssl-rsa2048.pem"), site.path("csrs/c.pem")).unwrap();
    fs::copy(fixture("bad/signed-by-another-key.der"), site.path("csrs/forged.der")).unwrap();
    fs::copy(fixture("bad/garbage.pem"), site.path("csrs/garbage.pem")).unwrap();
    site.token.write("csrs/README.txt", "not a CSR");

    let run = sign(&site, "csrs", &["--json"]);
    must_exit(&run, 3, &["3 ", "2 refused", "POP_INVALID", "CSR_MALFORMED"]);
    assert_eq!(names(&site.path("certs")), ["a.pem", "b.pem", "c.pem", "forged.error.json", "garbage.error.json"]);
    for (device, reason) in [("forged", "POP_INVALID"), ("garbage", "CSR_MALFORMED")] {
        let refusal = json(&site.path(&format!("certs/{device}.error.json")));
        assert_eq!(refusal["device_id"], device);
        assert_eq!(refusal["reason"], reason);
        assert_eq!([&refusal["order"], &refusal["profile"]], ["o1", "device"]);
        assert!(refusal["message"].as_str().unwrap().len() > 10 && refusal["time"].is_string(), "{refusal}");
    }
    let lines: Vec<serde_json::Value> =
        text(&run.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    let with = |status: &str| lines.iter().filter(|line| line["status"] == status).count();
    assert_eq!([with("issued"), with("refused")], [3, 2]);
    let summary = &lines.last().unwrap()["summary"];
    assert_eq!([&summary["issued"], &summary["refused"], &summary["ignored_files"]], [3, 2, 1], "{summary}");

    // The bad ones are mended; the others are not asked for again.
    fs::write(site.path("csrs/forged.der"), csr("forged")).unwrap();
    site.token.write("csrs/garbage.pem", &pem_csr(&csr("garbage")));
    must_exit(&sign(&site, "csrs", &[]), 0, &["2 ", "3 "]);
    assert_eq!(names(&site.path("certs")), ["a.pem", "b.pem", "c.pem", "forged.pem", "garbage.pem"]);
    assert_eq!(site.order("o1")["issued"], 5);
    daemon.end();
}

/// The exit code tells all or none.
#[test]
fn exit_code_tells_all_or_none() {
    let (site, daemon) = site(10);
    for name in ["garbage.der", "rsa1024.der", "rsa2048-roca.der", "trailing-byte.der"] {
        fs::create_dir_all(site.path("bad")).unwrap();
        fs::copy(fixture("bad").join(name), site.path("bad").join(name)).unwrap();
    }
    must_exit(&sign(&site, "bad", &[]), 1, &["KEY_WEAK", "CSR_MALFORMED"]);
    assert!(names(&site.path("certs")).iter().all(|name| name.ends_with(".error.json")));

    fs::write(site.path("one.csr"), csr("one")).unwrap();
    must_exit(&sign(&site, "one.csr", &[]), 0, &[]);
    assert!(site.path("certs/one.pem").exists());
    fs::create_dir(site.path("empty")).unwrap();
    must_exit(&sign(&site, "empty", &[]), 1, &["no CSR in empty"]);
    must_exit(&sign(&site, "none", &[]), 1, &["cannot read none"]);
    must_exit(&sign(&site, "one.csr", &["--watch"]), 1, &["--watch needs a folder"]);
    must_exit(&site.sign("line1/t1", "o1", ".", ".").output().unwrap(), 1, &["cannot share the folder"]);
    daemon.end();
}

/// The chain file is what a device presents.
#[test]
fn chain_file_is_what_a_device_presents() {
    let (site, daemon) = site(10);
    fs::write(site.path("d1.csr"), csr("d1")).unwrap();
    must_exit(&sign(&site, "d1.csr", &["--chain"]), 0, &[]);
    let verify = ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca/root.pem", "-untrusted"];
    site.token.openssl(&[&verify[..], &["certs/d1.chain.pem", "certs/d1.pem"]].concat());
    let chain = fs::read_to_string(site.path("certs/d1.chain.pem")).unwrap();
    let expected = [site.path("certs/d1.pem"), site.path("ca/issuer.pem")];
    let found: Vec<_> = pem::parse_many(chain).unwrap().into_iter().map(pem::Pem::into_contents).collect();
    assert_eq!(found, expected.map(|path| certificate(&path)), "the device first, then its CAs but the root");
    // The private key of nobody is near, and a second run changes nothing.
    must_exit(&sign(&site, "d1.csr", &["--chain"]), 0, &[]);
    assert_eq!(site.order("o1")["issued"], 1);
    daemon.end();
}

/// A producer has each answer before it writes the next line.
#[test]
fn producer_has_each_answer_before_it_writes_the_next_line() {
    let (site, daemon) = site(10);
    let mut command = site.sign("line1/t1", "o1", "-", "certs");
    let mut station =
        Process::spawn(command.arg("--json").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))
            .unwrap();
    let mut input = station.child().stdin.take().unwrap();
    let mut output = BufReader::new(station.child().stdout.take().unwrap()).lines();
    let mut answer = || -> serde_json::Value { serde_json::from_str(&output.next().unwrap().unwrap()).unwrap() };
    for number in 1..=5 {
        let device = format!("d{number}");
        input.write_all(json_line(&device, &csr(&device)).as_bytes()).unwrap();
        let line = answer();
        assert_eq!([&line["device_id"], &line["status"]], [device.as_str(), "issued"], "{line}");
        assert!(site.path(&format!("certs/{device}.pem")).exists());
    }
    // What is no line for a device is refused, and the next one is signed.
    input.write_all(b"{\"device_id\": \"d6\"}\nnot JSON\n").unwrap();
    for _ in 0..2 {
        assert_eq!([&answer()["status"]], ["refused"]);
    }
    let pem = serde_json::json!({ "device_id": "d7", "csr": pem_csr(&csr("d7")) });
    input.write_all(format!("{pem}\n").as_bytes()).unwrap();
    assert_eq!(answer()["status"], "issued");
    drop(input);
    assert_eq!(answer()["summary"]["issued"], 6);
    assert_eq!(station.wait().unwrap().code(), Some(3));
    daemon.end();
}

/// A watched folder is served until it is told to stop.
#[test]
fn watched_folder_is_served_until_told_to_stop() {
    let (site, mut daemon) = site(20);
    fs::create_dir(site.path("hot")).unwrap();
    fs::write(site.path("hot/early.csr"), csr("early")).unwrap();
    let log = fs::File::create(site.path("station.log")).unwrap();
    let mut command = site.sign("line1/t1", "o1", "hot", "certs");
    let mut station = Process::spawn(command.args(["--watch", "--poll", "50ms", "--chain"]).stderr(log)).unwrap();
    let done = |device: &str| {
        wait_until("the CSR is done", || site.path(&format!("hot/done/{device}.csr")).exists());
        assert!(!site.path(&format!("hot/{device}.csr")).exists());
        assert!(site.path(&format!("certs/{device}.pem")).exists(), "{device}");
        assert!(site.path(&format!("certs/{device}.chain.pem")).exists(), "{device}");
    };
    done("early");
    // A file that grows slowly is taken once it is whole.
    let late = pem_csr(&csr("late"));
    let (first, rest) = late.split_at(100);
    let mut file = fs::File::create(site.path("hot/late.csr")).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    // Several looks find a part of it.
    std::thread::sleep(Duration::from_millis(300));
    assert!(site.path("hot/late.csr").exists() && !site.path("hot/failed/late.csr").exists());
    file.write_all(rest.as_bytes()).unwrap();
    done("late");
    fs::copy(fixture("bad/rsa1024.der"), site.path("hot/weak.csr")).unwrap();
    wait_until("the bad CSR is set aside", || site.path("hot/failed/weak.csr").exists());
    assert_eq!(json(&site.path("hot/failed/weak.error.json"))["reason"], "KEY_WEAK");

    // The daemon goes away and comes back.
    daemon.kill();
    fs::write(site.path("hot/patient.csr"), csr("patient")).unwrap();
    wait_until("the station says that it waits", || {
        fs::read_to_string(site.path("station.log")).unwrap().contains("waiting")
    });
    let daemon = site.start();
    done("patient");

    // A better CSR for the refused device clears its refusal.
    fs::write(site.path("hot/weak.csr"), csr("weak")).unwrap();
    done("weak");
    wait_until("the refusal is cleared", || !site.path("hot/failed/weak.error.json").exists());

    station.signal(Signal::TERM).unwrap();
    assert_eq!(station.wait().unwrap().code(), Some(143));
    assert_eq!(names(&site.path("hot/done")), ["early.csr", "late.csr", "patient.csr", "weak.csr"]);
    assert_eq!(site.order("o1")["issued"], 4);
    daemon.end();
}

/// Lines with a byte order mark, or with an order of their own, are read.
#[test]
fn lines_with_byte_order_mark_or_own_order_are_read() {
    let (site, daemon) = site(10);
    site.create_order("o2", 5);
    let line =
        |id: &str, more: &str| format!("{{\"device_id\": \"{id}\", \"csr\": {}{more}}}\r\n", json!(pem_csr(&csr(id))));
    let text = format!("\u{feff}{}{}", line("b1", ""), line("b2", ", \"order\": \"o2\""));
    fs::write(site.path("utf8.jsonl"), &text).unwrap();
    must_exit(&sign(&site, "utf8.jsonl", &[]), 0, &["2 issued"]);
    let lines = format!("\u{feff}{}", line("c1", ""));
    fs::write(site.path("utf16.jsonl"), lines.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    must_exit(&sign(&site, "utf16.jsonl", &[]), 0, &["1 issued"]);
    let marked = format!("\u{feff}{}", pem_csr(&csr("p1")));
    fs::write(site.path("p1.csr"), marked.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    must_exit(&sign(&site, "p1.csr", &[]), 0, &["1 issued"]);
    site.token.write("typo.jsonl", &line("d1", ", \"ordr\": \"o2\""));
    must_exit(&sign(&site, "typo.jsonl", &[]), 1, &["ordr", "REQUEST_INVALID"]);
    assert_eq!((&site.order("o1")["issued"], &site.order("o2")["issued"]), (&3.into(), &1.into()));
    daemon.end();
}

#[test]
fn confirm_reads_what_files_hold() {
    let (site, daemon) = site(10);
    fs::create_dir(site.path("in")).unwrap();
    for id in ["a", "b"] {
        fs::write(site.path(&format!("in/{id}.csr")), csr(id)).unwrap();
    }
    must_exit(&sign(&site, "in", &["--chain"]), 0, &[]);
    // Named as a's chain would be, and of another device.
    fs::rename(site.path("certs/b.pem"), site.path("certs/a.chain.pem")).unwrap();
    fs::remove_file(site.path("certs/b.chain.pem")).unwrap();
    fs::copy(site.path("ca/issuer.pem"), site.path("certs/issuer.pem")).unwrap();
    let identity = site.identity("station", "line1/t1").display().to_string();
    let url = daemon.url();
    let confirm = |folder: &str| {
        site.token.birthmark(&[
            "station",
            "confirm",
            "--certificates",
            folder,
            "--server",
            &url,
            "--identity",
            &identity,
        ])
    };
    must_exit(&confirm("certs"), 0, &["issuer.pem holds a CA certificate"]);
    assert_eq!(site.order("o1")["confirmed"], 2);
    fs::write(site.path("certs/torn.pem"), "-----BEGIN CERT").unwrap();
    must_exit(&confirm("certs"), 3, &["torn.pem", "CERTIFICATE_UNREADABLE"]);
    must_exit(&confirm("in"), 1, &["no certificate"]);
    daemon.end();
}

/// Certificates go through a pipe, each line with terms of its own.
#[test]
fn certificates_go_through_a_pipe_by_each_lines_terms() {
    let (site, daemon) = site(10);
    fs::create_dir(site.path("hot")).unwrap();
    let watched = site.sign("line1/t1", "o1", "hot", "-").arg("--watch").output().unwrap();
    must_exit(&watched, 1, &["--watch needs a folder for the certificates"]);
    site.token.write("one.jsonl", &json_line("d1", &csr("d1")));
    let pipe = |input: &str, more: &[&str]| -> Vec<serde_json::Value> {
        let run = site.sign("line1/t1", "o1", input, "-").args(more).output().unwrap();
        must_exit(&run, 0, &[]);
        text(&run.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let first = pipe("one.jsonl", &["--chain"]);
    let certificate = pem::parse(first[0]["certificate"].as_str().unwrap()).unwrap();
    assert_eq!(first[0]["chain"].as_str().unwrap().matches("BEGIN CERTIFICATE").count(), 1);
    assert_eq!((&first[0]["file"], &first[1]["summary"]["issued"]), (&json!(null), &json!(1)));
    let again = pipe("one.jsonl", &[]);
    assert_eq!(again[0]["status"], "replayed");
    assert_eq!(pem::parse(again[0]["certificate"].as_str().unwrap()).unwrap(), certificate);
    assert!(again[0].get("chain").is_none() && !site.path("-").exists());

    // Of two lines the one that says so is a reissue.
    succeeded(&site.operator(&["record", "scrap", "d1", "--reason", "cracked"]));
    let mut line: serde_json::Value = serde_json::from_str(&json_line("d1", &csr("d1"))).unwrap();
    line["reissue"] = json!(true);
    site.token.write("two.jsonl", &format!("{line}\n{}", json_line("d2", &csr("d2"))));
    assert_eq!(pipe("two.jsonl", &[])[2]["summary"]["issued"], 2);
    let labels = succeeded(&site.operator(&["record", "list", "--order", "o1", "--csv"]));
    let labels: Vec<_> = labels.lines().collect();
    assert!(labels.len() == 4 && labels[0].starts_with("device_id,serial_number,state,"), "{labels:?}");
    // Both lines of a pipe are asked for at once, so either may be the first.
    let of_d2: Vec<_> = labels.iter().filter(|line| line.starts_with("d2,")).collect();
    assert!(matches!(of_d2[..], [line] if line.contains(",issued,o1,device,main,line1/t1,")), "{labels:?}");
    let orders = succeeded(&site.operator(&["order", "list", "--csv"]));
    let [head, of_order, ""] = orders.split("\r\n").collect::<Vec<_>>()[..] else { panic!("{orders:?}") };
    assert!(head.ends_with(",left,stations,not before,not after,created,created by"), "{head}");
    assert!(of_order.starts_with("o1,device,open,10,2,0,1,8,all,,,20"), "{of_order}");
    assert!(of_order.ends_with("Z,operator:local-root"), "{of_order}");

    site.token.write("bad.jsonl", &json_line("d3", b"no CSR"));
    let run = site.sign("line1/t1", "o1", "bad.jsonl", "-").output().unwrap();
    must_exit(&run, 1, &["CSR_MALFORMED"]);
    daemon.end();
}

/// What a device stores is held against what was issued.
#[test]
fn read_back_certificate_is_confirmed_only_if_issued() {
    let (site, daemon) = site(10);
    let lines: String = (1..=4).map(|number| json_line(&format!("d{number}"), &csr("d"))).collect();
    site.token.write("four.jsonl", &lines);
    must_exit(&sign(&site, "four.jsonl", &[]), 0, &[]);
    let identity = site.identity("station", "line1/t1").display().to_string();
    let url = daemon.url();
    let confirm = |arguments: &[&str]| {
        let connection = ["--server", &url, "--identity", &identity];
        site.token.birthmark(&[&["station", "confirm"], arguments, &connection].concat())
    };
    // A device id, or the certificate as DER.
    must_exit(&confirm(&["d1"]), 0, &[]);
    fs::write(site.path("d2.der"), certificate(&site.path("certs/d2.pem"))).unwrap();
    must_exit(&confirm(&["--read-back", "d2.der"]), 0, &[]);
    must_exit(&confirm(&["--certificates", "certs/d3.pem"]), 0, &[]);
    assert_eq!(site.order("o1")["confirmed"], 3);
    // Another device's, one bit changed, cut short, not ours, or none.
    must_exit(&confirm(&["d4", "--read-back", "certs/d3.pem"]), 1, &["CERTIFICATE_MISMATCH", "of the device \"d3\""]);
    let mut flipped = certificate(&site.path("certs/d4.pem"));
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    fs::write(site.path("flipped.der"), &flipped).unwrap();
    must_exit(&confirm(&["d4", "--read-back", "flipped.der"]), 1, &["CERTIFICATE_MISMATCH", "octets differ"]);
    fs::write(site.path("torn.der"), &flipped[..last]).unwrap();
    must_exit(&confirm(&["d4", "--read-back", "torn.der"]), 1, &["CERTIFICATE_MISMATCH", "no certificate"]);
    must_exit(&confirm(&["--read-back", "ca/root.pem"]), 1, &["CERTIFICATE_MISMATCH", "not issued here"]);
    must_exit(&confirm(&["nobody"]), 1, &["RECORD_UNKNOWN", "nobody"]);
    must_exit(&confirm(&["no id"]), 1, &["neither a serial number"]);
    assert_eq!(site.order("o1")["confirmed"], 3);
    must_exit(&confirm(&["d4", "--read-back", "certs/d4.pem"]), 0, &[]);
    daemon.end();
}

/// Two signals at once are one request to stop.
#[test]
fn signals_at_once_are_one_request_to_stop() {
    let (site, daemon) = site(10);
    fs::create_dir(site.path("hot")).unwrap();
    fs::write(site.path("hot/d1.csr"), csr("d1")).unwrap();
    let log = fs::File::create(site.path("station.log")).unwrap();
    let mut command = site.sign("line1/t1", "o1", "hot", "certs");
    let mut station = Process::spawn(command.args(["--watch", "--poll", "50ms"]).stderr(log)).unwrap();
    wait_until("the CSR is done", || site.path("hot/done/d1.csr").exists());
    station.signal(Signal::INT).unwrap();
    station.signal(Signal::INT).unwrap();
    assert_eq!(station.wait().unwrap().code(), Some(130));
    let said = fs::read_to_string(site.path("station.log")).unwrap();
    assert!(said.contains("1 issued"), "{said}");
    daemon.end();
}

/// An order or a profile that is not there ends the run in one sentence.
#[test]
fn order_or_profile_that_is_missing_ends_the_run() {
    let (site, daemon) = site(10);
    fs::write(site.path("d1.csr"), csr("d1")).unwrap();
    let sign =
        |order: &str, more: &[&str]| site.sign("line1/t1", order, "d1.csr", "certs").args(more).output().unwrap();
    refused(&sign("nowhere", &[]), &["the daemon refuses", "no order \"nowhere\"", "ORDER_UNKNOWN"]);
    refused(&sign("../o1", &[]), &["cannot be the id of an order"]);
    let identity = site.identity("station", "line1/t1").display().to_string();
    let other = ["station", "sign", "--order", "o1", "--profile", "nothing", "--in", "d1.csr", "--out", "certs"];
    let run = site.token.birthmark(&[&other[..], &["--server", &daemon.url(), "--identity", &identity]].concat());
    refused(&run, &["no profile \"nothing\"", "it may use: device"]);
    // Nothing was left that looks like a refusal of the device.
    assert!(names(&site.path("certs")).is_empty(), "{:?}", names(&site.path("certs")));
    daemon.end();
}

/// An order that is used up refuses the rest.
#[test]
fn order_that_is_used_up_refuses_the_rest() {
    let (site, daemon) = site(3);
    let lines: String = (1..=5).map(|number| json_line(&format!("d{number}"), &csr("d"))).collect();
    site.token.write("five.jsonl", &lines);
    must_exit(&sign(&site, "five.jsonl", &[]), 3, &["2 refused", "ORDER_EXHAUSTED", "used up"]);
    let certificates = names(&site.path("certs"));
    assert_eq!(certificates.iter().filter(|name| name.ends_with(".error.json")).count(), 2);
    // Under a new order they get theirs, and keep what they have.
    site.create_order("o2", 2);
    must_exit(&site.sign("line1/t1", "o2", "five.jsonl", "certs").output().unwrap(), 0, &[]);
    assert_eq!(names(&site.path("certs")).len(), 5);
    assert_eq!(site.order("o2")["left"], 0);
    daemon.end();
}

/// A station waits for its daemon, or stops waiting, as it was told.
#[test]
fn station_waits_for_its_daemon_as_long_as_told() {
    let (site, daemon) = site(10);
    // Everybody knows now where the daemon will be.
    daemon.end();
    fs::write(site.path("d1.csr"), csr("d1")).unwrap();
    let before = Instant::now();
    let run = sign(&site, "d1.csr", &["--give-up-after", "300ms"]);
    must_exit(&run, 1, &["waiting for up to 300ms", "gave up", "run it again"]);
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());

    let log = fs::File::create(site.path("station.log")).unwrap();
    let mut station = Process::spawn(site.sign("line1/t1", "o1", "d1.csr", "certs").stderr(log)).unwrap();
    let said = || fs::read_to_string(site.path("station.log")).unwrap();
    wait_until("the station says that it waits", || said().contains("waiting"));
    let daemon = site.start();
    assert!(station.wait().unwrap().success(), "{}", said());
    assert!(said().contains("cannot connect to the daemon at https://localhost:"), "{}", said());
    assert!(said().contains("the daemon is back after"), "{}", said());
    daemon.end();
}

/// A certificate that belongs to another key is replaced only by the right one.
#[test]
fn certificate_of_another_key_is_replaced_by_the_right_only() {
    let (site, daemon) = site(10);
    let key = KeyPair::generate().unwrap();
    fs::write(site.path("d1.csr"), csr_of(&key, "d1")).unwrap();
    must_exit(&sign(&site, "d1.csr", &[]), 0, &[]);
    let first = certificate(&site.path("certs/d1.pem"));
    // A torn file is as good as none.
    let whole = fs::read(site.path("certs/d1.pem")).unwrap();
    fs::write(site.path("certs/d1.pem"), &whole[..whole.len() / 2]).unwrap();
    must_exit(&sign(&site, "d1.csr", &[]), 0, &[]);
    assert_eq!(certificate(&site.path("certs/d1.pem")), first);
    assert_eq!(key_of(&first), rcgen::PublicKeyData::subject_public_key_info(&key));
    // Another key for the device is refused by the ledger; what it has stays.
    fs::write(site.path("d1.csr"), csr("d1")).unwrap();
    must_exit(&sign(&site, "d1.csr", &[]), 1, &["DEVICE_HAS_CERTIFICATE"]);
    assert_eq!(certificate(&site.path("certs/d1.pem")), first);
    succeeded(&site.operator(&["record", "show", "d1"]));
    daemon.end();
}

/// An order has its profile: nobody has to say it at the station.
#[test]
fn order_without_a_profile_has_its_own() {
    let (site, daemon) = site(10);
    let run = |arguments: &[&str]| {
        let mut command = site.token.command(arguments);
        command.args(["--server", &daemon.url(), "--identity"]).arg(site.identity("station", "line1/t1"));
        command.output().unwrap()
    };
    site.token.write("csrs/a.csr", &pem_csr(&csr("a")));
    fs::copy(fixture("bad/rsa1024.der"), site.path("csrs/weak.csr")).unwrap();
    let signed = run(&["station", "sign", "--order", "o1", "--in", "csrs", "--out", "certs"]);
    must_exit(&signed, 3, &["KEY_WEAK"]);
    assert_eq!(names(&site.path("certs")), ["a.pem", "weak.error.json"]);
    // As with its name: the same request.
    site.token.write("again/a.csr", &fs::read_to_string(site.path("csrs/a.csr")).unwrap());
    must_exit(&sign(&site, "again", &[]), 0, &["already there"]);
    let without = run(&["station", "sign", "--in", "again", "--out", "other"]);
    must_exit(&without, 1, &["name an order with --order", "--profile"]);
    let unknown = run(&["station", "sign", "--order", "none", "--in", "again", "--out", "other"]);
    must_exit(&unknown, 1, &["ORDER_UNKNOWN"]);
    let checked = run(&["station", "check", "--order", "o1"]);
    must_exit(&checked, 0, &[]);
    let said = text(&checked.stdout);
    assert!(said.contains("\"device\" may be used") && said.contains("a signature took"), "{said}");
    daemon.end();
}

/// What comes into a folder is confirmed and moves away; while the daemon is away it stays.
#[test]
fn watched_folder_of_certificates_is_confirmed() {
    let (site, mut daemon) = site(10);
    for device in ["a", "b", "c"] {
        site.token.write(&format!("csrs/{device}.csr"), &pem_csr(&csr(device)));
    }
    must_exit(&sign(&site, "csrs", &["--chain"]), 0, &[]);
    fs::create_dir(site.path("placed")).unwrap();
    let put = |from: &str, to: &str| {
        let draft = site.path("draft");
        fs::copy(site.path(from), &draft).unwrap();
        fs::rename(draft, site.path(&format!("placed/{to}"))).unwrap();
    };
    put("certs/a.chain.pem", "a.pem");
    let log = fs::File::create(site.path("confirm.log")).unwrap();
    let mut command = site.token.command(&["station", "confirm", "--certificates", "placed", "--watch"]);
    command.args(["--poll", "50ms", "--settle", "300ms", "--json", "--server", &daemon.url(), "--identity"]);
    command.arg(site.identity("station", "line1/t1")).stderr(log);
    let lines = fs::File::create(site.path("confirmed.jsonl")).unwrap();
    let mut station = Process::spawn(command.stdout(lines)).unwrap();
    let moved = |to: &str| wait_until(to, || site.path(&format!("placed/{to}")).exists());
    moved("done/a.pem");
    assert_eq!(site.order("o1")["confirmed"], 1);

    // DER, as a test stand reads it back; another octet is another certificate.
    let der = certificate(&site.path("certs/b.pem"));
    let mut wrong = der.clone();
    *wrong.last_mut().unwrap() ^= 1;
    fs::write(site.path("placed/b.der"), wrong).unwrap();
    moved("failed/b.der");
    assert_eq!(json(&site.path("placed/failed/b.error.json"))["reason"], "CERTIFICATE_MISMATCH");
    fs::write(site.path("placed/b.der"), der).unwrap();
    moved("done/b.der");
    wait_until("the refusal is void", || !site.path("placed/failed/b.error.json").exists());
    // Half a file, a key, and what is none of ours.
    fs::write(site.path("placed/half.pem"), "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    fs::copy(site.path("ca/root.pem"), site.path("placed/root.pem")).unwrap();
    moved("failed/half.pem");
    assert_eq!(json(&site.path("placed/failed/half.error.json"))["reason"], "CERTIFICATE_UNREADABLE");
    let said = || fs::read_to_string(site.path("confirm.log")).unwrap();
    wait_until("a CA certificate is left alone", || said().contains("root.pem is left alone"));

    daemon.kill();
    put("certs/c.pem", "c.pem");
    wait_until("the station says that files stay", || said().contains("the files stay in"));
    assert!(site.path("placed/c.pem").exists());
    let daemon = site.start();
    moved("done/c.pem");
    station.signal(Signal::TERM).unwrap();
    assert_eq!(station.wait().unwrap().code(), Some(143));
    assert_eq!(names(&site.path("placed")), ["done", "failed", "root.pem"]);
    assert_eq!(site.order("o1")["confirmed"], 3);
    let lines = fs::read_to_string(site.path("confirmed.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["confirmed", "refused", "confirmed", "refused", "confirmed"], "{lines:?}");
    daemon.end();
}
