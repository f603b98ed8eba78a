//! What people read: what happened, whose fault it is, what to do. No text of libraries, no numbers of system errors, nothing of
//! the program's inside.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::Value;

use crate::support::{
    site::{Site, csr},
    token::{Hsm, Token, text},
};

/// What no person should meet.
const INSIDE: [&str; 10] =
    ["(os error", "Some(", "None)", "Err(", "::", " { ", "invalid digit", ".rs:", "panicked", "CertificateRequired"];

#[track_caller]
fn plain(said: &str) {
    for inside in INSIDE {
        assert!(!said.contains(inside), "{inside:?} is in: {said}");
    }
}

/// What a command said on standard error, which is plain.
#[track_caller]
fn said(run: &Output) -> String {
    let said = text(&run.stderr);
    assert!(!run.status.success() && !said.is_empty(), "{said}");
    plain(&said);
    said
}

/// Commands of operators, each with what it says.
#[test]
fn commands_say_what_is_wrong_in_plain_words() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 1);
    fs::write(site.path("d.csr"), csr("d")).unwrap();
    let create = |id: &str, profile: &str, quantity: &str| {
        site.operator(&["order", "create", id, "--profile", profile, "--quantity", quantity])
    };
    for (run, says) in [
        (create("o1", "device", "2"), "the order \"o1\" exists already, with another quantity (ORDER_EXISTS)"),
        (create("o2", "devize", "2"), "there is no profile \"devize\"; the profiles are "),
        (create("o2", "device", "ten"), "invalid value 'ten' for '--quantity <N>': it is not a whole number"),
        (site.operator(&["export", "create", "nope"]), "there is no destination \"nope\""),
        (site.operator(&["order", "show", "o9"]), "there is no order \"o9\" (ORDER_UNKNOWN)"),
        (site.token.birthmark(&["journal", "verify", "nowhere"]), "nowhere"),
        (
            site.token.birthmark(&["serve", "--config", "nope.toml"]),
            "cannot read the configuration nope.toml: No such file or directory",
        ),
        (
            site.token.birthmark(&["ceremony", "nope.toml", "--yes"]),
            "cannot read the ceremony file nope.toml: No such file or directory",
        ),
        (site.sign("line1/t1", "o1", "csr5", "certs").output().unwrap(), "cannot read csr5: No such file or directory"),
        (
            site.sign("line1/t1", "nope", "d.csr", "certs").output().unwrap(),
            "there is no order \"nope\" (ORDER_UNKNOWN)",
        ),
    ] {
        let said = said(&run);
        assert!(said.contains(says), "{says:?} is not in: {said}");
    }
    // The port of metrics is a wrong address, which no waiting mends.
    let mut elsewhere =
        site.token.command(&["station", "check", "--server", &format!("https://localhost:{}", daemon.http.port())]);
    let elsewhere = elsewhere.arg("--identity").arg(site.identity("station", "line1/t1")).output().unwrap();
    assert!(
        text(&elsewhere.stdout).contains("HTTP port") || text(&elsewhere.stderr).contains("HTTP port"),
        "{elsewhere:?}"
    );
    daemon.end();
}

/// Files that are no CSRs, each with what its refusal says.
#[test]
fn refused_files_are_told_what_they_are() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 1);
    let csr = csr("d");
    let pem = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", csr.clone()));
    let utf16: Vec<u8> = pem.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let files: [(&str, &[u8], &str); 8] = [
        ("json", b"{\"device_id\":\"x\",\"csr\":\"\"}", "JSON"),
        ("text", b"xx", "2 bytes that are no PKCS#10 CSR"),
        ("half", &pem.as_bytes()[..150], "still being written"),
        ("halfder", &csr[..40], "ends"),
        ("integer", b"\x02\x01\x05", "3 bytes that are no PKCS#10 CSR"),
        ("wide", &utf16, "UTF-16"),
        (
            "key",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "it is a private key, which must stay where it is",
        ),
        ("two", &[pem.as_bytes(), pem.as_bytes()].concat(), "it holds 2 PEM blocks; send one CSR a request"),
    ];
    fs::create_dir(site.path("in")).unwrap();
    for (name, content, _) in &files {
        fs::write(site.path("in").join(format!("{name}.csr")), content).unwrap();
    }
    let run = site.sign("line1/t1", "o1", "in", "out").output().unwrap();
    plain(&text(&run.stderr));
    for (name, _, says) in files {
        let refusal = fs::read(site.path("out").join(format!("{name}.error.json"))).unwrap();
        let refusal: Value = serde_json::from_slice(&refusal).unwrap();
        let message = refusal["message"].as_str().unwrap();
        plain(message);
        assert!(message.contains(says), "{name}: {says:?} is not in: {message}");
    }
    daemon.end();
}

/// The first column names what was looked at.
#[test]
fn hsm_check_that_fails_names_what_it_looked_at() {
    let token = Token::new();
    let (variable, file) = Hsm::under_test().configuration();
    let check = |uri: &str| {
        let run = token.command(&["hsm", "check", uri]).env(variable, token.path(file)).output().unwrap();
        assert_eq!(run.status.code(), Some(1));
        text(&run.stdout)
    };
    let missing = check(&token.uri(";object=none").replace("token=birthmark", "token=other"));
    assert!(missing.lines().any(|line| line.starts_with("token ") && line.contains("FAILED")), "{missing}");
    let keyless = check(&token.uri(";object=none"));
    assert!(keyless.lines().any(|line| line.starts_with("key ") && line.contains("FAILED")), "{keyless}");
}

/// Where `{name:?}` stands in a text of the programs, by file and name: durations, texts in quotation marks and our own types.
const SHOWN: [(&str, &str); 19] = [
    ("aws-iot/src/cli/documents.rs", "topics"),
    ("base/src/id.rs", "shown"),
    ("clients/rust/src/error.rs", "after"),
    ("clients/station/src/sign/session.rs", "bound"),
    ("src/describe_certificate.rs", "usage"),
    ("src/est/answer.rs", "0"),
    ("src/events/mqtt/error.rs", "0"),
    // It is hashed.
    ("src/grpc/approvals.rs", "terms"),
    ("src/grpc/order_terms.rs", "shown"),
    ("src/grpc/status.rs", "limit"),
    ("src/handshake.rs", "FIRST_OCTET"),
    ("src/handshake.rs", "HANDSHAKE"),
    ("src/hsm/error.rs", "function"),
    ("src/hsm/key.rs", ""),
    ("src/hsm/recovery.rs", "other"),
    // A number of the metrics' text.
    ("src/metrics/exposition.rs", "number"),
    ("src/possession.rs", "shown"),
    // As tracing gives it.
    ("src/security_log/record.rs", "value"),
    // Fields of the log.
    ("src/committer.rs", "?outcome"),
];

/// No message shows a value of another library as it is inside.
#[test]
fn no_message_has_the_debug_text_of_a_library() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for part in ["src", "base/src", "clients/rust/src", "clients/station/src", "aws-iot/src"] {
        for path in sources(&root.join(part)) {
            let file = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if file.contains("/tests") || ["figures.rs", "wycheproof.rs"].iter().any(|name| file.ends_with(name)) {
                continue;
            }
            let source = fs::read_to_string(&path).unwrap();
            let lines = source.lines().take_while(|line| line.trim() != "#[cfg(test)]");
            for line in lines.filter(|line| !line.trim_start().starts_with("//")) {
                found.extend(debug_texts(line).into_iter().map(|name| (file.clone(), name)));
            }
        }
    }
    let shown: BTreeSet<_> = SHOWN.iter().map(|(file, name)| ((*file).to_owned(), (*name).to_owned())).collect();
    let new: Vec<_> = found.difference(&shown).collect();
    assert!(new.is_empty(), "say it in words, or add it to SHOWN: {new:?}");
}

/// The names before `:?}`, and the fields of the log that are written as `?name`.
fn debug_texts(line: &str) -> Vec<String> {
    let braces = line
        .match_indices(":?}")
        .chain(line.match_indices(":#?}"))
        .map(|(at, _)| line[..at].rsplit_once('{').map_or("", |(_, name)| name).to_owned());
    let fields = line
        .trim()
        .strip_prefix('?')
        .into_iter()
        .chain(line.split("!(").skip(1).filter_map(|rest| rest.strip_prefix('?')));
    let names = fields.filter_map(|rest| rest.split(|next: char| !next.is_alphanumeric() && next != '_').next());
    braces.chain(names.map(|name| format!("?{name}"))).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false if path.extension().is_some_and(|extension| extension == "rs") => vec![path],
            false => Vec::new(),
        })
        .collect()
}
