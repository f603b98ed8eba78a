//! What may be in a batch of a destination, read in one pass over its part of the journal.
//!
//! Certificates that go out when they are confirmed are mostly confirmed soon after their issue: so what was issued lately is
//! remembered, and what is not is looked for together with its neighbours.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;

use super::{batch_history::History, state::Common};
use crate::{
    ledger::{
        batch::{Moment, Place},
        batch_content::{Backlog, BatchContent, BatchEnd, Member, Withdrawal},
        entry::{Entry, Event},
        error::LedgerError,
        head::ChainHash,
        journal::{Frames, Position, ReadFrame},
        record::{IssuedCertificate, Record, RecordState},
        recovery::Recovery,
    },
    serial::SerialNumber,
};

/// Entries in a page.
const PAGE: usize = 1024;

/// How many certificates that were issued and not confirmed yet are remembered.
const REMEMBERED: usize = 16_384;

/// What may be in a batch.
pub(super) struct BatchReader {
    common: Arc<Common>,
    history: History,
    first: u64,
    from: Position,
    to: Position,
    frames: Frames,
    entries: u64,
    chain: ChainHash,
    /// Reservations whose certificate is still to come.
    reserved: HashMap<SerialNumber, Record>,
    /// What was issued lately, if certificates go out when they are confirmed.
    recent: Recent,
    /// What was scrapped or revoked in this part: the newest entry.
    ended: BTreeMap<SerialNumber, Position>,
    /// What the platform refused of an earlier batch, as said in this part.
    failed: BTreeSet<SerialNumber>,
    /// What was found so far, for those who go on reading.
    backlog: Backlog,
    /// Up to where it counts.
    counted_to: Position,
    newly_ended: Vec<SerialNumber>,
}

/// Records of certificates by serial number, the newest of them.
#[derive(Default)]
struct Recent {
    records: HashMap<SerialNumber, (Record, Position)>,
    order: VecDeque<SerialNumber>,
}

impl Recent {
    fn insert(&mut self, record: Record, issued: Position) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.records.remove(&oldest);
        }
        self.order.push_back(record.serial_number);
        self.records.insert(record.serial_number, (record, issued));
    }
}

impl BatchReader {
    /// Reads from `from`, before which there are `first` entries with the hash `chain`, up to `to`.
    pub(super) fn new(
        common: &Arc<Common>,
        history: History,
        (from, first, chain): (Position, u64, ChainHash),
        to: Position,
    ) -> Self {
        let frames = common.journal.frames(from, to);
        BatchReader {
            common: Arc::clone(common),
            history,
            first,
            from,
            to,
            frames,
            entries: 0,
            chain,
            reserved: HashMap::new(),
            recent: Recent::default(),
            ended: BTreeMap::new(),
            failed: BTreeSet::new(),
            backlog: Backlog::default(),
            counted_to: from,
            newly_ended: Vec::new(),
        }
    }

    fn wants(&self, record: &Record) -> bool {
        self.history.filter.matches(&record.holder.profile, &record.holder.order)
    }

    /// Takes an entry, and gives what may go out because of it.
    fn take(&mut self, position: Position, entry: Entry) -> Result<Option<Member>, LedgerError> {
        let Entry { time, actor, event } = entry;
        let confirmed_later = self.history.filter.moment == Moment::Confirmed;
        match event {
            Event::Reserved { serial_number, holder, replaces } => {
                let (state, reserved_at) = (RecordState::Reserved, time);
                let record =
                    Record { serial_number, state, holder, actor, reserved_at, issued: None, replaces, changed: None };
                self.reserved.insert(serial_number, record);
            }
            Event::Abandoned { serial_number, .. } => drop(self.reserved.remove(&serial_number)),
            // Lost and found again: it goes out as if it were issued now.
            Event::Recovered(Recovery { serial_number, certificate, holder, replaces, .. }) => {
                if let Some(replaced) = replaces
                    && self.history.first_end(&self.common, &replaced)? == Some(position)
                {
                    self.note_end(replaced, position);
                }
                let (state, reserved_at) = (RecordState::Issued, time);
                let issued = Some(IssuedCertificate { at: time, certificate });
                let record =
                    Record { serial_number, state, holder, actor, reserved_at, issued, replaces, changed: None };
                if confirmed_later {
                    self.recent.insert(record, position);
                } else if self.wants(&record) {
                    return Ok(Some(Member { record, confirmed_at: None }));
                }
            }
            Event::Issued { serial_number, certificate } => {
                let record = match self.reserved.remove(&serial_number) {
                    Some(record) => Some(record),
                    // Reserved before this part begins.
                    None => self.common.view().record(&serial_number)?,
                };
                let Some(record) = record else { return Ok(None) };
                let issued = Some(IssuedCertificate { at: time, certificate });
                let record = Record { state: RecordState::Issued, issued, changed: None, ..record };
                if confirmed_later {
                    self.recent.insert(record, position);
                } else if self.wants(&record) {
                    return Ok(Some(Member { record, confirmed_at: None }));
                }
            }
            Event::Confirmed { serial_number, .. } if confirmed_later => {
                return self.confirmed(serial_number, time);
            }
            Event::Scrapped { serial_number, .. } | Event::Revoked { serial_number, .. } => {
                self.note_end(serial_number, position);
            }
            Event::BatchAcknowledged { id, results: Some(results) } if id.destination == self.history.name() => {
                self.failed.extend(results.failed.iter().map(|failed| failed.serial_number));
            }
            _ => {}
        }
        Ok(None)
    }

    /// What was scrapped or revoked may have to be withdrawn.
    fn note_end(&mut self, serial: SerialNumber, position: Position) {
        if self.ended.insert(serial, position).is_none() {
            self.newly_ended.push(serial);
        }
    }

    /// A certificate that goes out because it was confirmed, unless it did when it was issued.
    fn confirmed(&mut self, serial: SerialNumber, time: Timestamp) -> Result<Option<Member>, LedgerError> {
        if !self.recent.records.contains_key(&serial) {
            self.remember_neighbours(&serial)?;
        }
        let Some((record, issued)) = self.recent.records.remove(&serial) else { return Ok(None) };
        let went_out = issued < self.from && self.history.meant_when_issued(&record.holder, issued);
        let member = Member { record, confirmed_at: Some(time) };
        Ok((self.wants(&member.record) && !went_out).then_some(member))
    }

    /// Reads a certificate, and those that were issued at about its time.
    fn remember_neighbours(&mut self, serial: &SerialNumber) -> Result<(), LedgerError> {
        let view = self.common.view();
        let Some(location) = view.location(serial)? else { return Ok(()) };
        let Some(issued) = location.issued else { return Ok(()) };
        drop(view);
        let mut reserved = HashMap::new();
        for frame in self.common.journal.frames(location.reserved, self.to).take(PAGE) {
            let ReadFrame { position, entry: Entry { time, actor, event }, .. } = frame?;
            match event {
                Event::Reserved { serial_number, holder, replaces } => {
                    let (state, reserved_at, issued) = (RecordState::Reserved, time, None);
                    let record =
                        Record { serial_number, state, holder, actor, reserved_at, issued, replaces, changed: None };
                    reserved.insert(serial_number, record);
                }
                Event::Issued { serial_number, certificate } => {
                    let Some(record) = reserved.remove(&serial_number) else { continue };
                    let issued = Some(IssuedCertificate { at: time, certificate });
                    self.recent.insert(Record { state: RecordState::Issued, issued, ..record }, position);
                }
                _ => {}
            }
        }
        if !self.recent.records.contains_key(serial)
            && let Some(record) = self.common.view().record(serial)?
        {
            self.recent.insert(Record { state: RecordState::Issued, changed: None, ..record }, issued);
        }
        Ok(())
    }

    /// Without those that were scrapped or revoked where the batch is cut.
    fn live(&self, mut candidates: Vec<Member>) -> Result<Vec<Member>, LedgerError> {
        let serials = candidates.iter().map(|member| member.record.serial_number);
        let (Some(least), Some(greatest)) = (serials.clone().min(), serials.max()) else { return Ok(Vec::new()) };
        let ended = History::ended_between(&self.common, &least, &greatest)?;
        let is_live = |member: &Member| ended.get(&member.record.serial_number).is_none_or(|ended| *ended >= self.to);
        candidates.retain(is_live);
        Ok(candidates)
    }

    /// Takes out what waited and was scrapped or revoked meanwhile, and counts what is to be withdrawn.
    fn count_ended(&mut self) -> Result<(), LedgerError> {
        for serial in std::mem::take(&mut self.newly_ended) {
            // What was read at the same time was not counted.
            if self.history.would_go_out(&self.common, &serial)?.is_some_and(|place| place < self.counted_to) {
                self.backlog.certificates = self.backlog.certificates.saturating_sub(1);
            } else if self.history.went_out(&self.common, &serial)?.is_some() {
                self.backlog.withdrawals += 1;
            }
        }
        Ok(())
    }
}

impl BatchContent for BatchReader {
    fn page(&mut self) -> Result<Option<Vec<Member>>, LedgerError> {
        let mut candidates = Vec::new();
        for read in 0..PAGE {
            let Some(frame) = self.frames.next() else {
                if read == 0 {
                    return Ok(None);
                }
                break;
            };
            let ReadFrame { position, chain, entry, .. } = frame?;
            self.entries += 1;
            self.chain = chain;
            candidates.extend(self.take(position, entry)?);
        }
        let members = self.live(candidates)?;
        self.backlog.certificates += members.len() as u64;
        if let (None, Some(first)) = (self.backlog.oldest, members.first()) {
            let issued = first.record.issued.as_ref().map(|issued| issued.at);
            self.backlog.oldest = first.confirmed_at.or(issued);
        }
        Ok(Some(members))
    }

    fn end(&self) -> BatchEnd {
        BatchEnd {
            first: self.first,
            end: self.first + self.entries,
            place: Place::from_number(self.to.to_number()),
            chain: self.chain,
        }
    }

    fn member(&self, serial: &SerialNumber) -> Result<Option<Member>, LedgerError> {
        let view = self.common.view();
        let Some(record) = view.record(serial)? else { return Ok(None) };
        drop(view);
        if record.issued.is_none() || self.history.first_end(&self.common, serial)?.is_some_and(|end| end < self.to) {
            return Ok(None);
        }
        let record = Record { state: RecordState::Issued, changed: None, ..record };
        Ok(Some(Member { confirmed_at: self.history.confirmed_at(&self.common, serial, self.to)?, record }))
    }

    fn withdrawals(&self) -> Result<Vec<SerialNumber>, LedgerError> {
        let mut found = Vec::new();
        for (serial, position) in &self.ended {
            if self.history.went_out(&self.common, serial)?.is_some() {
                found.push((*position, *serial));
            }
        }
        for serial in self.failed.iter().filter(|serial| !self.ended.contains_key(serial)) {
            let newest = self.history.newest_end(&self.common, serial, self.to)?;
            if let Some(position) = newest
                && self.history.went_out(&self.common, serial)?.is_some()
            {
                found.push((position, *serial));
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, serial)| serial).collect())
    }

    fn withdrawal(&self, serial: &SerialNumber) -> Result<Withdrawal, LedgerError> {
        self.history.withdrawal(&self.common, serial, self.to)
    }

    fn go_on(&mut self) -> Result<Backlog, LedgerError> {
        self.count_ended()?;
        if self.backlog.certificates == 0 {
            self.backlog.oldest = None;
        }
        self.counted_to = self.to;
        let end = self.common.end();
        if end > self.to {
            let from = self.to;
            self.frames = self.common.journal.frames(from, end);
            self.to = end;
        }
        Ok(self.backlog)
    }
}

#[cfg(test)]
mod tests;
