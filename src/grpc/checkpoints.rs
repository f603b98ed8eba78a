//! Checkpoints that an operator asks for.

use tonic::Status;

use super::status;
use crate::{
    checkpoint::{CheckpointError, Checkpoints},
    ledger::Actor,
    proto::MakeCheckpointReply,
};

/// Has the audit key sign what the journal is now, unless that is known already.
pub(super) async fn make(checkpoints: Option<&Checkpoints>, actor: &Actor) -> Result<MakeCheckpointReply, Status> {
    let checkpoints = checkpoints.ok_or_else(status::audit_key_missing)?;
    tracing::info!(%actor, "an operator asks for a checkpoint");
    match checkpoints.make_last().await {
        Ok(Some(newest)) => Ok(MakeCheckpointReply { entries: newest.checkpoint.sequence, note: newest.to_string() }),
        // There is nothing that it could cover.
        Ok(None) => Ok(MakeCheckpointReply::default()),
        Err(CheckpointError::Commit(error)) => Err(status::failed_call(&error.into())),
        Err(error) => Err(status::audit_key_unavailable(error.to_string())),
    }
}
