//! `birthmark ceremony`

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::bail;
use birthmark::ceremony::Ceremony;

use super::environment;

/// Make CA keys in the HSM and their certificates, as specified in a reviewed file.
///
/// It shows what it will do, asks, does it, and writes a record. It never replaces a key or a file. The PIN comes from
/// the token URI's pin-source or from the environment variable BIRTHMARK_PIN.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The ceremony file (hsm-config/ceremony.toml is an example)
    file: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Check everything, show the plan, make nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the record, as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let ceremony = Ceremony::load(&args.file)?;
    environment::apply(&ceremony.module_environment())?;
    if !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        bail!("there is no terminal to ask on; read the plan with --dry-run, then run it with --yes");
    }
    let plan = ceremony.check()?;
    // The plan is for people: standard output is for what --json prints.
    eprintln!("{plan}\n");
    if args.dry_run {
        eprintln!("Everything was checked; nothing was made.");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && !confirmed()? {
        eprintln!("Nothing was made.");
        return Ok(ExitCode::FAILURE);
    }
    let record = plan.perform(&mut |step| eprintln!("done {step}"))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&record)?);
    } else {
        for step in &record.steps {
            let certificate = step.certificate.as_ref().map(|certificate| &certificate.file);
            for file in certificate.into_iter().chain(&step.request).chain(&step.public_key) {
                println!("{}", file.path.display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn confirmed() -> io::Result<bool> {
    eprint!("Type yes to go on: ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}
