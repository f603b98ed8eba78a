//! A daemon that serves, and how it shuts down.

use std::{fs, path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::{
    sync::oneshot::{self, error::RecvError},
    task,
};

use super::{error::ServeError, history, keys::Pools};
use crate::{
    checkpoint::Checkpoints,
    committer::Committer,
    destinations::Watch,
    ledger::{LedgerError, scrub::Scrub},
    refusals::Refusals,
};

/// How long open calls may take to finish when the daemon shuts down, and then what is reserved; a station that does
/// not read its replies gets them when it asks again.
const DRAIN: Duration = Duration::from_secs(10);

/// How long the HSM may take for the last checkpoint.
const LAST_CHECKPOINT: Duration = Duration::from_secs(5);

/// Resolves when the committer's thread has stopped.
pub(super) type CommitterResult = oneshot::Receiver<Result<(), LedgerError>>;

/// A daemon that serves.
pub(super) struct Running {
    pub(super) server: task::JoinHandle<Result<(), Box<dyn std::error::Error + Send + Sync>>>,
    pub(super) committer: Committer,
    pub(super) refusals: Arc<Refusals>,
    pub(super) committer_result: CommitterResult,
    pub(super) checkpoints: Option<(Arc<Checkpoints>, task::JoinHandle<()>)>,
    /// The tasks that make revocation lists.
    pub(super) publishing: Vec<task::JoinHandle<()>>,
    /// The tasks that cut batches without being asked.
    pub(super) unattended: Vec<task::JoinHandle<()>>,
    pub(super) backlog: Option<Watch>,
    /// EST, if it is served.
    pub(super) est: Option<task::JoinHandle<()>>,
    pub(super) pools: Pools,
    pub(super) scrub: Option<Scrub>,
    pub(super) socket: Option<PathBuf>,
}

impl Running {
    /// Shuts the daemon down. Nothing new is accepted any more: `draining` is set. The order, and why it is this one:
    ///
    /// 1. The scrub stops, since it would read the journal for hours.
    /// 2. Open calls finish: each stream answers what it has read. From a reservation on, the work is a task of its own
    ///    that does not wait for its stream, so a station that does not read holds nothing up for longer than
    ///    [`DRAIN`]; its certificates are recorded and it gets them when it asks again.
    /// 3. The socket's file is removed, while the ledger's lock keeps any other daemon from having made its own there.
    /// 4. What was refused and the end of the run are recorded, and the last checkpoint is made, after the calls, so that it covers what they recorded, and before the committer
    ///    closes, since it is an entry of the journal, and before the pools close, since the HSM signs it.
    /// 5. The committer closes: it waits for the requests that have a permit, so that what is reserved is signed and
    ///    recorded (invariants 1 and 2), and then closes the ledger, which puts the index on stable storage. A failure
    ///    of the ledger here is the daemon's exit status.
    /// 6. The pools close last: until the committer is closed a certificate may still need a signature. Sessions are
    ///    closed and logged out by the threads that opened them.
    ///
    /// Whatever exceeds its time is left to the next start, which abandons what is reserved without a certificate.
    ///
    /// # Errors
    /// If the ledger failed.
    pub(super) async fn shutdown(self, signal: &str) -> Result<(), ServeError> {
        let Running { server, committer, committer_result, checkpoints, publishing, unattended, .. } = self;
        let Running { backlog, est, pools, scrub, socket, refusals, .. } = self;
        drop((scrub, backlog));
        // What is revoked, or to be exported, from now on is on the first lists and in the first batches of the next start.
        publishing.iter().chain(&unattended).for_each(task::JoinHandle::abort);
        if tokio::time::timeout(DRAIN, server).await.is_err() {
            tracing::warn!("some stations did not read their replies in time; they get them when they ask again");
        }
        if let Some(est) = est {
            // It has been finishing since the calls have, and knows its own time.
            let _ = est.await;
        }
        if let Some(path) = socket {
            // What cannot be removed is replaced at the next start.
            let _ = fs::remove_file(path);
        }
        history::record_stop(&committer, &refusals, signal).await;
        if let Some((checkpoints, periodic)) = checkpoints {
            periodic.abort();
            match tokio::time::timeout(LAST_CHECKPOINT, checkpoints.make_last()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "no last checkpoint; one is made at the next start"),
                Err(_) => tracing::warn!("no last checkpoint in time; one is made at the next start"),
            }
        }
        let closed = async {
            committer.close().await;
            committer_result.await
        };
        match tokio::time::timeout(DRAIN, closed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(result) => return Err(committer_failure(result)),
            Err(_) => {
                tracing::warn!(
                    "some requests were not finished in time; what they reserved is abandoned at the next start"
                )
            }
        }
        tokio::task::block_in_place(|| pools.iter().for_each(|(_, pool)| pool.close()));
        tracing::info!("stopped");
        Ok(())
    }
}

/// Watches the committer's thread.
pub(super) fn watch_committer(thread: JoinHandle<Result<(), LedgerError>>) -> CommitterResult {
    let (sender, receiver) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        // A panic drops the sender.
        if let Ok(result) = thread.join() {
            let _ = sender.send(result);
        }
    });
    receiver
}

/// Why the committer stopped without having been closed.
pub(super) fn committer_failure(result: Result<Result<(), LedgerError>, RecvError>) -> ServeError {
    match result {
        Ok(Ok(())) => ServeError::CommitterStopped,
        Ok(Err(error)) => ServeError::Ledger(error),
        Err(_) => ServeError::CommitterPanicked,
    }
}
