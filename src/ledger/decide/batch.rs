//! Batches of destinations: cut, sealed, acknowledged.

use std::sync::Arc;

use jiff::Timestamp;

use super::decision::{Decision, refuse};
use crate::ledger::{
    actor::Actor,
    batch::{Acknowledged, Batch, BatchId, BatchTerms, Results, Seal},
    entry::Event,
    error::LedgerError,
    operation::Outcome,
    refusal::Refusal,
    view::View,
};

/// Whoever cuts a batch has read the journal up to a moment that is past; what came since is the next batch's. Two that cut at
/// the same time would both have what is new: the second is refused, and cut again.
pub(super) fn create(
    view: &View<'_>,
    now: Timestamp,
    actor: &Actor,
    terms: &Arc<BatchTerms>,
) -> Result<Decision, LedgerError> {
    let id = &terms.id;
    let known = view.destination(&id.destination).map_or((0, 0), |known| (known.batches, known.end));
    if (id.number, terms.first) != (known.0 + 1, known.1) {
        return refuse(Refusal::BatchOvertaken(id.clone()));
    }
    let batch = Batch {
        id: id.clone(),
        first: terms.first,
        end: terms.end,
        certificates: terms.certificates,
        withdrawn: terms.withdrawn,
        unfit: terms.unfit.len() as u64,
        created_at: now,
        created_by: actor.clone(),
        seal: None,
        acknowledged: None,
    };
    Ok((Outcome::Batch(batch), Some(Event::BatchCreated(Arc::clone(terms)))))
}

/// The first seal stays: signatures differ each time, and a batch's files never.
pub(super) fn seal(view: &View<'_>, id: &BatchId, seal: &Seal) -> Result<Decision, LedgerError> {
    Ok(match find(view, id)?.map(|batch| batch.seal) {
        None => return refuse(Refusal::BatchUnknown(id.clone())),
        Some(Some(before)) => (Outcome::Sealed(before), None),
        Some(None) => (Outcome::Sealed(seal.clone()), Some(Event::BatchSealed { id: id.clone(), seal: seal.clone() })),
    })
}

pub(super) fn acknowledge(
    view: &View<'_>,
    now: Timestamp,
    actor: &Actor,
    id: &BatchId,
    results: Option<&Arc<Results>>,
) -> Result<Decision, LedgerError> {
    let Some(batch) = find(view, id)? else { return refuse(Refusal::BatchUnknown(id.clone())) };
    if let Some(before) = &batch.acknowledged {
        let same = results.is_none_or(|results| before.results.is_some_and(|before| before.sha256 == results.sha256));
        return match same {
            true => Ok((Outcome::Batch(batch), None)),
            false => refuse(Refusal::BatchAcknowledged { id: id.clone(), with_results: before.results.is_some() }),
        };
    }
    let acknowledged =
        Acknowledged { at: now, by: actor.clone(), results: results.map(|results| results.as_ref().into()) };
    let batch = Batch { acknowledged: Some(acknowledged), ..batch };
    Ok((Outcome::Batch(batch), Some(Event::BatchAcknowledged { id: id.clone(), results: results.cloned() })))
}

fn find(view: &View<'_>, id: &BatchId) -> Result<Option<Batch>, LedgerError> {
    let Some(destination) = view.destination(&id.destination) else { return Ok(None) };
    Ok(view.batch((destination.id, id.number))?.map(|location| location.batch))
}
