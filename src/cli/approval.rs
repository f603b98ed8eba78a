//! `birthmark approval`

use std::process::ExitCode;

use birthmark::{
    client::Failure,
    proto::{Approval, GrantApprovalRequest, ListApprovalsRequest, approvals_client::ApprovalsClient, rfc3339},
};
use clap::Subcommand;
use serde_json::json;

use super::{block_on, daemon::DaemonArgs, print, print_json, table};

/// See and grant what needs a second operator
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what operators have asked for
    List(ListArgs),
    /// Agree to what another operator has asked for
    Grant(GrantArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only what nobody has agreed to yet
    #[arg(long)]
    pending: bool,

    /// Print CSV, with all times in UTC
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct GrantArgs {
    /// The request's number
    number: u64,

    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        match args.command {
            Command::List(args) => list(args).await,
            Command::Grant(GrantArgs { number, daemon }) => {
                let mut approvals = ApprovalsClient::new(daemon.channel().await?);
                let granted = approvals.grant(GrantApprovalRequest { number }).await.map_err(Failure::from)?;
                let granted = granted.into_inner();
                match daemon.json {
                    true => print_json(&to_json(&granted)),
                    false => print(&format!("granted: {}\n", granted.what)),
                }
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut approvals = ApprovalsClient::new(args.daemon.channel().await?);
    let listed = approvals.list(ListApprovalsRequest {}).await.map_err(Failure::from)?.into_inner().approvals;
    let listed: Vec<_> = listed.into_iter().filter(|approval| !args.pending || approval.granted_at.is_none()).collect();
    if args.daemon.json {
        return print_json(&listed.iter().map(to_json).collect());
    }
    if listed.is_empty() && !args.csv {
        return print("nothing waits for a second operator\n");
    }
    let rows: Vec<_> = listed.iter().map(row).collect();
    print(&table::rendered(args.csv, &[">NUMBER", "ASKED", "BY", "GRANTED BY", "DONE BY", "WHAT"], &rows))
}

fn row(approval: &Approval) -> Vec<String> {
    vec![
        approval.number.to_string(),
        approval.requested_at.as_ref().and_then(rfc3339).unwrap_or_default(),
        approval.requested_by.clone(),
        approval.granted_by.clone(),
        approval.used_by.clone(),
        approval.what.clone(),
    ]
}

fn to_json(approval: &Approval) -> serde_json::Value {
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().and_then(rfc3339);
    json!({
        "number": approval.number,
        "what": approval.what,
        "requested_at": time(&approval.requested_at),
        "requested_by": approval.requested_by,
        "granted_at": time(&approval.granted_at),
        "granted_by": approval.granted_by,
        "used_at": time(&approval.used_at),
        "used_by": approval.used_by,
    })
}
