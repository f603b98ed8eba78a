//! The rules of approvals, for the audit of a journal.

use std::collections::HashMap;

use super::actor::Actor;

/// What is known of the requests, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Approvals {
    known: HashMap<u64, (Actor, State)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Requested,
    Granted,
    Used,
}

/// The rule that an approval breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BrokenApproval {
    #[error("the request {number} for an approval is made, and the next one is number {next}")]
    Number { number: u64, next: u64 },
    #[error("the request {0} for an approval is granted or used, and could not be")]
    State(u64),
    #[error("{actor} grants the request {number}, which is its own")]
    Own { number: u64, actor: Actor },
}

impl Approvals {
    pub(super) fn request(&mut self, number: u64, actor: &Actor) -> Result<(), BrokenApproval> {
        let next = self.known.len() as u64 + 1;
        if number != next {
            return Err(BrokenApproval::Number { number, next });
        }
        self.known.insert(number, (actor.clone(), State::Requested));
        Ok(())
    }

    pub(super) fn grant(&mut self, number: u64, actor: &Actor) -> Result<(), BrokenApproval> {
        match self.known.get_mut(&number) {
            Some((asked, _)) if asked == actor => Err(BrokenApproval::Own { number, actor: actor.clone() }),
            Some((_, state @ State::Requested)) => {
                *state = State::Granted;
                Ok(())
            }
            _ => Err(BrokenApproval::State(number)),
        }
    }

    pub(super) fn use_up(&mut self, number: u64) -> Result<(), BrokenApproval> {
        match self.known.get_mut(&number) {
            Some((_, state @ State::Granted)) => {
                *state = State::Used;
                Ok(())
            }
            _ => Err(BrokenApproval::State(number)),
        }
    }
}
