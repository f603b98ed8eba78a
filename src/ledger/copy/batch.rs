//! A batch of operations: decided in order, written at once.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use jiff::Timestamp;

use super::state::{Common, head};
use crate::{
    ledger::{
        apply::ApplyError,
        claims::Claims,
        decide::decide,
        entry::{Entry, Event},
        error::LedgerError,
        index::{Applied, Index, IndexError},
        journal::{AppendError, Journal},
        operation::{Action, Operation, Outcome},
        overlay::Overlay,
        refusal::Refusal,
    },
    serial::SerialNumbers,
};

/// Decides batches, and writes what follows from them.
#[derive(Debug)]
pub(in crate::ledger) struct BatchWriter {
    pub(in crate::ledger) journal: Journal,
    pub(in crate::ledger) serial_numbers: SerialNumbers,
    pub(in crate::ledger) common: Arc<Common>,
    /// Whether what the entries claim is gathered for whoever makes them durable.
    pub(in crate::ledger) gathers_claims: bool,
}

impl BatchWriter {
    /// Decides each operation in order, lets `write` make the entries that were staged durable, and takes in what follows
    /// from them.
    ///
    /// # Errors
    /// Those of `write`, after which nothing of the batch is known here; and what keeps all of it from being decided.
    pub(in crate::ledger) fn commit(
        &mut self,
        now: Timestamp,
        operations: &[Operation],
        write: impl FnOnce(&mut Journal, &Written<'_>) -> Result<(), LedgerError>,
    ) -> Result<Vec<Outcome>, LedgerError> {
        // Before anything of this batch is durable: what fails here fails all of it.
        let common = Arc::clone(&self.common);
        let mut follower = common.follower();
        follower.flush_if_due(&common.catalog)?;

        // An operation that cannot be decided fails alone: the others are decided again without it.
        let mut failed = BTreeMap::new();
        let Decided { outcomes, draft, mut applied, claims } = loop {
            match self.decide_batch(now, operations, &failed, &follower.applied) {
                Ok(decided) => break decided,
                Err((index, error)) => {
                    self.journal.discard();
                    match index {
                        Some(index) if !error.is_fatal() => failed.insert(index, Arc::new(error)),
                        _ => return Err(error),
                    };
                }
            }
        };
        // Durable before any outcome leaves (invariant 1), a reservation before the HSM signs for it (invariant 2).
        write(&mut self.journal, &Written { outcomes: &outcomes, claims: &claims })?;

        applied.next = self.journal.end();
        applied.last = applied.last.map(|(position, _)| (position, *self.journal.chain()));
        if applied.next != follower.applied.next {
            common.clock().wrote(applied.newest_time);
        }
        let certificates = applied.certificates;
        follower.applied = applied;
        let mut memory = common.catalog.memory_mut();
        memory.absorb(draft);
        memory.end = self.journal.end();
        drop(memory);
        *common.head.write() = head(&self.journal);
        common.certificates.store(certificates, Ordering::Relaxed);
        Ok(outcomes)
    }

    /// Decides the operations that have not `failed` and stages their entries. An error comes with the operation that
    /// it concerns, if it is not the whole batch's.
    fn decide_batch(
        &mut self,
        now: Timestamp,
        operations: &[Operation],
        failed: &BTreeMap<usize, Arc<LedgerError>>,
        applied: &Applied,
    ) -> Result<Decided, (Option<usize>, LedgerError)> {
        let newest = applied.newest_time;
        let clock = self.common.clock().take(now);
        // Entries carry microseconds. Their times never decrease, and none has a time that cannot be.
        let time = match &clock {
            Some(Refusal::ClockImplausible { .. }) => newest,
            _ => to_microseconds(now).max(newest),
        };
        let space = self.common.space.refusal();

        let common = Arc::clone(&self.common);
        let mut view = common.view();
        let mut outcomes = Vec::with_capacity(operations.len());
        let mut applied = applied.clone();
        let mut claims = Claims::default();
        for (index, operation) in operations.iter().enumerate() {
            if let Some(error) = failed.get(&index) {
                outcomes.push(Outcome::Failed(Arc::clone(error)));
                continue;
            }
            if let Some(refusal) = self.common.may_lack.as_ref().filter(|_| gives(&operation.action)) {
                outcomes.push(Outcome::Refused(refusal.clone()));
                continue;
            }
            let decided = guarded(|| decide(&view, time, &mut self.serial_numbers, operation));
            let (outcome, event) = match decided {
                Ok(decision) => decision,
                Err(error @ LedgerError::Panicked) => return Err((Some(index), error)),
                Err(error) => (Outcome::Failed(Arc::new(error)), None),
            };
            let Some(event) = event else {
                outcomes.push(outcome);
                continue;
            };
            if let Some(refusal) = not_now(&event, clock.as_ref(), space.as_ref()) {
                outcomes.push(Outcome::Refused(refusal.clone()));
                continue;
            }
            let entry = Entry { time, actor: operation.actor.clone(), event };
            let position = match self.journal.stage(&entry) {
                Ok(position) => position,
                Err(AppendError::TooLarge { bytes, limit }) => {
                    outcomes.push(Outcome::Refused(Refusal::TooLarge { bytes, limit }));
                    continue;
                }
                Err(error) => return Err((None, error.into())),
            };
            if self.gathers_claims {
                claims.note(&view, &entry).map_err(|error| (Some(index), error))?;
            }
            guarded(|| view.apply(&entry, position).map_err(|error| contradiction(&view.memory.index, error)))
                .map_err(|error| (Some(index), error))?;
            applied.note(&entry);
            applied.last = Some((position, [0; 32]));
            outcomes.push(outcome);
        }
        Ok(Decided { outcomes, draft: view.into_draft(), applied, claims })
    }
}

/// A batch whose entries are staged.
struct Decided {
    outcomes: Vec<Outcome>,
    draft: Overlay,
    applied: Applied,
    claims: Claims,
}

/// What whoever makes a batch durable may want to know of it.
pub(in crate::ledger) struct Written<'b> {
    pub(in crate::ledger) outcomes: &'b [Outcome],
    /// Empty unless the ledger wants them.
    pub(in crate::ledger) claims: &'b Claims,
}

/// What keeps an event from being recorded now (invariant 10). The certificate of a reservation, its end and what
/// restricts a certificate are always recorded.
fn not_now<'r>(event: &Event, clock: Option<&'r Refusal>, space: Option<&'r Refusal>) -> Option<&'r Refusal> {
    match event {
        Event::Reserved { .. }
        | Event::ProofReserved { .. }
        | Event::OrderDevicesListed(_)
        | Event::RequestsRefused(_) => clock.or(space),
        Event::OrderCreated(_) | Event::BatchCreated(_) | Event::StationEnrolled(_) => clock,
        // At a time before the newest entry they do no harm: a checkpoint is evidence of what there is.
        Event::Checkpoint { .. }
        | Event::IssuerAdded { .. }
        | Event::Started { .. }
        | Event::Stopped { .. }
        | Event::ConfigurationLoaded { .. } => {
            clock.filter(|refusal| matches!(refusal, Refusal::ClockImplausible { .. }))
        }
        _ => None,
    }
}

/// Whether somebody asks for a certificate or an export: what a ledger that may lack its newest entries gave, or refused,
/// might contradict them.
fn gives(action: &Action) -> bool {
    matches!(action, Action::Reserve(_) | Action::Reissue(_) | Action::ReserveProof(_) | Action::CreateBatch(_))
}

/// Lets a panic, which is a bug, fail the one operation that met it.
fn guarded<T>(work: impl FnOnce() -> Result<T, LedgerError>) -> Result<T, LedgerError> {
    // What the work leaves half done is dropped with the batch's overlay.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(LedgerError::Panicked))
}

pub(in crate::ledger) fn to_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// A new entry was allowed, and does not fit what is known: then that comes from an index that is wrong.
fn contradiction(index: &Index, error: ApplyError) -> LedgerError {
    match error {
        ApplyError::Ledger(error) => error,
        ApplyError::Contradiction(what) => {
            let error = IndexError::Contradiction(what);
            index.fail(&error.to_string());
            error.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operation whose decision panics fails alone.
    #[test]
    fn operation_whose_decision_panics_fails_alone() {
        let work = || -> Result<(), LedgerError> { panic!("a bug") };
        assert!(matches!(guarded(work), Err(LedgerError::Panicked)));
        assert!(matches!(guarded(|| Ok(1)), Ok(1)));
    }
}
