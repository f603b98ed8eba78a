//! Records that are read from the ledger one entry at a time, so that their reader may pause.

use std::time::Instant;

use super::{error::LedgerError, record::Record};

/// Records, one after the other, read as they are asked for: all at once as an iterator, or page by page.
pub struct IssuedRecords {
    steps: Box<dyn Iterator<Item = Step> + Send>,
    /// What came after the last page.
    failed: Option<LedgerError>,
}

/// What reading one more entry of the ledger gives: a record, or none because the entry is about something else.
type Step = Result<Option<Record>, LedgerError>;

/// Some records, and whether there are more.
pub(crate) struct Page {
    pub(crate) records: Vec<Record>,
    pub(crate) last: bool,
}

impl IssuedRecords {
    pub(super) fn new(steps: impl Iterator<Item = Step> + Send + 'static) -> Self {
        IssuedRecords { steps: Box::new(steps), failed: None }
    }

    /// The next `most` records; fewer if it is `deadline` before, or if what follows cannot be read.
    ///
    /// # Errors
    /// Those of the storage, after all records before.
    pub(crate) fn page(&mut self, most: usize, deadline: Instant) -> Result<Page, LedgerError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut records = Vec::new();
        // The clock costs more than most steps.
        for step in 1_u32.. {
            match self.steps.next() {
                None => return Ok(Page { records, last: true }),
                Some(Ok(found)) => records.extend(found),
                Some(Err(error)) if records.is_empty() => return Err(error),
                Some(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
            }
            if records.len() >= most || (step.is_multiple_of(64) && Instant::now() >= deadline) {
                break;
            }
        }
        Ok(Page { records, last: false })
    }
}

impl Iterator for IssuedRecords {
    type Item = Result<Record, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.steps.find_map(Result::transpose)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        ledger::{Actor, Holder, RecordState},
        serial::SerialNumber,
    };

    fn record() -> Record {
        let text = String::new;
        Record {
            serial_number: SerialNumber::try_from(&[1; 20][..]).unwrap(),
            state: RecordState::Reserved,
            holder: Holder {
                device: text(),
                key_hash: [0; 32],
                order: text(),
                profile: text(),
                issuer: text(),
                issuer_id: 0,
            },
            actor: Actor::daemon(),
            reserved_at: Timestamp::UNIX_EPOCH,
            issued: None,
            replaces: None,
            changed: None,
        }
    }

    #[test]
    fn page_is_as_long_as_was_asked_for() {
        let mut records = IssuedRecords::new((0..10).flat_map(|_| [Ok(None), Ok(Some(record()))]));
        let later = Instant::now() + Duration::from_secs(600);
        let lengths: Vec<_> = (0..3).map(|_| records.page(4, later).unwrap()).collect();
        let lengths: Vec<_> = lengths.iter().map(|page| (page.records.len(), page.last)).collect();
        assert_eq!(lengths, [(4, false), (4, false), (2, true)]);
        let records = IssuedRecords::new((0..10).flat_map(|_| [Ok(None), Ok(Some(record()))]));
        assert_eq!(records.count(), 10);
    }

    #[test]
    fn page_before_damage_is_whole() {
        let damage = || LedgerError::Locked { folder: "x".into(), pid: None };
        let mut records = IssuedRecords::new([Ok(Some(record())), Err(damage())].into_iter());
        let later = Instant::now() + Duration::from_secs(600);
        let page = records.page(4, later).unwrap();
        assert_eq!((page.records.len(), page.last), (1, false));
        assert!(matches!(records.page(4, later), Err(LedgerError::Locked { .. })));
        assert!(records.page(4, later).unwrap().last);
    }

    /// A page without records stops when its time is up.
    #[test]
    fn page_without_records_stops_when_its_time_is_up() {
        let mut records = IssuedRecords::new((0..1000).map(|_| Ok(None)));
        let page = records.page(4, Instant::now()).unwrap();
        assert!(page.records.is_empty() && !page.last);
        let page = records.page(4, Instant::now() + Duration::from_secs(600)).unwrap();
        assert!(page.records.is_empty() && page.last);
    }
}
