//! `birthmark journal verify`

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use birthmark::{
    ledger::{
        checkpoint::SignedCheckpoint,
        embedded::checkpoint_file,
        json_time as time,
        verify::{Remark, Verified, VerifyOptions, verify},
    },
    pem,
    signer::PublicKey,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{
    folder::{Place, Readable},
    torn,
};
use crate::cli::{print, print_json, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "It changes nothing and needs no lock: the daemon may run, and a copy is as good. \
    Memory: about 100 MiB, and 70 to 130 bytes for each certificate unless --chain-only.\n\n\
    Exit codes: 0 whole; 1 damaged, contradictory, cut short, rewritten or not to be trusted (the message names the \
    file and the byte); 2 wrong usage; 3 whole but for an incomplete last entry, as a crash leaves it: the daemon cuts \
    it off when it starts.")]
pub(super) struct VerifyArgs {
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

/// Verifies, and tells.
pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let folder = args.place.folder()?;
    let trust = trust(args, &folder)?;
    let scan = Readable::new(&args.place)?.open()?;
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
    Ok(torn::end(verified.torn.as_ref()))
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
        rows.push(("exports of orders", Some(counts.exports.to_string())));
        rows.push(("batches", Some(counts.batches.to_string())));
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
