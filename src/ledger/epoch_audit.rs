//! The rules of epochs, for the audit of a journal.

use super::epoch::{tag, tag_of};
use crate::serial::SerialNumber;

/// What is known of the epochs.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    opened: u64,
    open: Vec<u64>,
}

/// The rule that an epoch breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BrokenEpoch {
    #[error("the epoch {epoch} begins, and the next one is {next}")]
    Number { epoch: u64, next: u64 },
    #[error("the epoch {0} ends, and is not open")]
    NotOpen(u64),
    #[error("the epoch {epoch} ends, and {serial_number}, which was reserved in it, is neither issued nor abandoned")]
    Reserved { epoch: u64, serial_number: SerialNumber },
    #[error("{0} is reserved in an epoch that is not open")]
    Closed(SerialNumber),
}

impl Epochs {
    pub(super) fn open(&mut self, epoch: u64) -> Result<(), BrokenEpoch> {
        let next = self.opened + 1;
        if epoch != next {
            return Err(BrokenEpoch::Number { epoch, next });
        }
        self.opened = epoch;
        self.open.push(epoch);
        Ok(())
    }

    /// `reserved` are the serial numbers that wait for a certificate.
    pub(super) fn end<'s>(
        &mut self,
        epoch: u64,
        mut reserved: impl Iterator<Item = &'s SerialNumber>,
    ) -> Result<(), BrokenEpoch> {
        let at = self.open.iter().position(|open| *open == epoch).ok_or(BrokenEpoch::NotOpen(epoch))?;
        if let Some(serial_number) = reserved.find(|serial| tag_of(serial) == tag(epoch)).copied() {
            return Err(BrokenEpoch::Reserved { epoch, serial_number });
        }
        self.open.remove(at);
        Ok(())
    }

    /// A serial number is given.
    pub(super) fn give(&self, serial: &SerialNumber) -> Result<(), BrokenEpoch> {
        let of_an_open_one = |epoch: &u64| tag(*epoch) == tag_of(serial);
        match self.open.is_empty() || self.open.iter().any(of_an_open_one) {
            true => Ok(()),
            false => Err(BrokenEpoch::Closed(*serial)),
        }
    }
}
