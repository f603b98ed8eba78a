//! Proofs of possession, for operators.

use std::sync::Arc;

use tonic::Status;

use super::{request_error::RequestError, status};
use crate::{
    committer::Issued,
    ledger::Actor,
    possession::{CodeShape, PossessionCode},
    proof::{Proof, Prover},
    proto,
};

/// Proves possession of an issuer's key to the platform that gave the code.
pub(super) async fn prove(
    prover: &Arc<Prover>,
    actor: Actor,
    request: proto::ProvePossessionRequest,
) -> Result<proto::ProvePossessionReply, Status> {
    let code = request.code.parse::<PossessionCode>();
    let code = code.map_err(|error| status::failed_call(&RequestError::Invalid(error.to_string())))?;
    let shape = code.shape().as_ref().map_or_else(String::new, CodeShape::to_string);
    let prover = Arc::clone(prover);
    // What is reserved is recorded, whether the operator is still connected or not.
    let proved = tokio::spawn(async move { prover.prove(actor, code, request.issuer).await }).await;
    let proved = proved.map_err(|_| RequestError::Internal).and_then(|proved| Ok(proved?));
    let Proof { issued, not_after } = proved.map_err(|error| status::failed_call(&error))?;
    Ok(proto::ProvePossessionReply {
        certificate: Issued::certificate(&issued).to_vec().into(),
        serial_number: issued.serial_number().as_bytes().to_vec().into(),
        not_after: Some(proto::timestamp(not_after)),
        shape,
        replay: issued.replay(),
    })
}
