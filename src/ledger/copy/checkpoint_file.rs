//! The newest checkpoint as a file beside the journal, and its comparison with the journal at a start.

use std::path::{Path, PathBuf};

use crate::{
    ledger::{
        checkpoint::{InvalidCheckpoint, SignedCheckpoint},
        error::LedgerError,
        journal::{Journal, Scan},
    },
    signer::PublicKey,
};

/// Where the newest checkpoint of the ledger in `folder` is.
pub fn checkpoint_file(folder: &Path) -> PathBuf {
    folder.join("checkpoint")
}

/// Why the newest checkpoint keeps the ledger from being opened.
#[derive(Debug, thiserror::Error)]
pub(in crate::ledger) enum CheckpointFault {
    /// It knows another journal.
    #[error(
        "the journal does not fit the newest checkpoint, {path}: {what}. Restore the journal from a newer backup; or, \
         to go on with what is here and accept the loss of the rest, use \"birthmark journal accept-loss\", which \
         keeps that file"
    )]
    Differs { path: String, what: String },
    /// The journal is not the one that an operator expects.
    #[error("the journal does not fit the checkpoint that is expected, {path}: {what}")]
    Expected { path: String, what: String },
    /// It is not one that the audit key signed.
    #[error(
        "the checkpoint {path} is not to be trusted: {cause}. Put a copy in its place that was kept elsewhere, or name \
         the key that signed it under audit.previous_keys; or, if nobody can vouch for the journal any more, \
         move that file away and keep it: the next checkpoint then states that earlier ones are lost"
    )]
    NotTrusted { path: String, cause: InvalidCheckpoint },
}

impl From<CheckpointFault> for LedgerError {
    fn from(fault: CheckpointFault) -> Self {
        match &fault {
            CheckpointFault::Differs { path, what } => {
                LedgerError::Lost { what: format!("the checkpoint {path}: {what}"), cause: Box::new(fault) }
            }
            CheckpointFault::NotTrusted { .. } | CheckpointFault::Expected { .. } => {
                LedgerError::Untrusted(Box::new(fault))
            }
        }
    }
}

/// Checks that the journal continues a checkpoint that was kept elsewhere, and must be there.
pub(in crate::ledger) fn check_against_expected(
    journal: &Journal,
    path: &Path,
    keys: &[PublicKey],
) -> Result<(), LedgerError> {
    if !path.exists() {
        let cause = InvalidCheckpoint::Malformed("there is no such file");
        return Err(CheckpointFault::Expected { path: path.display().to_string(), what: cause.to_string() }.into());
    }
    check_against_checkpoint(journal, path, keys)
        .map_err(|error| CheckpointFault::Expected { path: path.display().to_string(), what: error.to_string() }.into())
}

/// Checks that the journal continues the newest checkpoint, which one of the keys must have signed.
pub(in crate::ledger) fn check_against_checkpoint(
    journal: &Journal,
    path: &Path,
    keys: &[PublicKey],
) -> Result<(), LedgerError> {
    let differs = |what: String| CheckpointFault::Differs { path: path.display().to_string(), what }.into();
    let not_trusted = |cause| CheckpointFault::NotTrusted { path: path.display().to_string(), cause };
    let Some(signed) = SignedCheckpoint::read(path).map_err(not_trusted)? else {
        return Ok(());
    };
    if keys.is_empty() {
        tracing::warn!(file = %path.display(), "there is no audit key: the checkpoint's signature is not verified");
    } else {
        signed.verify(keys).map_err(not_trusted)?;
    }
    let checkpoint = signed.checkpoint;
    if checkpoint.journal != journal.id() {
        return Err(differs("the journal is another ledger's".into()));
    }
    let entries = journal.next_sequence() - 1;
    if checkpoint.sequence > entries {
        let unreadable = journal.unreadable_end().map(|what| format!(" ({what})")).unwrap_or_default();
        return Err(differs(format!(
            "it knows {} entries, and only {entries} can be read{unreadable}",
            checkpoint.sequence
        )));
    }
    let chain = Scan::open(&journal.reader().folder())?.chain_after(checkpoint.sequence)?.unwrap_or_default();
    if chain != checkpoint.chain {
        return Err(differs(format!("the entries up to number {} are not those that it knows", checkpoint.sequence)));
    }
    Ok(())
}
