//! `birthmark-aws doctor`

use std::{path::PathBuf, process::ExitCode};

use birthmark_aws::{
    bundle::{Bundle, TrustedKeys},
    doctor::{self, Check, Verdict, Wanted},
    issuing_ca::IssuingCa,
    platform::Platform,
};
use serde_json::json;

use super::{AwsArgs, LogFormat, SOME, block_on, log, print, print_json};
use birthmark::console::columns;

/// Look whether all is there that registration and activation need, and say what to do where it is not
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nothing is made or changed: whether a call is allowed is found out by making it for something that is not there.

Exit codes:
  0  all is there
  1  it failed
  2  wrong usage
  3  something is to be done")]
pub(crate) struct Args {
    /// Bundles, whose CAs, policies, thing types and groups are looked for
    #[arg(value_name = "BUNDLE", requires = "keys")]
    bundles: Vec<PathBuf>,

    /// The public key of the factory's audit key (ca/audit.pem), which signs bundles; may be repeated
    #[arg(long = "trusted-key", value_name = "FILE")]
    keys: Vec<PathBuf>,

    /// The CA that signs devices; may be repeated
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,

    /// The policy of devices; may be repeated
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,

    /// A thing type; may be repeated
    #[arg(long, value_name = "NAME")]
    thing_type: Vec<String>,

    /// A thing group; may be repeated
    #[arg(long, value_name = "NAME")]
    thing_group: Vec<String>,

    /// The role in which AWS IoT provisions
    #[arg(long, value_name = "ARN")]
    role: Option<String>,

    /// Devices are to be made active at their first connection
    #[arg(long)]
    jitr: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    aws: AwsArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    log(LogFormat::Messages)?;
    let mut wanted = Wanted {
        policies: args.policy.clone(),
        thing_types: args.thing_type.clone(),
        thing_groups: args.thing_group.clone(),
        role: args.role.clone(),
        jitr: args.jitr,
        ..Wanted::default()
    };
    for path in &args.ca {
        wanted.add_ca(&IssuingCa::read(path)?);
    }
    let keys = TrustedKeys::read(&args.keys)?;
    for path in &args.bundles {
        let bundle = Bundle::open(path, &keys)?;
        let template = bundle.template();
        wanted.authorities.extend(bundle.issuers().iter().map(|issuer| (issuer.id, issuer.subject.clone())));
        wanted.policies.extend(template.policy().map(str::to_owned));
        wanted.thing_types.extend(template.thing_type().map(str::to_owned));
        wanted.thing_groups.extend(template.thing_groups().map(str::to_owned));
    }
    for names in [&mut wanted.policies, &mut wanted.thing_types, &mut wanted.thing_groups] {
        names.sort();
        names.dedup();
    }
    wanted.authorities.sort();
    wanted.authorities.dedup_by_key(|(id, _)| *id);
    let checks = block_on(async {
        let mut settings = args.aws.settings();
        // Whoever asks what is wrong does not want to wait.
        settings.give_up_after.get_or_insert(std::time::Duration::from_secs(20));
        let platform = Platform::connect(&settings).await?;
        Ok(doctor::examine(&platform, &wanted).await)
    })?;
    match args.json {
        true => print_json(&json!(checks))?,
        false => print(&to_text(&checks))?,
    }
    let good = checks.iter().all(|check| check.verdict == Verdict::Good);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(SOME) })
}

fn to_text(checks: &[Check]) -> String {
    let rows: Vec<_> = checks
        .iter()
        .map(|check| {
            let verdict = match check.verdict {
                Verdict::Good => "good",
                Verdict::Warning => "WARNING",
                Verdict::Bad => "BAD",
            };
            vec![check.what.clone(), verdict.to_owned(), check.found.clone(), check.to_do.clone()]
        })
        .collect();
    columns(&["WHAT", "VERDICT", "FOUND", "TO DO"], &rows)
}
