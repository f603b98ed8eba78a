//! The rules that the entries of batches keep, for [`super::audit`].

use std::collections::HashMap;

use super::batch::{BatchId, BatchTerms};

/// What is known of batches after the entries so far.
#[derive(Debug, Default)]
pub(super) struct Batches {
    destinations: HashMap<String, Destination>,
    created: u64,
}

#[derive(Debug, Default)]
struct Destination {
    /// How many entries the newest batch had looked at.
    end: u64,
    batches: Vec<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    sealed: bool,
    acknowledged: bool,
}

/// The rule that an entry breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BrokenBatch {
    #[error("the batch {id} is cut, and the next one is number {next}")]
    Number { id: BatchId, next: usize },
    #[error("the batch {id} begins after entry {first}, and the one before it ended after {end}")]
    Begins { id: BatchId, first: u64, end: u64 },
    #[error("the batch {id} ends after entry {end}, and there are {entries} before it")]
    Ends { id: BatchId, end: u64, entries: u64 },
    #[error("the batch {id} has {certificates} certificates, and {issued} were issued")]
    Count { id: BatchId, certificates: u64, issued: u64 },
    #[error("there is no batch {0}")]
    Unknown(BatchId),
    #[error("the batch {0} is sealed twice")]
    SealedTwice(BatchId),
    #[error("the batch {0} is acknowledged twice")]
    AcknowledgedTwice(BatchId),
}

impl Batches {
    pub(super) fn created(&self) -> u64 {
        self.created
    }

    /// `entries` and `issued` are how many entries there are before this one, and how many certificates they record.
    pub(super) fn create(&mut self, terms: &BatchTerms, entries: u64, issued: u64) -> Result<(), BrokenBatch> {
        let id = || terms.id.clone();
        let destination = self.destinations.entry(terms.id.destination.clone()).or_default();
        let next = destination.batches.len() + 1;
        if terms.id.number as usize != next {
            return Err(BrokenBatch::Number { id: id(), next });
        }
        if terms.first != destination.end {
            return Err(BrokenBatch::Begins { id: id(), first: terms.first, end: destination.end });
        }
        if terms.end < terms.first || terms.end > entries {
            return Err(BrokenBatch::Ends { id: id(), end: terms.end, entries });
        }
        if terms.certificates > issued {
            return Err(BrokenBatch::Count { id: id(), certificates: terms.certificates, issued });
        }
        destination.end = terms.end;
        destination.batches.push(State::default());
        self.created += 1;
        Ok(())
    }

    pub(super) fn seal(&mut self, id: &BatchId) -> Result<(), BrokenBatch> {
        match std::mem::replace(&mut self.find(id)?.sealed, true) {
            false => Ok(()),
            true => Err(BrokenBatch::SealedTwice(id.clone())),
        }
    }

    pub(super) fn acknowledge(&mut self, id: &BatchId) -> Result<(), BrokenBatch> {
        match std::mem::replace(&mut self.find(id)?.acknowledged, true) {
            false => Ok(()),
            true => Err(BrokenBatch::AcknowledgedTwice(id.clone())),
        }
    }

    fn find(&mut self, id: &BatchId) -> Result<&mut State, BrokenBatch> {
        let destination = self.destinations.get_mut(&id.destination);
        let found = destination.and_then(|found| found.batches.get_mut((id.number as usize).checked_sub(1)?));
        found.ok_or_else(|| BrokenBatch::Unknown(id.clone()))
    }
}
