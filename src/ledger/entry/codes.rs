//! Vending codes as the journal has them.

use super::{convert::replaced, invalid::InvalidEntry};
use crate::ledger::{
    vending::{Cost, CreatedCodes, HashedCode, VendingTerms},
    wire::{self, from_micros, to_micros},
};

impl From<&CreatedCodes> for wire::VendingCodesCreated {
    fn from(created: &CreatedCodes) -> wire::VendingCodesCreated {
        let CreatedCodes { batch, terms: VendingTerms { order, expires, cost, codes }, replaces } = created;
        let codes = codes.iter().zip(replaces).map(|(code, replaces)| wire::VendingCode {
            device_id: code.device.clone(),
            salt: code.salt.to_vec(),
            hash: code.hash.to_vec(),
            replaces: replaces.map_or(Vec::new(), |replaced| replaced.as_bytes().to_vec()),
        });
        wire::VendingCodesCreated {
            batch: *batch,
            order: order.clone(),
            expires: to_micros(*expires),
            memory_kib: cost.memory_kib,
            passes: cost.passes,
            codes: codes.collect(),
        }
    }
}

impl TryFrom<wire::VendingCodesCreated> for CreatedCodes {
    type Error = InvalidEntry;

    fn try_from(created: wire::VendingCodesCreated) -> Result<CreatedCodes, InvalidEntry> {
        let (mut codes, mut replaces) = (Vec::with_capacity(created.codes.len()), Vec::new());
        for code in created.codes {
            replaces.push(replaced(&code.replaces)?);
            codes.push(HashedCode {
                device: code.device_id,
                salt: code.salt.as_slice().try_into().map_err(|_| InvalidEntry::VendingCode("salt"))?,
                hash: code.hash.as_slice().try_into().map_err(|_| InvalidEntry::VendingCode("hash"))?,
            });
        }
        let cost = Cost { memory_kib: created.memory_kib, passes: created.passes };
        let terms = VendingTerms { order: created.order, expires: from_micros(created.expires)?, cost, codes };
        Ok(CreatedCodes { batch: created.batch, terms, replaces })
    }
}
