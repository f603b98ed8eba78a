//! Four eyes: nobody agrees to what he asked for himself, and an agreement is used once.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::decision::{Decision, refuse};
use crate::ledger::{
    actor::Actor, approval::Approval, entry::Event, error::LedgerError, operation::Outcome, refusal::Refusal,
    view::View,
};

/// For how long a request, and the agreement to it, may be used.
const VALID: Duration = Duration::from_hours(7 * 24);

fn is_open(approval: &Approval, now: Timestamp) -> bool {
    let age = Duration::try_from(now.duration_since(approval.requested.0)).unwrap_or_default();
    approval.used.is_none() && age < VALID
}

/// What somebody has agreed to may be done now, once; what nobody has agreed to yet is asked for, once.
pub(super) fn ask(view: &View<'_>, now: Timestamp, actor: &Actor, what: &str) -> Decision {
    let mut same = view.approvals().filter(|approval| approval.what == what && is_open(approval, now));
    let by = (now, actor.clone());
    if let Some(granted) = same.clone().find(|approval| approval.granted.is_some()) {
        let used = Arc::new(Approval { used: Some(by), ..Approval::clone(granted) });
        let event = Event::ApprovalUsed { number: granted.number };
        return (Outcome::Approval(used), Some(event));
    }
    if let Some(pending) = same.next() {
        return (Outcome::Approval(Arc::clone(pending)), None);
    }
    let number = view.approvals().map(|approval| approval.number).max().unwrap_or(0) + 1;
    let what = what.to_owned();
    let asked = Approval { number, what: what.clone(), requested: by, granted: None, used: None };
    (Outcome::Approval(Arc::new(asked)), Some(Event::ApprovalRequested { number, what }))
}

/// Agreeing again is a retry.
pub(super) fn grant(view: &View<'_>, now: Timestamp, actor: &Actor, number: u64) -> Result<Decision, LedgerError> {
    let Some(approval) = view.approvals().find(|approval| approval.number == number) else {
        return refuse(Refusal::ApprovalUnknown(number));
    };
    if !is_open(approval, now) {
        return refuse(Refusal::ApprovalOver { number, used: approval.used.is_some() });
    }
    if approval.requested.1 == *actor {
        return refuse(Refusal::ApprovalOwn { number, actor: actor.clone() });
    }
    if approval.granted.is_some() {
        return Ok((Outcome::Approval(Arc::clone(approval)), None));
    }
    let granted = Arc::new(Approval { granted: Some((now, actor.clone())), ..Approval::clone(approval) });
    Ok((Outcome::Approval(granted), Some(Event::ApprovalGranted { number })))
}
