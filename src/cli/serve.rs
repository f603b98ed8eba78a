//! `birthmark serve`

use std::{
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use birthmark::{config::Config, hsm, quote::quoted, serve};
use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use super::environment;

/// Run the daemon
#[derive(Debug, clap::Args)]
#[command(
    after_help = "SIGTERM, SIGINT and SIGQUIT shut the daemon down in order: nothing new is accepted, what is reserved \
    is signed and recorded, exit 0. Exit 77: a token refused the PIN, and each further start would be another try. SIGHUP reads the configuration anew, as \"birthmark reload\" does; others are only logged. The level of the log is set with BIRTHMARK_LOG \
    (off, error, warn, info, debug or trace; the default is info). Libraries log warnings at most, unless they are named: \
    BIRTHMARK_LOG=debug,h2=debug"
)]
pub(crate) struct Args {
    /// The configuration; hsm-config/birthmark.toml is an example with every setting explained
    #[arg(long, value_name = "FILE", default_value = "/etc/birthmark/birthmark.toml")]
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
    let config = Config::load(&args.config)?;
    environment::apply(&config.module_environment())?;
    let level = config.log.as_ref().and_then(|log| log.level.as_ref()).map(|level| level.get_ref().clone());
    let set_log_level = log(args.log_format, level.as_deref())?;
    let remove_ready_file = || {
        if let Some(file) = &args.ready_file {
            // Most often there is none.
            let _ = fs::remove_file(file);
        }
    };
    // That of a daemon that was killed would speak for this one.
    remove_ready_file();
    let options = serve::Options {
        ready_file: args.ready_file.as_deref(),
        expect_checkpoint: args.expect_checkpoint.as_deref(),
        set_log_level: Some(set_log_level),
    };
    let result = serve::run(config, options);
    remove_ready_file();
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
    EnvFilter::try_new(directives(name, wanted)?).context(name)
}

/// Begins the log, and gives what sets its level later.
fn log(format: LogFormat, level: Option<&str>) -> anyhow::Result<serve::SetLogLevel> {
    let (filter_layer, handle) = tracing_subscriber::reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry().with(filter_layer);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            registry.with(layer.with_ansi(std::io::stderr().is_terminal()).with_target(false)).init();
        }
        LogFormat::Json => registry.with(layer.json()).init(),
    }
    Ok(Box::new(move |level| {
        let filter = filter(level).map_err(|error| super::sentence(&error))?;
        handle.reload(filter).map_err(|error| error.to_string())
    }))
}

/// Libraries whose own log is of no use to whoever runs the daemon.
const LIBRARIES: [&str; 9] = ["axum", "h2", "hyper", "hyper_util", "mio", "rustls", "sled", "tonic", "tower"];

/// The log's filter for what BIRTHMARK_LOG, or the setting of this name, says: a level for the daemon, others for what is named. An explicit
/// directive wins over what quiets the libraries, since it comes later.
fn directives(name: &str, wanted: &str) -> anyhow::Result<String> {
    let mut level = LevelFilter::INFO;
    let mut named = Vec::new();
    for directive in wanted.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let text = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        // A number is a level as well, elsewhere.
        let parsed = text
            .parse::<LevelFilter>()
            .ok()
            .filter(|_| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic()));
        let Some(parsed) = parsed else {
            bail!(
                "{name}: {} is not a level of the log; it is one of off, error, warn, info, debug and trace, \
                 alone or after the name of a module, as in info,birthmark::grpc=debug",
                quoted(text)
            );
        };
        match directive.contains('=') {
            true => named.push(directive),
            false => level = parsed,
        }
    }
    let libraries = level.min(LevelFilter::WARN);
    let quiet = LIBRARIES.map(|library| format!("{library}={libraries}"));
    let mut all = vec![level.to_string(), hsm::LOG_FILTER.to_owned(), quiet.join(",")];
    all.extend(named.into_iter().map(str::to_owned));
    Ok(all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A level in `BIRTHMARK_LOG` is that of birthmark; libraries stay quiet.
    #[test]
    fn log_level_keeps_libraries_quiet() {
        for (wanted, level, library) in [
            ("", "info", "warn"),
            ("info", "info", "warn"),
            ("DEBUG", "debug", "warn"),
            ("error", "error", "error"),
            ("off", "off", "off"),
        ] {
            let all = directives("BIRTHMARK_LOG", wanted).unwrap();
            assert!(all.starts_with(&format!("{level},{},", hsm::LOG_FILTER)), "{all}");
            assert!(all.contains(&format!(",h2={library},")) && all.ends_with(&format!(",tower={library}")), "{all}");
            assert!(EnvFilter::try_new(all).is_ok());
        }
        let all = directives("BIRTHMARK_LOG", "debug, h2=trace,hyper=error").unwrap();
        assert!(all.ends_with(",h2=trace,hyper=error"), "{all}");
        // What is named comes beside the usual level.
        assert!(directives("BIRTHMARK_LOG", "birthmark::grpc=debug").unwrap().starts_with("info,"));
    }

    /// A typo in the log level is an error.
    #[test]
    fn log_level_with_a_typo_is_an_error() {
        for wanted in ["debgu", "info,h2=loud", "birthmark", "h2=", "3", "info;debug"] {
            let error = directives("BIRTHMARK_LOG", wanted).unwrap_err().to_string();
            assert!(error.contains("off, error, warn, info, debug and trace"), "{wanted}: {error}");
        }
    }
}
