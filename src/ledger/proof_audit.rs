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
    #[error("a proof of possession is reserved for the issuer {0}, which was not added")]
    IssuerUnknown(u32),
    #[error("a proof of possession for {0}, which is not reserved for one")]
    NotReserved(SerialNumber),
}

impl Proofs {
    pub(super) fn reserved(&self) -> usize {
        self.reserved.len()
    }

    /// The serial numbers that wait for a certificate.
    pub(super) fn reservations(&self) -> impl Iterator<Item = &SerialNumber> {
        self.reserved.keys()
    }

    pub(super) fn issued(&self) -> u64 {
        self.issued
    }

    /// `issuers` is the number of those that were added, which have the ids from 1 on.
    pub(super) fn reserve(
        &mut self,
        serial: SerialNumber,
        terms: &ProofTerms,
        time: Timestamp,
        issuers: usize,
    ) -> Result<(), BrokenProof> {
        if !(1..=issuers).contains(&(terms.id.issuer_id as usize)) {
            return Err(BrokenProof::IssuerUnknown(terms.id.issuer_id));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(number: u8) -> SerialNumber {
        SerialNumber::try_from([number; SerialNumber::LENGTH].as_slice()).unwrap()
    }

    fn terms(issuer_id: u32, not_after: i64) -> ProofTerms {
        let id = ProofId { issuer_id, code: "0123456789abcdef".into() };
        ProofTerms { id, key_hash: [1; 32], not_after: Timestamp::from_second(not_after).unwrap() }
    }

    /// One valid proof of an issuer and a code, by an issuer that is known.
    #[test]
    fn proof_that_breaks_a_rule_is_named() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut proofs = Proofs::default();
        let mut reserve = |number, issuer, end, now| {
            proofs.reserve(serial(number), &terms(issuer, end), at(now), 2).map_err(|error| error.to_string())
        };
        assert_eq!(reserve(1, 1, 100, 0), Ok(()));
        assert!(reserve(2, 1, 100, 0).unwrap_err().contains("while the first is being made"));
        assert_eq!(reserve(2, 2, 100, 0), Ok(()));
        for unknown in [0, 3] {
            assert!(reserve(3, unknown, 100, 0).unwrap_err().contains("which was not added"));
        }
        assert_eq!(proofs.issue(&serial(1)), Ok(()));
        assert!(proofs.issue(&serial(1)).unwrap_err().to_string().contains("not reserved for one"));
        assert!(proofs.abandon(&serial(2)) && !proofs.abandon(&serial(2)));
        let mut again = |number, now| proofs.reserve(serial(number), &terms(1, 200), at(now), 2);
        assert!(again(4, 100).unwrap_err().to_string().contains("the first is valid until"));
        assert_eq!(again(4, 101), Ok(()));
        assert_eq!((proofs.reserved(), proofs.issued()), (1, 1));
    }
}
