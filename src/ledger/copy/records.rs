//! The side that reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    certificates::{Certificates, Exported},
    disk_space,
    state::Common,
};
use crate::{
    ledger::{
        actor::Actor,
        api::Records,
        approval::Approval,
        batch::{Batch, BatchId, BatchTerms, Destination, Filter},
        batch_content::{FoundBatch, NextBatch},
        clock::ClockBounds,
        device_list::ListPage,
        entry::Event,
        entry_tail::EntryTail,
        error::LedgerError,
        export::{Export, ExportId},
        first_pass::{ALL_ORDERS, FirstPass},
        head::Head,
        history::HistoryEntry,
        index::IndexError,
        issued_records::IssuedRecords,
        issuer::RecordedIssuer,
        journal::{Position, Reader},
        order::Order,
        overlay::StateChange,
        peer::EnrolledPeer,
        record::Record,
        revoked::{self, CaId, RevokedCertificate, RevokedKey},
        vending::{VendingBatch, VendingCode},
        view::View,
    },
    serial::SerialNumber,
};

/// After how many devices a page of a list ends.
const LIST_PAGE: usize = 512;

/// How long an error of the last batch makes the ledger unhealthy: callers may have stopped because of it, so that no
/// later batch would show that it is over.
const LAST_ERROR_STANDS: Duration = Duration::from_secs(30);

/// The side that reads; clones share it.
#[derive(Clone, Debug)]
pub struct CopyRecords {
    pub(super) common: Arc<Common>,
}

impl Records for CopyRecords {
    fn by_serial_number(&self, serial_number: &SerialNumber) -> Result<Option<Record>, LedgerError> {
        self.view().record(serial_number)
    }

    fn by_device(&self, device: &str) -> Result<Option<Record>, LedgerError> {
        let view = self.view();
        match view.by_device(device)? {
            Some(serial_number) => view.record(&serial_number),
            None => Ok(None),
        }
    }

    fn order(&self, id: &str) -> Result<Option<Order>, LedgerError> {
        Ok(self.view().order(id)?.map(|location| location.order))
    }

    fn orders(&self) -> Result<Vec<Order>, LedgerError> {
        self.view().orders()
    }

    fn first_pass(&self, order: Option<&str>) -> Result<BTreeMap<Arc<str>, FirstPass>, LedgerError> {
        self.view().first_passes(order.unwrap_or(ALL_ORDERS))
    }

    fn issued_under(&self, order: &str) -> Result<IssuedRecords, LedgerError> {
        let start = match (order, self.view().order(order)?) {
            // Without an order.
            ("", _) => Position::start(),
            (_, Some(location)) => location.created,
            (_, None) => return Ok(IssuedRecords::new(std::iter::empty())),
        };
        let end = self.common.memory().end;
        let certificates = Certificates::new(&self.common, order, start, end);
        let records = self.clone();
        Ok(IssuedRecords::new(certificates.map(move |found| found?.map(|record| records.as_it_is(record)).transpose())))
    }

    fn listed(&self, order: &str, from: Option<[u8; 8]>) -> Result<ListPage, LedgerError> {
        let Some(location) = self.view().order(order)? else { return Ok(ListPage::default()) };
        let start = from.map_or(location.created, Position::from_bytes).max(location.created);
        let mut page = ListPage::default();
        if location.order.listed == 0 {
            return Ok(page);
        }
        let end = self.common.memory().end;
        for frame in self.common.journal.frames(start, end) {
            let frame = frame?;
            if frame.position > location.listed {
                break;
            }
            if page.devices.len() >= LIST_PAGE {
                page.next = Some(frame.position.to_bytes());
                break;
            }
            if let Event::OrderDevicesListed(list) = frame.entry.event
                && list.order == order
            {
                page.devices.extend(list.devices);
            }
        }
        Ok(page)
    }

    fn exports(&self, order: &str) -> Result<Vec<Export>, LedgerError> {
        self.view().exports(order)
    }

    fn export(&self, id: &ExportId) -> Result<Option<Export>, LedgerError> {
        Ok(self.view().export(id)?.map(|location| location.export))
    }

    fn exported(&self, id: &ExportId) -> Result<IssuedRecords, LedgerError> {
        let view = self.view();
        let (Some(order), Some(export)) = (view.order(&id.order)?, view.export(id)?) else {
            return Ok(IssuedRecords::new(std::iter::empty()));
        };
        let before = view.export(&ExportId { number: id.number - 1, ..id.clone() })?;
        let start = before.map_or(order.created, |before| before.position);
        let certificates = Certificates::new(&self.common, &id.order, start, export.position);
        Ok(IssuedRecords::new(Exported::new(certificates, export)))
    }

    fn destinations(&self) -> Vec<Arc<Destination>> {
        self.known_destinations()
    }

    fn batch(&self, id: &BatchId) -> Result<Option<Batch>, LedgerError> {
        self.find_batch(id)
    }

    fn batch_terms(&self, id: &BatchId) -> Result<Option<Arc<BatchTerms>>, LedgerError> {
        self.find_terms(id)
    }

    fn batch_content(&self, id: &BatchId) -> Result<Option<FoundBatch>, LedgerError> {
        self.open_batch(id)
    }

    fn next_batch(&self, destination: &str, filter: &Filter) -> Result<NextBatch, LedgerError> {
        self.open_next_batch(destination, filter)
    }

    fn revoked(&self, ca: &CaId, hashes: RangeInclusive<u32>) -> Result<Vec<RevokedCertificate>, LedgerError> {
        let (first, last) = RevokedKey::range(ca, &hashes);
        // The lock is not held while the index is read; what is flushed meanwhile is in the overlays as well.
        let (index, runs, above) = {
            let memory = self.common.memory();
            let overlays: Vec<_> = memory.overlays().collect();
            let of_range = overlays.into_iter().rev().flat_map(|overlay| overlay.revoked.range(first..=last));
            let above: Vec<_> = of_range.map(|(key, value)| (*key, *value)).collect();
            (Arc::clone(&memory.index), memory.runs.clone(), above)
        };
        let mut found = index.revoked_between(&runs, (&first, &last))?;
        found.extend(above);
        let unreadable = || IndexError::Contradiction("what it knows of a revoked certificate cannot be".into());
        found.iter().map(|(key, value)| Ok(revoked::decode(key, value).ok_or_else(unreadable)?)).collect()
    }

    fn take_revocations(&self, ca: &CaId) -> BTreeSet<u16> {
        let concerns = |place: &([u8; 8], u16)| revoked::concerns(ca, place.0);
        if !self.common.memory().revocations.iter().any(concerns) {
            return BTreeSet::new();
        }
        self.common.catalog.memory_mut().revocations.extract_if(.., |place| concerns(place)).map(|(_, at)| at).collect()
    }

    fn crl_number(&self, ca: &CaId) -> Result<u64, LedgerError> {
        self.view().crl_number(ca)
    }

    fn vending_code(&self, device: &str) -> Result<Option<VendingCode>, LedgerError> {
        self.view().vending_code(device)
    }

    fn vending_batch(&self, number: u32) -> Result<Option<VendingBatch>, LedgerError> {
        self.view().vending_batch(number)
    }

    fn issuer(&self, id: u32) -> Option<Arc<RecordedIssuer>> {
        self.common.memory().issuers.get(&id).cloned()
    }

    fn issuers(&self) -> Vec<Arc<RecordedIssuer>> {
        self.common.memory().issuers.values().cloned().collect()
    }

    fn peer(&self, name: &Actor) -> Option<Arc<EnrolledPeer>> {
        self.common.memory().peers.get(&name.0).cloned()
    }

    fn peers(&self) -> Vec<Arc<EnrolledPeer>> {
        self.common.memory().peers.values().cloned().collect()
    }

    fn approvals(&self) -> Vec<Arc<Approval>> {
        self.common.memory().approvals.values().cloned().collect()
    }

    fn entries_after(&self, sequence: u64) -> Result<EntryTail, LedgerError> {
        let (mut position, mut next) = self.common.journal.file_of(sequence.saturating_add(1))?;
        let common = Arc::clone(&self.common);
        Ok(EntryTail::new(move |most| {
            let mut entries = Vec::new();
            for frame in common.journal.frames(position, common.end()) {
                let frame = frame?;
                if next > sequence {
                    entries.push((next, frame.entry));
                }
                (position, next) = (frame.next, next + 1);
                if entries.len() >= most {
                    break;
                }
            }
            Ok(entries)
        }))
    }

    fn sequence_before(&self, moment: Timestamp) -> Result<u64, LedgerError> {
        Ok(self.common.journal.sequence_before(moment)?)
    }

    fn history(&self, serial_number: &SerialNumber) -> Result<Vec<HistoryEntry>, LedgerError> {
        self.history_of(serial_number)
    }

    fn head(&self) -> Head {
        *self.common.head.read()
    }

    fn followed_checkpoint(&self) -> Option<Arc<str>> {
        self.common.followed_checkpoint.lock().clone()
    }

    fn looked(&self) -> Option<watch::Receiver<Option<Instant>>> {
        let looked = self.common.looked.subscribe();
        let shared = looked.borrow().is_some();
        shared.then_some(looked)
    }

    fn away(&self) -> Option<String> {
        self.common.away.lock().as_ref().map(|away| away.why.clone())
    }

    fn as_of(&self) -> Option<Timestamp> {
        self.common.away.lock().as_ref().map(|away| away.as_of)
    }
}

impl CopyRecords {
    /// Whether the ledger can reserve and record now; otherwise why not.
    ///
    /// # Errors
    /// What is in the way.
    pub fn healthy(&self) -> Result<(), String> {
        if let Some(away) = self.common.away.lock().clone() {
            return Err(away.why);
        }
        let last_error = self.common.last_error().clone();
        if let Some((_, why)) = last_error.filter(|(when, _)| when.elapsed() < LAST_ERROR_STANDS) {
            return Err(why);
        }
        if let Some(refusal) = &self.common.may_lack {
            return Err(refusal.to_string());
        }
        if let Some(refusal) = self.common.clock().refusal(Timestamp::now()) {
            return Err(refusal.to_string());
        }
        if let Some(why) = self.common.memory().index.failure() {
            return Err(IndexError::Rebuilding(why.to_owned()).to_string());
        }
        // One of two is enough.
        let faults: Vec<_> = self.common.homes.iter().map_while(|home| disk_space::fault(home)).collect();
        if faults.len() == self.common.homes.len() {
            return Err(faults.join("; "));
        }
        self.common.space.refusal().map_or(Ok(()), |refusal| Err(refusal.to_string()))
    }

    /// What is wrong with what was recorded, without being in the way of recording more.
    ///
    /// # Errors
    /// The damage that the scrub or a read has found, with file and byte.
    pub fn intact(&self) -> Result<(), String> {
        self.common.journal.known_damage().map_or(Ok(()), Err)
    }

    /// From now on the clock is judged by these bounds.
    pub(crate) fn set_clock_bounds(&self, bounds: ClockBounds) {
        self.common.clock().set_bounds(bounds);
    }

    /// Whether the mirror, if there is one, has all entries.
    ///
    /// # Errors
    /// Why it has not.
    pub fn mirrored(&self) -> Result<(), String> {
        let Some(state) = &self.common.mirror_state else { return Ok(()) };
        // One that nobody has written to since it went has not failed yet.
        let away = || self.common.homes.iter().find_map(|home| disk_space::fault(home));
        state.failure().or_else(away).map_or(Ok(()), Err)
    }

    pub(crate) fn journal(&self) -> &Reader {
        &self.common.journal
    }

    /// All of the journal before it is durable.
    pub(crate) fn end(&self) -> Position {
        self.common.end()
    }

    fn view(&self) -> View<'_> {
        self.common.view()
    }

    /// A certificate as it was issued, with what became of it since.
    fn as_it_is(&self, record: Record) -> Result<Record, LedgerError> {
        let view = self.view();
        match view.state_change(&record.serial_number)? {
            Some(StateChange { state, changed }) => {
                let changed = Some(view.change(&record.serial_number, changed)?);
                Ok(Record { state, changed, ..record })
            }
            None => Ok(record),
        }
    }
}
