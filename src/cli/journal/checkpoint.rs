//! `birthmark journal checkpoint`

use std::process::ExitCode;

use birthmark::{client::Failure, proto::MakeCheckpointRequest};
use serde_json::json;

use crate::cli::{block_on, daemon::DaemonArgs, print, print_json};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The newest checkpoint is printed, as the file \"checkpoint\" of the data folder has it; keep it elsewhere: \
    \"birthmark journal verify --checkpoint\" and \"birthmark serve --expect-checkpoint\" compare the journal with it."
)]
pub(super) struct CheckpointArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Has the daemon make a checkpoint, and prints it.
pub(super) fn run(args: &CheckpointArgs) -> anyhow::Result<ExitCode> {
    let made = block_on(async {
        let mut admin = args.daemon.admin().await?;
        Ok(admin.make_checkpoint(MakeCheckpointRequest {}).await.map_err(Failure::from)?.into_inner())
    })?;
    if args.daemon.json {
        print_json(&json!({ "entries": made.entries, "note": made.note }))?;
    } else {
        print(&made.note)?;
    }
    Ok(ExitCode::SUCCESS)
}
