//! What is recorded of refused requests.

use super::decision::Decision;
use crate::ledger::{entry::Event, error::LedgerError, operation::Outcome, refused::RequestsRefused, view::View};

/// Only an order that there is is named: what peers make up fills neither journal nor index.
pub(super) fn note(view: &View<'_>, refused: &RequestsRefused) -> Result<Decision, LedgerError> {
    let mut refused = refused.clone();
    if !refused.order.is_empty() && view.order(&refused.order)?.is_none() {
        refused.order.clear();
    }
    Ok((Outcome::Noted, Some(Event::RequestsRefused(Box::new(refused)))))
}
