//! `make demo-aws`.

use std::{path::Path, process::Command};

use birthmark_bench::assertions::succeeded;

use crate::namespace;

/// The demo goes through the whole story, and tells what happened. Cargo builds it beside the tests.
#[test]
fn demo_tells_what_happened() {
    namespace::run("demo::demo_tells_what_happened", || {
        let programs = Path::new(env!("CARGO_BIN_EXE_birthmark-aws")).parent().unwrap();
        let run = Command::new(programs.join("examples/demo")).arg("3").output().unwrap();
        let account = succeeded(&run);
        for part in
            ["3 devices of a factory", "connected at its first try", "thermo-0003", "3 certificates active, 1 revoked"]
        {
            assert!(account.contains(part), "{part:?} is not in {account}");
        }
    });
}
