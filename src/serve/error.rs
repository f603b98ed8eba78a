//! Why the daemon did not start, or stopped.

use std::{io, path::PathBuf};

use metrics_exporter_prometheus::BuildError;

use crate::{committer::CommitError, config::ConfigError, ledger::LedgerError};

/// The sources say more; `birthmark serve` prints the whole chain as one sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The configuration, or what it names, cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A token refused the PIN; each further try may lock it.
    #[error(transparent)]
    PinRefused(ConfigError),
    /// The system refused something that the daemon needs.
    #[error("cannot {action}")]
    System {
        /// What.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There can be no metrics.
    #[error("cannot collect metrics")]
    Metrics(#[from] BuildError),
    /// The ready file cannot be written.
    #[error("cannot write the ready file {}", path.display())]
    ReadyFile {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The ledger failed; after a sync that failed only a new start knows what is on stable storage (invariant 10).
    #[error("the ledger failed")]
    Ledger(#[source] LedgerError),
    /// An issuer could not be recorded.
    #[error("cannot record the issuer \"{name}\" in the ledger")]
    Issuer {
        /// Its name.
        name: String,
        /// Why.
        source: CommitError,
    },
    /// The start could not be recorded.
    #[error("cannot record the start in the ledger")]
    History(#[source] CommitError),
    /// The committer's thread stopped without having been closed.
    #[error("the committer stopped by itself")]
    CommitterStopped,
    /// The committer's thread panicked.
    #[error("the committer panicked; the log says where")]
    CommitterPanicked,
}

impl ServeError {
    /// For `map_err`: the system refused `action`.
    pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| ServeError::System { action, source }
    }
}
