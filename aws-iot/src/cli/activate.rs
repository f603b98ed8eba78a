//! `birthmark-aws activate`

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use birthmark_aws::activate::{self, Options};
use tokio::signal::unix::{SignalKind, signal};

use super::{AwsArgs, LogFormat, TrustArgs, block_on, duration, log, state_folder};

/// Make certificates active at their first connection, if the factory knows them (just-in-time registration)
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It needs CAs that are registered with --auto-registration. A certificate is made active last of all, after its thing, \
principal and policy are in place and what it replaces is revoked. What bundles withdraw is revoked. What no bundle names stays \
pending, is told of once, and is looked at again with each new bundle. SIGTERM and SIGINT end it; it may be killed anywhere.")]
pub(crate) struct Args {
    /// The folder into which bundles are put, folders or tars; a name that begins with a dot is still being written
    #[arg(long, value_name = "DIR")]
    bundles: PathBuf,

    #[command(flatten)]
    trust: TrustArgs,

    /// The folder for what was verified: it stays known when its bundle is gone [default: birthmark-aws-state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// The time between two looks at new certificates
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    interval: Duration,

    /// The time between two looks at all certificates
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    full_interval: Duration,

    /// An SQS queue that a topic rule feeds with $aws/events/certificates/registered/+; it only makes it quicker
    #[arg(long, value_name = "URL")]
    queue: Option<String>,

    /// Revoke certificates that no bundle names. It is for ever: a device whose bundle is only late will never connect
    #[arg(long)]
    revoke_unknown: bool,

    /// How many certificates are in work at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,

    /// The address for /metrics, /livez and /readyz; "" for none
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9465")]
    listen: String,

    /// How the log on standard error is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    #[command(flatten)]
    aws: AwsArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    log(args.log_format)?;
    let listen = match args.listen.as_str() {
        "" => None,
        address => Some(address.parse::<SocketAddr>().map_err(|error| anyhow::anyhow!("--listen {address}: {error}"))?),
    };
    let options = Options {
        bundles: args.bundles,
        keys: args.trust.keys()?,
        state: state_folder(args.state),
        interval: args.interval,
        full_interval: args.full_interval,
        queue: args.queue,
        revoke_unknown: args.revoke_unknown,
        parallel: args.parallel.into(),
        listen,
    };
    block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        activate::run(&args.aws.settings(), options, stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}
