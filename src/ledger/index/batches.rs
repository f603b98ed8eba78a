//! What the index knows of destinations, their batches, and what was scrapped or revoked.

use std::collections::BTreeMap;

use super::{Index, IndexError, Runs, batch_values, newest, of_kind, run};
use crate::{
    ledger::{
        batch::Destination,
        index::run::Kind,
        journal::Position,
        overlay::{BatchLocation, Detour, EndedKey},
    },
    serial::SerialNumber,
};

impl Index {
    /// All destinations, in the order of their numbers.
    pub(crate) fn destinations(&self) -> Result<Vec<Destination>, IndexError> {
        self.answer(|| {
            let mut destinations = Vec::new();
            // Numbers are without gaps.
            for id in 1.. {
                let Some(value) = self.database.get(&batch_values::destination_key(id))? else { break };
                let destination = batch_values::decode_destination(id, &value);
                destinations.push(destination.ok_or_else(|| self.malformed("a destination"))?);
            }
            Ok(destinations)
        })
    }

    /// A batch, by its destination's number and its own.
    pub(crate) fn batch(&self, of: (u32, u32)) -> Result<Option<BatchLocation>, IndexError> {
        self.answer(|| {
            let Some(value) = self.database.get(&batch_values::batch_key(of))? else { return Ok(None) };
            batch_values::decode_batch(&value).map(Some).ok_or_else(|| self.malformed("a batch"))
        })
    }

    /// How a certificate reached a destination, if it did not simply go out with the batch of its time.
    pub(crate) fn detour(&self, of: &(u32, SerialNumber)) -> Result<Option<Detour>, IndexError> {
        self.answer(|| {
            let Some(value) = self.database.get(&batch_values::detour_key(of))? else { return Ok(None) };
            batch_values::decode_detour(&value).map(Some).ok_or_else(|| self.malformed("a certificate of a batch"))
        })
    }

    /// Where a certificate that was scrapped or revoked was so first, or was confirmed before.
    pub(crate) fn ended(&self, runs: &Runs, key: &EndedKey) -> Result<Option<Position>, IndexError> {
        self.answer(|| Ok(newest(runs, Kind::Ended, &key.0)?.map(|value| run::position(&value))))
    }

    /// All of these from the first key to the last.
    pub(crate) fn ended_between(
        &self,
        runs: &Runs,
        (first, last): (&EndedKey, &EndedKey),
    ) -> Result<BTreeMap<EndedKey, Position>, IndexError> {
        self.answer(|| {
            let mut found = BTreeMap::new();
            for run in of_kind(runs, Kind::Ended) {
                run.range((&first.0, &last.0), &mut |key, value| {
                    let key = key.try_into().map_err(|_| self.malformed("a certificate that ended"))?;
                    found.insert(EndedKey(key), run::position(&value));
                    Ok(())
                })?;
            }
            Ok(found)
        })
    }
}
