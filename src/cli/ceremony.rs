//! `birthmark ceremony`

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::bail;
use birthmark::{
    ceremony::{Ceremony, FileState, ReadAloud, Verified, verify},
    hsm::AskPin,
};
use serde_json::{Value, json};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};
use zeroize::Zeroizing;

use super::environment;

/// Make CA keys in the HSM and their certificates, as specified in a reviewed file.
///
/// It shows what it will do, asks, does it, shows the fingerprints to be read aloud, and writes a record, which an audit key
/// signs. It never replaces a key or a file. The PIN comes from the token URI's pin-source, from the environment variable
/// BIRTHMARK_PIN or from whoever sits at the terminal. docs/ceremony.md has the roles and the script of a ceremony.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The ceremony file (hsm-config/ceremony.toml is an example)
    #[arg(required = true)]
    file: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Check everything, print the plan, make nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the record, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Verify(VerifyArgs),
}

/// Verify the record of a ceremony: its signature, and that the files which it names are what they were.
///
/// It needs no HSM. OpenSSL does the same with the audit key's public half:
/// openssl dgst -sha256 -verify audit.pem -signature RECORD.sig RECORD
#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The record
    record: PathBuf,
    /// The audit key's public half, from elsewhere than the record; without it only a change of the record is found
    #[arg(long, value_name = "FILE")]
    trusted_key: Option<PathBuf>,
    /// Print what was found, as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match (args.command, args.file) {
        (Some(Command::Verify(args)), _) => run_verify(&args),
        (None, Some(file)) => hold(file, args.yes, args.dry_run, args.json),
        (None, None) => bail!("name the ceremony file"),
    }
}

fn hold(file: PathBuf, yes: bool, dry_run: bool, json: bool) -> anyhow::Result<ExitCode> {
    let ceremony = Ceremony::load(&file)?;
    environment::apply(&ceremony.module_environment())?;
    let signals = Signals::default();
    let _listening = signals.listen()?;
    let terminal = io::stdin().is_terminal();
    if !yes && !dry_run && !terminal {
        bail!("there is no terminal to ask on; read the plan with --dry-run, then run it with --yes");
    }
    let ask: AskPin<'_> = &ask_pin;
    let plan = ceremony.check(terminal.then_some(ask))?;
    if json {
        // Standard output is the record's.
        eprintln!("{plan}\n");
    } else {
        super::print(&format!("{plan}\n\n"))?;
    }
    if dry_run {
        eprintln!("Everything was checked; nothing was made.");
        return Ok(ExitCode::SUCCESS);
    }
    if !yes && !confirmed()? {
        eprintln!("Nothing was made.");
        return Ok(ExitCode::FAILURE);
    }
    signals.performing.store(true, Ordering::SeqCst);
    // The terminal may be gone: that is no reason to break off within a step.
    let mut progress = |step: &str| drop(writeln!(io::stderr(), "done {step}"));
    let record = plan.perform(&|| signals.first.get().copied(), &mut progress)?;
    if json {
        super::print_json(&serde_json::to_value(&record)?)?;
    } else {
        super::print(&format!("\nTo be read aloud and held against the minutes:\n\n{}", ReadAloud(&record)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The signals that end a ceremony: at once, or, while things are made, after the step that runs.
#[derive(Clone, Default)]
struct Signals {
    performing: Arc<AtomicBool>,
    /// The name of the first that came.
    first: Arc<OnceLock<&'static str>>,
}

impl Signals {
    /// Takes SIGINT, SIGTERM and SIGHUP from now on, as long as the runtime is there.
    fn listen(&self) -> io::Result<Runtime> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let entered = runtime.enter();
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut hang_up = signal(SignalKind::hangup())?;
        drop(entered);
        let signals = self.clone();
        runtime.spawn(async move {
            loop {
                let (name, number) = tokio::select! {
                    _ = interrupt.recv() => ("SIGINT", 2),
                    _ = terminate.recv() => ("SIGTERM", 15),
                    _ = hang_up.recv() => ("SIGHUP", 1),
                };
                // Before anything else: no step begins from here on.
                let first = signals.first.set(name).is_ok();
                if !signals.performing.load(Ordering::SeqCst) {
                    // Who was asked for the PIN gets the terminal's echo back first.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    if !signals.performing.load(Ordering::SeqCst) {
                        std::process::exit(128 + number);
                    }
                } else if first {
                    drop(writeln!(io::stderr(), "{name}: the ceremony ends after the step that runs"));
                }
            }
        });
        Ok(runtime)
    }
}

/// Without an echo.
fn ask_pin(token: &str) -> io::Result<Zeroizing<String>> {
    rpassword::prompt_password(format!("PIN of the token \"{token}\": ")).map(Zeroizing::new)
}

fn confirmed() -> io::Result<bool> {
    eprint!("Type yes to go on: ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

fn run_verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let Verified { record, sha256, key_sha256, files } = verify(&args.record, args.trusted_key.as_deref())?;
    let changed = files.iter().any(|(_, state)| *state == FileState::Differs);
    let state = |state: FileState| match state {
        FileState::Same => "the same",
        FileState::Differs => "CHANGED since the ceremony",
        FileState::Absent => "not here",
    };
    if args.json {
        let files: Vec<_> = files.iter().map(|(path, found)| json!({ "path": path, "state": state(*found) })).collect();
        super::print_json(&json!({
            "record_sha256": sha256, "key_sha256": key_sha256, "trusted": args.trusted_key.is_some(), "files": files,
        }))?;
    } else {
        let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or("not told").to_owned();
        let witnesses = record.get("witnesses").and_then(Value::as_array).cloned().unwrap_or_default();
        let witness = |witness: &Value| {
            let text = |name: &str| witness.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            format!("Witness    {}, {}\n", text("name"), text("role"))
        };
        let trust = match &args.trusted_key {
            Some(file) => format!("good, by the key in {}", file.display()),
            None => "good, by the key that the record itself names; give --trusted-key, or compare:".to_owned(),
        };
        let files: String =
            files.iter().map(|(path, found)| format!("File       {}: {}\n", path.display(), state(*found))).collect();
        super::print(&format!(
            "Record     {}\n           SHA-256 {sha256}\nSignature  {trust}\n           SHA-256 of the key {key_sha256}\n\
             Held       {} to {}, on {}, by {}\nScript     {}\nOperator   {}\n{}{files}",
            args.record.display(),
            text("began"),
            text("time"),
            text("host"),
            text("user"),
            text("script"),
            text("operator"),
            witnesses.iter().map(witness).collect::<String>(),
        ))?;
    }
    Ok(if changed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
