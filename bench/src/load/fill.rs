//! A ledger with many certificates, made without a daemon.

use std::path::Path;

use anyhow::bail;
use birthmark::ledger::{
    Action, Actor, Holder, Ledger, Operation, OrderTerms, Outcome,
    embedded::{EmbeddedLedger, Settings},
};
use bytes::Bytes;
use jiff::Timestamp;

use crate::{console::progress, trial::ISSUER};

/// The order of the certificates that were there before.
const ORDER: &str = "earlier-order";

/// The most operations that share a sync; the daemon's committer has the same number.
const BATCH: u64 = 512;

/// Records this number of certificates for devices that do not exist: each is `certificate`, of the ledger's first issuer, or
/// something of the usual size.
pub(super) fn fill(folder: &Path, records: u64, certificate: Option<Vec<u8>>) -> anyhow::Result<()> {
    let (mut ledger, _) = EmbeddedLedger::open(folder, Timestamp::now(), &Settings::default())?;
    let terms = OrderTerms::new(ORDER, "device", records);
    ledger.commit(Timestamp::now(), &[operation(Action::CreateOrder(terms))])?;
    let issuer_id = u32::from(certificate.is_some());
    let certificate = Bytes::from(certificate.unwrap_or_else(|| vec![0x30; 520]));
    let bar = progress(records, "certificates");
    for first in (0..records).step_by(BATCH as usize) {
        let batch: Vec<_> =
            (first..records.min(first + BATCH)).map(|number| operation(reserve(number, issuer_id))).collect();
        let reserved = ledger.commit(Timestamp::now(), &batch)?;
        let record = |outcome| match outcome {
            Outcome::Reserved(serial_number) => {
                Ok(operation(Action::Record { serial_number, certificate: certificate.clone() }))
            }
            other => bail!("the ledger did not reserve: {other:?}"),
        };
        let batch = reserved.into_iter().map(record).collect::<anyhow::Result<Vec<_>>>()?;
        ledger.commit(Timestamp::now(), &batch)?;
        bar.set_position(first);
    }
    bar.finish_and_clear();
    Ok(ledger.close()?)
}

fn operation(action: Action) -> Operation {
    Operation { actor: Actor("station:line1/1".into()), action }
}

fn reserve(number: u64, issuer_id: u32) -> Action {
    Action::Reserve(Holder {
        device: format!("earlier-{number:010}"),
        key_hash: rand::random(),
        order: ORDER.into(),
        profile: "device".into(),
        issuer: ISSUER.into(),
        issuer_id,
    })
}
