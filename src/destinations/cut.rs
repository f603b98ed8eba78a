//! Cutting a batch: what is new is read once, each certificate is held against what the platform takes, and the result is
//! recorded.

use std::sync::Arc;

use super::{
    background::in_background,
    describe::Describer,
    destination::{Destination, Destinations},
    error::BatchError,
};
use crate::{
    committer::CommitError,
    export::certificate::UnfitReason,
    ledger::{Actor, Batch, BatchContent, BatchEnd, BatchTerms, NextBatch, Refusal, UnfitDevice, Withdrawal},
    serial::SerialNumber,
};

/// How many devices a batch leaves out at most: more come from a wrong setting.
const MOST_UNFIT: usize = 1000;

/// How many of them an error names.
const EXAMPLES: usize = 5;

/// The longest reason that is recorded, in characters.
const LONGEST_REASON: usize = 300;

/// How many certificates come again in one batch; the rest come in the next one.
const MOST_AGAIN: usize = 20_000;

/// How often a batch is cut again because another came between.
const ATTEMPTS: usize = 10;

/// How many withdrawals a plan shows.
const SHOWN: usize = 1000;

/// Told how many entries are read.
pub(crate) type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// What a batch would have.
pub(crate) struct Cut {
    /// As it would be recorded.
    pub(crate) terms: BatchTerms,
    /// The first of its withdrawals.
    pub(crate) withdrawals: Vec<Withdrawal>,
}

/// What the destination's next batch would have.
///
/// # Errors
/// As for [`cut`].
pub(crate) async fn plan(
    destinations: &Destinations,
    destination: Arc<Destination>,
    progress: Progress,
) -> Result<Cut, BatchError> {
    let destinations = destinations.clone();
    in_background(move || read(&destinations, &destination, &*progress, SHOWN)).await
}

/// Cuts the destination's next batch.
///
/// # Errors
/// There is nothing new, too much is unfit, or the ledger cannot be read or changed.
pub(crate) async fn cut(
    destinations: &Destinations,
    destination: Arc<Destination>,
    actor: Actor,
    progress: Progress,
) -> Result<Batch, BatchError> {
    for _ in 0..ATTEMPTS {
        let (context, of, progress) = (destinations.clone(), Arc::clone(&destination), Arc::clone(&progress));
        let Cut { terms, .. } = in_background(move || read(&context, &of, &*progress, 0)).await?;
        if terms.certificates == 0 && terms.withdrawn == 0 {
            let (name, unfit) = (destination.name.clone(), terms.unfit.len());
            return Err(BatchError::Nothing { name, unfit });
        }
        match destinations.committer.create_batch(actor.clone(), Arc::new(terms)).await {
            Err(CommitError::Refused(Refusal::BatchOvertaken(_))) => {}
            Err(error) => return Err(error.into()),
            Ok(batch) => {
                tracing::info!(
                    batch = %batch.id,
                    certificates = batch.certificates,
                    withdrawn = batch.withdrawn,
                    unfit = batch.unfit,
                    by = %batch.created_by,
                    "cut a batch"
                );
                return Ok(batch);
            }
        }
    }
    Err(BatchError::Overtaken(destination.name.clone()))
}

/// What a platform would refuse.
struct Refused<'a> {
    destination: &'a Destination,
    unfit: Vec<UnfitDevice>,
}

impl Refused<'_> {
    fn add(&mut self, serial_number: SerialNumber, device: &str, reason: &UnfitReason) -> Result<(), BatchError> {
        let reason = reason.to_string().chars().take(LONGEST_REASON).collect();
        self.unfit.push(UnfitDevice { serial_number, device: device.to_owned(), reason });
        if self.unfit.len() <= MOST_UNFIT {
            return Ok(());
        }
        let first = self.unfit.iter().take(EXAMPLES).map(|unfit| format!("{}: {}", unfit.device, unfit.reason));
        let name = self.destination.name.clone();
        Err(BatchError::TooManyUnfit { name, most: MOST_UNFIT, first: first.collect() })
    }
}

/// Reads what the next batch would have, with the first `shown` of its withdrawals.
fn read(
    destinations: &Destinations,
    of: &Destination,
    progress: &dyn Fn(u64),
    shown: usize,
) -> Result<Cut, BatchError> {
    let NextBatch { id, destination, mut content } = destinations.records.next_batch(&of.name, &of.filter)?;
    let mut describer = Describer::new(&destinations.records);
    let mut refused = Refused { destination: of, unfit: Vec::new() };
    let mut certificates = 0;
    while let Some(members) = content.page()? {
        for member in members {
            let described = describer.describe(member)?;
            match of.settings.fitness(&described.certificate()) {
                Ok(()) => certificates += 1,
                Err(reason) => {
                    let record = &described.member().record;
                    refused.add(record.serial_number, &record.holder.device, &reason)?;
                }
            }
        }
        progress(content.end().end);
    }
    let again = again(&*content, &destination.retry, &mut describer, &mut refused)?;
    let withdrawn = content.withdrawals()?;
    let withdrawals = withdrawn.iter().take(shown).map(|serial| content.withdrawal(serial));
    let BatchEnd { first, end, place, chain } = content.end();
    let terms = BatchTerms {
        id,
        first,
        end,
        end_place: place,
        filter: of.filter.clone(),
        settings: of.settings.to_json(),
        unfit: refused.unfit,
        certificates: certificates + again.len() as u64,
        again,
        withdrawn: withdrawn.len() as u64,
        chain,
    };
    Ok(Cut { terms, withdrawals: withdrawals.collect::<Result<_, _>>()? })
}

/// What an earlier batch left out, or its platform refused, and fits now.
fn again(
    content: &dyn BatchContent,
    retry: &std::collections::BTreeSet<SerialNumber>,
    describer: &mut Describer,
    refused: &mut Refused<'_>,
) -> Result<Vec<SerialNumber>, BatchError> {
    let mut again = Vec::new();
    for serial in retry {
        let Some(member) = content.member(serial)? else { continue };
        let described = describer.describe(member)?;
        match refused.destination.settings.fitness(&described.certificate()) {
            Ok(()) if again.len() < MOST_AGAIN => again.push(*serial),
            Ok(()) => {}
            Err(reason) => refused.add(*serial, &described.member().record.holder.device, &reason)?,
        }
    }
    Ok(again)
}
