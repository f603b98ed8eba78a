//! Which journal a command is about.

use std::path::PathBuf;

use anyhow::anyhow;
use birthmark::config::Config;

/// Where the journal is.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Place {
    /// The daemon's data folder, or a copy of it or of the journal folder in it
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,

    /// The daemon's configuration, which names the data folder
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    /// The data folder.
    pub(super) fn folder(&self) -> anyhow::Result<PathBuf> {
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

/// The folder, which must be one that a daemon has used.
pub(super) fn data_folder(place: &Place) -> anyhow::Result<PathBuf> {
    let folder = place.folder()?;
    if folder.join("journal").is_dir() {
        return Ok(folder);
    }
    Err(anyhow!("{} is not a data folder that a daemon has used: it holds no folder \"journal\"", folder.display()))
}
