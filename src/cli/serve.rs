//! `birthmark serve`

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use birthmark::{config::Config, hsm, serve};
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::environment;

/// Run the daemon
#[derive(Debug, clap::Args)]
#[command(after_help = "SIGTERM and SIGINT end the daemon in order: nothing new is accepted, what is reserved is \
    signed and recorded, exit 0. The level of the log is set with BIRTHMARK_LOG (error, warn, info, debug; the \
    default is info).")]
pub(crate) struct Args {
    /// The configuration; hsm-config/birthmark.toml is an example with every key explained
    #[arg(long, value_name = "FILE", default_value = "/etc/birthmark/birthmark.toml")]
    config: PathBuf,

    /// Write the addresses that the daemon listens on to this file, as JSON, when it is ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,

    /// How the log on standard error is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    environment::apply(&config.module_environment())?;
    log(args.log_format);
    match serve::run(&config, args.ready_file.as_deref()) {
        Ok(()) => hsm::end_process(0),
        Err(error) => {
            eprintln!("birthmark: {}", super::sentence(&error));
            hsm::end_process(1)
        }
    }
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("BIRTHMARK_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("info,{}", hsm::LOG_FILTER)));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
