//! `birthmark reload`

use std::process::ExitCode;

use birthmark::{client::Failure, proto::ReloadRequest};
use serde_json::json;

use super::{block_on, daemon::DaemonArgs, print, print_json};

/// Have the daemon read its configuration anew, without a stop
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Profiles, refused keys, the server's certificate and key (also EST's), the station CA, its revocation list, the CA that \
    enrols, what needs a second operator, EST's default label and the log's level come into force at once, for what begins from then on; no stream is dropped. What needs a restart is named. A configuration with a fault is refused \
    as a whole, and the one before stays: exit code 1. SIGHUP does the same, and tells the log. \"birthmark serve --check\" tries a \
    configuration out."
)]
pub(crate) struct Args {
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let reloaded = block_on(async {
        let mut admin = args.daemon.admin().await?;
        Ok(admin.reload(ReloadRequest {}).await.map_err(Failure::from)?.into_inner())
    })?;
    let configuration = hex::encode(&reloaded.configuration_sha256);
    if args.daemon.json {
        print_json(&json!({
            "changed": reloaded.changed,
            "needs_restart": reloaded.needs_restart,
            "configuration_sha256": configuration,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let listed = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    print(&format!("the configuration {configuration} is in force; changed: {}\n", listed(&reloaded.changed)))?;
    if !reloaded.needs_restart.is_empty() {
        print(&format!("needs a restart: {}\n", listed(&reloaded.needs_restart)))?;
    }
    Ok(ExitCode::SUCCESS)
}
