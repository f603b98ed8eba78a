//! The certificates of an order or an export, read from the part of the journal in which they were issued.

use std::{collections::HashMap, sync::Arc};

use super::state::Common;
use crate::{
    ledger::{
        entry::{Entry, Event},
        error::LedgerError,
        journal::{Frames, Position},
        overlay::{EndedKey, ExportLocation},
        record::{IssuedCertificate, Record, RecordState},
        recovery::Recovery,
    },
    serial::SerialNumber,
};

/// Reads an order's certificates from a part of the journal, each as it was issued.
pub(super) struct Certificates {
    order: String,
    frames: Frames,
    common: Arc<Common>,
    /// Reservations of that part whose certificate is still to come; none: of other orders.
    reserved: HashMap<SerialNumber, Option<Record>>,
}

impl Certificates {
    pub(super) fn new(common: &Arc<Common>, order: &str, from: Position, end: Position) -> Self {
        let frames = common.journal.frames(from, end);
        Certificates { order: order.to_owned(), frames, common: Arc::clone(common), reserved: HashMap::new() }
    }

    fn take(&mut self, entry: Entry) -> Result<Option<Record>, LedgerError> {
        let Entry { time, actor, event } = entry;
        match event {
            Event::Reserved { serial_number, holder, replaces } => {
                let (state, reserved_at) = (RecordState::Reserved, time);
                let ours = holder.order == self.order;
                let record =
                    Record { serial_number, state, holder, actor, reserved_at, issued: None, replaces, changed: None };
                self.reserved.insert(serial_number, ours.then_some(record));
            }
            Event::Recovered(Recovery { serial_number, certificate, holder, replaces, .. }) => {
                let (state, reserved_at) = (RecordState::Issued, time);
                let ours = holder.order == self.order;
                let issued = Some(IssuedCertificate { at: time, certificate });
                let record =
                    Record { serial_number, state, holder, actor, reserved_at, issued, replaces, changed: None };
                return Ok(ours.then_some(record));
            }
            Event::Issued { serial_number, certificate } => {
                let record = match self.reserved.remove(&serial_number) {
                    Some(record) => record,
                    // Reserved before the part begins.
                    None => self.common.view().record(&serial_number)?,
                };
                let issued = Some(IssuedCertificate { at: time, certificate });
                let ours = record.filter(|record| record.holder.order == self.order);
                return Ok(ours.map(|record| Record { state: RecordState::Issued, issued, changed: None, ..record }));
            }
            Event::Abandoned { serial_number, .. } => {
                self.reserved.remove(&serial_number);
            }
            _ => {}
        }
        Ok(None)
    }
}

impl Iterator for Certificates {
    type Item = Result<Option<Record>, LedgerError>;

    /// Reads one entry.
    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.frames.next()? {
            Ok(frame) => self.take(frame.entry),
            Err(error) => Err(error.into()),
        })
    }
}

/// The certificates of an export.
pub(super) struct Exported {
    certificates: Certificates,
    export: ExportLocation,
    seen: u64,
}

impl Exported {
    pub(super) fn new(certificates: Certificates, export: ExportLocation) -> Self {
        Exported { certificates, export, seen: 0 }
    }

    /// Whether it was live when the export was created.
    fn was_live(&self, record: &Record) -> Result<bool, LedgerError> {
        let ended = self.certificates.common.view().ended(&EndedKey::first_end(&record.serial_number))?;
        Ok(ended.is_none_or(|ended| ended > self.export.position))
    }
}

impl Iterator for Exported {
    type Item = Result<Option<Record>, LedgerError>;

    /// Reads one entry.
    fn next(&mut self) -> Option<Self::Item> {
        let Some(found) = self.certificates.next() else {
            let ExportLocation { export, position } = &self.export;
            let (seen, counted) = (std::mem::replace(&mut self.seen, export.certificates), export.certificates);
            let what = || format!("the export {} counts {counted} certificates and has {seen}", export.id);
            return (seen != counted)
                .then(|| Err(self.certificates.common.journal.contradiction(*position, &what()).into()));
        };
        let live = found.and_then(|found| {
            let Some(record) = found else { return Ok(None) };
            Ok(self.was_live(&record)?.then_some(record))
        });
        self.seen += u64::from(matches!(live, Ok(Some(_))));
        Some(live)
    }
}
