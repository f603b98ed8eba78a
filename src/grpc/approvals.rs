//! Four eyes: what one operator cannot do alone, and the `Approvals` service.

use std::sync::Arc;

use jiff::Timestamp;
use tonic::{Request, Response, Status};

use super::{calls::Held, peer::Peer, services::Services, status};
use crate::{
    committer::Committer,
    hash::sha256,
    ledger::{self, Actor, OrderTerms, Records},
    proto,
    roles::Call,
    security,
};

/// Lets something be done that a second operator has agreed to, once.
///
/// # Errors
/// `APPROVAL_REQUIRED` with the number of the request, which is made now unless it was before.
pub(super) async fn require(committer: &Committer, actor: &Actor, what: String) -> Result<(), Status> {
    let asked = committer.ask_approval(actor.clone(), what).await;
    let approval = asked.map_err(|error| status::failed_call(&error.into()))?;
    if approval.used.is_some() {
        tracing::info!(target: security::TARGET, number = approval.number, by = %actor, what = approval.what, "an approval is used");
        return Ok(());
    }
    tracing::info!(target: security::TARGET, number = approval.number, by = %actor, what = approval.what, "waits for a second operator");
    Err(status::approval_required(approval.number, &approval.what))
}

/// An order, in words that differ when any of its terms does.
pub(super) fn creation_of(terms: &OrderTerms) -> String {
    let OrderTerms { id, profile, quantity, .. } = terms;
    let all = hex::encode(sha256(format!("{terms:?}").as_bytes()));
    format!("create the order {id} with the quantity {quantity} for the profile {profile} (terms {all})")
}

/// Answers operators about approvals.
pub(super) struct Service {
    committer: Committer,
    records: Arc<dyn Records>,
}

impl Service {
    pub(super) fn new(services: &Services) -> Self {
        let Services { committer, records, .. } = services.clone();
        Service { committer, records }
    }
}

#[tonic::async_trait]
impl proto::approvals_server::Approvals for Service {
    async fn list(
        &self,
        request: Request<proto::ListApprovalsRequest>,
    ) -> Result<Response<proto::ListApprovalsReply>, Status> {
        let peer = Peer::from_request(&request)?;
        peer.require(Call::ListApprovals)?;
        let counted = peer.limits()?.record_stream()?;
        let approvals = self.records.approvals().iter().map(|approval| message(approval)).collect();
        let mut reply = Response::new(proto::ListApprovalsReply { approvals });
        reply.extensions_mut().insert(Held::new(counted));
        Ok(reply)
    }

    async fn grant(&self, request: Request<proto::GrantApprovalRequest>) -> Result<Response<proto::Approval>, Status> {
        let actor = Peer::from_request(&request)?.actor(Call::GrantApproval)?;
        let granted = self.committer.grant_approval(actor.clone(), request.into_inner().number).await;
        let granted = granted.map_err(|error| status::failed_call(&error.into()))?;
        tracing::info!(target: security::TARGET, number = granted.number, by = %actor, what = granted.what, "an approval is granted");
        Ok(Response::new(message(&granted)))
    }
}

fn message(approval: &ledger::Approval) -> proto::Approval {
    let split = |who: Option<&(Timestamp, Actor)>| {
        who.map_or((None, String::new()), |(at, by)| (Some(proto::timestamp(*at)), by.to_string()))
    };
    let (requested_at, requested_by) = split(Some(&approval.requested));
    let (granted_at, granted_by) = split(approval.granted.as_ref());
    let (used_at, used_by) = split(approval.used.as_ref());
    proto::Approval {
        number: approval.number,
        what: approval.what.clone(),
        requested_at,
        requested_by,
        granted_at,
        granted_by,
        used_at,
        used_by,
    }
}
