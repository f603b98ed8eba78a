//! `birthmark journal accept-loss` and `accept-clock`

use std::process::ExitCode;

use anyhow::anyhow;
use birthmark::ledger::{
    Actor,
    embedded::{EmbeddedLedger, Settings},
    entry::Event,
    journal::Scan,
};
use jiff::Timestamp;

use super::folder::{Place, data_folder};
use crate::cli::print;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The daemon must not run. What was accepted, when, why and by whom is an entry of the journal, which \
    \"birthmark journal verify\" shows."
)]
pub(super) struct AcceptArgs {
    #[command(flatten)]
    place: Place,

    /// Why, for those who verify the journal later
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// The longest reason, in characters.
const LONGEST_REASON: usize = 256;

fn reason(text: &str) -> anyhow::Result<String> {
    if (1..=LONGEST_REASON).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(anyhow!("--reason must be 1 to {LONGEST_REASON} characters without control characters"))
}

/// The actor that the daemon records for users of its socket.
pub(super) fn operator() -> Actor {
    Actor(format!("operator:{}", birthmark::local_user::own_name()).into())
}

/// Accepts a loss, or that nothing is missing.
pub(super) fn loss(args: AcceptArgs) -> anyhow::Result<ExitCode> {
    let (folder, reason) = (data_folder(&args.place)?, reason(&args.reason)?);
    let lost = EmbeddedLedger::accept_loss(&folder, Timestamp::now(), &Settings::default(), operator(), reason)?;
    print(&format!(
        "accepted and recorded: {lost}\nThe index was rebuilt. Devices whose certificates are lost can get others: look for \
         copies of what was issued, and record them elsewhere.\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Accepts the clock.
pub(super) fn clock(args: AcceptArgs) -> anyhow::Result<ExitCode> {
    let (folder, reason) = (data_folder(&args.place)?, reason(&args.reason)?);
    let now = Timestamp::now();
    let newest = EmbeddedLedger::accept_clock(&folder, now, &Settings::default(), operator(), reason)?;
    let mut later = (0, 0);
    for frame in Scan::open(&folder)? {
        let entry = frame?.entry;
        if entry.time > now && !matches!(entry.event, Event::ClockAccepted { .. }) {
            later.0 += 1;
            later.1 += u64::from(matches!(entry.event, Event::Issued { .. } | Event::ProofIssued { .. }));
        }
    }
    let (entries, certificates) = later;
    print(&format!(
        "accepted and recorded: it is {now}, and the newest entry was of {newest}\n{entries} entries have a later time than \
         now; the {certificates} certificates among them may have a wrong validity (birthmark journal dump shows them)\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}
