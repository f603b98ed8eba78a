//! What the journal knows of the daemon's runs: starts and ends, versions, and the configuration of each.

use std::time::Duration;

use super::error::ServeError;
use crate::{
    committer::{CommitError, Committer},
    config::Config,
    hash::sha256,
    ledger::Actor,
    refusals::Refusals,
    version::VERSION,
};

/// How long the record of the end may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Records the configuration, if it is not the one before, and the start.
pub(super) async fn record_start(committer: &Committer, config: &Config) -> Result<(), ServeError> {
    let configuration = sha256(config.text().as_bytes());
    let recorded = async {
        committer.load_configuration(None, configuration, config.text().to_owned()).await?;
        committer.record_start(VERSION.to_owned(), configuration).await
    };
    match recorded.await {
        // As anything else that is new: when the clock is right, or the file small enough.
        Err(CommitError::Refused(refusal)) => {
            tracing::warn!(%refusal, "the start is not recorded in the journal");
            Ok(())
        }
        recorded => recorded.map_err(ServeError::History),
    }
}

/// Records a configuration that is to come into force; `actor` is who reloads it.
///
/// # Errors
/// The ledger does not take it; what it only refuses for now is no error.
pub(super) async fn record_reload(
    committer: &Committer,
    actor: Option<Actor>,
    sha256: [u8; 32],
    text: &str,
) -> Result<(), CommitError> {
    match committer.load_configuration(actor, sha256, text.to_owned()).await {
        Err(CommitError::Refused(refusal)) => {
            tracing::warn!(%refusal, "the configuration is not recorded in the journal");
            Ok(())
        }
        recorded => recorded.map(drop),
    }
}

/// Records what was refused until now, and the end of the run.
pub(super) async fn record_stop(committer: &Committer, refusals: &Refusals, signal: &str) {
    let recorded = async {
        refusals.finish().await;
        committer.record_stop(signal.to_owned()).await
    };
    match tokio::time::timeout(LIMIT, recorded).await {
        Ok(Ok(())) | Ok(Err(CommitError::Refused(_))) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the end of this run is not recorded in the journal"),
        Err(_) => tracing::warn!("the end of this run was not recorded in the journal in time"),
    }
}
