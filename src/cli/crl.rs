//! `birthmark crl`

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use birthmark::{
    config::Config,
    configure,
    crl::RevocationList,
    crl_publisher::{PublishedError, PublishedLists},
    ledger::RevocationReason,
    pem,
};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use super::{print, print_json, table};

/// Show certificate revocation lists, and write them for relying parties that are offline
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Both read what the daemon has published, in the data folder of the configuration; neither needs the \
    daemon or the HSM."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a list: a file, or the newest of an issuer
    Show(ShowArgs),
    /// Write the newest lists of an issuer, and its CA certificate, into a folder
    Write(WriteArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// A list, DER or PEM, or the name of an issuer
    #[arg(value_name = "FILE|ISSUER")]
    of: String,

    /// Which shard of the issuer, counted from 0
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    shard: u16,

    /// Print each certificate on the list too
    #[arg(long)]
    entries: bool,

    /// Print one JSON object, with every certificate on the list
    #[arg(long)]
    json: bool,

    /// The daemon's configuration, for an issuer's list;
    /// birthmark.toml in the current folder, where there is one, goes before the default
    #[arg(long, value_name = "FILE", default_value_os_t = super::usual_configuration())]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct WriteArgs {
    /// The issuer's name in the configuration
    #[arg(long, value_name = "NAME")]
    issuer: String,

    /// The folder; made if absent. Files have the paths of the daemon's HTTP port
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// The daemon's configuration;
    /// birthmark.toml in the current folder, where there is one, goes before the default
    #[arg(long, value_name = "FILE", default_value_os_t = super::usual_configuration())]
    config: PathBuf,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Show(args) => show(&args)?,
        Command::Write(args) => write(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Calls `then` with the lists that the daemon has published for an issuer.
fn with_lists<T>(
    config: &Path,
    name: &str,
    then: impl FnOnce(PublishedLists<'_>) -> Result<T, PublishedError>,
) -> anyhow::Result<T> {
    let config = Config::load(config)?;
    let issuers = configure::issuers_without_keys(&config, Timestamp::now())?;
    let Some(issuer) = issuers.get(name) else {
        let known: Vec<_> = issuers.keys().map(String::as_str).collect();
        bail!("there is no file and no issuer \"{name}\"; the issuers are {}", known.join(", "));
    };
    let data = config.resolve(config.ledger.path.get_ref());
    Ok(PublishedLists::open(&data, issuer).and_then(then)?)
}

/// A list in a file, as DER or in PEM.
fn from_file(path: &str) -> anyhow::Result<Vec<u8>> {
    let content = fs::read(path).with_context(|| format!("cannot read {path}"))?;
    if content.first() == Some(&0x30) {
        return Ok(content);
    }
    let block = pem::blocks(&content)?.into_iter().find(|block| block.label == "X509 CRL");
    Ok(block.with_context(|| format!("{path}: there is no X509 CRL in it"))?.der)
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let der = match Path::new(&args.of).is_file() {
        true => from_file(&args.of)?,
        false => with_lists(&args.config, &args.of, |lists| lists.read(args.shard))?.to_vec(),
    };
    let list = RevocationList::from_der(der).map_err(|error| anyhow::anyhow!("{}: it is no CRL: {error}", args.of))?;
    let reason = |code: Option<u8>| {
        code.map(|code| match RevocationReason::try_from(u32::from(code)) {
            Ok(reason) => reason.name().to_owned(),
            Err(_) => code.to_string(),
        })
    };
    if args.json {
        let entries = list.entries().map(|entry| {
            json!({
                "serial_number": hex::encode(&entry.serial_number),
                "revoked_at": entry.at.to_string(),
                "reason": reason(entry.reason),
            })
        });
        return print_json(&json!({
            "issuer": list.issuer(),
            "number": list.number(),
            "this_update": list.this_update().to_string(),
            "next_update": list.next_update().map(|time| time.to_string()),
            "entries": entries.collect::<Vec<_>>(),
        }));
    }
    let rows = [
        ("issuer", Some(list.issuer())),
        ("number", list.number().map(|number| number.to_string())),
        ("this update", Some(list.this_update().to_string())),
        ("next update", list.next_update().map(|time| time.to_string())),
        ("certificates", Some(list.len().to_string())),
        ("bytes", Some(list.der().len().to_string())),
    ];
    print(&table::fields(&rows))?;
    if args.entries {
        for entry in list.entries() {
            let reason = reason(entry.reason).unwrap_or_default();
            print(&format!("{}  {}  {reason}\n", hex::encode(&entry.serial_number), entry.at))?;
        }
    }
    Ok(())
}

fn write(args: &WriteArgs) -> anyhow::Result<()> {
    let paths = with_lists(&args.config, &args.issuer, |lists| lists.write(&args.out))?;
    print(&paths.iter().map(|path| format!("{}\n", args.out.join(path).display())).collect::<String>())
}
