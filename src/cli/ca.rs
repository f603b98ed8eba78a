//! `birthmark ca`

use std::{path::PathBuf, process::ExitCode};

use birthmark::{
    client::Failure,
    possession::PossessionCode,
    proof,
    proto::{ProvePossessionReply, ProvePossessionRequest, rfc3339},
};
use clap::Subcommand;
use serde_json::json;

use super::{block_on, daemon::DaemonArgs, print, print_json};

/// Use an issuing CA for what is no device's
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the verification certificate by which a cloud knows that a CA's key is ours
    Prove(ProveArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "AWS IoT Core, Azure (IoT Hub, DPS), Huawei Cloud and Alibaba Cloud give a code when a CA is registered, \
    and take a certificate that is issued by the CA and has the code as its name. It is valid for 24 hours and good for \
    nothing else; nobody has its private key. Asked again meanwhile, the daemon gives the same certificate."
)]
struct ProveArgs {
    /// The code, as the cloud's console or API gives it: 16 to 64 characters of A-Z a-z 0-9 -
    code: PossessionCode,

    /// The issuer's name in the daemon's configuration
    #[arg(long, value_name = "NAME")]
    issuer: String,

    /// The file for the certificate, PEM; it must not exist with another content
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Command::Prove(args) = args.command;
    block_on(prove(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn prove(args: ProveArgs) -> anyhow::Result<()> {
    let mut admin = args.daemon.admin().await?;
    let request = ProvePossessionRequest { code: args.code.to_string(), issuer: args.issuer.clone() };
    let reply = admin.prove_possession(request).await.map_err(Failure::from)?.into_inner();
    proof::write_file(&args.out, &reply.certificate)?;
    let ProvePossessionReply { serial_number, not_after, shape, replay, .. } = reply;
    let not_after = not_after.as_ref().and_then(rfc3339);
    if args.daemon.json {
        return print_json(&json!({
            "code": args.code.as_str(),
            "shape": (!shape.is_empty()).then_some(&shape),
            "issuer": args.issuer,
            "serial_number": hex::encode(&serial_number),
            "not_after": not_after,
            "replay": replay,
            "file": args.out,
        }));
    }
    let shape = if shape.is_empty() { "no known platform's form".to_owned() } else { shape };
    let earlier = if replay { " (made before, still valid)" } else { "" };
    print(&format!(
        "verification certificate of the issuer \"{}\"{earlier}: {}\ncode: {shape}\nvalid until {}\n",
        args.issuer,
        args.out.display(),
        not_after.unwrap_or_default()
    ))
}
