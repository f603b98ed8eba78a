//! `birthmark roles`

use std::process::ExitCode;

use birthmark::{
    identity::{Duties, Duty, Role},
    roles::{Rule, TABLE},
};
use serde_json::json;

use super::{print, print_json, table};

/// Print which calls stations, operators with their duties, and auditors may make
///
/// An operator without duties in its certificate has all of them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// Print CSV
    #[arg(long)]
    csv: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.json {
        print_json(&TABLE.iter().map(to_json).collect())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut headings = vec!["CALL", "station"];
    headings.extend(Duty::ALL.map(Duty::as_str));
    headings.extend(["auditor", "COMMANDS"]);
    let rows: Vec<_> = TABLE.iter().map(row).collect();
    print(&table::rendered(args.csv, &headings, &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn row(rule: &Rule) -> Vec<String> {
    let cell = |allowed: bool| if allowed { "yes" } else { "-" }.to_owned();
    let mut row = vec![rule.call.to_owned(), cell(rule.allows(Role::Station, Duties::NONE))];
    row.extend(Duty::ALL.map(|duty| cell(rule.allows(Role::Operator, Duties::of(&[duty])))));
    row.extend([cell(rule.allows(Role::Auditor, Duties::NONE)), rule.commands.to_owned()]);
    row
}

fn to_json(rule: &Rule) -> serde_json::Value {
    json!({
        "call": rule.call,
        "station": rule.station,
        "operator": rule.operators.iter().map(Duty::as_str).collect::<Vec<_>>(),
        "auditor": rule.auditor,
        "commands": rule.commands,
    })
}
