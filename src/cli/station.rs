//! `birthmark station`: what stations do themselves is the station program's, and the same here; the rest is for
//! operators.

use std::process::ExitCode;

use clap::Subcommand;

use super::stations;

/// Enroll stations, sign devices' CSRs, and confirm that devices have installed their certificates
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key and a certificate for a station, an operator, an auditor or the daemon itself
    Enroll(Box<super::enroll::Args>),
    #[command(flatten)]
    Station(birthmark_station::cli::Command),
    /// List stations, operators and auditors: line, expiry, last seen, rate, who enrolled them
    List(stations::ListArgs),
    /// Show one station, operator or auditor with its certificates
    Show(stations::OneArgs),
    /// Cut off a station, an operator or an auditor, and refuse the certificates that it has
    Revoke(stations::RevokeArgs),
    /// Record what was enrolled where no daemon ran
    Import(stations::ImportArgs),
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Enroll(args) => super::enroll::run(*args),
        Command::Station(command) => birthmark_station::cli::run(command),
        Command::List(args) => stations::list(args),
        Command::Show(args) => stations::show(args),
        Command::Revoke(args) => stations::revoke(args),
        Command::Import(args) => stations::import(args),
    }
}
