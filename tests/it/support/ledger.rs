//! Operations on a ledger without a daemon, as a station and an operator ask for them.

use birthmark::ledger::{Action, Actor, Holder, Operation, OrderTerms};

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
