//! What tests demand of the program and of the certificates that it makes.
#![expect(clippy::panic, clippy::expect_used, reason = "a test ends by panicking")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Instant,
};

use der::{Decode, Encode};

use crate::process::{PACE, PATIENCE};

/// What a program wrote.
pub fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// The program must have succeeded; gives its standard output.
#[track_caller]
pub fn succeeded(run: &Output) -> String {
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
    text(&run.stdout)
}

/// The program must have failed and have said each of these.
#[track_caller]
pub fn refused(run: &Output, says: &[&str]) {
    let said = text(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{said}");
    for word in says {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// `promtool check metrics` must have nothing to say about the text of `/metrics`.
#[track_caller]
pub fn judge_metrics(metrics: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian: prometheus) must be installed");
    let mut stdin = promtool.stdin.take().expect("its standard input");
    stdin.write_all(metrics.as_bytes()).expect("promtool reads");
    drop(stdin);
    let said = promtool.wait_with_output().expect("promtool ends");
    assert!(said.status.success() && said.stdout.is_empty() && said.stderr.is_empty(), "{said:?}");
}

/// Looks until it has happened, at the pace of a process that starts.
#[track_caller]
pub fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::park_timeout(PACE);
    }
}

/// The DER certificate in a PEM file.
pub fn certificate(path: &Path) -> Vec<u8> {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    pem::parse(text).expect("a PEM file").into_contents()
}

/// The DER SubjectPublicKeyInfo of a DER certificate.
pub fn key_of(certificate: &[u8]) -> Vec<u8> {
    let certificate = x509_cert::Certificate::from_der(certificate).expect("a certificate");
    certificate.tbs_certificate().subject_public_key_info().to_der().expect("a key")
}

/// Runs one of tests/judges on certificates under an issuing CA of this folder's `ca/root.pem`.
#[track_caller]
pub fn judge_under(folder: &Path, judge: &str, issuer: &str, certificates: &[PathBuf]) {
    // When it runs: the folder in which it was built, in the program, would make each build another one.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo, which says where the package is");
    let root = Path::new(&package).ancestors().find(|folder| folder.join("tests/judges").is_dir());
    let root = root.expect("the folder tests/judges");
    let program = match judge {
        "go" => root.join("target/go-judge"),
        script => root.join(format!("tests/judges/{script}.sh")),
    };
    let run = Command::new(&program)
        .args([folder.join("ca/root.pem"), folder.join(issuer)])
        .args(certificates)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; `make test` builds it", program.display()));
    assert_eq!(succeeded(&run).trim(), format!("{} certificates verified", certificates.len()));
}

/// The fault-injecting PKCS#11 module, which cargo builds as a dependency of the test that runs.
pub fn fault_module() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let module = test.with_file_name("libpkcs11_fault.so");
    assert!(module.exists(), "{} is missing", module.display());
    module
}
