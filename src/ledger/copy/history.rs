//! What has happened to a certificate: the places of its entries, which the index knows, read in the journal.

use std::sync::Arc;

use super::{batch_history::History, records::CopyRecords};
use crate::{
    ledger::{
        batch::{BatchId, Destination, Filter, Moment, Place},
        entry::Event,
        error::LedgerError,
        export::ExportId,
        history::{Concern, HistoryEntry},
        journal::{Position, ReadFrame},
        overlay::{EndedKey, RecordLocation},
        record::RecordState,
    },
    serial::SerialNumber,
};

type Places = Vec<(Position, Concern)>;

impl CopyRecords {
    /// What has happened to a certificate, in the order of the entries; none if it has none.
    pub(super) fn history_of(&self, serial: &SerialNumber) -> Result<Vec<HistoryEntry>, LedgerError> {
        let view = self.common.view();
        let Some(location) = view.location(serial)? else { return Ok(Vec::new()) };
        let order = view.holder(&location)?.0.order;
        drop(view);
        let (mut places, ends) = self.own_places(serial, &location)?;
        self.exports_of(&order, &location, &ends, &mut places)?;
        for destination in self.known_destinations() {
            self.batches_of(&destination, serial, &ends, &mut places)?;
        }
        places.sort_by_key(|(position, _)| *position);
        let positions: Vec<_> = places.iter().map(|(position, _)| *position).collect();
        let sequences = self.common.journal.sequences(&positions)?;
        let read = places.into_iter().zip(sequences).map(|((position, concern), sequence)| {
            Ok(HistoryEntry { sequence, entry: self.common.journal.entry(position)?, concern })
        });
        read.collect()
    }

    /// Where the entries are that are about the certificate itself, and those of them that ended its life.
    fn own_places(
        &self,
        serial: &SerialNumber,
        location: &RecordLocation,
    ) -> Result<(Places, Vec<Position>), LedgerError> {
        let view = self.common.view();
        let first_end = view.ended(&EndedKey::first_end(serial))?;
        let confirmed = view.ended(&EndedKey::confirmed(serial))?;
        drop(view);
        let newest_end = location.changed.filter(|_| location.state != RecordState::Confirmed);
        let mut ends: Vec<_> = first_end.into_iter().chain(newest_end).collect();
        ends.dedup();
        let abandoned = match location.state {
            RecordState::Abandoned => self.abandoned_at(serial, location.reserved)?,
            _ => None,
        };
        let all = [Some(location.reserved), location.issued, confirmed, location.changed, first_end, abandoned];
        let mut all: Vec<_> = all.into_iter().flatten().collect();
        all.sort_unstable();
        all.dedup();
        Ok((all.into_iter().map(|position| (position, Concern::Subject)).collect(), ends))
    }

    /// Where a reservation was abandoned: soon after it was made, or at the start after a crash.
    fn abandoned_at(&self, serial: &SerialNumber, reserved: Position) -> Result<Option<Position>, LedgerError> {
        for frame in self.common.journal.frames(reserved, self.common.end()) {
            let ReadFrame { position, entry, .. } = frame?;
            if matches!(entry.event, Event::Abandoned { serial_number, .. } if serial_number == *serial) {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }

    /// The export of its order that the certificate went out in, of a version before there were destinations.
    fn exports_of(
        &self,
        order: &str,
        location: &RecordLocation,
        ends: &[Position],
        places: &mut Places,
    ) -> Result<(), LedgerError> {
        let view = self.common.view();
        let (Some(issued), Some(exports)) = (location.issued, view.order(order)?.map(|order| order.exports)) else {
            return Ok(());
        };
        for number in 1..=exports {
            let id = ExportId { order: order.to_owned(), number };
            let Some(export) = view.export(&id)? else { continue };
            if export.position > issued {
                if ends.iter().all(|end| *end > export.position) {
                    places.push((export.position, Concern::InExport(id)));
                }
                break;
            }
        }
        Ok(())
    }

    /// The batches of a destination that the certificate went out in, and those that withdrew it.
    fn batches_of(
        &self,
        destination: &Arc<Destination>,
        serial: &SerialNumber,
        ends: &[Position],
        places: &mut Places,
    ) -> Result<(), LedgerError> {
        let common = &self.common;
        let looked_at = Position::from_number(destination.end_place.to_number());
        // The filter is that of a next batch, which there is none of: past ones have their own.
        let filter = destination.filter_at(Place::from_number(looked_at.to_number())).cloned();
        let filter = filter.unwrap_or(Filter { profiles: Vec::new(), orders: Vec::new(), moment: Moment::Issued });
        let number = destination.batches + 1;
        let history = History { destination: Arc::clone(destination), number, filter, from: looked_at };
        let out = history.all_went_out(common, serial)?;
        let mut withdrawn = Vec::new();
        for end in ends.iter().filter(|end| **end < looked_at) {
            let batch = history.batch_at(common, *end)?.0;
            if out.iter().any(|before| *before < batch) && !withdrawn.contains(&batch) {
                withdrawn.push(batch);
            }
        }
        let id = |number: u32| BatchId { destination: destination.name.clone(), number };
        let concerns = out.iter().map(|number| (*number, Concern::InBatch(id(*number))));
        let concerns = concerns.chain(withdrawn.iter().map(|number| (*number, Concern::Withdrawn(id(*number)))));
        for (number, concern) in concerns {
            let view = common.view();
            let lost = || view.contradicted(format!("it has lost the batch {}", id(number)));
            let location = view.batch((destination.id, number))?.ok_or_else(lost)?;
            places.push((location.position, concern));
        }
        Ok(())
    }
}
