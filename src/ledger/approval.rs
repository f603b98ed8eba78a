//! Four eyes: what an operator asks for, another one agrees to, and who does it then.

use jiff::Timestamp;

use super::actor::Actor;

/// A request for the agreement of a second operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Counts the ledger's requests from 1.
    pub number: u64,
    /// What is to be done, with every value that matters.
    pub what: String,
    /// When it was asked for, and by whom.
    pub requested: (Timestamp, Actor),
    /// When somebody else agreed, and who.
    pub granted: Option<(Timestamp, Actor)>,
    /// When it was done, and by whom.
    pub used: Option<(Timestamp, Actor)>,
}
