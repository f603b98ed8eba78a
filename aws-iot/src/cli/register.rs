//! `birthmark-aws register`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use birthmark_aws::{
    platform::Platform,
    register::{self, Options, Summary},
};

use super::{AwsArgs, LogFormat, TrustArgs, block_on, exit, log, print, print_json, state_folder};
use birthmark::console::columns;

/// Register the certificates of bundles before their devices first connect
#[derive(Debug, clap::Args)]
#[command(after_help = "\
First what the bundles withdraw is revoked and detached (nothing is deleted), then each certificate is registered, active, \
with its thing and its policy. A certificate that somebody made INACTIVE or REVOKED is reported and left alone. The command \
may be stopped anywhere and started again.

NAME.0001.results.jsonl goes back to the factory: \"birthmark export acknowledge NAME.0001 --results FILE\".

Exit codes:
  0  everything is registered or withdrawn
  1  nothing was done; the message says why
  2  wrong usage
  3  some certificates failed; the results say which and why")]
pub(crate) struct Args {
    /// The bundles, each a folder or a tar as \"birthmark export\" writes it
    #[arg(value_name = "BUNDLE", required = true)]
    bundles: Vec<PathBuf>,

    #[command(flatten)]
    trust: TrustArgs,

    /// Register the certificates without their CA, for an account in which it is not registered
    #[arg(long)]
    without_ca: bool,

    /// The folder for the result files
    #[arg(long, value_name = "DIR", default_value = ".")]
    results: PathBuf,

    /// The folder for what earlier runs have done; it saves calls [default: birthmark-aws-state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// How many certificates are in work at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    aws: AwsArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    log(LogFormat::Messages)?;
    let mut bundles = args.trust.bundles(&args.bundles)?;
    let options = Options {
        without_ca: args.without_ca,
        parallel: args.parallel.into(),
        state: state_folder(args.state),
        results: args.results,
    };
    let summaries = block_on(async {
        let platform = Platform::connect(&args.aws.settings()).await?;
        let done = register::register(&platform, &mut bundles, &options).await;
        done.context("stopped; the same command goes on from there")
    })?;
    if args.json {
        print_json(&serde_json::to_value(&summaries)?)?;
    } else {
        print(&to_text(&summaries))?;
    }
    let failed = summaries.iter().map(|summary| summary.failed).sum();
    let done = summaries.iter().map(|summary| summary.registered + summary.already + summary.withdrawn).sum();
    Ok(exit(done, failed))
}

fn to_text(summaries: &[Summary]) -> String {
    let rows: Vec<_> = summaries
        .iter()
        .map(|summary| {
            let counts = [summary.registered, summary.already, summary.withdrawn, summary.failed];
            let mut row = vec![summary.batch.clone()];
            row.extend(counts.map(|count| count.to_string()));
            row.push(summary.results.display().to_string());
            row
        })
        .collect();
    let mut text = columns(&["BUNDLE", ">REGISTERED", ">ALREADY", ">WITHDRAWN", ">FAILED", "RESULTS"], &rows);
    for failure in summaries.iter().flat_map(|summary| &summary.failures) {
        text.push_str(&format!("\nfailed: {failure}"));
    }
    if text.ends_with('\n') { text } else { text + "\n" }
}
