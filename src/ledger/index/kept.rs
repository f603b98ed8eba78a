//! What stays in memory when the index has it, read at a start.

use super::{Index, error::IndexError, peers, values};
use crate::ledger::{approval::Approval, epoch::Epoch, issuer::RecordedIssuer, peer::EnrolledPeer};

impl Index {
    /// All issuers, in the order of their ids.
    pub(in crate::ledger) fn issuers(&self) -> Result<Vec<RecordedIssuer>, IndexError> {
        self.answer(|| {
            let mut issuers = Vec::new();
            // Ids are without gaps.
            for id in 1.. {
                let Some(value) = self.database.get(&values::issuer_key(id))? else { break };
                issuers.push(values::decode_issuer(id, &value).ok_or_else(|| self.malformed("an issuer"))?);
            }
            Ok(issuers)
        })
    }

    /// All stations, operators and auditors, in the order of their numbers.
    pub(in crate::ledger) fn peers(&self) -> Result<Vec<EnrolledPeer>, IndexError> {
        self.answer(|| {
            let mut found = Vec::new();
            // Numbers are without gaps.
            for number in 1.. {
                let Some(value) = self.database.get(&peers::key(number))? else { break };
                found.push(peers::decode(number, &value).ok_or_else(|| self.malformed("a station"))?);
            }
            Ok(found)
        })
    }

    /// All epochs, in their order.
    pub(in crate::ledger) fn epochs(&self) -> Result<Vec<Epoch>, IndexError> {
        self.answer(|| {
            let mut found = Vec::new();
            // Numbers are without gaps.
            for number in 1.. {
                let Some(value) = self.database.get(&values::epoch_key(number))? else { break };
                found.push(serde_json::from_slice(&value).map_err(|_| self.malformed("an epoch"))?);
            }
            Ok(found)
        })
    }

    /// All requests for an approval, in their order.
    pub(in crate::ledger) fn approvals(&self) -> Result<Vec<Approval>, IndexError> {
        self.answer(|| {
            let mut found = Vec::new();
            // Numbers are without gaps.
            for number in 1.. {
                let Some(value) = self.database.get(&peers::approval_key(number))? else { break };
                let approval = peers::decode_approval(number, &value);
                found.push(approval.ok_or_else(|| self.malformed("a request for an approval"))?);
            }
            Ok(found)
        })
    }
}
