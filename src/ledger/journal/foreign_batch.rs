//! Batches of entries as they lie elsewhere: frames, and where they belong.

use bytes::Bytes;

use super::{
    error::{AppendError, BROKEN_CHAIN},
    frame::Frame,
    position::Position,
};
use crate::ledger::{entry::Entry, head::ChainHash};

/// Frames of one write, and where they are to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    /// The sequence number of the first.
    pub(crate) first: u64,
    /// Where that begins, in every copy.
    pub(crate) place: Position,
    /// As they lie in the file.
    pub(crate) frames: &'a [u8],
}

/// Why a batch cannot be appended to a copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForeignError {
    /// The batch does not continue what is here.
    #[error("{0}")]
    Differs(String),
    /// The copy could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// The chain hash after the frame with this sequence number, and what is after it, in a batch that begins with `first`; none if it
/// is not in there, or something before it cannot be read.
pub(crate) fn split_after(frames: &[u8], first: u64, sequence: u64) -> Option<(ChainHash, &[u8])> {
    let (mut rest, mut number) = (frames, first);
    loop {
        let frame = Frame::parse(rest).ok()?;
        let (chain, length) = (frame.chain, frame.length());
        rest = rest.get(length..)?;
        if number == sequence {
            return Some((chain, rest));
        }
        number += 1;
    }
}

/// The entries of a batch that follows the chain hash `before`, and the chain hash after them.
///
/// # Errors
/// Which frame cannot be read, by its place in the batch, and why.
pub(crate) fn read_batch(frames: &[u8], before: ChainHash) -> Result<(Vec<Entry>, ChainHash), String> {
    let (mut rest, mut chain, mut entries) = (frames, before, Vec::new());
    while !rest.is_empty() {
        let at = |what: String| format!("its entry {}: {what}", entries.len() + 1);
        let frame = Frame::parse(rest).map_err(|error| at(error.to_string()))?;
        if !frame.follows(&chain) {
            return Err(at(BROKEN_CHAIN.to_owned()));
        }
        let entry = Entry::decode(Bytes::copy_from_slice(frame.payload)).map_err(|error| at(error.to_string()))?;
        let length = frame.length();
        chain = frame.chain;
        entries.push(entry);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok((entries, chain))
}
