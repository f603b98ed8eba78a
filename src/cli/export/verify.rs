//! `birthmark export verify`

use std::{
    io::IsTerminal,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use birthmark::{
    export::{
        manifest::Manifest,
        verify::{Verified, verify},
    },
    pem,
    signer::PublicKey,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::super::{print, print_json, table};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It needs no daemon and no network. Exit codes: 0 whole; 1 changed, incomplete, with a file too many or not \
    signed by a trusted key (the message names the file); 2 wrong usage."
)]
pub(in crate::cli) struct Args {
    /// The bundle: a folder or a tar
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,

    /// The audit key's public half (PEM), as the ceremony wrote it. May be repeated, once for each audit key that the
    /// journal has had
    #[arg(long, value_name = "FILE", required = true)]
    trusted_key: Vec<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &Args) -> anyhow::Result<()> {
    let keys = read_keys(&args.trusted_key)?;
    let bar = progress();
    let started = Instant::now();
    let verified = verify(&args.bundle, &keys, &|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let verified = verified.with_context(|| format!("{} is not to be used", args.bundle.display()))?;
    let elapsed = started.elapsed();
    if args.json { print_json(&to_json(&verified, elapsed)) } else { print(&summary(&verified, elapsed)) }
}

/// The public keys in PEM files.
pub(super) fn read_keys(paths: &[PathBuf]) -> anyhow::Result<Vec<PublicKey>> {
    let read = |path: &PathBuf| {
        let key = pem::read_public_key(path).map_err(anyhow::Error::from);
        let key = key.and_then(|key| Ok(PublicKey::from_spki(&key)?));
        key.with_context(|| format!("cannot read a public key from {}", path.display()))
    };
    paths.iter().map(read).collect()
}

fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("  {spinner} {bytes}  {bytes_per_sec}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn bytes(manifest: &Manifest) -> u64 {
    manifest.files.iter().map(|file| file.bytes).sum()
}

/// What was verified, for people.
fn summary(verified: &Verified, elapsed: Duration) -> String {
    let manifest = verified.manifest();
    let seconds = elapsed.as_secs_f64();
    let issuers =
        manifest.issuers.iter().map(|issuer| ("issuer", Some(format!("{} ({})", issuer.subject, issuer.name))));
    let signatures = if verified.holds_certificates() {
        "each certificate is signed by an issuer of the bundle".to_owned()
    } else {
        "not verified: the format has no certificates in it".to_owned()
    };
    let mut rows = vec![
        ("batch", Some(manifest.batch.clone())),
        ("format", Some(manifest.format.clone())),
        ("created", Some(format!("{} by {}", manifest.created_at, manifest.created_by))),
        ("journal", Some(format!("entries {} to {}", manifest.journal.first, manifest.journal.end))),
        ("chain hash", Some(manifest.journal.chain_hash.clone())),
        ("certificates", Some(manifest.certificates.to_string())),
        ("withdrawn", Some(manifest.withdrawn.to_string())),
        ("left out as unfit", Some(manifest.unfit.len().to_string())),
        (
            "files",
            Some(format!(
                "{}, all whole, {:.1} MB in {seconds:.2} s",
                manifest.files.len(),
                bytes(manifest) as f64 / 1e6
            )),
        ),
        ("signatures", Some(signatures)),
        ("manifest SHA-256", Some(hex::encode(verified.manifest_sha256()))),
    ];
    rows.extend(issuers);
    table::fields(&rows)
}

fn to_json(verified: &Verified, elapsed: Duration) -> Value {
    let manifest = verified.manifest();
    json!({
        "batch": manifest.batch,
        "destination": manifest.destination,
        "number": manifest.number,
        "format": manifest.format,
        "journal": manifest.journal,
        "certificates": manifest.certificates,
        "withdrawn": manifest.withdrawn,
        "unfit": manifest.unfit.len(),
        "files": manifest.files.len(),
        "bytes": bytes(manifest),
        "signatures_verified": verified.holds_certificates(),
        "manifest_sha256": hex::encode(verified.manifest_sha256()),
        "seconds": elapsed.as_secs_f64(),
    })
}
