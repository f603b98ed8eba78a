//! What refusals, and certificates after them, change: the first-pass yields.

use std::sync::Arc;

use super::ApplyError;
use crate::ledger::{
    actor::Actor,
    device_list::listed_hash,
    first_pass::{ALL_ORDERS, FirstPass, REFUSED_DEVICES, RefusedDevice, station_of},
    record::{Holder, RecordState},
    refused::{RefusalScope, RequestsRefused},
    view::View,
};

impl View<'_> {
    /// Requests were refused: devices that have had no certificate wait for their second pass.
    pub(super) fn refuse(&mut self, refused: &RequestsRefused, actor: &Actor) -> Result<(), ApplyError> {
        if refused.scope != RefusalScope::Device || refused.order.is_empty() {
            return Ok(());
        }
        let station = station_of(actor);
        refused.devices.iter().try_for_each(|device| self.refuse_device(&refused.order, device, &station))
    }

    fn refuse_device(&mut self, order: &str, device: &str, station: &Arc<str>) -> Result<(), ApplyError> {
        let key = listed_hash(order, device);
        let known = self.order(order)?.is_some_and(|location| location.order.refused_ever < REFUSED_DEVICES);
        if !known || self.refused_device(&key)?.is_some() || self.had_certificate(device)? {
            return Ok(());
        }
        self.draft.refused.insert(key, RefusedDevice { station: Arc::clone(station), passed: false });
        self.change_order(order, |location| {
            location.order.refused += 1;
            location.order.refused_ever += 1;
        })?;
        self.change_passes(order, station, |passes| passes.refused += 1)
    }

    /// Whether the device has, or had, a certificate: then it is not tried any more.
    fn had_certificate(&self, device: &str) -> Result<bool, ApplyError> {
        let Some(newest) = self.by_device(device)? else { return Ok(false) };
        Ok(self.location(&newest)?.is_some_and(|location| match location.state {
            RecordState::Abandoned => false,
            RecordState::Reserved => location.pending.as_ref().is_some_and(|pending| pending.replaces.is_some()),
            RecordState::Issued | RecordState::Confirmed | RecordState::Scrapped | RecordState::Revoked => true,
        }))
    }

    /// A device has its first certificate. `refused` is how many devices of its order wait for that after a refusal.
    pub(super) fn pass(&mut self, holder: &Holder, actor: &Actor, refused: u64) -> Result<(), ApplyError> {
        let Holder { order, device, .. } = holder;
        if order.is_empty() {
            return Ok(());
        }
        // Orders without a refused device, which most are, need no look-up.
        let key = (refused > 0).then(|| listed_hash(order, device));
        let waiting = key.map(|key| self.refused_device(&key)).transpose()?.flatten();
        let Some((key, waiting)) = key.zip(waiting.filter(|device| !device.passed)) else {
            return self.change_passes(order, &station_of(actor), |passes| passes.first += 1);
        };
        let station = Arc::clone(&waiting.station);
        self.draft.refused.insert(key, RefusedDevice { passed: true, ..waiting });
        self.change_order(order, |location| location.order.refused = location.order.refused.saturating_sub(1))?;
        self.change_passes(order, &station, |passes| {
            passes.refused = passes.refused.saturating_sub(1);
            passes.later += 1;
        })
    }

    fn change_passes(
        &mut self,
        order: &str,
        station: &Arc<str>,
        change: impl Fn(&mut FirstPass),
    ) -> Result<(), ApplyError> {
        for of in [order, ALL_ORDERS] {
            if !self.draft.passes.get(of).is_some_and(|stations| stations.contains_key(station)) {
                let before = self.first_pass(of, station)?;
                self.draft.passes.entry(of.to_owned()).or_default().insert(Arc::clone(station), before);
            }
            if let Some(passes) = self.draft.passes.get_mut(of).and_then(|stations| stations.get_mut(station)) {
                change(passes);
            }
        }
        Ok(())
    }
}
