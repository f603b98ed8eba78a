//! Operations on a ledger without a daemon, as a station and an operator ask for them.

use std::sync::Arc;

use birthmark::{
    ledger::{
        Action, Actor, Batch, BatchId, BatchTerms, Filter, Holder, LedgerError, Moment, Operation, OrderTerms, Records,
        Withdrawal, embedded::EmbeddedRecords,
    },
    serial::SerialNumber,
};

/// What a station asks for.
pub(crate) fn operation(action: Action) -> Operation {
    Operation { actor: Actor("station:line1/t1".into()), action }
}

/// An open order of a million devices under the profile `p`.
pub(crate) fn terms(id: &str) -> OrderTerms {
    OrderTerms::new(id, "p", 1_000_000)
}

/// A device with this key under the order `o`.
pub(crate) fn holder(device: &str, key_hash: [u8; 32]) -> Holder {
    Holder { device: device.into(), key_hash, order: "o".into(), profile: "p".into(), issuer: "i".into(), issuer_id: 0 }
}

/// What the next batch of a destination is; "b" gets what is confirmed.
pub(crate) fn cut(records: &EmbeddedRecords, destination: &str) -> Arc<BatchTerms> {
    let moment = if destination == "b" { Moment::Confirmed } else { Moment::Issued };
    let filter = Filter { profiles: Vec::new(), orders: Vec::new(), moment };
    let mut next = records.next_batch(destination, &filter).unwrap();
    let mut certificates = 0;
    while let Some(page) = next.content.page().unwrap() {
        certificates += page.len() as u64;
    }
    let (withdrawn, end) = (next.content.withdrawals().unwrap().len() as u64, next.content.end());
    Arc::new(BatchTerms {
        id: next.id,
        first: end.first,
        end: end.end,
        end_place: end.place,
        filter,
        settings: "{}".into(),
        unfit: Vec::new(),
        again: Vec::new(),
        certificates,
        withdrawn,
        chain: end.chain,
    })
}

/// A batch, the serial numbers of its certificates, and what it withdraws.
pub(crate) type Content = (Batch, Vec<SerialNumber>, Vec<Withdrawal>);

/// All batches, each with what it has.
pub(crate) fn batches(records: &EmbeddedRecords) -> Result<Vec<Content>, LedgerError> {
    let mut all = Vec::new();
    for destination in records.destinations() {
        for number in 1..=destination.batches {
            let id = BatchId { destination: destination.name.clone(), number };
            let mut found = records.batch_content(&id)?.unwrap();
            let mut serials = Vec::new();
            while let Some(page) = found.content.page()? {
                serials.extend(page.iter().map(|member| member.record.serial_number));
            }
            let withdrawals = found.content.withdrawals()?;
            let withdrawals =
                withdrawals.iter().map(|serial| found.content.withdrawal(serial)).collect::<Result<Vec<_>, _>>()?;
            let counts = (serials.len() as u64, withdrawals.len() as u64);
            assert_eq!(counts, (found.terms.certificates, found.terms.withdrawn), "{id}");
            all.push((found.batch, serials, withdrawals));
        }
    }
    Ok(all)
}
