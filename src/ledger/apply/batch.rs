//! What happens to batches.

use std::sync::Arc;

use jiff::Timestamp;

use super::ApplyError;
use crate::{
    ledger::{
        actor::Actor,
        batch::{Acknowledged, Batch, BatchId, BatchTerms, Destination, Results, Seal},
        journal::Position,
        overlay::{BatchLocation, EndedKey, RecordLocation},
        record::RecordState,
        view::View,
    },
    serial::SerialNumber,
};

impl View<'_> {
    /// Takes note of a batch.
    pub(super) fn create_batch(
        &mut self,
        terms: &BatchTerms,
        position: Position,
        (created_at, created_by): (Timestamp, &Actor),
    ) -> Result<(), ApplyError> {
        let BatchTerms { id, filter, unfit, again, .. } = terms;
        let mut destination = match self.destination(&id.destination) {
            Some(found) => Destination::clone(found),
            None => Destination::new(self.next_destination(), &id.destination),
        };
        if (id.number, terms.first) != (destination.batches + 1, destination.end) {
            let (next, end) = (destination.batches + 1, destination.end);
            let what = format!("the batch {id} begins after entry {}; the next is {next}, after {end}", terms.first);
            return Err(ApplyError::Contradiction(what));
        }
        if destination.eras.last().is_none_or(|(_, before)| before != filter) {
            destination.eras.push((destination.end_place, filter.clone()));
        }
        (destination.batches, destination.end, destination.end_place) = (id.number, terms.end, terms.end_place);
        if destination.unacknowledged == 0 {
            destination.oldest_unacknowledged = id.number;
        }
        destination.unacknowledged += 1;
        for serial in again {
            destination.retry.remove(serial);
            let mut detour = self.detour(&(destination.id, *serial))?.unwrap_or_default();
            detour.again.push(id.number);
            self.draft.detours.insert((destination.id, *serial), detour);
        }
        for unfit in unfit {
            let serial = unfit.serial_number;
            let mut detour = self.detour(&(destination.id, serial))?.unwrap_or_default();
            detour.left_out.get_or_insert(id.number);
            self.draft.detours.insert((destination.id, serial), detour);
            if self.ended(&EndedKey::first_end(&serial))?.is_none() {
                destination.retry.insert(serial);
            }
        }
        let batch = Batch {
            id: id.clone(),
            first: terms.first,
            end: terms.end,
            certificates: terms.certificates,
            withdrawn: terms.withdrawn,
            unfit: unfit.len() as u64,
            created_at,
            created_by: created_by.clone(),
            seal: None,
            acknowledged: None,
        };
        let location = BatchLocation { batch, position, end_place: Position::from_number(terms.end_place.to_number()) };
        self.draft.batches.insert((destination.id, id.number), location);
        self.draft.destinations.insert(id.destination.clone(), Arc::new(destination));
        Ok(())
    }

    fn next_destination(&self) -> u32 {
        let known = self.memory.destinations.keys().chain(self.draft.destinations.keys());
        known.collect::<std::collections::BTreeSet<_>>().len() as u32 + 1
    }

    /// A batch that there must be, and its destination.
    fn known_batch(&self, id: &BatchId) -> Result<(Arc<Destination>, BatchLocation), ApplyError> {
        let unknown = || ApplyError::Contradiction(format!("there is no batch {id}"));
        let destination = Arc::clone(self.destination(&id.destination).ok_or_else(unknown)?);
        let location = self.batch((destination.id, id.number))?.ok_or_else(unknown)?;
        Ok((destination, location))
    }

    /// The files of a batch were written for the first time.
    pub(super) fn seal_batch(&mut self, id: &BatchId, seal: &Seal) -> Result<(), ApplyError> {
        let (destination, mut location) = self.known_batch(id)?;
        location.batch.seal = Some(seal.clone());
        self.draft.batches.insert((destination.id, id.number), location);
        Ok(())
    }

    /// A batch's platform has it; what it refused comes again.
    pub(super) fn acknowledge_batch(
        &mut self,
        id: &BatchId,
        results: Option<&Results>,
        (at, by): (Timestamp, &Actor),
    ) -> Result<(), ApplyError> {
        let (destination, mut location) = self.known_batch(id)?;
        let mut destination = Destination::clone(&destination);
        location.batch.acknowledged = Some(Acknowledged { at, by: by.clone(), results: results.map(Into::into) });
        self.draft.batches.insert((destination.id, id.number), location);
        destination.unacknowledged = destination.unacknowledged.saturating_sub(1);
        while destination.oldest_unacknowledged <= destination.batches {
            let oldest = self.batch((destination.id, destination.oldest_unacknowledged))?;
            if oldest.is_none_or(|oldest| oldest.batch.acknowledged.is_none()) {
                break;
            }
            destination.oldest_unacknowledged += 1;
        }
        for failed in results.into_iter().flat_map(|results| &results.failed) {
            if self.ended(&EndedKey::first_end(&failed.serial_number))?.is_none() {
                destination.retry.insert(failed.serial_number);
            }
        }
        self.draft.destinations.insert(id.destination.clone(), Arc::new(destination));
        Ok(())
    }

    /// A live certificate is scrapped or revoked: what its last state was stays known, and no destination is to get it again.
    pub(super) fn note_end(&mut self, serial: &SerialNumber, before: &RecordLocation, ended: Position) {
        if let (RecordState::Confirmed, Some(confirmed)) = (before.state, before.changed) {
            self.draft.ended.insert(EndedKey::confirmed(serial), confirmed);
        }
        self.draft.ended.insert(EndedKey::first_end(serial), ended);
        let known =
            self.memory.destinations.values().filter(|known| !self.draft.destinations.contains_key(&known.name));
        let concerned = known.chain(self.draft.destinations.values()).filter(|found| found.retry.contains(serial));
        let concerned: Vec<_> = concerned.map(|found| Destination::clone(found)).collect();
        for mut destination in concerned {
            destination.retry.remove(serial);
            self.draft.destinations.insert(destination.name.clone(), Arc::new(destination));
        }
    }
}
