//! A batch of operations: decided in order, written at once.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError},
};

use jiff::Timestamp;

use super::{EmbeddedLedger, contradiction, head};
use crate::ledger::{
    LedgerError, Operation, Outcome, Refusal,
    decide::decide,
    entry::{Entry, Event},
    index::Applied,
    journal::AppendError,
    layer::Layer,
};

impl EmbeddedLedger {
    pub(super) fn commit_batch(
        &mut self,
        now: Timestamp,
        operations: &[Operation],
    ) -> Result<Vec<Outcome>, LedgerError> {
        // Before anything of this batch is durable: what fails here fails all of it.
        let shared = Arc::clone(&self.shared);
        let mut follower = shared.follower();
        follower.sink_if_due(&shared.catalog)?;

        // An operation that cannot be decided fails alone: the others are decided again without it.
        let mut failed = BTreeMap::new();
        let Decided { outcomes, draft, mut applied } = loop {
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
        self.journal.commit()?;

        applied.next = self.journal.end();
        applied.last = applied.last.map(|(position, _)| (position, *self.journal.chain()));
        if applied.next != follower.applied.next {
            shared.clock().wrote(applied.newest_time);
        }
        follower.applied = applied;
        let mut memory = shared.catalog.memory_mut();
        memory.absorb(draft);
        memory.end = self.journal.end();
        drop(memory);
        *shared.head.write().unwrap_or_else(PoisonError::into_inner) = head(&self.journal);
        Ok(outcomes)
    }

    /// Decides the operations that have not `failed` and stages their entries. An error comes with the operation that it
    /// concerns, if it is not the whole batch's.
    fn decide_batch(
        &mut self,
        now: Timestamp,
        operations: &[Operation],
        failed: &BTreeMap<usize, Arc<LedgerError>>,
        applied: &Applied,
    ) -> Result<Decided, (Option<usize>, LedgerError)> {
        let newest = applied.newest_time;
        let clock = self.shared.clock().take(now);
        // Entries carry microseconds. Their times never decrease, and none has a time that cannot be.
        let time = match &clock {
            Some(Refusal::ClockImplausible { .. }) => newest,
            _ => to_microseconds(now).max(newest),
        };
        let space = self.shared.space.refusal();

        let shared = Arc::clone(&self.shared);
        let journal = self.journal.reader().clone();
        let mut view = shared.view(&journal, Layer::default());
        let mut outcomes = Vec::with_capacity(operations.len());
        let mut applied = applied.clone();
        for (index, operation) in operations.iter().enumerate() {
            if let Some(error) = failed.get(&index) {
                outcomes.push(Outcome::Failed(Arc::clone(error)));
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
            guarded(|| view.apply(&entry, position).map_err(|error| contradiction(&view.memory.index, error)))
                .map_err(|error| (Some(index), error))?;
            applied.note(&entry);
            applied.last = Some((position, [0; 32]));
            outcomes.push(outcome);
        }
        Ok(Decided { outcomes, draft: view.into_draft(), applied })
    }
}

/// A batch whose entries are staged.
struct Decided {
    outcomes: Vec<Outcome>,
    draft: Layer,
    applied: Applied,
}

/// What keeps an event from being recorded now. The certificate of a reservation, its end and what restricts a certificate
/// are always recorded.
fn not_now<'r>(event: &Event, clock: Option<&'r Refusal>, space: Option<&'r Refusal>) -> Option<&'r Refusal> {
    match event {
        Event::Reserved { .. } => clock.or(space),
        Event::OrderCreated(_) | Event::ExportCreated { .. } => clock,
        // At a time before the newest entry it does no harm, and it is evidence of what there is.
        Event::Checkpoint { .. } => clock.filter(|refusal| matches!(refusal, Refusal::ClockImplausible { .. })),
        _ => None,
    }
}

/// Lets a panic, which is a bug, fail the one operation that met it.
fn guarded<T>(work: impl FnOnce() -> Result<T, LedgerError>) -> Result<T, LedgerError> {
    // What the work leaves half done is dropped with the batch's layer.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(LedgerError::Panicked))
}

pub(super) fn to_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_while_deciding_fails_the_operation_alone() {
        let work = || -> Result<(), LedgerError> { panic!("a bug") };
        assert!(matches!(guarded(work), Err(LedgerError::Panicked)));
        assert!(matches!(guarded(|| Ok(1)), Ok(1)));
    }
}
