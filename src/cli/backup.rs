//! `birthmark backup` and `birthmark restore`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use birthmark::{
    config::Config,
    ledger::{
        backup::{self, newest_checkpoint},
        journal::{Copied, Scan},
    },
};

use super::{print, table};

/// Back up the journal and its newest checkpoint, also while the daemon runs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The same folder again gets only what is new. Every entry that is copied is verified, and nothing of an \
    earlier backup is overwritten: a folder that holds entries which the journal does not have is refused. Put it on another \
    disk or host, and run it often: what was issued since the last one is what \"birthmark journal reconcile\" has to find \
    elsewhere after a loss. \"birthmark journal checkpoint\" before it lets the audit key vouch for all of it. docs/restore.md \
    has the way back."
)]
pub(crate) struct BackupArgs {
    /// Where the backup is, or will be
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,

    /// The daemon's configuration, which names the data folder;
    /// birthmark.toml in the current folder, where there is one, goes before the default
    #[arg(long, value_name = "FILE", default_value_os_t = super::usual_configuration(), conflicts_with = "data")]
    config: PathBuf,

    /// The data folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Make a data folder of a backup
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The daemon must not run, and the data folder must hold no journal. The ledger that is restored issues \
    nothing until an operator has said that it lacks nothing: docs/restore.md has the whole way."
)]
pub(crate) struct RestoreArgs {
    /// The backup, as "birthmark backup" made it
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,

    /// The daemon's configuration, which names the data folder;
    /// birthmark.toml in the current folder, where there is one, goes before the default
    #[arg(long, value_name = "FILE", default_value_os_t = super::usual_configuration(), conflicts_with = "data")]
    config: PathBuf,

    /// The data folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn data_folder(data: Option<PathBuf>, config: &Path) -> anyhow::Result<PathBuf> {
    match data {
        Some(folder) => Ok(folder),
        None => {
            let config = Config::load(config)?;
            Ok(config.resolve(config.ledger.path.get_ref()))
        }
    }
}

pub(crate) fn back_up(args: BackupArgs) -> anyhow::Result<ExitCode> {
    let data = data_folder(args.data, &args.config)?;
    let copied = backup::back_up(&data, &args.folder)?;
    let Copied { entries, new_entries, bytes, files } = copied;
    let checkpoint = newest_checkpoint(&args.folder).map_or("none".to_owned(), |signed| {
        let signed = signed.checkpoint;
        format!("of {}, for {} entries", signed.time, signed.sequence)
    });
    print(&table::fields(&[
        ("backup", Some(args.folder.display().to_string())),
        ("entries", Some(format!("{entries}, {new_entries} of them new"))),
        ("written", Some(format!("{bytes} bytes; {files} files"))),
        ("checkpoint", Some(checkpoint)),
    ]))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn restore(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let data = data_folder(args.data, &args.config)?;
    let copied = backup::restore(&args.folder, &data)?;
    let mut scan = Scan::open(&data)?;
    scan.skip_to(copied.entries)?;
    let mut newest = None;
    while let Some(frame) = scan.read()? {
        newest = Some(frame.entry.time);
    }
    let newest = newest.map_or("none".to_owned(), |time| format!("{time:.6}"));
    print(&format!(
        "{} entries are restored to {}; the newest is of {newest}.\nWhat was issued after that is missing: take it back with\n  \
         birthmark journal reconcile {} --certificates DIR…\nand say that nothing is missing any more with\n  \
         birthmark journal accept-loss {} --reason TEXT\nUntil then the daemon issues nothing (docs/restore.md).\n",
        copied.entries,
        data.display(),
        data.display(),
        data.display(),
    ))?;
    Ok(ExitCode::SUCCESS)
}
