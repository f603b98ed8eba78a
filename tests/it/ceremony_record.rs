//! What a ceremony leaves for an audit: the record and its signature, keys in tokens of their own, the PIN that nobody sees;
//! and the example files, which lead to a daemon that issues.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    site::{Process, wait_until},
    token::{Hsm, LABEL, Token, module, refused, succeeded, text},
};

const STEPS: &str = r#"
[[step]]
do = "root"
key = "root"
key_type = "p384"
subject = ["CN=Root"]
days = 3650
certificate = "ca/root.pem"

[[step]]
do = "audit-key"
key = "audit"
key_type = "p256"
public_key = "ca/audit.pem"
"#;

const PEOPLE: &str = "script = \"KC-7 rev 2\"\noperator = \"Anna Schmidt\"\nwitnesses = [{ name = \"Ben\", role = \"security \
                      officer\" }, { name = \"Chris\", role = \"auditor\" }]\n";

fn head(token: &Token, people: &str) -> String {
    token.ceremony_head().replace("record = \"ca/record.json\"\n", &format!("record = \"ca/record.json\"\n{people}"))
}

fn hold(token: &Token, people: &str, steps: &str) -> Output {
    token.write("ceremony.toml", &(head(token, people) + steps));
    token.birthmark(&["ceremony", "ceremony.toml", "--yes"])
}

fn record(token: &Token, name: &str) -> Value {
    serde_json::from_slice(&fs::read(token.path(name)).unwrap()).unwrap()
}

fn sha256_of(token: &Token, file: &str) -> String {
    token.openssl(&["dgst", "-sha256", "-r", file]).split(' ').next().unwrap().to_owned()
}

/// The record has people, program, tokens and what they say of each key; what is read aloud is the same.
#[test]
fn record_has_what_an_audit_asks_for() {
    let token = Token::new();
    let printed = succeeded(&hold(&token, PEOPLE, STEPS));
    for part in [
        "Script     KC-7 rev 2",
        "Operator   Anna Schmidt",
        "Witness    Ben, security officer",
        "signed with key \"audit\"",
    ] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    let record = record(&token, "ca/record.json");
    assert_eq!((&record["script"], &record["operator"]), (&"KC-7 rev 2".into(), &"Anna Schmidt".into()));
    assert_eq!(record["witnesses"][1], serde_json::json!({ "name": "Chris", "role": "auditor" }));
    let program = env!("CARGO_BIN_EXE_birthmark");
    assert_eq!(record["program"]["sha256"], sha256_of(&token, program));
    let found = &record["tokens"][0];
    assert_eq!((&found["name"], &found["label"]), (&"token".into(), &LABEL.into()));
    assert_eq!(found["module_sha256"], sha256_of(&token, module().to_str().unwrap()));
    assert!(found["serial"].as_str().is_some_and(|serial| !serial.is_empty()), "{found}");
    assert!(["hardware", "firmware"].iter().all(|name| found[*name].as_str().unwrap().contains('.')), "{found}");
    assert!(found["module"]["cryptoki"].as_str().unwrap().starts_with(['2', '3']), "{found}");
    let login = birthmark::local_user::own_name().replacen("local-", "", 1);
    assert!(record["user"].as_str().unwrap().starts_with(&login), "{}", record["user"]);

    let root = &record["steps"][0];
    let attributes = &root["key"]["attributes"];
    for (name, value) in [("sensitive", true), ("extractable", false), ("never_extractable", true), ("local", true)] {
        assert_eq!(attributes[name], value, "{attributes}");
    }
    assert!(attributes["key_gen_mechanism"].as_str().is_some_and(|name| name.contains("KEY_PAIR_GEN")), "{attributes}");
    assert!(root["began"].as_str().unwrap() >= record["began"].as_str().unwrap());
    assert!(root["finished"].as_str().unwrap() <= record["time"].as_str().unwrap());
    let dates = token.openssl(&["x509", "-in", "ca/root.pem", "-noout", "-startdate", "-dateopt", "iso_8601"]);
    let not_before = root["certificate"]["not_before"].as_str().unwrap().replace('T', " ");
    assert_eq!(dates.trim(), format!("notBefore={not_before}"));

    // In groups that ears can follow, and the pin that clients are given.
    let fingerprint = root["certificate"]["fingerprint_sha256"].as_str().unwrap();
    let groups: Vec<_> = fingerprint.as_bytes().chunks(4).map(text).collect();
    assert!(printed.contains(&groups[..8].join(" ")) && printed.contains(&groups[8..].join(" ")), "{printed}");
    let pin = "openssl x509 -in ca/root.pem -pubkey -noout | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64";
    let pin = Command::new("sh").args(["-c", pin]).current_dir(token.path("")).output().unwrap();
    assert!(printed.contains(&format!("key pin     sha256/{}", text(&pin.stdout).trim())), "{printed}");
}

/// The signature is verified by OpenSSL alone and by the command; whatever is changed is found.
#[test]
fn record_that_was_changed_is_not_verified() {
    let token = Token::new();
    succeeded(&hold(&token, PEOPLE, STEPS));
    let by_openssl = || {
        let arguments =
            ["dgst", "-sha256", "-verify", "ca/audit.pem", "-signature", "ca/record.json.sig", "ca/record.json"];
        Command::new("openssl").args(arguments).current_dir(token.path("")).output().unwrap().status.success()
    };
    let verify = |more: &[&str]| token.birthmark(&[&["ceremony", "verify", "ca/record.json"], more].concat());
    let trusted = ["--trusted-key", "ca/audit.pem"];
    assert!(by_openssl());
    let said = succeeded(&verify(&trusted));
    for part in ["Signature  good, by the key in ca/audit.pem", "KC-7 rev 2", "Chris, auditor", "ca/root.pem: the same"]
    {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(succeeded(&verify(&[])).contains("by the key that the record itself names"));
    let json: Value = serde_json::from_str(&succeeded(&verify(&["--json"]))).unwrap();
    assert_eq!((&json["trusted"], json["files"].as_array().map(Vec::len)), (&false.into(), Some(3)));

    // A file that it names.
    let root = fs::read(token.path("ca/root.pem")).unwrap();
    fs::write(token.path("ca/root.pem"), [&root[..], b"\n"].concat()).unwrap();
    let changed = verify(&trusted);
    assert_eq!(changed.status.code(), Some(1));
    assert!(text(&changed.stdout).contains("ca/root.pem: CHANGED since the ceremony"));
    fs::remove_file(token.path("ca/root.pem")).unwrap();
    assert!(succeeded(&verify(&trusted)).contains("ca/root.pem: not here"));

    // The key.
    token.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "other.key"]);
    token.openssl(&["pkey", "-in", "other.key", "-pubout", "-out", "other.pem"]);
    refused(&verify(&["--trusted-key", "other.pem"]), &["not by the trusted key", "forgery"]);

    // The record.
    let text = fs::read_to_string(token.path("ca/record.json")).unwrap();
    fs::write(token.path("ca/record.json"), text.replace("Chris", "Klaus")).unwrap();
    assert!(!by_openssl());
    refused(&verify(&trusted), &["the record was changed after it was signed"]);
    fs::write(token.path("ca/record.json"), "{}").unwrap();
    refused(&verify(&trusted), &["is not the record of a ceremony"]);
}

/// Without an audit key the plan says that nobody signs; with one of an earlier ceremony it signs later ones.
#[test]
fn record_is_signed_with_the_key_that_the_file_names() {
    let token = Token::new();
    let (root, audit) = STEPS.split_at(STEPS.rfind("[[step]]").unwrap());
    let next = root.replace("key = \"root\"", "key = \"next\"").replace("root.pem", "next.pem");
    let printed = succeeded(&hold(&token, "", root));
    assert!(printed.contains("not signed: there is no audit-key step and no sign_with"), "{printed}");
    refused(&token.birthmark(&["ceremony", "verify", "ca/record.json"]), &["is not signed"]);
    fs::remove_file(token.path("ca/record.json")).unwrap();
    refused(&hold(&token, "sign_with = { key = \"audit\" }\n", &next), &["ceremony.sign_with", "no private key"]);
    succeeded(&hold(&token, "", audit));
    for file in ["record.json", "record.json.sig"] {
        fs::remove_file(token.path("ca").join(file)).unwrap();
    }
    succeeded(&hold(&token, "sign_with = { key = \"audit\" }\n", &next));
    succeeded(&token.birthmark(&["ceremony", "verify", "ca/record.json", "--trusted-key", "ca/audit.pem"]));
    let unknown = "sign_with = { token = \"vault\", key = \"audit\" }\n";
    refused(&hold(&token, unknown, root), &["ceremony.sign_with: there is no [tokens.vault]; the tokens are token"]);
}

/// Each key in its token, with a PIN of its own; an intermediate finds its root in the other token.
#[test]
fn keys_of_one_ceremony_are_in_tokens_of_their_own() {
    let token = Token::new();
    if Hsm::under_test() != Hsm::SoftHsm {
        return; // It has one token.
    }
    token.init_token("vault");
    token.init_token("third");
    let uri = |label: &str| token.uri("").replace(&format!("token={LABEL}"), &format!("token={label}"));
    let tokens = format!("[tokens.vault]\nuri = \"{}\"\n[tokens.audit]\nuri = \"{}\"\n", uri("vault"), uri("third"));
    let issuer = "[[step]]\ndo = \"intermediate\"\nissuer = { certificate = \"ca/root.pem\", key = \"root\" }\nkey = \"root2\"\n\
                  key_type = \"p256\"\nsubject = [\"CN=I\"]\ndays = 30\ncertificate = \"ca/issuer.pem\"\n";
    let in_tokens = STEPS
        .replace("do = \"root\"", "do = \"root\"\ntoken = \"vault\"")
        .replace("do = \"audit-key\"", "do = \"audit-key\"\ntoken = \"audit\"");
    let printed = succeeded(&hold(&token, "", &format!("{in_tokens}{issuer}{tokens}")));
    assert!(printed.contains("make        P-384 key \"root\" in token \"vault\""), "{printed}");
    assert!(printed.contains("with key \"root\" in token \"vault\""), "{printed}");
    token.openssl(&["verify", "-x509_strict", "-CAfile", "ca/root.pem", "ca/issuer.pem"]);
    let record = record(&token, "ca/record.json");
    let of = |step: usize| record["steps"][step]["token"].as_str().unwrap();
    assert_eq!((of(0), of(1), of(2)), ("vault", "audit", "token"));
    let objects = |label: &str| {
        let (variable, file) = Hsm::under_test().configuration();
        let arguments = [
            "--module",
            module().to_str().unwrap(),
            "--token-label",
            label,
            "--login",
            "--pin",
            "123456",
            "--list-objects",
        ];
        text(&Command::new("pkcs11-tool").args(arguments).env(variable, token.path(file)).output().unwrap().stdout)
    };
    for (label, has) in [("vault", "root"), ("third", "audit"), (LABEL, "root2")] {
        let listed = objects(label);
        let labels: Vec<_> =
            listed.lines().filter_map(|line| line.trim().strip_prefix("label:")).map(str::trim).collect();
        assert_eq!(labels, [has, has], "{label}: {listed}");
    }
    refused(
        &hold(&token, "", &in_tokens.replace("\"vault\"", "\"wault\"")),
        &["step.token: there is no [tokens.wault]"],
    );
}

/// The PIN is asked for at a terminal, and shown nowhere.
#[test]
fn pin_is_asked_for_without_an_echo() {
    let token = Token::new();
    token.write("ceremony.toml", &(token.ceremony_head().replace("&pin-source=file:pin", "") + STEPS));
    fs::remove_file(token.path("pin")).unwrap();
    let program = format!("{} ceremony ceremony.toml", env!("CARGO_BIN_EXE_birthmark"));
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &program, "/dev/null"]).current_dir(token.path(""));
    terminal.env_remove("BIRTHMARK_PIN").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut session = terminal.spawn().expect("script (Debian: bsdutils) must be installed");
    let (mut keyboard, mut screen) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    let shown = Arc::new(Mutex::new(String::new()));
    let reader = {
        let shown = Arc::clone(&shown);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                shown.lock().unwrap().push_str(&text(&buffer[..length]));
            }
        })
    };
    for (prompt, typed) in [("PIN of the token \"birthmark\": ", "123456\n"), ("Type yes to go on: ", "yes\n")] {
        wait_until(prompt, || shown.lock().unwrap().contains(prompt));
        keyboard.write_all(typed.as_bytes()).unwrap();
    }
    assert!(session.wait().unwrap().success(), "{}", shown.lock().unwrap());
    drop(keyboard);
    reader.join().unwrap();
    let shown = shown.lock().unwrap();
    assert!(shown.contains("SHA-256 of the certificate") && !shown.contains("123456"), "{shown}");
}

/// The example files with SoftHSM, as their texts say it, to a certificate: with a root of its own, and with one elsewhere.
#[test]
fn example_files_lead_to_a_daemon_that_issues() {
    if Hsm::under_test() != Hsm::SoftHsm {
        return; // The files name it.
    }
    for offline in [false, true] {
        let token = Token::new();
        let site = token.path("site");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("hsm-config");
        let shell = |script: &str| {
            let program = Path::new(env!("CARGO_BIN_EXE_birthmark")).parent().unwrap();
            let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
            let run =
                Command::new("bash").args(["-euc", script]).current_dir(&site).env("PATH", path).output().unwrap();
            assert!(run.status.success(), "{script}\n{}{}", text(&run.stdout), text(&run.stderr));
            text(&run.stdout)
        };
        fs::create_dir(&site).unwrap();
        shell(&format!("cp -r {}/. .\nsofthsm/setup.sh hsm", example.display()));
        if offline {
            shell("birthmark ceremony ceremony-offline-root-1-request.toml --yes");
            let name = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -keyout root.key -out root.pem -days 5000";
            shell(&format!("{name} -subj '/O=Acme/CN=Offline' -addext keyUsage=critical,keyCertSign,cRLSign"));
            // As the first file tells it.
            let told = fs::read_to_string(site.join("ceremony-offline-root-1-request.toml")).unwrap();
            let commands = told
                .lines()
                .filter_map(|line| line.strip_prefix("#   "))
                .filter(|line| line.starts_with("printf") || line.starts_with("openssl"));
            shell(
                &commands.collect::<Vec<_>>().join("\n").replace("-CAkey root.key", "-CAkey root.key -CAcreateserial"),
            );
            shell("mkdir incoming && cp issuer.pem root.pem incoming/");
            let plan = shell("birthmark ceremony ceremony-offline-root-2-import.toml --dry-run");
            assert!(plan.contains("\"O=Acme, CN=Acme Device Issuing 1\"") && !plan.contains("DIFFERS"), "{plan}");
            shell("birthmark ceremony ceremony-offline-root-2-import.toml --yes");
            shell("birthmark ceremony verify ca/ceremony-record-2.json --trusted-key ca/audit.pem");
        } else {
            shell("birthmark ceremony ceremony.toml --yes");
            shell("birthmark ceremony verify ca/ceremony-record.json --trusted-key ca/audit.pem");
        }
        shell("birthmark station enroll birthmark --role server --dns localhost --ip 127.0.0.1 --out server");
        shell("birthmark station enroll line1/tester1");
        // The file as it is, but for ports, which other tests may have.
        let configuration = fs::read_to_string(site.join("birthmark.toml")).unwrap();
        let ports = configuration.lines().map(|line| match line.strip_prefix("listen = \"") {
            Some(rest) => {
                let (address, rest) = rest.split_once('"').unwrap();
                let (host, _) = address.rsplit_once(':').unwrap();
                format!("listen = \"{host}:0\"{rest}\n")
            }
            None => format!("{line}\n"),
        });
        fs::write(site.join("birthmark.toml"), ports.collect::<String>()).unwrap();
        shell("birthmark serve --check --config birthmark.toml");
        let mut serve = Command::new(env!("CARGO_BIN_EXE_birthmark"));
        serve.args(["serve", "--config", "birthmark.toml", "--ready-file", "ready.json"]).current_dir(&site);
        let log = fs::File::create(site.join("log")).unwrap();
        let mut daemon = Process::spawn(serve.stderr(log)).unwrap();
        wait_until("the daemon listens", || site.join("ready.json").exists());
        let ready: Value = serde_json::from_slice(&fs::read(site.join("ready.json")).unwrap()).unwrap();
        let port = ready["grpc"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
        shell("BIRTHMARK_SOCKET=birthmark.sock birthmark order create lot-42 --profile device --quantity 5");
        shell(
            "mkdir csrs && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout d.key -subj /CN=d -out csrs/SN00000001.csr",
        );
        shell(&format!(
            "birthmark station sign --server https://localhost:{port} --identity line1-tester1 --order lot-42 \
             --profile device --in csrs --out certs --chain"
        ));
        shell("openssl verify -CAfile ca/root.pem -untrusted ca/issuer.pem certs/SN00000001.pem");
        daemon.signal(Signal::TERM).unwrap();
        assert!(daemon.wait().unwrap().success(), "{}", fs::read_to_string(site.join("log")).unwrap());
    }
}
