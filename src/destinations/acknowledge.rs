//! A platform's word that it has a batch.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    background::in_background,
    destination::Destinations,
    error::BatchError,
    results::{CertificateId, ResultReader, Said},
};
use crate::{
    hash::sha256,
    ledger::{Actor, Batch, BatchId, FailedCertificate, FoundBatch, Record, Results},
    serial::SerialNumber,
};

/// What a platform may refuse of one batch: more come from one cause, which is to be mended first.
const MOST_FAILED: usize = 10_000;

/// How many bytes of codes and messages an entry has at most.
const WORDS: usize = 700_000;

/// The longest code or message, in bytes.
const LONGEST_WORDS: usize = 256;

/// Results as they come, or that they broke off.
type Upload = mpsc::Receiver<Result<Bytes, ()>>;

/// Records that a batch's platform has it, and what it said, if that came back.
///
/// # Errors
/// There is no such batch; the results cannot be read, are of another batch, or not those of the first time.
pub(crate) async fn acknowledge(
    destinations: &Destinations,
    actor: Actor,
    id: BatchId,
    upload: Option<Upload>,
) -> Result<Batch, BatchError> {
    let results = match upload {
        None => None,
        Some(upload) => {
            let (context, of) = (destinations.clone(), id.clone());
            Some(Arc::new(in_background(move || read(&context, &of, upload)).await?))
        }
    };
    let by = actor.clone();
    let batch = destinations.committer.acknowledge_batch(actor, id, results).await?;
    let counts = batch.acknowledged.as_ref().and_then(|acknowledged| acknowledged.results);
    let counts = counts.map(|counts| (counts.registered, counts.already, counts.withdrawn, counts.failed));
    let (registered, already, withdrawn, failed) = counts.unwrap_or_default();
    tracing::info!(batch = %batch.id, registered, already, withdrawn, failed, %by, "acknowledged a batch");
    Ok(batch)
}

/// Reads results, and holds them against the batch.
fn read(destinations: &Destinations, id: &BatchId, mut upload: Upload) -> Result<Results, BatchError> {
    let unknown = || BatchError::BatchUnknown(id.clone());
    let batch = destinations.records.batch(id)?.ok_or_else(unknown)?;
    let of = batch.certificates + batch.withdrawn;
    let mut reader = ResultReader::new(of);
    while let Some(octets) = upload.blocking_recv() {
        reader.push(&octets.map_err(|()| BatchError::Results("the results broke off".into()))?)?;
    }
    let (said, sha256) = reader.finish()?;
    let mut counted = Counted::new(said);
    count(destinations, id, &mut counted)?;
    let Counted { said, registered, already, withdrawn, mut failed } = counted;
    if let Some(foreign) = said.keys().min() {
        let foreign = hex::encode(foreign);
        return Err(BatchError::Results(format!(
            "the results are not those of {id}: the certificate {foreign} is not in it as they say"
        )));
    }
    if failed.len() > MOST_FAILED {
        return Err(BatchError::TooManyFailed { failed: failed.len(), of, most: MOST_FAILED });
    }
    let longest = (WORDS / failed.len().max(1) / 2).min(LONGEST_WORDS);
    for certificate in &mut failed {
        shorten(&mut certificate.code, longest);
        shorten(&mut certificate.message, longest);
    }
    Ok(Results { sha256, registered, already, withdrawn, failed })
}

fn shorten(text: &mut String, longest: usize) {
    text.truncate(text.floor_char_boundary(longest));
}

/// What was said about certificates that are found in the batch.
struct Counted {
    said: HashMap<CertificateId, Said>,
    registered: u64,
    already: u64,
    withdrawn: u64,
    failed: Vec<FailedCertificate>,
}

impl Counted {
    fn new(said: HashMap<CertificateId, Said>) -> Self {
        Counted { said, registered: 0, already: 0, withdrawn: 0, failed: Vec::new() }
    }

    /// A certificate of the batch, or one that it withdraws.
    fn found(&mut self, record: &Record, is_withdrawal: bool) {
        let Some(issued) = &record.issued else { return };
        let id = sha256(&issued.certificate);
        match self.said.remove(&id) {
            Some(Said::Registered) if !is_withdrawal => self.registered += 1,
            Some(Said::Already) if !is_withdrawal => self.already += 1,
            Some(Said::Withdrawn) if is_withdrawal => self.withdrawn += 1,
            Some(Said::Failed { code, message }) => {
                self.failed.push(FailedCertificate { serial_number: record.serial_number, code, message });
            }
            // It is the other one, or foreign.
            Some(other) => drop(self.said.insert(id, other)),
            None => {}
        }
    }
}

/// Looks for all certificates of the batch.
fn count(destinations: &Destinations, id: &BatchId, counted: &mut Counted) -> Result<(), BatchError> {
    let found = destinations.records.batch_content(id)?;
    let FoundBatch { terms, mut content, .. } = found.ok_or_else(|| BatchError::BatchUnknown(id.clone()))?;
    let left_out: Vec<SerialNumber> = terms.unfit.iter().map(|unfit| unfit.serial_number).collect();
    while let Some(members) = content.page()? {
        for member in members.iter().filter(|member| !left_out.contains(&member.record.serial_number)) {
            counted.found(&member.record, false);
        }
    }
    for serial in &terms.again {
        if let Some(member) = content.member(serial)? {
            counted.found(&member.record, false);
        }
    }
    for serial in content.withdrawals()? {
        counted.found(&content.withdrawal(&serial)?.record, true);
    }
    Ok(())
}
