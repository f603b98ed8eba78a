//! `birthmark export`

mod push;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{anyhow, bail, ensure};
use birthmark::{
    client::Failure,
    export::{self, Batch, ExportError, Format},
    ledger::ExportId,
    proto::{AcknowledgeExportRequest, Export, rfc3339},
};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{block_on, command_line, daemon::DaemonArgs, print, print_json, table};

/// Export issued certificates for pre-registration in a cloud
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the next batch of an order and write it to files that a platform imports
    ///
    /// A batch has the order's live certificates that were issued since the batch before. The files are there whole or
    /// not at all, and existing ones are never replaced. A colon in the order's id is a _ in the files' names.
    #[command(after_long_help = CREATE_AFTER)]
    Create(CreateArgs),
    /// List the exports of an order
    List(ListArgs),
    /// Write the files of an export again; its content never changes
    Get(GetArgs),
    /// Record that the platform has an export
    Acknowledge(AcknowledgeArgs),
    /// Verify a bundle offline: the manifest's signature, every file, and each certificate's issuer
    Verify(verify::Args),
    /// Hand each new bundle of a folder to a program of the site until it exits with 0
    Push(push::Args),
}

const CREATE_AFTER: &str = "\
A batch that was created just before the command or the machine went down has no files. Until such an export is acknowledged, \
it is named here with the command that writes its files.

Exit codes:
  0  a batch was written, or there was nothing new to export
  1  it failed
  2  wrong usage
  3  nothing new, but exports that are not acknowledged have no files in DIR";

/// Nothing new, and files may be missing.
const FILES_MISSING: u8 = 3;

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The production order
    #[arg(long, value_name = "ID")]
    order: String,

    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    daemon: DaemonArgs,
}

/// What is written, and where.
#[derive(Debug, clap::Args)]
struct Files {
    /// The shape of the files
    #[arg(long, value_enum)]
    format: Shape,

    /// The folder for the files; created if it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// The AWS IoT policy that devices get, with --format aws-bulk [default: device]
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The production order
    #[arg(long, value_name = "ID")]
    order: String,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct GetArgs {
    /// The export's id, such as lot-42.0001
    #[arg(value_name = "EXPORT", required_unless_present = "order", conflicts_with = "order")]
    id: Option<ExportId>,

    /// All exports of this production order
    #[arg(long, value_name = "ID")]
    order: Option<String>,

    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct AcknowledgeArgs {
    /// The export's id, such as lot-42.0001
    #[arg(value_name = "EXPORT")]
    id: ExportId,

    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shape {
    /// EXPORT.jsonl: a JSON object for each certificate
    Jsonl,
    /// EXPORT.aws-bulk.jsonl and EXPORT.provisioning-template.json: AWS IoT bulk registration
    AwsBulk,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        match args.command {
            Command::Create(args) => return create(args).await,
            Command::List(args) => list(args).await?,
            Command::Get(args) => get(args).await?,
            Command::Acknowledge(args) => acknowledge(args).await?,
            Command::Verify(args) => verify::run(&args)?,
            Command::Push(args) => push::run(args)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn create(args: CreateArgs) -> anyhow::Result<ExitCode> {
    let format = args.files.format()?;
    let channel = args.daemon.channel().await?;
    let out = &args.files.out;
    let made = match export::create(channel.clone(), &args.order, &format, out).await {
        Err(ExportError::Created { id, cause }) => {
            let hint = get_command(&id, &args);
            return Err(anyhow!("{}; write them with: {hint}", ExportError::Created { id, cause }));
        }
        made => made?,
    };
    let mut without_files = export::without_files(channel, &args.order, &format, out).await?;
    // The files of this one are in place, and may have been moved on already.
    without_files.retain(|export| made.as_ref().is_none_or(|(made, _)| made.id != export.id));
    let missing: Vec<_> = without_files.iter().map(|export| &export.id).collect();
    match &made {
        Some((export, batch)) if args.daemon.json => {
            let mut printed = batch_to_json(export, batch);
            printed["files_missing"] = json!(missing);
            print_json(&printed)?;
        }
        Some((export, batch)) => print(&(summary(export, batch) + &next_steps(&format, batch)))?,
        None if args.daemon.json => print_json(
            &json!({ "id": null, "order": args.order, "certificates": 0, "files": [], "files_missing": missing }),
        )?,
        None => print(&format!("nothing new to export of order {}\n", args.order))?,
    }
    for id in &missing {
        eprintln!(
            "birthmark: the export {id} is not acknowledged and has no files in {}; if they are nowhere else, write them \
             with: {}",
            out.display(),
            get_command(id, &args)
        );
    }
    Ok(if made.is_none() && !missing.is_empty() { ExitCode::from(FILES_MISSING) } else { ExitCode::SUCCESS })
}

/// The command that writes an export's files as this one would have.
fn get_command(id: &str, args: &CreateArgs) -> String {
    let format = args.files.format.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let mut words = ["birthmark", "export", "get", id, "--format", &format, "--out"].map(str::to_owned).to_vec();
    words.push(args.files.out.display().to_string());
    if let Some(policy) = &args.files.policy {
        words.extend(["--policy".to_owned(), policy.clone()]);
    }
    words.extend(args.daemon.connection.connection().arguments());
    command_line(&words)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let channel = args.daemon.channel().await?;
    let exports = export::list(channel, &args.order).await?;
    if args.daemon.json {
        return print_json(&exports.iter().map(export_to_json).collect());
    }
    if exports.is_empty() {
        return print(&format!("order {} has no exports; \"birthmark export create\" makes one\n", args.order));
    }
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().and_then(rfc3339).unwrap_or_default();
    let rows: Vec<_> = exports
        .iter()
        .map(|export| {
            let mut row = vec![export.id.clone(), export.certificates.to_string()];
            row.extend([time(&export.created_at), export.created_by.clone()]);
            row.extend([time(&export.acknowledged_at), export.acknowledged_by.clone()]);
            row
        })
        .collect();
    print(&table::columns(&["EXPORT", ">CERTIFICATES", "CREATED", "BY", "ACKNOWLEDGED", "BY"], &rows))
}

async fn get(args: GetArgs) -> anyhow::Result<()> {
    let format = args.files.format()?;
    let order = match (&args.id, &args.order) {
        (Some(id), _) => id.order.clone(),
        (None, order) => order.clone().unwrap_or_default(),
    };
    let channel = args.daemon.channel().await?;
    let mut exports = export::list(channel.clone(), &order).await?;
    if let Some(id) = args.id {
        exports.retain(|export| export.number == id.number);
        ensure!(
            !exports.is_empty(),
            "there is no export \"{id}\"; \"birthmark export list --order {order}\" lists them"
        );
    }
    let mut batches = Vec::new();
    for export in exports {
        let batch = export::get(channel.clone(), &export, &format, &args.files.out).await?;
        batches.push((export, batch));
    }
    if args.daemon.json {
        return print_json(&batches.iter().map(|(export, batch)| batch_to_json(export, batch)).collect());
    }
    if batches.is_empty() {
        return print(&format!("order {order} has no exports\n"));
    }
    let summaries: Vec<_> = batches.iter().map(|(export, batch)| summary(export, batch)).collect();
    print(&summaries.join("\n"))
}

async fn acknowledge(args: AcknowledgeArgs) -> anyhow::Result<()> {
    let mut admin = args.daemon.admin().await?;
    let request = AcknowledgeExportRequest { id: args.id.to_string() };
    let export = admin.acknowledge_export(request).await.map_err(Failure::from)?.into_inner();
    if args.daemon.json {
        return print_json(&export_to_json(&export));
    }
    let at = export.acknowledged_at.as_ref().and_then(rfc3339).unwrap_or_default();
    print(&format!("export {} was acknowledged on {at} by {}\n", export.id, export.acknowledged_by))
}

impl Files {
    fn format(&self) -> anyhow::Result<Format> {
        match (self.format, &self.policy) {
            (Shape::Jsonl, None) => Ok(Format::Jsonl),
            (Shape::Jsonl, Some(_)) => bail!("--policy is only for --format aws-bulk"),
            (Shape::AwsBulk, policy) => {
                Ok(Format::AwsBulk { policy: policy.clone().unwrap_or_else(|| "device".to_owned()) })
            }
        }
    }
}

/// What was written, for people.
fn summary(export: &Export, batch: &Batch) -> String {
    let rows: Vec<_> = batch
        .files
        .iter()
        .map(|file| vec![file.path.display().to_string(), file.size.to_string(), hex::encode(file.sha256)])
        .collect();
    let files = table::columns(&["FILE", ">BYTES", "SHA-256"], &rows);
    format!("export {}: {} certificates of order {}\n\n{files}", export.id, batch.certificates, export.order)
}

fn next_steps(format: &Format, batch: &Batch) -> String {
    let (Format::AwsBulk { policy }, [parameters, template]) = (format, &batch.files[..]) else {
        return String::new();
    };
    let word = |text: String| command_line(&[text]);
    let key = parameters.path.file_name().unwrap_or_default().display().to_string();
    format!(
        "\nNext, in an account where the issuing CA is registered and the policy \"{policy}\" exists:\n  \
         aws s3 cp {} s3://BUCKET/{key}\n  \
         aws iot start-thing-registration-task --template-body {} \\\n    \
         --input-file-bucket BUCKET --input-file-key {key} --role-arn ROLE_ARN\n",
        word(parameters.path.display().to_string()),
        word(format!("file://{}", template.path.display())),
    )
}

fn batch_to_json(export: &Export, batch: &Batch) -> Value {
    let files = batch.files.iter().map(|file| {
        json!({ "path": file.path.display().to_string(), "size": file.size, "sha256": hex::encode(file.sha256) })
    });
    json!({
        "id": export.id,
        "order": export.order,
        "certificates": batch.certificates,
        "files": files.collect::<Vec<_>>(),
    })
}

fn export_to_json(export: &Export) -> Value {
    json!({
        "id": export.id,
        "order": export.order,
        "number": export.number,
        "certificates": export.certificates,
        "created_at": export.created_at.as_ref().and_then(rfc3339),
        "created_by": export.created_by,
        "acknowledged_at": export.acknowledged_at.as_ref().and_then(rfc3339),
        "acknowledged_by": export.acknowledged_at.map(|_| &export.acknowledged_by),
    })
}
