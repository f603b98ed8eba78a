//! `birthmark export`

mod per_order;
mod push;
mod shown;
mod verify;

use std::{
    io::{IsTerminal, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail};
use birthmark::client::MarkedChannel;
use birthmark::{
    client::Failure,
    export::download::download,
    ledger::{BatchId, ExportId},
    proto::{
        AcknowledgeBatchRequest, AcknowledgeStart, Batch, CreateBatchRequest, ListBatchesRequest, PlanBatchRequest,
        Progress, acknowledge_batch_request::Request as Acknowledge, create_batch_reply::Reply as CreateReply,
        plan_batch_reply::Reply as PlanReply,
    },
};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use self::per_order::Shape;
use super::{block_on, command_line, daemon::DaemonArgs, print, print_json};

/// Cut batches for the destinations of the configuration, write them, and record what their platforms said
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the next batch of a destination would have, and change nothing
    Plan(PlanArgs),
    /// Create the next batch of a destination, and write its bundle
    ///
    /// A batch has the live certificates that were issued (or confirmed) since the batch before, those that it left out or
    /// its platform refused, and what is to be withdrawn. The bundle is there whole or not at all, and none is replaced.
    #[command(after_long_help = CREATE_AFTER)]
    Create(CreateArgs),
    /// List the batches of a destination, or of all
    List(ListArgs),
    /// Write the bundle of a batch again: the same bytes each time
    Get(GetArgs),
    /// Record that the platform has a batch, and what it said
    ///
    /// Results are JSON lines: {"certificate_id", "state": "registered" | "already" | "failed" | "withdrawn", "code",
    /// "message", "at"}. What failed comes again in the next batch.
    Acknowledge(AcknowledgeArgs),
    /// Verify a bundle offline: the manifest's signature, every file, and each certificate's issuer
    Verify(verify::Args),
    /// Hand each new bundle of a folder to a program of the site until it exits with 0
    Push(push::Args),
}

const CREATE_AFTER: &str = "\
Exit codes:
  0  a batch was cut (and written, with --out), or there was nothing new
  1  it failed; if the message names a batch, that is cut, and \"birthmark export get\" writes its bundle
  2  wrong usage";

#[derive(Debug, clap::Args)]
struct PlanArgs {
    /// The destination, as the daemon's configuration names it
    #[arg(value_name = "NAME")]
    destination: String,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The destination, as the daemon's configuration names it
    #[arg(value_name = "NAME")]
    destination: String,

    /// Write the bundle into this folder, as DIR/NAME.0001; the folder is created if it does not exist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Write one file, DIR/NAME.0001.tar, in place of a folder
    #[arg(long, requires = "out")]
    tar: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The destination; all if absent
    #[arg(value_name = "NAME")]
    destination: Option<String>,

    /// The exports of this order, which versions before 0.2 have cut
    #[arg(long, value_name = "ID", conflicts_with = "destination")]
    order: Option<String>,

    /// Print CSV, with all times in UTC
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct GetArgs {
    /// The batch's id, such as aws.0001
    #[arg(value_name = "BATCH", required_unless_present = "order", conflicts_with = "order")]
    id: Option<String>,

    /// The folder for the bundle, or the files; created if it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Write one file, DIR/BATCH.tar, in place of a folder
    #[arg(long, conflicts_with = "format")]
    tar: bool,

    /// It is an export of an order, which a version before 0.2 has cut; the shape of its files
    #[arg(long, value_enum)]
    format: Option<Shape>,

    /// All exports of this order, with --format
    #[arg(long, value_name = "ID", requires = "format")]
    order: Option<String>,

    /// The AWS IoT policy that devices get, with --format aws-bulk [default: device]
    #[arg(long, value_name = "NAME", requires = "format")]
    policy: Option<String>,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct AcknowledgeArgs {
    /// The batch's id, such as aws.0001
    #[arg(value_name = "BATCH")]
    id: BatchId,

    /// What the platform said, as JSON lines; - is standard input
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,

    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        match args.command {
            Command::Plan(args) => plan(&args).await?,
            Command::Create(args) => create(&args).await?,
            Command::List(args) => list(&args).await?,
            Command::Get(args) => get(&args).await?,
            Command::Acknowledge(args) => acknowledge(args).await?,
            Command::Verify(args) => verify::run(&args)?,
            Command::Push(args) => push::run(args)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Shown on a terminal only.
fn progress_bar(template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::no_length().with_style(style)
}

const ENTRIES: &str = "  {bar:40} {pos}/{len} entries  {eta}";
const OCTETS: &str = "  {spinner} {bytes}  {bytes_per_sec}";

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.of);
    bar.set_position(progress.done);
}

async fn plan(args: &PlanArgs) -> anyhow::Result<()> {
    let request = PlanBatchRequest { destination: args.destination.clone() };
    let mut replies = args.daemon.admin().await?.plan_batch(request).await.map_err(Failure::from)?.into_inner();
    let bar = progress_bar(ENTRIES);
    let mut planned = None;
    while let Some(message) = replies.message().await.map_err(Failure::from)? {
        match message.reply {
            Some(PlanReply::Progress(progress)) => show(&bar, progress),
            Some(PlanReply::Plan(plan)) => planned = Some(plan),
            None => {}
        }
    }
    bar.finish_and_clear();
    let plan = planned.context("the daemon gave no plan")?;
    if args.daemon.json { print_json(&shown::plan_to_json(&plan)) } else { print(&shown::plan_summary(&plan)) }
}

/// Cuts the next batch; none if there is nothing new.
async fn cut(channel: MarkedChannel, destination: &str) -> anyhow::Result<Result<Batch, Failure>> {
    let request = CreateBatchRequest { destination: destination.to_owned() };
    let mut admin = birthmark::proto::admin_client::AdminClient::new(channel);
    let mut replies = admin.create_batch(request).await.map_err(Failure::from)?.into_inner();
    let bar = progress_bar(ENTRIES);
    loop {
        match replies.message().await.map_err(Failure::from) {
            Ok(Some(message)) => match message.reply {
                Some(CreateReply::Progress(progress)) => show(&bar, progress),
                Some(CreateReply::Batch(batch)) => {
                    bar.finish_and_clear();
                    return Ok(Ok(batch));
                }
                None => {}
            },
            Ok(None) => bail!("the daemon gave no batch"),
            Err(failure) if failure.reason.as_deref() == Some("NOTHING_TO_EXPORT") => return Ok(Err(failure)),
            Err(failure) => return Err(failure.into()),
        }
    }
}

async fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let channel = args.daemon.channel().await?;
    let batch = match cut(channel.clone(), &args.destination).await? {
        Ok(batch) => batch,
        Err(nothing) if args.daemon.json => {
            return print_json(&json!({ "id": null, "destination": args.destination, "message": nothing.message }));
        }
        Err(nothing) => return print(&format!("{}\n", nothing.message)),
    };
    let get = |out: &Path| {
        let mut words = ["birthmark", "export", "get", &batch.id, "--out"].map(str::to_owned).to_vec();
        words.push(out.display().to_string());
        words.extend(args.tar.then(|| "--tar".to_owned()));
        words.extend(args.daemon.connection.connection().arguments());
        command_line(&words)
    };
    let path = match &args.out {
        Some(out) => Some(write(channel, &batch.id, out, args.tar).await.with_context(|| {
            format!("the batch {} is cut, but its bundle is not written; write it with: {}", batch.id, get(out))
        })?),
        None => None,
    };
    if args.daemon.json {
        let mut shown = shown::batch_to_json(&batch);
        shown["path"] = json!(path.map(|path| path.display().to_string()));
        return print_json(&shown);
    }
    let written = match path {
        Some(path) => format!("written to {}\n", path.display()),
        None => format!("write its bundle with: {}\n", get(Path::new("DIR"))),
    };
    print(&(shown::summary(&batch) + &written))
}

async fn write(channel: MarkedChannel, id: &str, out: &Path, as_tar: bool) -> anyhow::Result<PathBuf> {
    let bar = progress_bar(OCTETS);
    let written = download(channel, id, out, as_tar, &|octets| bar.inc(octets)).await;
    bar.finish_and_clear();
    Ok(written?)
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    if let Some(order) = &args.order {
        return per_order::list(&args.daemon, order, args.csv).await;
    }
    let request = ListBatchesRequest { destination: args.destination.clone().unwrap_or_default() };
    let mut replies = args.daemon.admin().await?.list_batches(request).await.map_err(Failure::from)?.into_inner();
    let mut batches = Vec::new();
    while let Some(batch) = replies.message().await.map_err(Failure::from)? {
        batches.push(batch);
    }
    if args.daemon.json {
        return print_json(&batches.iter().map(shown::batch_to_json).collect());
    }
    if args.csv {
        return print(&shown::batches_as_csv(&batches));
    }
    if batches.is_empty() {
        return print("there are no batches; \"birthmark export create NAME\" creates one\n");
    }
    print(&shown::batches(&batches))
}

async fn get(args: &GetArgs) -> anyhow::Result<()> {
    if let Some(shape) = args.format {
        let id = args.id.as_deref().map(str::parse::<ExportId>).transpose()?;
        let order = args.order.clone().or(id.as_ref().map(|id| id.order.clone())).unwrap_or_default();
        return per_order::get(&args.daemon, id, &order, (shape, args.policy.as_deref()), &args.out).await;
    }
    let id: BatchId = args.id.as_deref().ok_or_else(|| anyhow!("name a batch"))?.parse()?;
    let path = write(args.daemon.channel().await?, &id.to_string(), &args.out, args.tar).await?;
    if args.daemon.json {
        return print_json(&json!({ "id": id.to_string(), "path": path.display().to_string() }));
    }
    print(&format!("batch {id} is written to {}\n", path.display()))
}

/// Octets of a message of results.
const PIECE: usize = 64 << 10;

async fn acknowledge(args: AcknowledgeArgs) -> anyhow::Result<()> {
    let start = AcknowledgeStart { id: args.id.to_string(), has_results: args.results.is_some() };
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let message = |request| AcknowledgeBatchRequest { request: Some(request) };
    sender.send(message(Acknowledge::Start(start))).await?;
    let reading = async {
        let Some(path) = args.results else {
            drop(sender);
            return Ok(());
        };
        let read = tokio::task::spawn_blocking(move || (read_results(&path, &sender), sender));
        let (read, sender) = read.await?;
        match read {
            Ok(()) => drop(sender),
            // A stream that ended would say that these are all: it breaks off with the process.
            Err(error) => {
                std::mem::forget(sender);
                return Err(error);
            }
        }
        Ok(())
    };
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let replied = async {
        let mut replies =
            args.daemon.admin().await?.acknowledge_batch(requests).await.map_err(Failure::from)?.into_inner();
        let batch = replies.message().await.map_err(Failure::from)?;
        batch.context("the daemon said nothing")
    };
    let batch = acknowledged(reading, replied).await?;
    if args.daemon.json {
        return print_json(&shown::batch_to_json(&batch));
    }
    let at = batch.acknowledged_at.as_ref().and_then(birthmark::proto::rfc3339).unwrap_or_default();
    let mut text = format!("batch {} was acknowledged on {at} by {}\n", batch.id, batch.acknowledged_by);
    if let Some(results) = &batch.results {
        let birthmark::proto::BatchResults { registered, already, withdrawn, failed, .. } = results;
        text.push_str(&format!(
            "{registered} registered, {already} already there, {withdrawn} withdrawn, {failed} failed{}\n",
            if *failed > 0 { ": these come again in the next batch" } else { "" }
        ));
    }
    print(&text)
}

/// What the daemon says, unless the results cannot be read.
async fn acknowledged(
    reading: impl Future<Output = anyhow::Result<()>>,
    replied: impl Future<Output = anyhow::Result<Batch>>,
) -> anyhow::Result<Batch> {
    let (mut reading, mut replied) = (std::pin::pin!(reading), std::pin::pin!(replied));
    tokio::select! {
        // A daemon that refuses reads no further.
        batch = &mut replied => batch,
        read = &mut reading => {
            read?;
            replied.await
        }
    }
}

/// Sends what a file has, piece by piece.
fn read_results(path: &Path, sender: &tokio::sync::mpsc::Sender<AcknowledgeBatchRequest>) -> anyhow::Result<()> {
    let unreadable = || format!("cannot read {}", path.display());
    let mut file: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path).with_context(unreadable)?),
    };
    loop {
        let mut piece = vec![0; PIECE];
        let read = file.read(&mut piece).with_context(unreadable)?;
        piece.truncate(read);
        let request = AcknowledgeBatchRequest { request: Some(Acknowledge::Results(piece.into())) };
        if read == 0 || sender.blocking_send(request).is_err() {
            return Ok(());
        }
    }
}
