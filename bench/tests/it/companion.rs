//! How `birthmark` finds the program of `birthmark demo` and `birthmark bench`, and what the daemon's program lacks.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
};

use birthmark_bench::{
    assertions::{refused, succeeded, text},
    program::install,
};

/// Runs a copy of `birthmark` in a folder where `birthmark-bench` is not beside it.
fn alone(folder: &Path, path: &Path, arguments: &[&str]) -> Output {
    let program = folder.join("bin/birthmark");
    if !program.exists() {
        install(&program, &fs::read(super::birthmark()).unwrap()).unwrap();
    }
    Command::new(program).args(arguments).env("PATH", path).output().unwrap()
}

/// A companion that tells its arguments and exits with 7.
fn write_stub(path: &Path) {
    install(path, b"#!/bin/sh\necho \"$0: $*\"\nexit 7\n").unwrap();
}

/// The message names where the program was looked for, and how to get it.
#[test]
fn companion_that_is_not_installed_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    for name in ["demo", "bench"] {
        let run = alone(temporary.path(), temporary.path(), &[name, "--json"]);
        let says =
            [&format!("`birthmark {name}`")[..], "not installed", "bin/birthmark-bench", "on PATH", "cargo build"];
        refused(&run, &says);
    }
}

/// All arguments reach the companion as they are, also `--help`, and its exit code is the command's. The one beside the
/// program goes before the one on PATH.
#[test]
fn companion_gets_arguments_and_gives_its_exit_code() {
    let temporary = tempfile::tempdir().unwrap();
    let folders = ["path", "bin"].map(|name| temporary.path().join(name));
    for folder in &folders {
        write_stub(&folder.join("birthmark-bench"));
        for (given, passed) in [
            (&["demo", "--keep", "a b", "--devices=3"][..], "demo --keep a b --devices=3"),
            (&["bench", "--help"], "bench --help"),
            (&["bench", "stations", "-x", "--", "y"], "bench stations -x -- y"),
            (&["demo"], "demo"),
        ] {
            let path = format!("{}:/usr/bin:/bin", folders[0].display());
            let run = alone(temporary.path(), Path::new(&path), given);
            assert_eq!(run.status.code(), Some(7), "{}", text(&run.stderr));
            let told = format!("{}: {passed}\n", folder.join("birthmark-bench").display());
            assert_eq!(text(&run.stdout), told, "{given:?}");
        }
    }
}

/// The real companion explains itself as a command of `birthmark`.
#[test]
fn companion_help_is_that_of_the_command() {
    let temporary = tempfile::tempdir().unwrap();
    for (name, option) in [("demo", "--devices"), ("bench", "--hsm-latency")] {
        let help = succeeded(&super::command(temporary.path(), &[name, "--help"]).output().unwrap());
        assert!(help.contains(&format!("Usage: birthmark {name}")) && help.contains(option), "{help}");
        let run = super::command(temporary.path(), &[name, "--nonsense"]).output().unwrap();
        assert_eq!(run.status.code(), Some(2), "{}", text(&run.stderr));
    }
}

/// The program that has the CA's key in its hands holds no load generator and no throw-away CAs.
#[test]
fn daemon_program_has_no_load_generator() {
    let daemon = fs::read(super::birthmark()).unwrap();
    let bench = fs::read(env!("CARGO_BIN_EXE_birthmark-bench")).unwrap();
    let has = |program: &[u8], word: &str| program.windows(word.len()).any(|window| window == word.as_bytes());
    // Its orders, its CAs, its help, its histogram of latencies.
    for word in ["bench-order", "demo-order", "Birthmark Demo", "Fill the ledger with this number", "hdrhistogram"] {
        assert!(has(&bench, word), "{word:?} is not in birthmark-bench: this test shows nothing");
        assert!(!has(&daemon, word), "{word:?} is in birthmark");
    }
    let manifest: toml::Table = include_str!("../../../Cargo.toml").parse().unwrap();
    let links: BTreeSet<_> = manifest["dependencies"].as_table().unwrap().keys().map(String::as_str).collect();
    assert!(links.contains("tonic"), "{links:?}");
    assert!(links.is_disjoint(&BTreeSet::from(["birthmark-bench", "hdrhistogram"])), "{links:?}");
}
