//! `birthmark journal accept-loss` and `accept-clock`

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow};
use birthmark::{
    agreement::{Kind, Statement},
    config::Config,
    durable,
    ledger::{
        Acceptable, Actor, Agreed, Grounds, LedgerError, RecordedPeers,
        embedded::{EmbeddedLedger, Settings},
        entry::Event,
        journal::{JournalError, Scan},
    },
    serve,
};
use jiff::Timestamp;

use super::folder::{Place, data_folder};
use crate::cli::{print, table};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The daemon must not run. What was accepted, when, why and by whom is an entry of the journal, which \
    \"birthmark journal verify\" shows.\n\nWhere the configuration has [approval], two operators with the duty \"security\" must \
    agree. With --reason and --statement this command writes what is to be accepted into a file; each of them signs it on the own \
    machine with \"birthmark journal approve\" within a day; with --statement and --approved, twice, it is done."
)]
pub(super) struct AcceptArgs {
    #[command(flatten)]
    place: Place,

    /// Why, for those who verify the journal later
    #[arg(long, value_name = "TEXT", required_unless_present = "approved", conflicts_with = "approved")]
    reason: Option<String>,

    /// The statement that operators agree to: written where --reason is given, read where --approved is
    #[arg(long, value_name = "FILE")]
    statement: Option<PathBuf>,

    /// An operator's agreement to the statement; to be repeated
    #[arg(long, value_name = "FILE", requires = "statement")]
    approved: Vec<PathBuf>,
}

/// The longest reason, in characters.
const LONGEST_REASON: usize = 256;

fn reason(text: Option<&str>) -> anyhow::Result<String> {
    let text = text.unwrap_or_default();
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
    let folder = data_folder(&args.place)?;
    let found = || EmbeddedLedger::acceptable_loss(&folder, &Settings::default());
    let now = Timestamp::now();
    let Some(grounds) = grounds(&args, &folder, Kind::Loss, now, found)? else { return Ok(ExitCode::SUCCESS) };
    let lost = EmbeddedLedger::accept_loss(&folder, now, &Settings::default(), operator(), grounds)?;
    print(&format!(
        "accepted and recorded: {lost}\nThe index was rebuilt. Devices whose certificates are lost can get others: look for \
         copies of what was issued, and record them elsewhere.\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Accepts the clock.
pub(super) fn clock(args: AcceptArgs) -> anyhow::Result<ExitCode> {
    let folder = data_folder(&args.place)?;
    let now = Timestamp::now();
    let found = || EmbeddedLedger::acceptable_clock(&folder, now, &Settings::default());
    let Some(grounds) = grounds(&args, &folder, Kind::Clock, now, found)? else { return Ok(ExitCode::SUCCESS) };
    let newest = EmbeddedLedger::accept_clock(&folder, now, &Settings::default(), operator(), grounds)?;
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

/// Why it is accepted, and who agreed. None: others have to agree first, and what they agree to was written.
fn grounds(
    args: &AcceptArgs,
    folder: &Path,
    kind: Kind,
    now: Timestamp,
    found: impl FnOnce() -> Result<Acceptable, LedgerError>,
) -> anyhow::Result<Option<Grounds>> {
    let config = args.place.config()?;
    let recorded = match Scan::open(folder) {
        Ok(scan) => RecordedPeers::read(scan),
        // All of the journal is lost: it knows nobody and no configuration.
        Err(JournalError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => RecordedPeers::default(),
        Err(error) => return Err(error.into()),
    };
    if !needs_agreement(config.as_ref(), &recorded) {
        if args.statement.is_some() {
            return Err(anyhow!("one operator accepts this alone: the configuration has no [approval]; give --reason"));
        }
        return Ok(Some(Grounds::from(reason(args.reason.as_deref())?)));
    }
    let config = config.ok_or_else(|| {
        anyhow!(
            "operators must agree to this, as the configuration of this journal has [approval]; name it with --config"
        )
    })?;
    let statement = args.statement.as_deref().ok_or_else(|| {
        anyhow!(
            "two operators with the duty \"security\" must agree to this ([approval]); write what is to be accepted with \
             --statement FILE, have each sign it with \"birthmark journal approve FILE\", and give what they return with \
             --approved, twice"
        )
    })?;
    if args.approved.is_empty() {
        write_statement(
            statement,
            &Statement::new(kind, &found()?, reason(args.reason.as_deref())?, &operator(), now),
        )?;
        return Ok(None);
    }
    if let Some(damage) = &recorded.damage {
        eprintln!("birthmark: who was revoked is known up to a damaged place of the journal only: {damage}");
    }
    let (read, text) = Statement::read(statement)?;
    if read.accepts != kind {
        return Err(anyhow!("{} is a statement of the other kind", statement.display()));
    }
    read.check_time(now)?;
    let agreements = serve::agreements(&config, &recorded.peers, &text, &args.approved)?;
    let agreed = Some((read.acceptable()?, Agreed { statement: text, agreements }));
    Ok(Some(Grounds { reason: read.reason, agreed }))
}

/// Whether the configuration, or the newest one that the journal knows, has `[approval]`.
fn needs_agreement(config: Option<&Config>, recorded: &RecordedPeers) -> bool {
    let has_section = |text: &String| text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("approval"));
    config.is_some_and(|config| config.approval.is_some()) || recorded.configuration.as_ref().is_some_and(has_section)
}

fn write_statement(path: &Path, statement: &Statement) -> anyhow::Result<()> {
    durable::write_new(path, statement.to_text().as_bytes(), durable::Access::Public)
        .with_context(|| format!("cannot write {}", path.display()))?;
    print(&format!(
        "{}\nnothing is accepted yet: two operators with the duty \"security\" must agree, each with\n  birthmark journal \
         approve {file} --identity DIR --out NAME.approved\nand then the same command with --statement {file} --approved \
         NAME.approved for both\n",
        describe(statement),
        file = path.display(),
    ))
}

/// A statement for people.
pub(super) fn describe(statement: &Statement) -> String {
    let kind = match statement.accepts {
        Kind::Loss => "that this is lost",
        Kind::Clock => "that this is right",
    };
    table::fields(&[
        ("to be accepted", Some(kind.to_owned())),
        ("what", Some(statement.what.clone())),
        ("reason", Some(statement.reason.clone())),
        ("ledger", Some(statement.ledger.clone())),
        ("entries", Some(statement.entries.to_string())),
        ("chain hash", Some(statement.chain_hash.clone())),
        ("written by", Some(format!("{} at {}", statement.made_by, statement.made_at))),
        ("valid until", Some(statement.valid_until.to_string())),
    ])
}
