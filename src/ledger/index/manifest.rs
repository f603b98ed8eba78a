//! The manifest: which runs make up the index, and what the database must hold with them.

use std::sync::Arc;

use super::{
    applied::Applied,
    database::Total,
    run::{Pin, Run},
};

/// The form of the manifest and what it pins; another number for each. A new event in the journal is a new form as
/// well: what an older daemon cannot read is then read by it, and refused.
const FORMAT: u8 = 14;

/// What the index is made of.
pub(super) struct Manifest {
    pub(super) applied: Applied,
    pub(super) total: Total,
    pub(super) pins: Vec<Pin>,
}

impl Manifest {
    pub(super) fn new(applied: &Applied, total: Total, runs: &[Arc<Run>]) -> Self {
        Manifest { applied: applied.clone(), total, pins: runs.iter().map(|run| run.pin).collect() }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Manifest { applied, total, pins } = self;
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&applied.encode());
        bytes.extend_from_slice(&total.pairs.to_le_bytes());
        bytes.extend_from_slice(&total.orders.to_le_bytes());
        bytes.extend_from_slice(&total.sum.to_le_bytes());
        pins.iter().for_each(|pin| bytes.extend_from_slice(&pin.encode()));
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// None if it is not whole, or of another format: then the index is rebuilt.
    pub(super) fn decode(bytes: &[u8]) -> Option<Manifest> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body).to_le_bytes() != *sum {
            return None;
        }
        let (applied, rest) = body.strip_prefix(&[FORMAT])?.split_at_checked(Applied::LENGTH)?;
        let (pairs, rest) = rest.split_first_chunk()?;
        let (orders, rest) = rest.split_first_chunk()?;
        let (sum, rest) = rest.split_first_chunk()?;
        let total = Total {
            pairs: u64::from_le_bytes(*pairs),
            orders: u64::from_le_bytes(*orders),
            sum: u128::from_le_bytes(*sum),
        };
        let (pins, rest) = rest.as_chunks::<{ Pin::LENGTH }>();
        let pins = pins.iter().map(Pin::decode).collect::<Option<_>>()?;
        rest.is_empty().then_some(())?;
        Some(Manifest { applied: Applied::decode(applied)?, total, pins })
    }
}
