//! The `birthmark` command: the daemon and everything around it.

use std::process::ExitCode;

use birthmark::version::VERSION;
use birthmark_manual::Manual;
use clap::{CommandFactory, Parser, Subcommand};

mod cli;

/// For the many small, short-lived pieces of a certificate; benches/RESULTS.md has what was measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Signs device certificates on the production line with a CA key that stays in an HSM.
#[derive(Debug, Parser)]
#[command(version = VERSION, max_term_width = 110, after_long_help = cli::EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a complete demonstration on this machine: SoftHSM token, ceremony, daemon, stations, export
    Demo(cli::companion::Args),
    /// Make CA keys in the HSM and their certificates, as specified in a reviewed file
    Ceremony(cli::ceremony::Args),
    /// Prove to a cloud that a CA's key is ours
    Ca(cli::ca::Args),
    /// Try out an HSM before the daemon uses it
    Hsm(cli::hsm::Args),
    /// Run the daemon
    Serve(cli::serve::Args),
    /// Enroll stations, sign devices' CSRs, and confirm that devices have installed their certificates
    Station(cli::station::Args),
    /// Print who may make which call
    Roles(cli::roles::Args),
    /// See and grant what needs a second operator
    Approval(cli::approval::Args),
    /// See what has happened, by whom and when, out of the ledger
    Audit(cli::audit::Args),
    /// Manage production orders
    Order(cli::order::Args),
    /// Look up what was issued, and change its state
    Record(cli::record::Args),
    /// Look up the issuers that the ledger has recorded
    Issuer(cli::issuer::Args),
    /// Give devices one-time codes by which they get their certificates over EST
    Vend(cli::vend::Args),
    /// Inspect profiles
    Profile(cli::profile::Args),
    /// Export issued certificates for pre-registration in a cloud
    Export(cli::export::Args),
    /// Publish what happens to an MQTT broker, as JSON and as IPC-CFX messages
    Events(cli::events::Args),
    /// Show certificate revocation lists, and write them for relying parties that are offline
    Crl(cli::crl::Args),
    /// Verify, dump and reindex the journal, the authoritative record of every serial number
    Journal(cli::journal::Args),
    /// Make, look at, complete and close a ledger that several daemons share in a database
    Ledger(cli::ledger::Args),
    /// Have the daemon read its configuration anew, without a stop
    Reload(cli::reload::Args),
    /// Back up the journal and its newest checkpoint, also while the daemon runs
    Backup(cli::backup::BackupArgs),
    /// Make a data folder of a backup
    Restore(cli::backup::RestoreArgs),
    /// Measure how many certificates a second this machine makes, and where the time goes
    Bench(cli::companion::Args),
    #[command(hide = true)]
    Manual(birthmark_manual::Args),
}

fn main() -> ExitCode {
    let command = cli::arguments(Cli::try_parse()).command;
    if let Err(error) = birthmark::secrecy::forbid_core_dumps() {
        eprintln!(
            "birthmark: a crash might write PINs and keys into a core dump, and that cannot be switched off: {error}"
        );
        return ExitCode::FAILURE;
    }
    let result = match command {
        Command::Demo(args) => cli::companion::run("demo", args),
        Command::Ceremony(args) => cli::ceremony::run(args),
        Command::Ca(args) => cli::ca::run(args),
        Command::Hsm(args) => cli::hsm::run(args),
        Command::Serve(args) => cli::serve::run(args),
        Command::Station(args) => cli::station::run(args),
        Command::Issuer(args) => cli::issuer::run(args),
        Command::Roles(args) => cli::roles::run(args),
        Command::Approval(args) => cli::approval::run(args),
        Command::Audit(args) => cli::audit::run(args),
        Command::Order(args) => cli::order::run(args),
        Command::Record(args) => cli::record::run(args),
        Command::Vend(args) => cli::vend::run(args),
        Command::Profile(args) => cli::profile::run(args),
        Command::Export(args) => cli::export::run(args),
        Command::Events(args) => cli::events::run(args),
        Command::Crl(args) => cli::crl::run(args),
        Command::Journal(args) => cli::journal::run(args),
        Command::Ledger(args) => cli::ledger::run(args),
        Command::Reload(args) => cli::reload::run(args),
        Command::Backup(args) => cli::backup::back_up(args),
        Command::Restore(args) => cli::backup::restore(args),
        Command::Bench(args) => cli::companion::run("bench", args),
        Command::Manual(args) => {
            let pages = Manual {
                command: Cli::command(),
                // They are the companion's.
                elsewhere: &["birthmark-demo", "birthmark-bench"],
                also_a_program: Some("birthmark-station"),
                see_also: "birthmark-station(1), birthmark-aws(1), /usr/share/doc/birthmark/",
            };
            pages.write(&args).map_err(Into::into)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("birthmark: {}", cli::sentence(&error));
        ExitCode::FAILURE
    })
}
