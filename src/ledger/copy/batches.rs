//! Destinations and their batches, for those who read.

use std::sync::Arc;

use super::{batch_history::History, batch_scan::BatchReader, records::CopyRecords};
use crate::ledger::{
    batch::{Batch, BatchId, BatchTerms, Destination, Filter},
    batch_content::{BatchContent, FoundBatch, NextBatch},
    entry::Event,
    error::LedgerError,
    head::ChainHash,
    journal::Position,
    overlay::BatchLocation,
};

impl CopyRecords {
    pub(super) fn known_destinations(&self) -> Vec<Arc<Destination>> {
        self.common.memory().destinations.values().cloned().collect()
    }

    fn location_of_batch(&self, id: &BatchId) -> Result<Option<(Arc<Destination>, BatchLocation)>, LedgerError> {
        let view = self.common.view();
        let Some(destination) = view.destination(&id.destination).cloned() else { return Ok(None) };
        Ok(view.batch((destination.id, id.number))?.map(|location| (destination, location)))
    }

    pub(super) fn find_batch(&self, id: &BatchId) -> Result<Option<Batch>, LedgerError> {
        Ok(self.location_of_batch(id)?.map(|(_, location)| location.batch))
    }

    pub(super) fn find_terms(&self, id: &BatchId) -> Result<Option<Arc<BatchTerms>>, LedgerError> {
        let Some((_, location)) = self.location_of_batch(id)? else { return Ok(None) };
        match self.common.journal.entry(location.position)?.event {
            Event::BatchCreated(terms) if terms.id == *id => Ok(Some(terms)),
            _ => Err(self.common.view().contradicted(format!("the batch {id} is not at {}", location.position))),
        }
    }

    /// Where a destination's batch of this number begins: place, entry and chain hash.
    fn beginning(&self, destination: &str, number: u32) -> Result<(Position, u64, ChainHash), LedgerError> {
        if number <= 1 {
            return Ok((Position::start(), 0, [0; 32]));
        }
        let before = BatchId { destination: destination.to_owned(), number: number - 1 };
        let lost = || self.common.view().contradicted(format!("it has lost the batch {before}"));
        let terms = self.find_terms(&before)?.ok_or_else(lost)?;
        Ok((Position::from_number(terms.end_place.to_number()), terms.end, terms.chain))
    }

    pub(super) fn open_next_batch(&self, name: &str, filter: &Filter) -> Result<NextBatch, LedgerError> {
        let known = self.common.memory().destinations.get(name).cloned();
        // One that has no batch yet has no number either.
        let destination = known.unwrap_or_else(|| Arc::new(Destination::new(0, name)));
        let number = destination.batches + 1;
        let begins = self.beginning(name, number)?;
        let (filter, from) = (filter.clone(), begins.0);
        let history = History { destination: Arc::clone(&destination), number, filter, from };
        let content = Box::new(BatchReader::new(&self.common, history, begins, self.common.end()));
        Ok(NextBatch { id: BatchId { destination: name.to_owned(), number }, destination, content })
    }

    pub(super) fn open_batch(&self, id: &BatchId) -> Result<Option<FoundBatch>, LedgerError> {
        let Some((destination, location)) = self.location_of_batch(id)? else { return Ok(None) };
        let Some(terms) = self.find_terms(id)? else { return Ok(None) };
        let begins = self.beginning(&id.destination, id.number)?;
        let history = History { destination, number: id.number, filter: terms.filter.clone(), from: begins.0 };
        let content: Box<dyn BatchContent> =
            Box::new(BatchReader::new(&self.common, history, begins, location.end_place));
        Ok(Some(FoundBatch { terms, batch: location.batch, content }))
    }
}
