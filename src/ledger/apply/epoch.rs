//! Epochs begin and end.

use std::sync::Arc;

use jiff::Timestamp;

use super::ApplyError;
use crate::{
    ledger::{
        epoch::{Epoch, tag, tag_of},
        view::View,
    },
    serial::SerialNumber,
};

impl View<'_> {
    /// A daemon begins to write.
    pub(super) fn open_epoch(&mut self, number: u64, daemon: &str, opened: Timestamp) -> Result<(), ApplyError> {
        let next = self.next_epoch();
        if number != next {
            return Err(ApplyError::Contradiction(format!("the epoch {number} begins, and the next one is {next}")));
        }
        let epoch = Epoch { number, daemon: daemon.to_owned(), opened, ended: None };
        self.draft.epochs.insert(number, Arc::new(epoch));
        Ok(())
    }

    /// Nothing of an epoch comes any more.
    pub(super) fn end_epoch(&mut self, number: u64, ended: Timestamp) -> Result<(), ApplyError> {
        let open = self.epochs().find(|epoch| epoch.number == number && epoch.is_open());
        let not_open = || ApplyError::Contradiction(format!("the epoch {number} ends, and is not open"));
        let epoch = Epoch { ended: Some(ended), ..Epoch::clone(open.ok_or_else(not_open)?) };
        if let Some(serial) = self.reservations_of(number)?.first() {
            let what = format!("the epoch {number} ends, and {serial} is still reserved in it");
            return Err(ApplyError::Contradiction(what));
        }
        self.draft.epochs.insert(number, Arc::new(epoch));
        Ok(())
    }

    /// Where epochs are open a serial number is given in one of them.
    pub(super) fn give_in_epoch(&self, serial: &SerialNumber) -> Result<(), ApplyError> {
        let mut open = self.epochs().filter(|epoch| epoch.is_open()).peekable();
        if open.peek().is_none() || open.any(|epoch| tag(epoch.number) == tag_of(serial)) {
            return Ok(());
        }
        Err(ApplyError::Contradiction(format!("{serial} is reserved in an epoch that is not open")))
    }
}
