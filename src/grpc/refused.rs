//! What requests for certificates are refused with, on its way into the journal.

use super::{request_error::RequestError, status};
use crate::{
    issuer::{Issuance, IssueRequest, IssuedBy},
    ledger::Actor,
    refusals::Refused,
};

/// Issues a certificate, and notes it if that is refused.
pub(crate) async fn issue(issuer: &Issuance, request: &IssueRequest) -> Result<IssuedBy, RequestError> {
    issuer.issue(request).await.map_err(RequestError::from).inspect_err(|error| note(issuer, request, error))
}

/// Notes that a request for a certificate is refused.
fn note(issuer: &Issuance, request: &IssueRequest, error: &RequestError) {
    let order = request.order.as_ref().map_or("", |order| order.as_str());
    note_as(issuer, &request.actor, (order, Some(request.device.as_str())), error);
}

/// The same for one that names no device, or none that could be one.
pub(crate) fn note_nameless(issuer: &Issuance, actor: &Actor, error: &RequestError) {
    note_as(issuer, actor, ("", None), error);
}

fn note_as(issuer: &Issuance, actor: &Actor, (order, device): (&str, Option<&str>), error: &RequestError) {
    // Whom a daemon that shuts down sends away was not refused.
    if let Some((reason, scope)) = status::recorded(error) {
        issuer.refusals().note(&Refused { actor, order, device, reason, scope });
    }
}
