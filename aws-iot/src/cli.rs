//! The command line: one file a command.
//!
//! Exit codes: 0 all was done; 1 nothing was, the message says why; 2 wrong usage; 3 not all: some certificates failed, or
//! there is something to do.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use birthmark::log_filter::LogFilter;
use birthmark_aws::{
    bundle::{Bundle, TrustedKeys},
    limits::Limit,
    platform::Settings,
};
use jiff::SignedDuration;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

pub(crate) mod activate;
pub(crate) mod doctor;
pub(crate) mod documents;
pub(crate) mod register;
pub(crate) mod register_ca;
pub(crate) mod status;

/// Not all.
pub(crate) const SOME: u8 = 3;

/// Which account, and how it may be used.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "AWS")]
pub(crate) struct AwsArgs {
    /// The region [default: as the AWS CLI finds it]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,

    /// The profile of the AWS configuration [default: as the AWS CLI finds it]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    /// The address of the API [default: as the AWS CLI finds it]
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,

    /// How often an API may be called, per second: API=RATE, or all=RATE; may be repeated [default: what a new account has,
    /// such as RegisterCertificate=10]
    #[arg(long = "limit", value_name = "API=RATE")]
    limits: Vec<Limit>,

    /// How long an AWS that does not answer is waited for, such as 10m [default: without end]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    give_up_after: Option<Duration>,
}

impl AwsArgs {
    pub(crate) fn settings(&self) -> Settings {
        let AwsArgs { region, profile, endpoint_url: endpoint, limits, give_up_after } = self.clone();
        Settings { region, profile, endpoint, limits, give_up_after }
    }
}

/// Whose word is taken.
#[derive(Debug, clap::Args)]
pub(crate) struct TrustArgs {
    /// The public key of the factory's audit key (ca/audit.pem), which signs bundles; may be repeated
    #[arg(long = "trusted-key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
}

impl TrustArgs {
    pub(crate) fn keys(&self) -> anyhow::Result<TrustedKeys> {
        Ok(TrustedKeys::read(&self.keys)?)
    }

    /// Opens bundles, each of which must verify; one that is given twice is taken once.
    pub(crate) fn bundles(&self, paths: &[PathBuf]) -> anyhow::Result<Vec<Bundle>> {
        let keys = self.keys()?;
        let mut bundles: Vec<Bundle> = Vec::new();
        for path in paths {
            let bundle = Bundle::open(path, &keys)?;
            match bundles.iter().find(|known| known.name() == bundle.name()) {
                Some(known) if known.manifest_sha256() == bundle.manifest_sha256() => {}
                Some(_) => {
                    bail!("two different bundles are called {}; each factory's destinations need a name", bundle.name())
                }
                None => bundles.push(bundle),
            }
        }
        Ok(bundles)
    }
}

/// Reads a time such as `10m` or `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    parsed.filter(|duration| !duration.is_zero()).ok_or_else(|| "write a time such as 30s, 10m or 1h".to_owned())
}

/// The folder for what is kept between runs.
pub(crate) fn state_folder(given: Option<PathBuf>) -> PathBuf {
    // Of several, systemd separates them with colons.
    let folders = || std::env::var("STATE_DIRECTORY").ok();
    let systemd = || folders()?.split(':').next().filter(|folder| !folder.is_empty()).map(PathBuf::from);
    given.or_else(systemd).unwrap_or_else(|| "birthmark-aws-state".into())
}

/// Runs a command that speaks with AWS.
pub(crate) fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}

/// How the log on standard error is written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// As the messages of a command.
    #[value(skip)]
    Messages,
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Begins the log.
///
/// # Errors
/// `BIRTHMARK_LOG` cannot be read.
pub(crate) fn log(format: LogFormat) -> anyhow::Result<()> {
    let wanted = std::env::var_os("BIRTHMARK_LOG").unwrap_or_default();
    let wanted = wanted.to_str().context("BIRTHMARK_LOG is not UTF-8 text")?;
    let filter = LogFilter::read("BIRTHMARK_LOG", wanted)?;
    // What the SDK tries again is no news.
    let filter = EnvFilter::try_new(filter.directives(&["birthmark", "birthmark_aws"], "", LevelFilter::ERROR))?;
    let ansi = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr);
    match format {
        LogFormat::Messages => builder.without_time().with_level(false).with_target(false).init(),
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// An error and its causes as one sentence.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    birthmark::console::sentence(error.as_ref())
}

/// Prints a value for programs.
pub(crate) fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    Ok(birthmark::console::print_json(value)?)
}

/// Prints on standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    Ok(birthmark::console::print(text)?)
}

/// 0 if all was done, 1 if nothing, 3 otherwise.
pub(crate) fn exit(done: u64, failed: u64) -> ExitCode {
    match (done, failed) {
        (_, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::FAILURE,
        _ => ExitCode::from(SOME),
    }
}
