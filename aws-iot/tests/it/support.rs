//! The program, in an account with an emulator.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use birthmark_bench::assertions::{succeeded, text};
use serde_json::Value;

use crate::{
    emulator::{ACCOUNT, Emulator},
    maker::Maker,
};

/// `birthmark-aws` in this folder, as this account.
pub(crate) fn program(folder: &Path, account: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_birthmark-aws"));
    Emulator::environment(&mut command, account);
    for variable in ["BIRTHMARK_SOCKET", "BIRTHMARK_SERVER", "BIRTHMARK_IDENTITY", "BIRTHMARK_LOG", "STATE_DIRECTORY"] {
        command.env_remove(variable);
    }
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

/// An emulator, a factory, and the program between them.
pub(crate) struct Site {
    pub(crate) emulator: Emulator,
    pub(crate) maker: Maker,
    _folder: tempfile::TempDir,
}

/// Calls at a rate that no test has to wait for.
pub(crate) const QUICK: [&str; 2] = ["--limit", "all=2000"];

impl Site {
    pub(crate) fn new() -> Site {
        Site::with(Emulator::start)
    }

    pub(crate) fn with(start: fn(&Path) -> Emulator) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let maker = Maker::new(folder.path());
        let emulator = start(folder.path());
        Site { emulator, maker, _folder: folder }
    }

    /// With the policy of devices, and the CA registered with these further arguments.
    pub(crate) fn ready(arguments: &[&str]) -> Site {
        let site = Site::new();
        site.prepare(arguments);
        site
    }

    pub(crate) fn prepare(&self, arguments: &[&str]) {
        self.emulator.make_policy("device", &self.succeed(&["policy"]));
        self.register_ca(arguments);
    }

    /// Runs the program.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        program(&self.maker.folder, ACCOUNT, arguments).output().unwrap()
    }

    /// Runs the program, which must succeed.
    #[track_caller]
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        succeeded(&self.run(arguments))
    }

    /// Registers the CA by a proof, as an operator without a way to the daemon does.
    #[track_caller]
    pub(crate) fn register_ca(&self, arguments: &[&str]) {
        let ca = ["register-ca", "--ca", "issuer.pem"];
        if arguments.contains(&"sni-only") {
            self.succeed(&[&ca[..], arguments].concat());
            return;
        }
        let asked = self.run(&[&ca[..], arguments, &["--offline", "--issuer", "device", "--json"]].concat());
        assert_eq!(asked.status.code(), Some(3), "{}", text(&asked.stderr));
        let asked: Value = serde_json::from_slice(&asked.stdout).unwrap();
        self.maker.verification(asked["registration_code"].as_str().unwrap());
        self.succeed(&[&ca[..], arguments, &["--verification", "verification.pem"]].concat());
    }

    /// The arguments that register these bundles.
    pub(crate) fn register<'a>(&self, bundles: &[&'a str]) -> Vec<&'a str> {
        [&["register", "--trusted-key", "audit.pem", "--json"], &QUICK[..], bundles].concat()
    }

    /// Registers bundles, and gives what the program says of each.
    #[track_caller]
    pub(crate) fn registered(&self, bundles: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(&self.register(bundles))).unwrap()
    }

    /// The results of a batch, by certificate id; each must be there once.
    #[track_caller]
    pub(crate) fn results(&self, batch: &str) -> std::collections::BTreeMap<String, Value> {
        let text = std::fs::read_to_string(self.maker.folder.join(format!("{batch}.results.jsonl"))).unwrap();
        let mut results = std::collections::BTreeMap::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let id = line["certificate_id"].as_str().unwrap().to_owned();
            assert!(results.insert(id, line).is_none(), "twice in the results of {batch}");
        }
        results
    }
}
