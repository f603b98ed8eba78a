//! `birthmark journal`

mod accept;
mod approve;
mod checkpoint;
mod dump;
mod folder;
mod follow;
mod frame_json;
mod reconcile;
mod torn;
mod verify;
mod watch;

use std::{
    io::IsTerminal,
    process::ExitCode,
    time::{Duration, Instant},
};

use birthmark::ledger::{
    embedded::{EmbeddedLedger, Settings},
    journal::Scan,
};
use clap::Subcommand;
use indicatif::ProgressBar;

use self::{
    accept::AcceptArgs,
    approve::ApproveArgs,
    checkpoint::CheckpointArgs,
    dump::DumpArgs,
    folder::{Place, data_folder},
    follow::FollowArgs,
    reconcile::ReconcileArgs,
    verify::VerifyArgs,
    watch::WatchArgs,
};
use super::print;

/// Verify, dump and reindex the journal, the authoritative record of every serial number
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify the whole journal: every byte, the rules that its entries keep, and its checkpoints
    Verify(VerifyArgs),
    /// Print the journal's entries as JSON, one per line
    Dump(DumpArgs),
    /// Print entries as JSON as they are written, one per line
    Follow(FollowArgs),
    /// Print what happens to certificates and orders, as the daemon tells it over the network
    Watch(WatchArgs),
    /// Have the daemon's audit key sign now what the journal is, and print that
    Checkpoint(CheckpointArgs),
    /// Delete the index and rebuild it from the journal, while no daemon runs
    Reindex(ReindexArgs),
    /// Take certificates that the journal has lost back into it, while no daemon runs
    Reconcile(ReconcileArgs),
    /// Accept that the journal has lost entries which the index or the checkpoint knows, or that nothing is missing after a
    /// restore, and record it
    AcceptLoss(AcceptArgs),
    /// Agree, as an operator for security, to a statement that accept-loss or accept-clock wrote
    Approve(ApproveArgs),
    /// Record that this computer's clock is right, although the journal's newest entry contradicts it
    AcceptClock(AcceptArgs),
}

#[derive(Debug, clap::Args)]
struct ReindexArgs {
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Verify(args) => verify::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Follow(args) => follow::run(&args),
        Command::Watch(args) => watch::run(args),
        Command::Checkpoint(args) => checkpoint::run(&args),
        Command::Reindex(args) => reindex(&args),
        Command::Reconcile(args) => reconcile::run(args),
        Command::AcceptLoss(args) => accept::loss(args),
        Command::Approve(args) => approve::run(&args),
        Command::AcceptClock(args) => accept::clock(args),
    }
}

fn reindex(args: &ReindexArgs) -> anyhow::Result<ExitCode> {
    let folder = data_folder(&args.place)?;
    // A folder without a journal is a mistake, not a ledger to create.
    drop(Scan::open(&folder)?);
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.set_message("reading the journal");
    bar.enable_steady_tick(Duration::from_millis(100));
    let started = Instant::now();
    let entries = EmbeddedLedger::reindex(&folder, &Settings::default());
    bar.finish_and_clear();
    let entries = entries?;
    print(&format!("the index was rebuilt from {entries} entries in {:.1} s\n", started.elapsed().as_secs_f64()))?;
    Ok(ExitCode::SUCCESS)
}
