//! Which journal a command is about.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use birthmark::{
    config::Config,
    ledger::journal::{JournalError, Scan, complete},
};

use crate::cli::usual_configuration;

/// Where the journal is.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(super) struct Place {
    /// The daemon's data folder, or a copy of it or of the journal folder in it [default: as the configuration says]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,

    /// The daemon's configuration, which names the data folder [default: birthmark.toml here or, where there is none,
    /// /etc/birthmark/birthmark.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    /// The configuration, unless the folder is named.
    pub(super) fn config(&self) -> anyhow::Result<Option<Config>> {
        let usual = self.folder.is_none().then(usual_configuration);
        Ok(self.config.clone().or(usual).as_deref().map(Config::load).transpose()?)
    }

    /// The data folder.
    pub(super) fn folder(&self) -> anyhow::Result<PathBuf> {
        let from_config = |config: Config| config.resolve(config.ledger.path.get_ref());
        let folder = self.folder.clone().or(self.config()?.map(from_config));
        folder.ok_or_else(|| anyhow!("give the data folder, or --config"))
    }
}

/// A journal that is only read: the data folder's or, where the daemon goes on with that alone, its mirror.
pub(super) struct Readable {
    own: PathBuf,
    /// The configuration's mirror.
    mirror: Option<PathBuf>,
    /// What is read, once that was said.
    chosen: Option<PathBuf>,
}

impl Readable {
    pub(super) fn new(place: &Place) -> anyhow::Result<Readable> {
        let (folder, config) = (place.folder()?, place.config()?);
        let mirror = config.and_then(|config| Some(config.resolve(config.ledger.mirror.as_ref()?.get_ref())));
        let inner = folder.join("journal");
        // What cannot be looked at may be a data folder on a disk that is gone.
        let own = if inner.is_dir() || mirror.is_some() || is_mirrored(&inner) { inner } else { folder };
        Ok(Readable { own, mirror: mirror.map(|mirror| mirror.join("journal")), chosen: None })
    }

    fn folder(&self) -> PathBuf {
        let complete = complete(&self.own);
        match &self.mirror {
            Some(mirror) if complete == self.own && fs::read_dir(&self.own).is_err() => mirror.clone(),
            _ => complete,
        }
    }

    /// Opens what has all entries now, and says so if that is another folder than before.
    pub(super) fn open(&mut self) -> Result<Scan, JournalError> {
        let folder = self.folder();
        if folder != *self.chosen.as_ref().unwrap_or(&self.own) {
            let why =
                if folder == self.own { "has all entries again" } else { "has all entries, and the other one has not" };
            eprintln!("birthmark: reading {}, which {why}", folder.display());
        }
        let scan = Scan::open(&folder);
        self.chosen = Some(folder);
        scan
    }

    /// Whether there is another journal that may have all entries soon, if this one cannot be read.
    pub(super) fn is_mirrored(&self) -> bool {
        is_mirrored(&self.own)
    }

    /// Whether another folder than the one that is read has all entries now.
    pub(super) fn has_moved(&self) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| *chosen != self.folder())
    }
}

/// Whether the daemon says beside this journal that it has another one.
fn is_mirrored(journal: &Path) -> bool {
    journal.with_file_name("mirrored").is_file()
}

/// The folder, which must be one that a daemon has used.
pub(super) fn data_folder(place: &Place) -> anyhow::Result<PathBuf> {
    let folder = place.folder()?;
    if folder.join("journal").is_dir() {
        return Ok(folder);
    }
    Err(anyhow!("{} is not a data folder that a daemon has used: it holds no folder \"journal\"", folder.display()))
}
