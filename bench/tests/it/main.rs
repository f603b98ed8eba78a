//! `birthmark demo` and `birthmark bench` as users start them. They are here, not beside the daemon's tests, because
//! cargo builds a program for the tests of its own package only. The daemon's must have been built, too: `cargo test`
//! without
//! `--package` does that.
#![expect(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test ends by panicking")]

mod companion;
mod demo;
mod load;
mod manual;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The daemon's program, beside that of this package.
fn birthmark() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_birthmark-bench")).with_file_name("birthmark");
    assert!(program.exists(), "there is no {}; `cargo build --release` builds it", program.display());
    program
}

/// `birthmark` in this folder, as a user who has set nothing up.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = birthmark_bench::program::command(&birthmark(), folder, arguments);
    command.env("TMPDIR", folder);
    command
}
