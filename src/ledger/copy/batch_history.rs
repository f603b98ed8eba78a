//! In which batch of a destination a certificate went out, as far as a batch of it is concerned.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::state::Common;
use crate::{
    ledger::{
        batch::{Destination, Filter, Moment, Place},
        batch_content::Withdrawal,
        error::LedgerError,
        journal::Position,
        overlay::{Detour, EndedKey, RecordLocation},
        record::{Holder, Record, RecordState},
    },
    serial::SerialNumber,
};

/// The batches of a destination before one of them.
pub(super) struct History {
    /// The destination; its batches after that one do not matter.
    pub(super) destination: Arc<Destination>,
    /// That batch's number.
    pub(super) number: u32,
    /// What it has to do with.
    pub(super) filter: Filter,
    /// Where it begins.
    pub(super) from: Position,
}

impl History {
    pub(super) fn name(&self) -> &str {
        &self.destination.name
    }

    /// Whether a certificate was meant by a batch of the time of its issue.
    pub(super) fn meant_when_issued(&self, holder: &Holder, issued: Position) -> bool {
        self.meant(holder, issued, Moment::Issued)
    }

    fn meant(&self, holder: &Holder, position: Position, moment: Moment) -> bool {
        let filter = self.destination.filter_at(Place::from_number(position.to_number()));
        filter.is_some_and(|filter| filter.moment == moment && filter.matches(&holder.profile, &holder.order))
    }

    /// Where certificates with serial numbers from `least` to `greatest` were scrapped or revoked first.
    pub(super) fn ended_between(
        common: &Common,
        least: &SerialNumber,
        greatest: &SerialNumber,
    ) -> Result<HashMap<SerialNumber, Position>, LedgerError> {
        let (first, last) = (EndedKey::confirmed(least), EndedKey::first_end(greatest));
        // The lock is not held while the index is read; what is flushed meanwhile is in the overlays as well.
        let (index, runs, above) = {
            let memory = common.memory();
            let above = memory.overlays().flat_map(|overlay| overlay.ended.range(first..=last));
            let above: Vec<_> = above.map(|(key, position)| (*key, *position)).collect();
            (Arc::clone(&memory.index), memory.runs.clone(), above)
        };
        let found = index.ended_between(&runs, (&first, &last))?;
        let of_first_end = |(key, position): (EndedKey, Position)| Some((key.of_first_end()?, position));
        Ok(found.into_iter().chain(above).filter_map(of_first_end).collect())
    }

    /// Where a certificate was scrapped or revoked first.
    pub(super) fn first_end(&self, common: &Common, serial: &SerialNumber) -> Result<Option<Position>, LedgerError> {
        common.view().ended(&EndedKey::first_end(serial))
    }

    /// Where a certificate was scrapped or revoked last, before `to`.
    pub(super) fn newest_end(
        &self,
        common: &Common,
        serial: &SerialNumber,
        to: Position,
    ) -> Result<Option<Position>, LedgerError> {
        let Some(first) = self.first_end(common, serial)?.filter(|first| *first < to) else { return Ok(None) };
        let newest = common.view().state_change(serial)?.map(|change| change.changed);
        Ok(newest.filter(|newest| *newest < to).or(Some(first)))
    }

    /// Where a certificate was confirmed, whatever became of it.
    fn confirmation(&self, common: &Common, serial: &SerialNumber) -> Result<Option<Position>, LedgerError> {
        let view = common.view();
        match view.state_change(serial)? {
            Some(change) if change.state == RecordState::Confirmed => Ok(Some(change.changed)),
            Some(_) => view.ended(&EndedKey::confirmed(serial)),
            None => Ok(None),
        }
    }

    /// When a certificate was confirmed before `to`, if the destination gets it for that.
    pub(super) fn confirmed_at(
        &self,
        common: &Common,
        serial: &SerialNumber,
        to: Position,
    ) -> Result<Option<Timestamp>, LedgerError> {
        if self.filter.moment == Moment::Issued {
            return Ok(None);
        }
        let Some(position) = self.confirmation(common, serial)?.filter(|position| *position < to) else {
            return Ok(None);
        };
        Ok(Some(common.journal.entry(position)?.time))
    }

    /// Where the entry is for which this batch would have a certificate, if it were live.
    pub(super) fn would_go_out(&self, common: &Common, serial: &SerialNumber) -> Result<Option<Position>, LedgerError> {
        let Some((location, holder)) = self.location(common, serial)? else { return Ok(None) };
        let place = match self.filter.moment {
            Moment::Confirmed => self.confirmation(common, serial)?,
            Moment::Issued => location.issued,
        };
        let went_out = |issued: Position| issued < self.from && self.meant_when_issued(&holder, issued);
        let fits = self.filter.matches(&holder.profile, &holder.order) && !location.issued.is_some_and(went_out);
        Ok(place.filter(|place| fits && *place >= self.from))
    }

    fn location(
        &self,
        common: &Common,
        serial: &SerialNumber,
    ) -> Result<Option<(RecordLocation, Holder)>, LedgerError> {
        let view = common.view();
        let Some(location) = view.location(serial)? else { return Ok(None) };
        let (holder, _) = view.holder(&location)?;
        Ok(Some((location, holder)))
    }

    /// The last batch, before this one, in which a certificate went out.
    pub(super) fn went_out(&self, common: &Common, serial: &SerialNumber) -> Result<Option<u32>, LedgerError> {
        let detour = common.view().detour(&(self.destination.id, *serial))?.unwrap_or_default();
        if let Some(again) = detour.again.iter().rev().find(|number| **number < self.number) {
            return Ok(Some(*again));
        }
        self.first_went_out(common, serial, &detour)
    }

    /// All batches, before this one, in which a certificate went out; ascending.
    pub(super) fn all_went_out(&self, common: &Common, serial: &SerialNumber) -> Result<Vec<u32>, LedgerError> {
        let detour = common.view().detour(&(self.destination.id, *serial))?.unwrap_or_default();
        let first = self.first_went_out(common, serial, &detour)?;
        Ok(first.into_iter().chain(detour.again.iter().copied().filter(|number| *number < self.number)).collect())
    }

    /// The batch that looked at the certificate's entry, if it went out in that.
    fn first_went_out(
        &self,
        common: &Common,
        serial: &SerialNumber,
        detour: &Detour,
    ) -> Result<Option<u32>, LedgerError> {
        let Some((location, holder)) = self.location(common, serial)? else { return Ok(None) };
        let confirmed = self.confirmation(common, serial)?;
        let first_end = self.first_end(common, serial)?;
        for (place, moment) in [(location.issued, Moment::Issued), (confirmed, Moment::Confirmed)] {
            let Some(place) = place.filter(|place| *place < self.from) else { continue };
            if !self.meant(&holder, place, moment) {
                continue;
            }
            let (number, end) = self.batch_at(common, place)?;
            if first_end.is_some_and(|ended| ended < end) {
                continue;
            }
            return Ok((detour.left_out != Some(number)).then_some(number));
        }
        Ok(None)
    }

    /// The batch that has looked at a place, and where it ends.
    pub(super) fn batch_at(&self, common: &Common, place: Position) -> Result<(u32, Position), LedgerError> {
        let end_of = |number: u32| {
            let found = common.view().batch((self.destination.id, number))?;
            let lost = || common.view().contradicted(format!("it has lost the batch {number} of {}", self.name()));
            Ok::<_, LedgerError>(found.ok_or_else(lost)?.end_place)
        };
        let (mut low, mut high) = (1, self.number.saturating_sub(1).max(1));
        while low < high {
            let middle = low + (high - low) / 2;
            if end_of(middle)? > place { high = middle } else { low = middle + 1 }
        }
        Ok((low, end_of(low)?))
    }

    /// A certificate that went out before, and was scrapped or revoked before `to`.
    pub(super) fn withdrawal(
        &self,
        common: &Common,
        serial: &SerialNumber,
        to: Position,
    ) -> Result<Withdrawal, LedgerError> {
        let contradicted = || common.view().contradicted(format!("{serial} is no withdrawal of {}", self.name()));
        let record = common.view().record(serial)?.ok_or_else(contradicted)?;
        let ended = self.newest_end(common, serial, to)?.ok_or_else(contradicted)?;
        let batch = self.went_out(common, serial)?.ok_or_else(contradicted)?;
        let change = common.view().change(serial, ended)?;
        let state = if change.revocation_reason.is_some() { RecordState::Revoked } else { RecordState::Scrapped };
        let replaced_by = self.replacement(common, &record, to)?;
        Ok(Withdrawal { record: Record { state, changed: None, ..record }, change, batch, replaced_by })
    }

    /// The certificate that a device got in place of another, before `to`.
    fn replacement(
        &self,
        common: &Common,
        replaced: &Record,
        to: Position,
    ) -> Result<Option<(SerialNumber, bytes::Bytes)>, LedgerError> {
        let mut next = common.view().by_device(&replaced.holder.device)?;
        // From the newest back: each names the one before it.
        while let Some(serial) = next.filter(|serial| *serial > replaced.serial_number) {
            let view = common.view();
            let Some(location) = view.location(&serial)? else { return Ok(None) };
            let before = view.holder(&location)?.1;
            if before == Some(replaced.serial_number) {
                let issued = location.issued.filter(|issued| *issued < to);
                let Some(record) = issued.map(|_| view.record(&serial)).transpose()?.flatten() else { return Ok(None) };
                return Ok(record.issued.map(|issued| (serial, issued.certificate)));
            }
            next = before;
        }
        Ok(None)
    }
}
