//! `birthmark journal watch`

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

use birthmark::{client::Failure, events::to_json, proto::WatchRequest};

use crate::cli::{block_on, daemon::DaemonArgs};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "One JSON object per line for each entry of the ledger, in order and without a gap, for an adapter to an MES: \
    whoever keeps the sequence number of the last one goes on after it with --after. It ends with an error when the daemon does."
)]
pub(super) struct WatchArgs {
    /// The sequence number of the last entry that is known already; 0: from the first on
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    after: u64,

    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Prints events as they come.
pub(super) fn run(args: WatchArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let mut admin = args.daemon.admin().await?;
        let mut events = admin.watch(WatchRequest { after: args.after }).await.map_err(Failure::from)?.into_inner();
        while let Some(event) = events.message().await.map_err(Failure::from)? {
            let line = to_json(&event);
            let mut out = std::io::stdout().lock();
            match writeln!(out, "{line}").and_then(|()| out.flush()) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                written => written?,
            }
        }
        anyhow::bail!("the daemon shut down; go on with --after and the last sequence number")
    })
}
