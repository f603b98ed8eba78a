//! `birthmark audit`

use std::{io::ErrorKind, io::Write, process::ExitCode};

use birthmark::{
    client::Failure,
    proto::{AuditEntry, ListAuditRequest, audit_client::AuditClient, audit_reply::Reply, rfc3339, timestamp},
};
use clap::Subcommand;
use serde_json::Value;

use super::{block_on, daemon::DaemonArgs, moment::moment};

/// See what has happened, by whom and when, out of the ledger
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the ledger's entries, the oldest first
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --json each line is the object of \"birthmark journal dump\", which has all that the entry states, and the \
    certificate's device, order and profile. Whoever reads in pages goes on with --after and the number that is printed at the end: \
    no entry is missed and none comes twice."
)]
struct ListArgs {
    /// Only entries at or after this moment, such as 2026-03-01T06:00:00Z or 2026-03-01
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<jiff::Timestamp>,

    /// Only entries before this moment
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<jiff::Timestamp>,

    /// Only what these have caused, such as operator:alice, station:line1/* or daemon
    #[arg(long, value_name = "PATTERN")]
    actor: Vec<String>,

    /// Only these events, as "journal dump" names them, such as revoked or order_*
    #[arg(long, value_name = "EVENT")]
    event: Vec<String>,

    /// Only what concerns this order, its certificates included
    #[arg(long, value_name = "ID")]
    order: Option<String>,

    /// Only what concerns this device
    #[arg(long, value_name = "ID")]
    device: Option<String>,

    /// Only entries after this sequence number
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    after: u64,

    /// At most this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(args) => block_on(list(args)),
    }
}

async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let request = ListAuditRequest {
        after: args.after,
        since: args.since.map(timestamp),
        until: args.until.map(timestamp),
        actors: args.actor,
        events: args.event,
        order: args.order.unwrap_or_default(),
        device_id: args.device.unwrap_or_default(),
        limit: args.limit.unwrap_or(0),
    };
    let mut audit = AuditClient::new(args.daemon.channel().await?);
    let mut replies = audit.list(request).await.map_err(Failure::from)?.into_inner();
    if !args.daemon.json && !put(&heading())? {
        return Ok(ExitCode::SUCCESS);
    }
    while let Some(reply) = replies.message().await.map_err(Failure::from)? {
        match reply.reply {
            Some(Reply::Entry(entry)) => {
                let line = if args.daemon.json { format!("{}\n", entry.json) } else { row(&entry) };
                if !put(&line)? {
                    break;
                }
            }
            Some(Reply::End(end)) if end.more => {
                eprintln!("birthmark: there are more entries; go on with --after {}", end.sequence);
            }
            Some(Reply::End(_)) | None => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All entries that are asked for.
pub(super) async fn entries(daemon: &DaemonArgs, request: ListAuditRequest) -> anyhow::Result<Vec<AuditEntry>> {
    let mut audit = AuditClient::new(daemon.channel().await?);
    let mut replies = audit.list(request).await.map_err(Failure::from)?.into_inner();
    let mut entries = Vec::new();
    while let Some(reply) = replies.message().await.map_err(Failure::from)? {
        if let Some(Reply::Entry(entry)) = reply.reply {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Prints, as long as somebody reads: there may be millions of lines.
pub(super) fn put(text: &str) -> anyhow::Result<bool> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// The headings of a table whose rows are not known beforehand.
pub(super) fn heading() -> String {
    line("SEQUENCE", "TIME", "EVENT", "BY", "WHAT")
}

/// An entry for people.
pub(super) fn row(entry: &AuditEntry) -> String {
    let time = entry.time.as_ref().and_then(rfc3339).unwrap_or_default();
    line(&entry.sequence.to_string(), &time, &entry.event, &entry.actor, &what(entry))
}

fn line(sequence: &str, time: &str, event: &str, by: &str, what: &str) -> String {
    format!("{sequence:>10}  {time:<20}  {event:<22}  {by:<24}  {what}\n")
}

/// What the entry states, without what is too long for a line.
fn what(entry: &AuditEntry) -> String {
    const ELSEWHERE: [&str; 4] = ["sequence", "time", "actor", "event"];
    const LONGEST: usize = 100;
    let Ok(Value::Object(fields)) = serde_json::from_str(&entry.json) else { return String::new() };
    let shown = fields.iter().filter(|(name, _)| !ELSEWHERE.contains(&name.as_str()));
    let shown = shown.filter_map(|(name, value)| {
        let text = match value {
            Value::String(text) if text.is_empty() || text.len() > LONGEST || text.contains('\n') => return None,
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(true) => "yes".to_owned(),
            Value::Array(items) if items.len() == 1 => items.first()?.as_str()?.to_owned(),
            Value::Array(items) if !items.is_empty() => format!("({})", items.len()),
            _ => return None,
        };
        (text.len() <= LONGEST && !text.contains('\n')).then(|| format!("{name}={text}"))
    });
    shown.collect::<Vec<_>>().join(" ")
}
