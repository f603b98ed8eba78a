//! `birthmark journal approve`

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, anyhow};
use birthmark::{
    agreement::{self, Statement},
    durable,
};
use jiff::Timestamp;

use super::accept::describe;
use crate::cli::print;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Read what it prints before you pass the agreement on: the key of your certificate signs the statement as it \
    stands, and your name is in the journal for good. Two different operators with the duty \"security\" must agree, each on the \
    own machine. docs/restore.md has the whole way."
)]
pub(super) struct ApproveArgs {
    /// The statement, as accept-loss or accept-clock wrote it
    statement: PathBuf,

    /// The folder with your cert.pem and key.pem [env: BIRTHMARK_IDENTITY]
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,

    /// Where your agreement is written; the file must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Shows the statement, signs it, and writes the signature.
pub(super) fn run(args: &ApproveArgs) -> anyhow::Result<ExitCode> {
    let (statement, text) = Statement::read(&args.statement)?;
    statement.check_time(Timestamp::now())?;
    print(&describe(&statement))?;
    let identity = args.identity.clone().or_else(|| std::env::var_os("BIRTHMARK_IDENTITY").map(PathBuf::from));
    let identity = identity.ok_or_else(|| anyhow!("give --identity: the folder with your cert.pem and key.pem"))?;
    agreement::check_validity(&identity, Timestamp::now())?;
    let signed = agreement::sign(&text, &identity)?;
    durable::write_new(&args.out, signed.as_bytes(), durable::Access::Public)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    print(&format!("\nagreed: pass on {}\n", args.out.display()))?;
    Ok(ExitCode::SUCCESS)
}
