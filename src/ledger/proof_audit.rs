//! The rules that the entries of proofs of possession keep, for [`super::audit`].

use std::collections::HashMap;

use jiff::Timestamp;

use super::proof::{ProofId, ProofTerms};
use crate::serial::SerialNumber;

/// What is known of proofs of possession after the entries so far.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// Those whose certificate is still to come.
    reserved: HashMap<SerialNumber, ProofTerms>,
    /// When the newest of each CA and code expires.
    valid: HashMap<ProofId, Timestamp>,
    issued: u64,
}

/// The rule that an entry breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BrokenProof {
    #[error("a second proof of possession is reserved for the code {0} while the first is being made")]
    Twice(String),
    #[error("a second proof of possession is reserved for the code {code}; the first is valid until {not_after}")]
    Valid { code: String, not_after: Timestamp },
    #[error("a proof of possession for {0}, which is not reserved for one")]
    NotReserved(SerialNumber),
}

impl Proofs {
    pub(super) fn reserved(&self) -> usize {
        self.reserved.len()
    }

    pub(super) fn issued(&self) -> u64 {
        self.issued
    }

    pub(super) fn reserve(
        &mut self,
        serial: SerialNumber,
        terms: &ProofTerms,
        time: Timestamp,
    ) -> Result<(), BrokenProof> {
        let code = || terms.id.code.clone();
        if self.reserved.values().any(|reserved| reserved.id == terms.id) {
            return Err(BrokenProof::Twice(code()));
        }
        if let Some(not_after) = self.valid.get(&terms.id).copied().filter(|not_after| time <= *not_after) {
            return Err(BrokenProof::Valid { code: code(), not_after });
        }
        self.reserved.insert(serial, terms.clone());
        Ok(())
    }

    pub(super) fn issue(&mut self, serial: &SerialNumber) -> Result<(), BrokenProof> {
        let terms = self.reserved.remove(serial).ok_or(BrokenProof::NotReserved(*serial))?;
        self.valid.insert(terms.id, terms.not_after);
        self.issued += 1;
        Ok(())
    }

    /// Whether there was such a reservation.
    pub(super) fn abandon(&mut self, serial: &SerialNumber) -> bool {
        self.reserved.remove(serial).is_some()
    }
}
