//! `birthmark ledger`: what the owner of a shared ledger's tables does.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use birthmark::{
    config::Config,
    ledger::shared::{Created, DatabaseSettings, Owner, Restored, Status},
};
use clap::Subcommand;
use serde_json::json;

use super::{print, print_json, table};

/// Make, look at, complete and close a ledger that several daemons share in a database
#[derive(Debug, clap::Args)]
#[command(
    after_help = "These commands connect as the owner of the tables, another role than the daemons' (--database names it; the \
    daemons' URL is in the configuration). A daemon's role can add to the journal and read it, and nothing else. docs/cluster.md \
    has the whole way."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the tables, and give the daemons' role its rights
    Create(CreateArgs),
    /// Bring the tables to the form that this version knows (there is one so far), or say that they have it
    Upgrade(Place),
    /// Show what the ledger has come to, and which daemons write it
    Status(StatusArgs),
    /// Put back what the database has lost and a daemon's copy still has, while no daemon runs
    Restore(Place),
    /// Make the tables names and orders again from the journal, which is verified on the way; daemons wait
    Rebuild(Place),
    /// Take the ledger out of the database: a daemon's copy is a ledger of its own from then on, while no daemon runs
    Leave(Place),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// A daemon's configuration, which names database and data folder;
    /// birthmark.toml in the current folder, where there is one, goes before the default
    #[arg(long, value_name = "FILE", default_value_os_t = super::usual_configuration())]
    config: PathBuf,

    /// The database's URL as its owner has it [default: ledger.database]
    #[arg(long, value_name = "URL")]
    database: Option<String>,

    /// A file with the owner's password [default: ledger.database_password]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    #[command(flatten)]
    place: Place,

    /// The daemons' role [default: the user of ledger.database]
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,

    /// Take over the ledger in this data folder, whose daemon must not run; its entries stay what they are
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    place: Place,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Place {
    fn open(&self) -> anyhow::Result<(Owner, Config)> {
        let config = Config::load(&self.config)?;
        let of_daemons = config.ledger.database.as_ref().map(|database| database.get_ref().clone());
        let url =
            self.database.clone().or(of_daemons).context("ledger.database is not set, and there is no --database")?;
        let of_daemons = config.ledger.database_password.as_ref().filter(|_| self.database.is_none());
        let password = self.password_file.clone().or_else(|| of_daemons.map(|file| config.resolve(file.get_ref())));
        let settings = DatabaseSettings {
            url,
            password,
            folder: config.resolve(Path::new("")),
            daemon: "ledger".into(),
            copies: config.ledger.copies(),
            lease: Duration::from_secs(60),
            patience: Duration::from_secs(20),
        };
        Ok((Owner::connect(&settings)?, config))
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Create(args) => create(&args)?,
        Command::Upgrade(place) => {
            let format = place.open()?.0.upgrade()?;
            print(&format!("the tables have the format {format}, which this version knows\n"))?;
        }
        Command::Status(args) => status(&args)?,
        Command::Restore(place) => {
            let (owner, config) = place.open()?;
            let Restored { first, entries } = owner.restore(&config.resolve(config.ledger.path.get_ref()))?;
            let last = first + entries - 1;
            print(&format!(
                "the entries {first} to {last} are in the database again. Start the daemons, unless another one's data folder has \
                 more than {last} entries: then \"birthmark ledger restore\" with its configuration first\n"
            ))?;
        }
        Command::Rebuild(place) => {
            place.open()?.0.rebuild()?;
            print("the journal is sound, and the tables names and orders are made from it\n")?;
        }
        Command::Leave(place) => {
            let (owner, config) = place.open()?;
            let folder = config.resolve(config.ledger.path.get_ref());
            let entries = owner.leave(&folder)?;
            print(&format!(
                "{} holds the ledger of {entries} entries from now on; remove ledger.database from the configuration\n",
                folder.display()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let (owner, config) = args.place.open()?;
    let of_url = |url: &str| url.split_once("://").and_then(|(_, rest)| Some(rest.split_once('@')?.0.to_owned()));
    let of_daemons = config.ledger.database.as_ref().and_then(|database| of_url(database.get_ref()));
    let role = args.role.clone().or(of_daemons).with_context(|| {
        let owner = owner.user();
        format!(
            "name the daemons' role, which is another one than {owner}: --role, or ledger.database in the configuration"
        )
    })?;
    let Created { ledger, entries } = owner.create(&role, args.from.as_deref())?;
    print(&table::fields(&[
        ("ledger", Some(hex::encode(ledger))),
        ("entries", Some(entries.to_string())),
        ("daemons' role", Some(role)),
    ]))
}

fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let Status { ledger, batches, entries, chain, closed, daemons, standbys } = args.place.open()?.0.status()?;
    if args.json {
        let seen = daemons.iter();
        return print_json(&json!({
            "ledger": hex::encode(ledger),
            "batches": batches,
            "entries": entries,
            "chain_hash": hex::encode(chain),
            "closed": closed,
            "synchronous_standby_names": standbys,
            "daemons": seen.map(|daemon| json!({ "daemon": daemon.name, "epoch": daemon.epoch, "age_seconds": daemon.age }))
                .collect::<Vec<_>>(),
        }));
    }
    let none = daemons.is_empty().then(|| "none runs".to_owned());
    let seen = daemons.iter().map(|one| format!("{} (epoch {}, heard of {:.1} s ago)", one.name, one.epoch, one.age));
    print(&table::fields(&[
        ("ledger", Some(hex::encode(ledger))),
        ("entries", Some(entries.to_string())),
        ("batches", Some(batches.to_string())),
        ("chain hash", Some(hex::encode(chain))),
        ("closed", closed),
        ("standbys", Some(if standbys.is_empty() { "none is synchronous".to_owned() } else { standbys })),
        ("daemons", Some(none.unwrap_or_else(|| seen.collect::<Vec<_>>().join("\n")))),
    ]))
}
