//! `birthmark journal reconcile`

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use birthmark::{
    ledger::{
        Action, Actor, Ledger, LedgerError, Operation, Outcome, Records, Recovery,
        embedded::{EmbeddedLedger, EmbeddedRecords, Settings},
    },
    reconcile::{self, Charge, Found, Reading, Reconciler},
};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{
    accept::operator,
    folder::{Place, data_folder},
};
use crate::cli::{print, print_json, table};

#[derive(Debug, Args)]
#[command(
    after_help = "The daemon must not run. Certificates are read from files: a station's folder (DEVICE.pem), exports and \
    bundles of every format that has certificates, as folders or tars; other files are passed over, torn ones named. Each is verified against the \
    issuers that the journal has recorded, and one that the journal has already changes nothing, so that the command may be \
    repeated, also with other folders. The formats jsonl and csv tell order and profile; for what does not, give --order. \
    docs/restore.md has the whole way.\n\n\
    Exit codes: 0 all are in the journal; 1 failed; 2 wrong usage; 3 some could not be taken back: each is named, and why."
)]
pub(super) struct ReconcileArgs {
    #[command(flatten)]
    place: Place,

    /// Folders, files or tars with certificates
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    certificates: Vec<PathBuf>,

    /// The order to which certificates are charged whose files do not tell
    #[arg(long, value_name = "ID")]
    order: Option<String>,

    /// The profile of certificates without an order whose files do not tell
    #[arg(long, value_name = "NAME", conflicts_with = "order")]
    profile: Option<String>,

    /// Where a file does not tell the device, take the CN of its certificate for it
    #[arg(long)]
    device_in_subject: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Operations that are committed at once.
const BATCH: usize = 256;

/// Devices that are named on a terminal.
const NAMED: usize = 20;

/// What became of what was found.
#[derive(Debug, Default)]
struct Tally {
    recovered: u64,
    known: u64,
    ignored: u64,
    /// Files and why they could not be taken back.
    refused: Vec<(String, String)>,
}

pub(super) fn run(args: ReconcileArgs) -> anyhow::Result<ExitCode> {
    let folder = data_folder(&args.place)?;
    let mut reading = Reading::default();
    for path in &args.certificates {
        reconcile::read(path, &mut reading)?;
    }
    let Reading { found, torn, passed_over } = reading;
    let mut tally = Tally { ignored: passed_over, refused: torn, ..Tally::default() };
    let (mut ledger, records) = EmbeddedLedger::open(&folder, Timestamp::now(), &Settings::default())?;
    let recoveries = identify(&args, &records, found, &mut tally)?;
    take_back(&mut ledger, recoveries, &mut tally)?;
    drop(records);
    ledger.close()?;
    tell(&args, &tally)?;
    Ok(ExitCode::from(if tally.refused.is_empty() { 0 } else { 3 }))
}

/// What the certificates are, in the order of their serial numbers.
fn identify(
    args: &ReconcileArgs,
    records: &EmbeddedRecords,
    found: Vec<Found>,
    tally: &mut Tally,
) -> anyhow::Result<Vec<Recovery>> {
    let reconciler = Reconciler::new(records.head().ledger, records.issuers(), args.device_in_subject);
    let profile_of = |order: &str| Ok::<_, LedgerError>(records.order(order)?.map(|order| order.terms.profile));
    let usual = match (&args.order, &args.profile) {
        (Some(order), _) => {
            let profile = profile_of(order)?.ok_or_else(|| {
                anyhow::anyhow!(
                    "the journal has no order \"{order}\"; if it was created after the backup, start the daemon, create \
                     it again and stop the daemon"
                )
            })?;
            Some(Charge { order: order.clone(), profile })
        }
        (None, Some(profile)) => Some(Charge { order: String::new(), profile: profile.clone() }),
        (None, None) => None,
    };
    let mut recoveries = Vec::new();
    for found in found {
        let identified = match reconciler.serial_number(&found) {
            // Nothing else need be known of what the journal has.
            Ok(serial) => match records.by_serial_number(&serial)?.and_then(|record| record.issued) {
                Some(issued) if issued.certificate == found.certificate => {
                    tally.known += 1;
                    continue;
                }
                _ => reconciler.identify(&found, usual.as_ref()),
            },
            Err(error) => Err(error),
        };
        match identified {
            Ok(recovery) => recoveries.push(recovery),
            Err(error) => tally.refused.push((found.source, error.to_string())),
        }
    }
    recoveries.sort_by_key(|recovery| recovery.serial_number);
    Ok(recoveries)
}

fn take_back(ledger: &mut EmbeddedLedger, recoveries: Vec<Recovery>, tally: &mut Tally) -> Result<(), LedgerError> {
    let actor = operator();
    let mut batch: Vec<Recovery> = Vec::new();
    let mut devices = BTreeSet::new();
    for recovery in recoveries {
        // What a device had before must be durable.
        if batch.len() == BATCH || devices.contains(&recovery.holder.device) {
            commit(ledger, &actor, std::mem::take(&mut batch), tally)?;
            devices.clear();
        }
        devices.insert(recovery.holder.device.clone());
        batch.push(recovery);
    }
    commit(ledger, &actor, batch, tally)
}

fn commit(
    ledger: &mut EmbeddedLedger,
    actor: &Actor,
    batch: Vec<Recovery>,
    tally: &mut Tally,
) -> Result<(), LedgerError> {
    let sources: Vec<_> = batch.iter().map(|recovery| recovery.source.clone()).collect();
    let operations: Vec<_> = batch
        .into_iter()
        .map(|recovery| Operation { actor: actor.clone(), action: Action::Recover(recovery) })
        .collect();
    for (source, outcome) in sources.into_iter().zip(ledger.commit(Timestamp::now(), &operations)?) {
        match outcome {
            Outcome::Changed { retry: false } => tally.recovered += 1,
            Outcome::Changed { retry: true } => tally.known += 1,
            Outcome::Refused(refusal) => tally.refused.push((source, refusal.to_string())),
            Outcome::Failed(error) => tally.refused.push((source, error.to_string())),
            _ => tally.refused.push((source, "the ledger gave an answer of another kind; this is a bug".to_owned())),
        }
    }
    Ok(())
}

fn tell(args: &ReconcileArgs, tally: &Tally) -> anyhow::Result<()> {
    let Tally { recovered, known, ignored, refused } = tally;
    if args.json {
        let refused: Vec<_> = refused.iter().map(|(file, why)| json!({ "file": file, "reason": why })).collect();
        return print_json(
            &json!({ "recovered": recovered, "known": known, "ignored_files": ignored, "refused": refused }),
        );
    }
    for (file, why) in refused.iter().take(NAMED) {
        eprintln!("birthmark: {file}: {why}");
    }
    if let Some(more) = refused.len().checked_sub(NAMED).filter(|more| *more > 0) {
        eprintln!("birthmark: and {more} more (--json names all)");
    }
    print(&table::fields(&[
        ("taken back", Some(recovered.to_string())),
        ("in the journal already", Some(known.to_string())),
        ("refused", Some(refused.len().to_string())),
        ("other files", Some(ignored.to_string())),
    ]))
}
