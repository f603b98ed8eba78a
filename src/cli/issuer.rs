//! `birthmark issuer`

use std::process::ExitCode;

use anyhow::bail;
use birthmark::{
    client::Failure,
    hash::sha256,
    pem::certificate_pem,
    proto::{ListIssuersRequest, RecordedIssuer, rfc3339},
};
use clap::Subcommand;
use serde_json::{Value, json};

use super::{block_on, daemon::DaemonArgs, print, print_json, table};

/// Look up the issuers that the ledger has recorded
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List every issuer that has ever issued: each generation of each name
    ///
    /// A name whose chain changes in the configuration becomes its next generation when the daemon starts. What was issued
    /// before stands for the generation before, whose chain stays available forever.
    List(ListArgs),
    /// Show an issuer and its chain
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print CSV, with all times in UTC
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Its name in the configuration, of today or of then
    #[arg(value_name = "NAME")]
    name: String,

    /// Which of the issuers that have had the name [default: the newest]
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u32>,

    /// Print the chain alone, as PEM
    #[arg(long, conflicts_with = "json")]
    pem: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        match args.command {
            Command::List(args) => list(args).await,
            Command::Show(args) => show(args).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn recorded(daemon: &DaemonArgs) -> anyhow::Result<Vec<RecordedIssuer>> {
    let mut admin = daemon.admin().await?;
    Ok(admin.list_issuers(ListIssuersRequest {}).await.map_err(Failure::from)?.into_inner().issuers)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let issuers = recorded(&args.daemon).await?;
    if args.daemon.json {
        return print_json(&issuers.iter().map(to_json).collect());
    }
    let rows: Vec<_> = issuers
        .iter()
        .map(|recorded| {
            let issuer = recorded.issuer.clone().unwrap_or_default();
            let in_use = if recorded.in_use { "yes" } else { "no" };
            let mut row = vec![issuer.id.to_string(), issuer.name, issuer.generation.to_string()];
            row.extend([in_use.to_owned(), added(recorded), hex::encode(&recorded.serial_number)]);
            row.push(recorded.subject.clone());
            row
        })
        .collect();
    let headings = [">ID", "ISSUER", ">GENERATION", "IN USE", "RECORDED", "CA SERIAL NUMBER", "CA"];
    print(&table::rendered(args.csv, &headings, &rows))
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let issuers = recorded(&args.daemon).await?;
    let found = issuers.iter().filter(|recorded| {
        let wanted = |issuer: &birthmark::proto::Issuer| {
            issuer.name == args.name && args.generation.is_none_or(|generation| issuer.generation == generation)
        };
        recorded.issuer.as_ref().is_some_and(wanted)
    });
    let Some(recorded) = found.last() else {
        match args.generation {
            Some(generation) => bail!("there is no issuer \"{}\" of generation {generation}", args.name),
            None => bail!("there is no issuer \"{}\"; \"birthmark issuer list\" lists them", args.name),
        }
    };
    let issuer = recorded.issuer.clone().unwrap_or_default();
    let pem: String = issuer.chain.iter().map(|certificate| certificate_pem(certificate)).collect();
    if args.pem {
        return print(&pem);
    }
    if args.daemon.json {
        return print_json(&to_json(recorded));
    }
    let text = table::fields(&[
        ("issuer", Some(issuer.name)),
        ("generation", Some(issuer.generation.to_string())),
        ("id", Some(issuer.id.to_string())),
        ("recorded", Some(added(recorded))),
        ("in use", Some(if recorded.in_use { "yes" } else { "no" }.to_owned())),
        ("CA", Some(recorded.subject.clone())),
        ("CA serial number", Some(hex::encode(&recorded.serial_number))),
        ("CA SHA-256", issuer.chain.first().map(|ca| hex::encode(sha256(ca)))),
        ("certificates", Some(issuer.chain.len().to_string())),
    ]);
    print(&format!("{text}\n{pem}"))
}

fn added(recorded: &RecordedIssuer) -> String {
    recorded.added_at.as_ref().and_then(rfc3339).unwrap_or_default()
}

fn to_json(recorded: &RecordedIssuer) -> Value {
    let issuer = recorded.issuer.clone().unwrap_or_default();
    json!({
        "id": issuer.id,
        "issuer": issuer.name,
        "generation": issuer.generation,
        "in_use": recorded.in_use,
        "recorded_at": recorded.added_at.as_ref().and_then(rfc3339),
        "subject": recorded.subject,
        "serial_number": hex::encode(&recorded.serial_number),
        "ca_sha256": issuer.chain.first().map(|ca| hex::encode(sha256(ca))),
        "chain_pem": issuer.chain.iter().map(|certificate| certificate_pem(certificate)).collect::<Vec<_>>(),
    })
}
