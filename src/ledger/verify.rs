//! The whole journal, verified: every byte, the rules that its entries keep, and its checkpoints.

use std::collections::VecDeque;

use jiff::Timestamp;

pub use super::audit::Counts;
use super::{
    acceptance::Agreed,
    actor::Actor,
    audit::Audit,
    checkpoint::{InvalidCheckpoint, SignedCheckpoint},
    entry::{Entry, Event},
    head::ChainHash,
    journal::{JournalError, Scan, ScannedFrame, TornEnd},
};
use crate::signer::PublicKey;

/// What the journal is compared with, and how much of it is verified.
#[derive(Debug, Default)]
pub struct VerifyOptions {
    /// The audit keys, now and before. With none, checkpoints are compared with the chain, and their signatures not
    /// verified.
    pub keys: Vec<PublicKey>,
    /// A checkpoint that was kept elsewhere, and where it comes from: shows that the journal was cut short.
    pub reference: Option<(String, SignedCheckpoint)>,
    /// Whether only checksums, chain and checkpoints are verified, not the rules of the entries: in constant memory.
    pub chain_only: bool,
}

/// What a journal that passed is.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The journal's id.
    pub id: [u8; 16],
    /// How many files it has.
    pub files: usize,
    /// How many bytes were verified.
    pub bytes: u64,
    /// How many entries it has: the sequence number of the last.
    pub entries: u64,
    /// The chain hash after the last.
    pub chain: ChainHash,
    /// The time of the newest entry.
    pub newest: Option<Timestamp>,
    /// Counts of the entries; all zero but the checkpoints if only the chain was verified.
    pub counts: Counts,
    /// The newest checkpoint by a trusted key, in the journal or the reference.
    pub trusted: Option<Covered>,
    /// The extraordinary entries, in their order.
    pub remarks: Vec<Remark>,
    /// What cannot be read at the very end; the daemon cuts it off at its next start.
    pub torn: Option<TornEnd>,
}

/// An entry that an auditor must see: a checkpoint without the ones before it, a loss or a clock that an operator accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The entry's sequence number.
    pub sequence: u64,
    /// Its time.
    pub time: Timestamp,
    /// Who caused it.
    pub actor: Actor,
    /// What it states.
    pub what: String,
}

impl Remark {
    fn from_frame(frame: &ScannedFrame) -> Option<Remark> {
        let what = match &frame.entry.event {
            Event::Checkpoint { earlier_checkpoints_lost: true, .. } => {
                "earlier checkpoints are lost: the entries up to here were compared with none".to_owned()
            }
            Event::LossAccepted { what, reason, agreed } => {
                format!("loss accepted ({reason}{}): {what}", with(agreed.as_deref()))
            }
            Event::ClockAccepted { reason, agreed } => {
                format!("clock accepted ({reason}{}): later entries may have earlier times", with(agreed.as_deref()))
            }
            _ => return None,
        };
        let Entry { time, actor, .. } = &frame.entry;
        Some(Remark { sequence: frame.sequence, time: *time, actor: actor.clone(), what })
    }
}

/// Who agreed, if somebody had to.
fn with(agreed: Option<&Agreed>) -> String {
    agreed.map(|agreed| format!("; agreed to by {}", agreed.names())).unwrap_or_default()
}

/// Up to where a trusted key vouches for the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// The last entry that the checkpoint covers.
    pub sequence: u64,
    /// When it was signed.
    pub time: Timestamp,
}

/// Why a journal did not pass.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Damage, or entries that contradict each other.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A checkpoint knows more entries than there are.
    #[error(
        "the journal was cut short: the checkpoint {reference} of {time} knows {known} entries, the journal has \
         {entries}"
    )]
    CutShort {
        /// Where the checkpoint comes from.
        reference: String,
        /// When it was signed.
        time: Timestamp,
        /// How many entries it knows.
        known: u64,
        /// How many there are.
        entries: u64,
    },
    /// A checkpoint knows other entries.
    #[error(
        "the journal was rewritten: the checkpoint {reference} knows other entries up to number {sequence} than the \
         journal has"
    )]
    Rewritten {
        /// Where the checkpoint comes from.
        reference: String,
        /// The last entry that it covers.
        sequence: u64,
    },
    /// The checkpoint is that of another journal.
    #[error("the checkpoint {0} belongs to another journal")]
    AnotherJournal(String),
    /// The reference is not signed by a trusted key.
    #[error("the checkpoint {reference} is not to be trusted: {cause}")]
    NotTrusted {
        /// Where the checkpoint comes from.
        reference: String,
        /// Why.
        cause: InvalidCheckpoint,
    },
    /// There is nothing that a trusted key signed.
    #[error("no checkpoint of the trusted key covers the journal: neither the journal nor a checkpoint file holds one")]
    NoCheckpoint,
}

/// Why a checkpoint in the journal is not true.
#[derive(Debug, thiserror::Error)]
enum FalseCheckpoint {
    #[error("its checkpoint cannot be true: {0}")]
    Invalid(#[from] InvalidCheckpoint),
    #[error("its checkpoint cannot be true: it is that of another journal")]
    AnotherJournal,
    #[error("its checkpoint cannot be true: it covers entry {0}, which is not before it")]
    NotBefore(u64),
    #[error("its checkpoint cannot be true: the entries up to number {0} were rewritten")]
    Rewritten(u64),
}

/// Verifies the journal from its first to its last byte. `progress` is called with the length of each frame.
///
/// Memory: one journal file, and what the audit of the entries needs unless only the chain is verified.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(mut scan: Scan, options: &VerifyOptions, progress: &mut dyn FnMut(u64)) -> Result<Verified, VerifyError> {
    if let Some((name, reference)) = &options.reference {
        if reference.checkpoint.journal != scan.id() {
            return Err(VerifyError::AnotherJournal(name.clone()));
        }
        if !options.keys.is_empty() {
            let not_trusted = |cause| VerifyError::NotTrusted { reference: name.clone(), cause };
            reference.verify(&options.keys).map_err(not_trusted)?;
        }
    }
    let mut verifier = Verifier::new(options);
    let mut bytes = 0;
    while let Some(frame) = scan.read()? {
        verifier.frame(&scan, &frame)?;
        bytes += frame.length as u64;
        progress(frame.length as u64);
    }
    let entries = scan.next_sequence() - 1;
    verifier.end(entries)?;
    let newest = verifier.newest;
    Ok(Verified {
        id: scan.id(),
        files: scan.files(),
        bytes,
        entries,
        chain: *scan.chain_hash(),
        newest,
        counts: Counts { checkpoints: verifier.checkpoints, ..verifier.audit.counts() },
        trusted: verifier.trusted,
        remarks: verifier.remarks,
        torn: scan.torn_end().cloned(),
    })
}

/// Where in the journal the chain has which hash, without keeping them all: checkpoints name recent entries.
const REMEMBERED: usize = 65_536;

struct Verifier<'a> {
    options: &'a VerifyOptions,
    audit: Audit,
    newest: Option<Timestamp>,
    checkpoints: u64,
    trusted: Option<Covered>,
    remarks: Vec<Remark>,
    /// The chain hashes after the newest frames.
    recent: VecDeque<ChainHash>,
}

impl<'a> Verifier<'a> {
    fn new(options: &'a VerifyOptions) -> Self {
        let recent = VecDeque::with_capacity(REMEMBERED);
        let remarks = Vec::new();
        Verifier { options, audit: Audit::default(), newest: None, checkpoints: 0, trusted: None, remarks, recent }
    }

    fn frame(&mut self, scan: &Scan, frame: &ScannedFrame) -> Result<(), VerifyError> {
        if let Some((name, reference)) = &self.options.reference
            && reference.checkpoint.sequence == frame.sequence
        {
            if reference.checkpoint.chain != frame.chain {
                return Err(VerifyError::Rewritten { reference: name.clone(), sequence: frame.sequence });
            }
            if !self.options.keys.is_empty() {
                self.cover(reference);
            }
        }
        self.remarks.extend(Remark::from_frame(frame));
        if let Event::Checkpoint { note, .. } = &frame.entry.event {
            self.checkpoint(scan, frame, note)?;
        }
        if let Event::BatchCreated(terms) = &frame.entry.event
            && (terms.end >= frame.sequence || self.chain_after(scan, frame, terms.end)? != terms.chain)
        {
            let what = format!("its batch {} was cut from other entries up to number {}", terms.id, terms.end);
            return Err(scan.contradiction(frame, what).into());
        }
        if !self.options.chain_only {
            self.audit.apply(&frame.entry).map_err(|what| scan.contradiction(frame, what))?;
        }
        self.newest = Some(frame.entry.time);
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(frame.chain);
        Ok(())
    }

    /// Compares a checkpoint of the journal with the entries before it.
    fn checkpoint(&mut self, scan: &Scan, frame: &ScannedFrame, note: &str) -> Result<(), VerifyError> {
        let wrong = |what: FalseCheckpoint| scan.contradiction(frame, what);
        let signed = SignedCheckpoint::parse(note).map_err(|error| wrong(error.into()))?;
        let named = &signed.checkpoint;
        if named.journal != scan.id() {
            return Err(wrong(FalseCheckpoint::AnotherJournal).into());
        }
        if named.sequence >= frame.sequence {
            return Err(wrong(FalseCheckpoint::NotBefore(named.sequence)).into());
        }
        if self.chain_after(scan, frame, named.sequence)? != named.chain {
            return Err(wrong(FalseCheckpoint::Rewritten(named.sequence)).into());
        }
        self.checkpoints += 1;
        if !self.options.keys.is_empty() {
            signed.verify(&self.options.keys).map_err(|error| wrong(error.into()))?;
            self.cover(&signed);
        }
        Ok(())
    }

    fn cover(&mut self, signed: &SignedCheckpoint) {
        let covered = Covered { sequence: signed.checkpoint.sequence, time: signed.checkpoint.time };
        if self.trusted.is_none_or(|before| before.sequence <= covered.sequence) {
            self.trusted = Some(covered);
        }
    }

    /// The chain hash after an entry before `frame`.
    fn chain_after(&self, scan: &Scan, frame: &ScannedFrame, sequence: u64) -> Result<ChainHash, JournalError> {
        let back = usize::try_from(frame.sequence - sequence).unwrap_or(usize::MAX);
        if sequence == 0 {
            return Ok([0; 32]);
        }
        match self.recent.len().checked_sub(back).and_then(|index| self.recent.get(index)) {
            Some(chain) => Ok(*chain),
            None => {
                scan.chain_after(sequence)?.ok_or_else(|| scan.contradiction(frame, "its checkpoint names no entry"))
            }
        }
    }

    fn end(&self, entries: u64) -> Result<(), VerifyError> {
        if let Some((name, reference)) = &self.options.reference
            && reference.checkpoint.sequence > entries
        {
            return Err(VerifyError::CutShort {
                reference: name.clone(),
                time: reference.checkpoint.time,
                known: reference.checkpoint.sequence,
                entries,
            });
        }
        if !self.options.keys.is_empty() && self.trusted.is_none() {
            return Err(VerifyError::NoCheckpoint);
        }
        Ok(())
    }
}
