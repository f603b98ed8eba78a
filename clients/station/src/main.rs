//! The `birthmark-station` command: what a test stand needs, without HSM, ledger or server.

use std::process::ExitCode;

use birthmark_base::{console, secrecy, version::VERSION};
use birthmark_manual::Manual;
use birthmark_station::cli;
use clap::{CommandFactory, Parser, Subcommand};

/// Gets device certificates from a Birthmark daemon, and confirms which devices have installed theirs.
#[derive(Debug, Parser)]
#[command(version = VERSION, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Station(cli::Command),
    #[command(hide = true)]
    Manual(birthmark_manual::Args),
}

fn main() -> ExitCode {
    let command = cli::arguments(Cli::try_parse()).command;
    if let Err(error) = secrecy::forbid_core_dumps() {
        eprintln!(
            "birthmark-station: a crash might write the key into a core dump, and that cannot be switched off: {error}"
        );
        return ExitCode::FAILURE;
    }
    let result = match command {
        Command::Station(command) => cli::run(command),
        Command::Manual(args) => {
            let see_also = "birthmark(1), /usr/share/doc/birthmark-station/";
            Manual { command: Cli::command(), elsewhere: &[], also_a_program: None, see_also }
                .write(&args)
                .map_err(Into::into)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("birthmark-station: {}", console::sentence(error.as_ref()));
        ExitCode::FAILURE
    })
}
