//! `birthmark demo`, and what a newcomer finds in the folder that it keeps.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use birthmark_bench::{
    assertions::{certificate, judge_under, key_of, refused, succeeded, text, wait_until},
    process::Process,
};

use super::command;

fn birthmark(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

/// What the demo keeps is a factory that goes on where it stopped.
#[test]
fn demo_that_is_kept_goes_on_where_it_stopped() {
    let temporary = tempfile::tempdir().unwrap();
    let run = birthmark(temporary.path(), &["demo", "--devices", "60", "--stations", "3", "--keep", "my-factory"]);
    let account = succeeded(&run);
    for part in
        ["60 certificates, signed by a key that never left its HSM", "3 stations", "issued 60, left 0", "killed"]
    {
        assert!(account.contains(part), "{part:?} is not in {account}");
    }
    let folder = temporary.path().join("my-factory");
    let ids: Vec<_> = (1..=60).map(|number| format!("demo-{number:04}")).collect();
    let certificates: Vec<PathBuf> = ids.iter().map(|id| folder.join(format!("certs/{id}.pem"))).collect();
    assert_eq!(fs::read_dir(folder.join("certs")).unwrap().count(), ids.len());
    let mut keys = HashSet::new();
    for (id, path) in ids.iter().zip(&certificates) {
        let csr =
            birthmark::csr::verify(&fs::read(folder.join(format!("csrs/{id}.pem"))).unwrap(), &Default::default())
                .unwrap();
        let key = key_of(&certificate(path));
        assert_eq!(key, csr.public_key().spki, "{id}");
        assert!(keys.insert(key), "{id}");
    }
    for judge in ["openssl", "gnutls", "go"] {
        judge_under(&folder, judge, "ca/issuer.pem", &certificates);
    }
    let exported = fs::read_to_string(folder.join("export/aws.0001/data-00001.jsonl")).unwrap();
    assert_eq!(exported.lines().count(), 60);
    // Nothing secret is open to others.
    for name in ["hsm/pin", "tls/key.pem", "stations/line1-1/key.pem"] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder.join(name)).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{name}");
    }

    // The usual ports may be taken.
    let configuration = fs::read_to_string(folder.join("birthmark.toml")).unwrap();
    assert!(configuration.contains("listen = \"127.0.0.1:7443\""), "{configuration}");
    let listen = |line: &str| match line.starts_with("listen = ") {
        true => "listen = \"127.0.0.1:0\"\n".to_owned(),
        false => format!("{line}\n"),
    };
    fs::write(folder.join("birthmark.toml"), configuration.lines().map(listen).collect::<String>()).unwrap();
    let mut serve = command(&folder, &["serve", "--config", "birthmark.toml", "--ready-file", "ready.json"]);
    let mut daemon = Process::spawn(serve.stdout(Stdio::null()).stderr(Stdio::null())).unwrap();
    wait_until("the demo's daemon is ready", || {
        assert!(daemon.is_running().unwrap());
        folder.join("ready.json").exists()
    });
    let addresses: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("ready.json")).unwrap()).unwrap();
    let port = addresses["grpc"].as_str().unwrap().rsplit(':').next().unwrap();
    let server = format!("https://localhost:{port}");
    let again = ["station", "sign", "--order", "demo-order", "--profile", "device", "--in", "csrs/demo-0007.pem"];
    let identity = ["--out", "again", "--json", "--server", &server, "--identity", "stations/line1-2"];
    let said = succeeded(&birthmark(&folder, &[&again[..], &identity].concat()));
    assert!(said.contains("\"replayed\""), "{said}");
    assert_eq!(fs::read(folder.join("again/demo-0007.pem")).unwrap(), fs::read(&certificates[6]).unwrap());

    // What the account proposes to try next.
    let mut locally = command(&folder, &["record", "show", "demo-0001"]);
    let shown = succeeded(&locally.env("BIRTHMARK_SOCKET", "run/admin.sock").output().unwrap());
    assert!(shown.contains("demo-0001") && shown.contains("line1/1"), "{shown}");
    let mut order = command(&folder, &["order", "create", "second-order", "--profile", "device", "--quantity", "10"]);
    succeeded(&order.env("BIRTHMARK_SOCKET", "run/admin.sock").output().unwrap());
    daemon.signal(rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());

    refused(&birthmark(temporary.path(), &["demo", "--keep", "my-factory"]), &["not empty"]);
}

/// A demo that keeps nothing leaves nothing.
#[test]
fn demo_that_keeps_nothing_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let run = birthmark(temporary.path(), &["demo", "--devices", "2", "--stations", "5"]);
    assert!(succeeded(&run).contains("2 certificates"), "{}", text(&run.stdout));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}
