//! What a ledger has come to.

/// The chain hash after an entry: SHA-256 over all entries up to it.
pub type ChainHash = [u8; 32];

/// What a ledger has come to: what a checkpoint vouches for. All of it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The ledger's random id.
    pub ledger: [u8; 16],
    /// How many entries it has.
    pub sequence: u64,
    /// The chain hash after the last.
    pub chain: ChainHash,
    /// Grows whenever a part of the ledger is full and the next is begun.
    pub part: u32,
}
