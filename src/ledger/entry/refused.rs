//! Refused requests as the journal has them.

use super::invalid::InvalidEntry;
use crate::ledger::{
    refused::{RefusalScope, RequestsRefused},
    wire::{self, from_micros, to_micros},
};

impl From<&RequestsRefused> for wire::RequestsRefused {
    fn from(refused: &RequestsRefused) -> wire::RequestsRefused {
        let scope = match refused.scope {
            RefusalScope::Device => wire::RefusalScope::Device,
            RefusalScope::Order => wire::RefusalScope::Order,
            RefusalScope::Daemon => wire::RefusalScope::Daemon,
        };
        wire::RequestsRefused {
            order: refused.order.clone(),
            reason: refused.reason.clone(),
            scope: scope.into(),
            count: refused.count,
            devices: refused.devices.clone(),
            since: to_micros(refused.since),
            dropped: refused.dropped,
        }
    }
}

impl TryFrom<wire::RequestsRefused> for RequestsRefused {
    type Error = InvalidEntry;

    fn try_from(refused: wire::RequestsRefused) -> Result<RequestsRefused, InvalidEntry> {
        let scope = match refused.scope() {
            wire::RefusalScope::Device => RefusalScope::Device,
            wire::RefusalScope::Order => RefusalScope::Order,
            wire::RefusalScope::Daemon => RefusalScope::Daemon,
            wire::RefusalScope::Unspecified => return Err(InvalidEntry::NewerEvent),
        };
        Ok(RequestsRefused {
            order: refused.order,
            reason: refused.reason,
            scope,
            count: refused.count,
            devices: refused.devices,
            since: from_micros(refused.since)?,
            dropped: refused.dropped,
        })
    }
}
