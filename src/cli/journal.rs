//! `birthmark journal`

mod entry_json;

use std::{
    collections::HashSet,
    io::{BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use birthmark::{
    config::Config,
    ledger::{
        Actor,
        checkpoint::SignedCheckpoint,
        embedded::{EmbeddedLedger, Settings, checkpoint_file},
        entry::Event,
        journal::{Scan, ScannedFrame, TornEnd},
        verify::{Remark, Verified, VerifyOptions, verify},
    },
    pem,
    serial::SerialNumber,
    signer::PublicKey,
};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::entry_json::{entry_to_json, time};
use super::{print, print_json, table};

/// Verify, dump and reindex the journal, the authoritative record of every serial number
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify the whole journal: every byte, the rules that its entries keep, and its checkpoints
    Verify(VerifyArgs),
    /// Print the journal's entries as JSON, one per line
    Dump(DumpArgs),
    /// Delete the index and rebuild it from the journal, while no daemon runs
    Reindex(ReindexArgs),
    /// Accept that the journal has lost entries which the index or the checkpoint knows, and record it
    AcceptLoss(AcceptArgs),
    /// Record that this computer's clock is right, although the journal's newest entry contradicts it
    AcceptClock(AcceptArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The daemon must not run. What was accepted, when, why and by whom is an entry of the journal, which \
    \"birthmark journal verify\" shows."
)]
struct AcceptArgs {
    #[command(flatten)]
    place: Place,

    /// Why, for those who verify the journal later
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Where the journal is.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// The daemon's data folder, or a copy of it or of the journal folder in it
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,

    /// The daemon's configuration, which names the data folder
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    fn folder(&self) -> anyhow::Result<PathBuf> {
        match (&self.folder, &self.config) {
            (Some(folder), _) => Ok(folder.clone()),
            (None, Some(file)) => {
                let config = Config::load(file)?;
                Ok(config.resolve(config.ledger.path.get_ref()))
            }
            (None, None) => Err(anyhow!("give the data folder, or --config")),
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "It changes nothing and needs no lock: the daemon may run, and a copy is as good. \
    Memory: about 100 MiB, and 70 to 130 bytes for each certificate unless --chain-only.\n\n\
    Exit codes: 0 whole; 1 damaged, contradictory, cut short, rewritten or not to be trusted (the message names the \
    file and the byte); 2 wrong usage; 3 whole but for an incomplete last entry, as a crash leaves it: the daemon cuts \
    it off when it starts.")]
struct VerifyArgs {
    #[command(flatten)]
    place: Place,

    /// The audit key's public half (PEM), as the ceremony wrote it: every checkpoint must be signed by it. May be
    /// repeated, once for each audit key that the journal has had
    #[arg(long, value_name = "FILE")]
    trusted_key: Vec<PathBuf>,

    /// A checkpoint that was kept elsewhere: shows whether the journal was cut short since [default: the file
    /// "checkpoint" in the data folder, if there is one]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,

    /// Verify checksums, hash chain and checkpoints only, not the rules of the entries: needs less memory
    #[arg(long)]
    chain_only: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Checksums and hash chain are verified on the way, from the beginning of the file that holds \
    --from. It needs no lock: the daemon may run.\n\nExit codes: 0 all printed; 1 damage (what is before it was \
    printed); 2 wrong usage; 3 all printed but for an incomplete last entry.")]
struct DumpArgs {
    #[command(flatten)]
    place: Place,

    /// The first entry, by its sequence number
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    from: u64,

    /// The last entry [default: the newest]
    #[arg(long, value_name = "SEQUENCE")]
    to: Option<u64>,

    /// Only what concerns this device, from --from on
    #[arg(long, value_name = "ID")]
    device: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ReindexArgs {
    #[command(flatten)]
    place: Place,
}

/// Whole but for a torn end.
const TORN: u8 = 3;

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Verify(args) => verify_journal(&args),
        Command::Dump(args) => dump(&args),
        Command::Reindex(args) => reindex(&args),
        Command::AcceptLoss(args) => accept_loss(args),
        Command::AcceptClock(args) => accept_clock(args),
    }
}

fn verify_journal(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let folder = args.place.folder()?;
    let trust = trust(args, &folder)?;
    let scan = Scan::open(&folder)?;
    let bar = progress(scan.total());
    let started = Instant::now();
    let verified = verify(scan, &trust, &mut |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let verified = verified?;
    let elapsed = started.elapsed();
    if args.json {
        print_json(&to_json(&verified, &trust, elapsed))?;
    } else {
        print(&summary(&verified, &trust, elapsed))?;
    }
    Ok(end(verified.torn.as_ref()))
}

fn end(torn: Option<&TornEnd>) -> ExitCode {
    let Some(TornEnd { path, offset, bytes, what }) = torn else { return ExitCode::SUCCESS };
    eprintln!(
        "birthmark: the last entry is incomplete: {} cannot be read from byte {offset} on ({bytes} bytes: {what}); a crash \
         leaves it so, and the daemon cuts it off when it starts",
        path.display()
    );
    ExitCode::from(TORN)
}

fn trust(args: &VerifyArgs, folder: &Path) -> anyhow::Result<VerifyOptions> {
    let read_key = |path: &PathBuf| {
        let key = pem::read_public_key(path).map_err(anyhow::Error::from);
        let key = key.and_then(|key| Ok(PublicKey::from_spki(&key)?));
        key.with_context(|| format!("cannot read a public key from {}", path.display()))
    };
    let keys = args.trusted_key.iter().map(read_key).collect::<anyhow::Result<Vec<_>>>()?;
    let beside = checkpoint_file(folder);
    let path = args.checkpoint.as_ref().unwrap_or(&beside);
    let read = SignedCheckpoint::read(path);
    let reference = read.map_err(|what| anyhow!("cannot use the checkpoint {}: {what}", path.display()))?;
    if reference.is_none() && args.checkpoint.is_some() {
        return Err(anyhow!("there is no file {}", path.display()));
    }
    let reference = reference.map(|reference| (path.display().to_string(), reference));
    Ok(VerifyOptions { keys, reference, chain_only: args.chain_only })
}

/// What was verified, for people.
fn summary(verified: &Verified, trust: &VerifyOptions, elapsed: Duration) -> String {
    let counts = verified.counts;
    let speed = verified.bytes as f64 / 1e6 / elapsed.as_secs_f64().max(1e-9);
    let mut rows = vec![
        ("journal", Some(hex::encode(verified.id))),
        ("entries", Some(verified.entries.to_string())),
        ("chain hash", Some(hex::encode(verified.chain))),
        ("newest entry", verified.newest.map(time)),
        ("files", Some(verified.files.to_string())),
        (
            "verified",
            Some(format!("{:.1} MB in {:.2} s, {speed:.0} MB/s", verified.bytes as f64 / 1e6, elapsed.as_secs_f64())),
        ),
    ];
    if !trust.chain_only {
        let certificates =
            format!("{}, {} reservations abandoned, {} open", counts.issued, counts.abandoned, counts.reserved);
        rows.push(("certificates", Some(certificates)));
        let later = format!("{} confirmed, {} scrapped, {} revoked", counts.confirmed, counts.scrapped, counts.revoked);
        rows.push(("of these", Some(later)));
        if counts.proofs > 0 {
            rows.push(("proofs of possession", Some(counts.proofs.to_string())));
        }
        rows.push(("orders", Some(counts.orders.to_string())));
        rows.push(("exports", Some(counts.exports.to_string())));
        rows.push(("revocation lists", Some(counts.crls.to_string())));
        rows.push(("issuers", Some(counts.issuers.to_string())));
    }
    rows.push(("checkpoints", Some(counts.checkpoints.to_string())));
    rows.extend(verified.remarks.iter().map(|Remark { sequence, time, actor, what }| {
        ("remark", Some(format!("entry {sequence} of {time} by {actor}: {what}")))
    }));
    rows.push(("truncated", Some(truncated(trust))));
    rows.push(("trusted", Some(trusted(verified, trust))));
    table::fields(&rows)
}

fn truncated(trust: &VerifyOptions) -> String {
    match &trust.reference {
        Some((name, reference)) => {
            let checkpoint = &reference.checkpoint;
            let covered =
                format!("it has all {} entries that {name} of {} covers", checkpoint.sequence, time(checkpoint.time));
            if trust.keys.is_empty() {
                format!(
                    "not verified: {covered}, but the signature of that is unverified; give the audit key with --trusted-key"
                )
            } else {
                format!("no: {covered}")
            }
        }
        None => "not known: there is no checkpoint file; give one with --checkpoint".into(),
    }
}

fn trusted(verified: &Verified, trust: &VerifyOptions) -> String {
    match verified.trusted {
        Some(covered) => format!(
            "up to entry {}, by the audit key on {}; the {} entries after it are not covered by a checkpoint",
            covered.sequence,
            time(covered.time),
            verified.entries - covered.sequence
        ),
        None if trust.keys.is_empty() => "not verified: give the audit key with --trusted-key".into(),
        None => "nothing".into(),
    }
}

fn to_json(verified: &Verified, trust: &VerifyOptions, elapsed: Duration) -> Value {
    json!({
        "journal": hex::encode(verified.id),
        "entries": verified.entries,
        "chain_hash": hex::encode(verified.chain),
        "newest_time": verified.newest.map(time),
        "files": verified.files,
        "bytes": verified.bytes,
        "seconds": elapsed.as_secs_f64(),
        "rules_verified": !trust.chain_only,
        "counts": verified.counts,
        "reference": trust.reference.as_ref().map(|(name, reference)| json!({
            "file": name,
            "sequence": reference.checkpoint.sequence,
            "time": time(reference.checkpoint.time),
            "signature_verified": !trust.keys.is_empty(),
        })),
        "trusted": verified.trusted.map(|covered| json!({
            "sequence": covered.sequence,
            "time": time(covered.time),
            "uncovered_entries": verified.entries - covered.sequence,
        })),
        "remarks": verified.remarks.iter().map(|Remark { sequence, time, actor, what }| json!({
            "sequence": sequence,
            "time": time,
            "actor": actor.to_string(),
            "message": what,
        })).collect::<Vec<_>>(),
        "torn_end": verified.torn.as_ref().map(|torn| json!({
            "file": torn.path,
            "offset": torn.offset,
            "bytes": torn.bytes,
            "message": torn.what,
        })),
    })
}

fn progress(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("  {bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn dump(args: &DumpArgs) -> anyhow::Result<ExitCode> {
    let mut scan = Scan::open(&args.place.folder()?)?;
    scan.skip_to(args.from)?;
    let mut filter = Filter { device: args.device.as_deref(), serial_numbers: HashSet::new() };
    let mut out = BufWriter::new(std::io::stdout().lock());
    // Entries are printed up to the damage; its message comes last.
    let mut damage = None;
    loop {
        let frame = match scan.read() {
            Ok(Some(frame)) if args.to.is_none_or(|to| frame.sequence <= to) => frame,
            Ok(_) => break,
            Err(error) => {
                damage = Some(error);
                break;
            }
        };
        if frame.sequence >= args.from && filter.wants(&frame) {
            match writeln!(out, "{}", entry_to_json(&frame)) {
                // A reader such as `head` has seen enough.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                written => written?,
            }
        }
    }
    out.flush()?;
    match damage {
        Some(error) => Err(error.into()),
        None => Ok(end(scan.torn_end())),
    }
}

/// Picks what concerns a device.
struct Filter<'a> {
    device: Option<&'a str>,
    /// The device's.
    serial_numbers: HashSet<SerialNumber>,
}

impl Filter<'_> {
    fn wants(&mut self, frame: &ScannedFrame) -> bool {
        let Some(wanted) = self.device else { return true };
        match &frame.entry.event {
            Event::Reserved { serial_number, holder, .. } => {
                holder.device == wanted && self.serial_numbers.insert(*serial_number)
            }
            Event::Issued { serial_number, .. }
            | Event::Abandoned { serial_number, .. }
            | Event::Confirmed { serial_number, .. }
            | Event::Scrapped { serial_number, .. }
            | Event::Revoked { serial_number, .. } => self.serial_numbers.contains(serial_number),
            Event::OrderCreated(_)
            | Event::OrderClosed { .. }
            | Event::OrderQuantityChanged { .. }
            | Event::OrderPaused { .. }
            | Event::OrderResumed { .. }
            | Event::OrderDevicesListed(_)
            | Event::StationEnrolled(_)
            | Event::StationRevoked { .. }
            | Event::ProofReserved { .. }
            | Event::ProofIssued { .. }
            | Event::ExportCreated { .. }
            | Event::ExportAcknowledged { .. }
            | Event::CrlIssued(_)
            | Event::IssuerAdded { .. }
            | Event::Checkpoint { .. }
            | Event::LossAccepted { .. }
            | Event::ClockAccepted { .. } => false,
            Event::VendingCodesCreated(created) => created.terms.codes.iter().any(|code| code.device == wanted),
            Event::VendingCodeCancelled { device } => device == wanted,
        }
    }
}

fn reindex(args: &ReindexArgs) -> anyhow::Result<ExitCode> {
    let folder = data_folder(&args.place)?;
    // A folder without a journal is a mistake, not a ledger to create.
    drop(Scan::open(&folder)?);
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.set_message("reading the journal");
    bar.enable_steady_tick(Duration::from_millis(100));
    let started = Instant::now();
    let entries = EmbeddedLedger::reindex(&folder, &Settings::default());
    bar.finish_and_clear();
    let entries = entries?;
    print(&format!("the index was rebuilt from {entries} entries in {:.1} s\n", started.elapsed().as_secs_f64()))?;
    Ok(ExitCode::SUCCESS)
}

/// The folder, which must be one that a daemon has used.
fn data_folder(place: &Place) -> anyhow::Result<PathBuf> {
    let folder = place.folder()?;
    if folder.join("journal").is_dir() {
        return Ok(folder);
    }
    Err(anyhow!("{} is not a data folder that a daemon has used: it holds no folder \"journal\"", folder.display()))
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
fn operator() -> Actor {
    Actor(format!("operator:{}", birthmark::local_user::own_name()).into())
}

fn accept_loss(args: AcceptArgs) -> anyhow::Result<ExitCode> {
    let (folder, reason) = (data_folder(&args.place)?, reason(&args.reason)?);
    let lost = EmbeddedLedger::accept_loss(&folder, Timestamp::now(), &Settings::default(), operator(), reason)?;
    print(&format!(
        "accepted and recorded: {lost}\nThe index was rebuilt. Devices whose certificates are lost can get others: look for \
         copies of what was issued, and record them elsewhere.\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn accept_clock(args: AcceptArgs) -> anyhow::Result<ExitCode> {
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
