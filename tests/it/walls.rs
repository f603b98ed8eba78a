//! The walls between the modules that ARCHITECTURE.md draws.

use std::{fs, path::Path};

/// Every source file of the library, as a path below `src` and its text.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
                let name = path.strip_prefix(source).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 30);
    found
}

/// No file that `outside` names may mention `word`.
fn only_inside(word: &str, outside: impl Fn(&str) -> bool) {
    let breaches: Vec<_> = sources()
        .into_iter()
        .filter(|(name, text)| {
            outside(name) && text.lines().any(|line| !line.trim().starts_with("//") && line.contains(word))
        })
        .map(|(name, _)| name)
        .collect();
    assert!(breaches.is_empty(), "{word} in {breaches:?}");
}

#[test]
fn cryptoki_stays_in_hsm() {
    only_inside("cryptoki", |file| !file.starts_with("hsm"));
}

#[test]
fn sled_stays_in_the_index() {
    only_inside("sled::", |file| !file.starts_with("ledger/index/"));
}

#[test]
fn protocol_types_stop_at_grpc_and_its_clients() {
    let clients = ["grpc", "cli", "station", "export", "client.rs", "lib.rs"];
    only_inside("proto::", |file| !clients.iter().any(|client| file.starts_with(client)));
}

#[test]
fn the_core_knows_nothing_of_the_edge() {
    let core = ["issuer.rs", "csr", "profile", "cert.rs", "committer.rs", "ledger", "signer.rs", "hsm", "serial.rs"];
    for edge in ["crate::grpc", "crate::http", "crate::serve", "crate::station", "crate::client"] {
        only_inside(edge, |file| core.iter().any(|core| file.starts_with(core)));
    }
    for above in ["crate::committer", "crate::issuer", "crate::cert", "crate::profile", "crate::hsm"] {
        only_inside(above, |file| file.starts_with("ledger"));
    }
}
