//! `birthmark-aws status`

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc};

use birthmark_aws::{
    bundle::{Bundle, TrustedKeys},
    lists::{self, Lists},
    platform::Platform,
    status::{self, Report},
};

use super::{AwsArgs, LogFormat, SOME, block_on, log, print, print_json, state_folder};
use birthmark::console::columns;

/// Hold what AWS IoT has against what bundles say
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes:
  0  all is as the bundles say
  1  it failed
  2  wrong usage
  3  something is to be done: certificates are missing, pending, unknown, or withdrawn and not revoked")]
pub(crate) struct Args {
    /// The bundles [default: those that register and activate have known in the state folder]
    #[arg(value_name = "BUNDLE", requires = "keys")]
    bundles: Vec<PathBuf>,

    /// The public key of the factory's audit key (ca/audit.pem), which signs bundles; may be repeated
    #[arg(long = "trusted-key", value_name = "FILE")]
    keys: Vec<PathBuf>,

    /// The folder that register and activate keep [default: birthmark-aws-state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    aws: AwsArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    log(LogFormat::Messages)?;
    let temporary;
    let lists = if args.bundles.is_empty() {
        Lists::open(&state_folder(args.state))?
    } else {
        temporary = tempfile::tempdir()?;
        let keys = TrustedKeys::read(&args.keys)?;
        let mut all = Lists::default();
        for path in &args.bundles {
            let bundle = Bundle::open(path, &keys)?;
            let list = lists::compile(temporary.path(), &bundle)?;
            all.add(bundle.name(), Arc::new(list), bundle.issuers());
        }
        all
    };
    let report = block_on(async {
        let platform = Platform::connect(&args.aws.settings()).await?;
        Ok(status::report(&platform, &lists).await?)
    })?;
    match args.json {
        true => print_json(&serde_json::to_value(&report)?)?,
        false => print(&to_text(&report))?,
    }
    Ok(if report.has_work() { ExitCode::from(SOME) } else { ExitCode::SUCCESS })
}

fn count(counts: &BTreeMap<String, u64>, status: &str) -> String {
    counts.get(status).copied().unwrap_or_default().to_string()
}

fn to_text(report: &Report) -> String {
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let rows: Vec<_> = report
        .authorities
        .iter()
        .map(|ca| {
            let mut row = vec![ca.subject.clone().unwrap_or_else(|| ca.id.clone())];
            row.push(ca.mode.clone().unwrap_or_else(|| "not registered".into()));
            row.extend([yes(ca.active), yes(ca.auto_registration), yes(ca.jitp)]);
            row.extend(
                ["ACTIVE", "PENDING_ACTIVATION", "INACTIVE", "REVOKED"].map(|status| count(&ca.certificates, status)),
            );
            row.extend([ca.unknown_pending, ca.unknown_active].map(|count| count.to_string()));
            row
        })
        .collect();
    let headings = [
        "CA",
        "MODE",
        "USABLE",
        "AUTO",
        "JITP",
        ">ACTIVE",
        ">PENDING",
        ">INACTIVE",
        ">REVOKED",
        ">UNKNOWN PENDING",
        ">UNKNOWN ACTIVE",
    ];
    let mut text = columns(&headings, &rows);
    let rows: Vec<_> = report
        .bundles
        .iter()
        .map(|bundle| {
            let mut row = vec![bundle.batch.clone(), bundle.certificates.to_string()];
            row.extend(
                ["ACTIVE", "PENDING_ACTIVATION", "INACTIVE", "REVOKED"].map(|status| count(&bundle.found, status)),
            );
            row.extend([bundle.missing, bundle.withdrawn, bundle.withdrawn_not_revoked].map(|count| count.to_string()));
            row
        })
        .collect();
    let headings = [
        "BUNDLE",
        ">CERTIFICATES",
        ">ACTIVE",
        ">PENDING",
        ">INACTIVE",
        ">REVOKED",
        ">MISSING",
        ">WITHDRAWN",
        ">NOT REVOKED",
    ];
    text.push('\n');
    text.push_str(&columns(&headings, &rows));
    for notable in &report.notable {
        text.push_str(&format!("\n{}: {}", notable.certificate_id, notable.why));
    }
    if text.ends_with('\n') { text } else { text + "\n" }
}
