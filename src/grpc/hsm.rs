//! What operators may do about the HSM.

use std::{collections::BTreeMap, sync::Arc};

use tonic::Status;

use super::status;
use crate::{
    ledger::Actor,
    metrics,
    proto::{self, HsmToken},
    security,
    signer::{Recoverable, TokenState},
};

/// What signs, by the issuers' names and `audit`.
pub(crate) type Signers = Arc<BTreeMap<String, Arc<dyn Recoverable>>>;

/// Has the tokens that are out tried once more. The log is the audit: nothing in the ledger changes.
pub(super) async fn retry(
    signers: &Signers,
    actor: &Actor,
    request: proto::RetryHsmRequest,
) -> Result<proto::RetryHsmReply, Status> {
    let proto::RetryHsmRequest { signer, same_pin } = request;
    let chosen: Vec<_> = match signer.as_str() {
        "" => signers.values().collect(),
        name => match signers.get(name) {
            Some(signer) => vec![signer],
            None => {
                let names: Vec<_> = signers.keys().map(String::as_str).collect();
                let message = format!("nothing signs by that name; what signs is {}", names.join(", "));
                return Err(status::signer_unknown(message));
            }
        },
    };
    tracing::warn!(target: security::TARGET, %actor, signer, same_pin, "an operator has the HSM tried again");
    metrics::hsm_retry();
    let tried = chosen.into_iter().map(|signer| Arc::clone(signer).retry(same_pin));
    let tokens: Vec<_> = futures_util::future::join_all(tried).await.into_iter().flatten().collect();
    for TokenState { signer, token, sessions, reason } in &tokens {
        tracing::warn!(target: security::TARGET, %actor, signer, token, sessions, reason, "the HSM was tried again");
    }
    let tokens = tokens.into_iter().map(|TokenState { signer, token, sessions, reason }| HsmToken {
        signer,
        token,
        sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
        reason,
    });
    Ok(proto::RetryHsmReply { tokens: tokens.collect() })
}
