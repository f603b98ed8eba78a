//! What others have appended, taken into the copy and held against it.

use std::sync::Arc;

use crate::{
    ledger::{
        copy::{FollowError, LedgerCopy},
        entry::{Entry, Event},
        error::LedgerError,
        journal::{Batch, Position, Scan, read_batch},
    },
    serial::SerialNumber,
};

use super::{
    database::Turn,
    error::SharedError,
    sql::{BatchRow, HeadRow},
};

/// The epoch of what an operator wrote.
const OPERATOR: u64 = 0;

/// How far the copy follows.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// The newest batch that the copy has.
    pub(super) known: u64,
    /// Reservations that have ended since somebody took notice.
    pub(super) ended: Vec<SerialNumber>,
    /// A batch of this daemon's own that may have been committed.
    awaited: Option<Awaited>,
    /// The server that showed what was read last has standbys, and may have shown what none of them has.
    pub(super) shown_with_standbys: bool,
    /// The newest checkpoint of another daemon, and its batch, until it is published.
    checkpoint: Option<(u64, Arc<str>)>,
}

#[derive(Debug)]
struct Awaited {
    batch: u64,
    epoch: u64,
    frames: Vec<u8>,
    arrived: bool,
}

impl Following {
    /// Takes in what was read: all that there is, unless that is more than a page.
    pub(super) fn take_in(&mut self, copy: &mut LedgerCopy, turn: &Turn) -> Result<(), LedgerError> {
        for row in &turn.rows {
            self.take_in_one(copy, row)?;
            self.shown_with_standbys = !turn.head.standbys.is_empty();
        }
        let (known, batch) = (self.known, turn.head.batch);
        // The rows were read after the head.
        if known < batch && turn.is_whole {
            let what = format!(
                "its table head names the batch {batch}, and its table journal has none after {known}: rows were removed"
            );
            return Err(SharedError::Differs { what }.fatal());
        }
        Ok(())
    }

    fn take_in_one(&mut self, copy: &mut LedgerCopy, row: &BatchRow) -> Result<(), LedgerError> {
        let differs = |what: String| SharedError::Differs { what: format!("the batch {}: {what}", row.batch) }.fatal();
        if row.batch != self.known + 1 {
            return Err(differs(format!("the one after {} is not there", self.known)));
        }
        if row.epoch != OPERATOR && !is_open(copy, row).map_err(differs)? {
            return Err(differs(format!("it was written in the epoch {}, which is over", row.epoch)));
        }
        let place = Position::from_number(row.place);
        let batch = Batch { first: row.first, place, frames: row.frames() };
        let (ended, mut checkpoint) = (&mut self.ended, None);
        copy.follow(batch, |entry| match &entry.event {
            Event::Issued { serial_number, .. }
            | Event::Abandoned { serial_number, .. }
            | Event::ProofIssued { serial_number, .. } => ended.push(*serial_number),
            Event::Checkpoint { note, .. } => checkpoint = Some(note.as_str().into()),
            _ => {}
        })
        .map_err(|error| match error {
            FollowError::Differs(what) => differs(what),
            FollowError::Ledger(error) => error,
        })?;
        if let Some(note) = checkpoint {
            self.checkpoint = Some((row.batch, note));
        }
        self.known = row.batch;
        if let Some(awaited) = self.awaited.as_mut().filter(|awaited| awaited.batch == row.batch) {
            awaited.arrived = awaited.epoch == row.epoch && awaited.frames == row.frames();
        }
        Ok(())
    }

    /// The newest checkpoint of another daemon, once all up to it is durable: one that is kept is evidence of what there was.
    pub(super) fn take_checkpoint(&mut self, durable: u64) -> Option<Arc<str>> {
        self.checkpoint.take_if(|(batch, _)| *batch <= durable).map(|(_, note)| note)
    }

    /// From now on it is noticed if this batch comes.
    pub(super) fn look_out(&mut self, batch: u64, epoch: u64, frames: Vec<u8>) {
        self.awaited = Some(Awaited { batch, epoch, frames, arrived: false });
    }

    /// Whether it has come; nobody looks out any more.
    pub(super) fn take_arrived(&mut self) -> bool {
        self.awaited.take().is_some_and(|awaited| awaited.arrived)
    }

    /// After all is taken in, the database has come to what the copy has come to.
    pub(super) fn check_head(&self, copy: &LedgerCopy, head: &HeadRow) -> Result<(), SharedError> {
        let journal = &copy.writer.journal;
        let here = (self.known, journal.next_sequence() - 1, *journal.chain());
        match here == (head.batch, head.sequence, head.chain) {
            true => Ok(()),
            false => Err(self.loss(copy, head)),
        }
    }

    /// A database never has less than the copy, and at the same batch the same.
    pub(super) fn check_witness(&self, copy: &LedgerCopy, head: &HeadRow) -> Result<(), SharedError> {
        match head.batch > self.known {
            true => Ok(()),
            false => self.check_head(copy, head),
        }
    }

    fn loss(&self, copy: &LedgerCopy, head: &HeadRow) -> SharedError {
        let entries = copy.writer.journal.next_sequence() - 1;
        if head.batch < self.known || head.sequence < entries {
            let what = format!(
                "this daemon's copy has {} batches ({entries} entries), and it has {} ({} entries)",
                self.known, head.batch, head.sequence
            );
            return lost(copy, head, what);
        }
        SharedError::Differs {
            what: format!("at the batch {} the entries up to number {entries} are others", head.batch),
        }
    }
}

/// A database that has less than the copy has lost it, unless what it has goes another way.
pub(super) fn lost(copy: &LedgerCopy, head: &HeadRow, what: String) -> SharedError {
    let scan = Scan::open(&copy.writer.journal.reader().folder());
    match scan.and_then(|scan| scan.chain_after(head.sequence)) {
        Ok(chain) if chain.unwrap_or_default() == head.chain => SharedError::Lost { what },
        Ok(_) => SharedError::Differs { what: format!("{what}, of which the last are others") },
        Err(error) => SharedError::Differs { what: format!("{what}; the copy cannot be read: {error}") },
    }
}

/// Whether a batch's epoch is open before it, or begins with it.
fn is_open(copy: &LedgerCopy, row: &BatchRow) -> Result<bool, String> {
    if copy.writer.common.memory().epochs.get(&row.epoch).is_some_and(|known| known.is_open()) {
        return Ok(true);
    }
    let begins = |entry: &Entry| matches!(entry.event, Event::Opened { epoch, .. } if epoch == row.epoch);
    let (entries, _) = read_batch(row.frames(), *copy.writer.journal.chain())?;
    Ok(entries.iter().any(begins))
}
