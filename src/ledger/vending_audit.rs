//! The rules that the entries of vending codes keep, for [`super::audit`].

use std::collections::HashMap;

use jiff::Timestamp;

use super::vending::CreatedCodes;
use crate::hash::sha256;

/// What is known of vending codes after the entries so far.
#[derive(Debug, Default)]
pub(super) struct Codes {
    batches: u32,
    /// Each device's newest code: whether it was cancelled.
    devices: HashMap<[u8; 8], bool>,
}

/// The rule that an entry breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BrokenCode {
    #[error("the batch {batch} of vending codes is created, and the next one is number {next}")]
    Batch { batch: u32, next: u32 },
    #[error("a batch of vending codes is empty, or names a device twice")]
    Devices,
    #[error("vending codes are created that expired before, at {0}")]
    Expired(Timestamp),
    #[error("the device \"{0}\" has no vending code that could be cancelled")]
    NothingToCancel(String),
}

fn short(device: &str) -> [u8; 8] {
    sha256(device.as_bytes()).first_chunk().copied().unwrap_or_default()
}

impl Codes {
    pub(super) fn create(&mut self, created: &CreatedCodes, time: Timestamp) -> Result<(), BrokenCode> {
        let next = self.batches + 1;
        if created.batch != next {
            return Err(BrokenCode::Batch { batch: created.batch, next });
        }
        if created.terms.expires <= time {
            return Err(BrokenCode::Expired(created.terms.expires));
        }
        let devices: std::collections::BTreeSet<_> = created.terms.codes.iter().map(|code| &code.device).collect();
        if devices.is_empty() || devices.len() != created.terms.codes.len() {
            return Err(BrokenCode::Devices);
        }
        self.batches = next;
        self.devices.extend(devices.into_iter().map(|device| (short(device), false)));
        Ok(())
    }

    pub(super) fn cancel(&mut self, device: &str) -> Result<(), BrokenCode> {
        match self.devices.get_mut(&short(device)) {
            Some(cancelled @ false) => {
                *cancelled = true;
                Ok(())
            }
            _ => Err(BrokenCode::NothingToCancel(device.to_owned())),
        }
    }
}
