//! `birthmark profile`

use std::{path::PathBuf, process::ExitCode};

use anyhow::anyhow;
use birthmark::{
    config::Config,
    configure, describe_certificate,
    id::DeviceId,
    lint::{self, Finding, Severity},
    profile::Profile,
};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use super::{print, print_json};

/// Inspect profiles
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the certificate that a profile would give a sample device, field by field, and what is wrong with it
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The HSM is not needed: the device's key is made for the occasion, and the signature is a row of \
    zeros as long as a signature can be. Exit code 1 if a profile could only give invalid certificates; the daemon does \
    not start with such a profile."
)]
struct CheckArgs {
    /// The profile [default: all of them]
    profile: Option<String>,

    /// The configuration;
    /// birthmark.toml in the current folder, where there is one, goes before the default
    #[arg(long, value_name = "FILE", default_value_os_t = super::usual_configuration())]
    config: PathBuf,

    /// The sample device's id; one as short as the profile allows by default
    #[arg(long, value_name = "ID")]
    device: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check(args) => check(&args),
    }
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let device = args.device.as_deref().map(str::parse::<DeviceId>).transpose();
    let device = device.map_err(|error| anyhow!("--device {error}"))?;
    let config = Config::load(&args.config)?;
    let now = Timestamp::now();
    let issuers = configure::issuers_without_keys(&config, now)?;
    configure::refused_keys(&config, &issuers)?;
    let mut checked = Vec::new();
    for (name, settings) in &config.profiles {
        if args.profile.as_ref().is_none_or(|wanted| wanted == name) {
            let profile = Profile::new(&config, name, settings, &issuers)?;
            let findings = lint::profile(&profile, settings, now);
            checked.push((look(&profile, device.as_ref(), now), profile, findings));
        }
    }
    if let (Some(wanted), true) = (&args.profile, checked.is_empty()) {
        let known: Vec<_> = config.profiles.keys().map(String::as_str).collect();
        return Err(anyhow!("there is no profile \"{wanted}\"; the profiles are {}", known.join(", ")));
    }
    if args.json {
        print_json(&checked.iter().map(|(fields, profile, findings)| to_json(fields, profile, findings)).collect())?;
    } else {
        for (fields, profile, findings) in &checked {
            print(&to_text(fields, profile, findings))?;
        }
    }
    let broken = checked.iter().any(|(fields, _, findings)| {
        fields.is_err() || findings.iter().any(|finding| finding.severity == Severity::Error)
    });
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The sample certificate's fields, or why there is none.
type Fields = Result<Vec<(String, String)>, String>;

fn look(profile: &Profile, device: Option<&DeviceId>, now: Timestamp) -> Fields {
    let sample = lint::sample(profile, device, now).map_err(|error| error.to_string())?;
    describe_certificate::fields(&sample.certificate).map_err(|error| error.to_string())
}

fn to_text(fields: &Fields, profile: &Profile, findings: &[Finding]) -> String {
    let mut out = format!("profile {} ({})\n\n", profile.name(), profile.preset().as_str());
    match fields {
        Ok(fields) => {
            let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
            fields.iter().for_each(|(name, value)| out.push_str(&format!("  {name:width$}  {value}\n")));
        }
        Err(refused) => out.push_str(&format!("  refused: {refused}\n")),
    }
    out.push('\n');
    for finding in findings {
        let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
        out.push_str(&format!("  {severity}: {}: {finding}\n", finding.key));
    }
    if findings.is_empty() {
        out.push_str("  nothing is wrong with it\n");
    }
    out.push('\n');
    out
}

fn to_json(fields: &Fields, profile: &Profile, findings: &[Finding]) -> serde_json::Value {
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| {
            let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
            json!({ "severity": severity, "key": finding.key, "rule": finding.rule, "message": finding.message })
        })
        .collect();
    let pair = |(name, value): &(String, String)| json!({ "field": name, "value": value });
    json!({
        "profile": profile.name(),
        "preset": profile.preset().as_str(),
        "certificate": fields.as_ref().ok().map(|fields| fields.iter().map(pair).collect::<Vec<_>>()),
        "refused": fields.as_ref().err(),
        "findings": findings,
    })
}
