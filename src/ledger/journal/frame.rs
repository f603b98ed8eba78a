//! Frames: how one entry lies in a file. The parent module has the table.

use std::io;

use super::error::AppendError;
use crate::ledger::head::ChainHash;

/// The bytes of a frame before its payload.
pub(super) const HEAD: usize = 44;
/// The largest payload.
pub(super) const MAX_PAYLOAD: usize = 1 << 20;

/// A frame whose checksum is right.
pub(super) struct Frame<'a> {
    /// How far back the first frame of the same write begins.
    pub(super) back: usize,
    /// The chain hash after this frame.
    pub(super) chain: ChainHash,
    /// The encoded entry.
    pub(super) payload: &'a [u8],
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the file ends within a frame")]
    Short,
    #[error("no frame has this length")]
    Length,
    #[error("the checksum does not fit")]
    Checksum,
}

impl<'a> Frame<'a> {
    /// Reads the frame with which `bytes` begins.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>().ok_or(FrameError::Short)?;
        let length = payload_length(head)?;
        let payload = rest.get(..length).ok_or(FrameError::Short)?;
        if number(head, 4) != checksum(head, payload) {
            return Err(FrameError::Checksum);
        }
        let mut chain = [0; 32];
        chain.copy_from_slice(&head[12..44]);
        Ok(Frame { back: number(head, 8) as usize, chain, payload })
    }

    /// Whether it belongs after a frame with the chain hash `before`.
    pub(super) fn follows(&self, before: &ChainHash) -> bool {
        self.chain == link(before, self.payload)
    }

    /// Its length on disk.
    pub(super) fn length(&self) -> usize {
        HEAD + self.payload.len()
    }
}

/// The payload's length as the head states it.
pub(super) fn payload_length(head: &[u8; HEAD]) -> Result<usize, FrameError> {
    match number(head, 0) as usize {
        length @ 1..=MAX_PAYLOAD => Ok(length),
        _ => Err(FrameError::Length),
    }
}

/// Appends a frame to a write that so far holds `write`, and gives the chain hash after it.
pub(super) fn encode(
    write: &mut Vec<u8>,
    before: &ChainHash,
    payload: impl FnOnce(&mut Vec<u8>),
) -> Result<ChainHash, AppendError> {
    let start = write.len();
    write.resize(start + HEAD, 0);
    payload(write);
    let (head, payload) = write[start..].split_at_mut(HEAD);
    if payload.is_empty() || payload.len() > MAX_PAYLOAD {
        return Err(AppendError::TooLarge { bytes: payload.len(), limit: MAX_PAYLOAD });
    }
    let back = u32::try_from(start).map_err(|_| AppendError::NotWritten(io::ErrorKind::FileTooLarge.into()))?;
    let chain = link(before, payload);
    head[0..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[8..12].copy_from_slice(&back.to_le_bytes());
    head[12..44].copy_from_slice(&chain);
    let sum = checksum(head, payload);
    head[4..8].copy_from_slice(&sum.to_le_bytes());
    Ok(chain)
}

/// Whether the unreadable frame at `bad` had been durable: a readable frame after it belongs to a later write.
pub(super) fn was_durable(content: &[u8], bad: usize) -> bool {
    (bad + 1..content.len().saturating_sub(HEAD)).any(|at| {
        // Rejects nearly every place without a checksum: a frame's write begins at or before it.
        let head = &content[at..at + HEAD];
        let back = number(head, 8) as usize;
        back <= at && at - back > bad && Frame::parse(&content[at..]).is_ok()
    })
}

fn link(before: &ChainHash, payload: &[u8]) -> ChainHash {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(before);
    context.update(payload);
    let mut chain = [0; 32];
    chain.copy_from_slice(context.finish().as_ref());
    chain
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&head[0..4]), &head[8..]), payload)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
