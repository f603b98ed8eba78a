//! `birthmark export`

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use birthmark::{
    client::Connection,
    export::{self, Batch, Format},
};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::{block_on, print, print_json, table};

/// Export issued certificates for pre-registration in a cloud
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write every certificate of an order to files that a platform imports
    ///
    /// The files are there whole or not at all, and existing ones are never replaced.
    Create(CreateArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The production order
    #[arg(long, value_name = "ID")]
    order: String,

    /// The shape of the files
    #[arg(long, value_enum)]
    format: Shape,

    /// The folder for the files; made if absent
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// The AWS IoT policy that devices get, with --format aws-bulk [default: device]
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shape {
    /// ORDER.jsonl: a JSON object for each certificate
    Jsonl,
    /// ORDER.aws-bulk.jsonl and ORDER.provisioning-template.json: AWS IoT bulk registration
    AwsBulk,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Command::Create(args) = args.command;
    block_on(create(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let format = match (args.format, args.policy) {
        (Shape::Jsonl, None) => Format::Jsonl,
        (Shape::Jsonl, Some(_)) => bail!("--policy is only for --format aws-bulk"),
        (Shape::AwsBulk, policy) => Format::AwsBulk { policy: policy.unwrap_or_else(|| "device".to_owned()) },
    };
    let channel = args.connection.daemon()?.connect().await?;
    let batch = export::create(channel, &args.order, &format, &args.out).await?;
    if args.json {
        return print_json(&to_json(&args.order, &batch));
    }
    let rows: Vec<_> = batch
        .files
        .iter()
        .map(|file| vec![file.path.display().to_string(), file.size.to_string(), hex::encode(file.sha256)])
        .collect();
    let mut text = format!("{} certificates of order {}\n\n", batch.certificates, args.order);
    text.push_str(&table::columns(&["FILE", ">BYTES", "SHA-256"], &rows));
    if let (Format::AwsBulk { policy }, [parameters, template]) = (&format, &batch.files[..]) {
        let key = parameters.path.file_name().unwrap_or_default().display();
        text.push_str(&format!(
            "\nNext, in an account where the issuing CA is registered and the policy \"{policy}\" exists:\n  \
             aws s3 cp {} s3://BUCKET/{key}\n  \
             aws iot start-thing-registration-task --template-body file://{} \\\n    \
             --input-file-bucket BUCKET --input-file-key {key} --role-arn ROLE_ARN\n",
            parameters.path.display(),
            template.path.display(),
        ));
    }
    print(&text)
}

fn to_json(order: &str, batch: &Batch) -> serde_json::Value {
    let files = batch.files.iter().map(|file| {
        json!({ "path": file.path.display().to_string(), "size": file.size, "sha256": hex::encode(file.sha256) })
    });
    json!({ "order": order, "certificates": batch.certificates, "files": files.collect::<Vec<_>>() })
}
