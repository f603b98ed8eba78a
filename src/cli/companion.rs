//! `birthmark demo` and `birthmark bench`: the program `birthmark-bench`, so that this one, which has the CA's key in its
//! hands, holds neither a load generator nor throw-away CAs.

use std::{env, ffi::OsString, io::ErrorKind, os::unix::process::CommandExt, process::Command, process::ExitCode};

use anyhow::{Context, anyhow};

const PROGRAM: &str = "birthmark-bench";

/// Passed on as they are, also `--help`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// Becomes the companion, which is looked for beside this program and then on PATH. It returns only if there is none.
pub(crate) fn run(command: &str, args: Args) -> anyhow::Result<ExitCode> {
    let own = env::current_exe().context("cannot find the birthmark program")?;
    let beside = own.with_file_name(PROGRAM);
    // A name without a slash is looked for on PATH.
    let program = if beside.exists() { beside.clone().into_os_string() } else { PROGRAM.into() };
    let error = Command::new(&program).arg(command).args(args.arguments).exec();
    Err(match error.kind() {
        ErrorKind::NotFound => anyhow!(
            "`birthmark {command}` is a program of its own, {PROGRAM}, and it is not installed: there is no {}, and none \
             on PATH; install it, or build it with `cargo build --release --package birthmark-bench`",
            beside.display()
        ),
        _ => anyhow!(error).context(format!("cannot start {}", program.display())),
    })
}
