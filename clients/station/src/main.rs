//! The `birthmark-station` command: what a test stand needs, without HSM, ledger or server.

use std::process::ExitCode;

use birthmark_base::{console, secrecy};
use birthmark_station::cli;
use clap::Parser;

/// Gets device certificates from a Birthmark daemon, and says which devices have taken theirs.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: cli::Command,
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    if let Err(error) = secrecy::forbid_core_dumps() {
        eprintln!(
            "birthmark-station: a crash might write the key into a core dump, and that cannot be switched off: {error}"
        );
        return ExitCode::FAILURE;
    }
    cli::run(command).unwrap_or_else(|error| {
        eprintln!("birthmark-station: {}", console::sentence(error.as_ref()));
        ExitCode::FAILURE
    })
}
