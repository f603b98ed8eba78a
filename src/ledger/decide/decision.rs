//! What a decision is.

use crate::ledger::{entry::Event, error::LedgerError, operation::Outcome, refusal::Refusal};

/// What follows from an operation: its outcome, and the event that must be recorded for it.
pub(crate) type Decision = (Outcome, Option<Event>);

pub(super) fn refuse(refusal: Refusal) -> Result<Decision, LedgerError> {
    Ok((Outcome::Refused(refusal), None))
}
