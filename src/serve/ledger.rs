//! The ledger that the configuration names: in the data folder, or shared in a database.

use std::{io, ops::Range, path::Path, thread::JoinHandle};

use jiff::Timestamp;
use toml::Spanned;

use crate::{
    committer::Committer,
    config::{Config, ConfigError},
    ledger::{
        LedgerError, Records,
        embedded::{self, Claim, EmbeddedLedger, EmbeddedRecords, Guards, Settings},
        shared::{DatabaseSettings, SharedError, SharedLedger},
    },
};

/// A ledger that is open and written by nobody yet.
pub(super) enum OpenLedger {
    Embedded(Box<EmbeddedLedger>),
    Shared(Box<SharedLedger>),
}

impl OpenLedger {
    /// Opens it in the folder `data`.
    pub(super) fn open(
        config: &Config,
        data: &Path,
        (settings, guards): (&Settings, &Guards),
        claim: Claim,
    ) -> Result<(OpenLedger, EmbeddedRecords), ConfigError> {
        let now = Timestamp::now();
        let opened = match database_settings(config) {
            None => {
                let opened = EmbeddedLedger::open_guarded(data, now, settings, guards, claim);
                let wrong = |error| config.error_at(config.ledger.path.span(), "ledger.path", error);
                opened.map(|(ledger, records)| (OpenLedger::Embedded(Box::new(ledger)), records)).map_err(wrong)
            }
            Some(database) => {
                database.check().map_err(|error| unusable(config, error))?;
                // It has a runtime of its own.
                let open = || {
                    SharedLedger::wait_for_database(&database, |why| {
                        tracing::warn!("the ledger's database cannot be reached ({why}); the start waits for it");
                    })?;
                    SharedLedger::open_claimed(data, now, (settings, guards), &database, claim)
                };
                let opened = tokio::task::block_in_place(open);
                let place = span(config.ledger.database.as_ref());
                let wrong = |error: LedgerError| config.error_at(place, "ledger.database", error);
                opened.map(|(ledger, records)| (OpenLedger::Shared(Box::new(ledger)), records)).map_err(wrong)
            }
        };
        opened.inspect(|(_, records)| {
            if records.head().sequence == 0 {
                tracing::warn!(
                    path = %data.display(),
                    "a new ledger begins; if there was one before, its disk is not there: stop, or devices get second certificates"
                );
            }
        })
    }

    /// Whether checkpoints are lost that there had been. Another daemon's are in its own folder.
    pub(super) fn lacks_checkpoint(&self, records: &EmbeddedRecords, data: &Path) -> bool {
        match self {
            OpenLedger::Embedded(_) => records.head().sequence > 0 && !embedded::checkpoint_file(data).exists(),
            OpenLedger::Shared(_) => false,
        }
    }

    /// Starts the thread that writes it.
    pub(super) fn start(self) -> io::Result<(Committer, JoinHandle<Result<(), LedgerError>>)> {
        match self {
            OpenLedger::Embedded(ledger) => Committer::start(*ledger),
            OpenLedger::Shared(ledger) => Committer::start(*ledger),
        }
    }
}

/// What is wrong with the settings of a shared ledger, and what will be; the database is not asked.
pub(super) fn check(config: &Config) -> (Option<ConfigError>, Option<String>) {
    let Some(database) = database_settings(config) else { return (None, None) };
    let wrong = database.check().err().map(|error| unusable(config, error));
    let short = database.lease <= database.patience;
    let message = "should be longer than ledger.patience: the others may give up a daemon that waits for the database";
    let times = config.ledger.lease.as_ref().or(config.ledger.patience.as_ref());
    (wrong, short.then(|| config.error_at(span(times), "ledger.lease", message).to_string()))
}

/// At the setting that names what cannot be used.
fn unusable(config: &Config, error: SharedError) -> ConfigError {
    let ledger = &config.ledger;
    match error {
        SharedError::Password { .. } => {
            config.error_at(span(ledger.database_password.as_ref()), "ledger.database_password", error)
        }
        _ => config.error_at(span(ledger.database.as_ref()), "ledger.database", error),
    }
}

fn span<T>(setting: Option<&Spanned<T>>) -> Range<usize> {
    setting.map_or(0..0, Spanned::span)
}

/// Where the ledger is shared, if it is.
fn database_settings(config: &Config) -> Option<DatabaseSettings> {
    let ledger = &config.ledger;
    Some(DatabaseSettings {
        url: ledger.database.as_ref()?.get_ref().clone(),
        password: ledger.database_password.as_ref().map(|file| config.resolve(file.get_ref())),
        folder: config.resolve(Path::new("")),
        daemon: ledger.daemon.as_ref()?.get_ref().clone(),
        copies: ledger.copies(),
        lease: ledger.lease(),
        patience: ledger.patience(),
    })
}
