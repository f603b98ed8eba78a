//! `birthmark serve`

use std::{
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use birthmark::{config::Config, hsm, log_filter::LogFilter, security, security_log::SecurityLog, serve};
use clap::ValueEnum;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{Filtered, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::environment;

/// How long the last records of the security log may take.
const FLUSH: Duration = Duration::from_secs(1);

/// Run the daemon
#[derive(Debug, clap::Args)]
#[command(
    after_help = "SIGTERM, SIGINT and SIGQUIT shut the daemon down in order: nothing new is accepted, what is reserved \
    is signed and recorded, exit 0. Exit 77: a token refused the PIN, and each further start would be another try. SIGHUP reads the configuration anew, as \"birthmark reload\" does; others are only logged. The level of the log is set with BIRTHMARK_LOG \
    (off, error, warn, info, debug or trace; the default is info). Libraries log warnings at most, unless they are named: \
    BIRTHMARK_LOG=debug,h2=debug"
)]
pub(crate) struct Args {
    /// The configuration; hsm-config/birthmark.toml is an example with every setting explained;
    /// birthmark.toml in the current folder, where there is one, goes before the default
    #[arg(long, value_name = "FILE", default_value_os_t = super::usual_configuration())]
    config: PathBuf,

    /// Write the addresses that the daemon listens on to this file, as JSON, while it listens; it is removed at the
    /// end. Whether the daemon can issue is in /readyz
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,

    /// Do not start unless the journal continues this checkpoint, a copy of DATA/checkpoint that was kept elsewhere
    #[arg(long, value_name = "FILE")]
    expect_checkpoint: Option<PathBuf>,

    /// Tell all that is wrong with the configuration and the files that it names, and do not start; the HSM is not asked
    #[arg(long)]
    check: bool,

    /// How the log on standard error is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// The exit code (`EX_NOPERM` of sysexits.h) when a token refused the PIN: a supervisor that starts the daemon again and again
/// would lock the token.
const PIN_REFUSED: u8 = 77;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.check {
        return check(&args.config);
    }
    let remove_ready_file = || {
        if let Some(file) = &args.ready_file {
            // Most often there is none.
            let _ = fs::remove_file(file);
        }
    };
    // That of a daemon that was killed would speak for this one, also if this one does not start.
    remove_ready_file();
    let config = Config::load(&args.config)?;
    environment::apply(&config.module_environment())?;
    let level = config.log.as_ref().and_then(|log| log.level.as_ref()).map(|level| level.get_ref().clone());
    let security = serve::security_log(&config)?;
    let set_log_level = log(args.log_format, level.as_deref(), security.clone())?;
    let options = serve::Options {
        ready_file: args.ready_file.as_deref(),
        expect_checkpoint: args.expect_checkpoint.as_deref(),
        set_log_level: Some(set_log_level),
    };
    let result = serve::run(config, options);
    remove_ready_file();
    if let Some(log) = security {
        log.flush(FLUSH);
    }
    match result {
        Ok(()) => hsm::end_process(0),
        Err(error) => {
            let code = if matches!(error, serve::ServeError::PinRefused(_)) { PIN_REFUSED } else { 1 };
            eprintln!("birthmark: {}", super::sentence(&error.into()));
            hsm::end_process(code)
        }
    }
}

/// Tells all that is wrong with a configuration.
fn check(file: &Path) -> anyhow::Result<ExitCode> {
    let serve::Checked { problems, warnings } = serve::check(file);
    for warning in &warnings {
        eprintln!("birthmark: warning: {warning}");
    }
    for problem in &problems {
        eprintln!("birthmark: {problem}");
    }
    if !problems.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    super::print("the configuration has no fault that can be seen without the HSM and the data folder\n")?;
    Ok(ExitCode::SUCCESS)
}

/// The filter of the log: what BIRTHMARK_LOG says or, without it, the configuration.
fn filter(level: Option<&str>) -> anyhow::Result<EnvFilter> {
    let wanted = std::env::var_os("BIRTHMARK_LOG").unwrap_or_default();
    let wanted = wanted.to_str().context("BIRTHMARK_LOG is not UTF-8 text")?;
    let (name, wanted) = match level.filter(|_| wanted.is_empty()) {
        Some(level) => ("log.level", level),
        None => ("BIRTHMARK_LOG", wanted),
    };
    let filter = LogFilter::read(name, wanted)?;
    EnvFilter::try_new(filter.directives(&["birthmark", security::TARGET], hsm::LOG_FILTER, LevelFilter::WARN))
        .context(name)
}

/// Begins the log, and gives what sets its level later. The security log has its events whatever that level is.
fn log(format: LogFormat, level: Option<&str>, security: Option<SecurityLog>) -> anyhow::Result<serve::SetLogLevel> {
    let (filter_layer, handle) = tracing_subscriber::reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let layer = layer.with_ansi(std::io::stderr().is_terminal()).with_target(false);
            registry.with(layer.with_filter(filter_layer)).with(of_security(security)).init();
        }
        LogFormat::Json => {
            registry.with(layer.json().with_filter(filter_layer)).with(of_security(security)).init();
        }
    }
    Ok(Box::new(move |level| {
        let filter = filter(level).map_err(|error| super::sentence(&error))?;
        handle.reload(filter).map_err(|error| error.to_string())
    }))
}

/// The security log has its events whatever the log's level is.
fn of_security<S: Subscriber>(log: Option<SecurityLog>) -> Option<Filtered<SecurityLog, Targets, S>> {
    log.map(|log| log.with_filter(Targets::new().with_target(security::TARGET, LevelFilter::INFO)))
}
