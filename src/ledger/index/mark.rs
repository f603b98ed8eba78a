//! The mark: in which boot the index was opened, and how far the journal is known to have been durable.
//!
//! It is a small file of its own, so that both can be read without trusting, or even opening, the index's database: a
//! power cut can leave that in a form in which sled panics. It is there as long as the index is, also after an orderly
//! close: an index without a mark is not used.

use std::{io, path::Path};

use crate::{
    durable::{self, Access},
    ledger::{head::ChainHash, journal::Position},
};

/// The file's name in the index's folder.
pub(super) const FILE: &str = "mark";

const TITLE: &str = "birthmark index mark 1";

/// What the mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// What the index is being used for.
    pub(crate) state: State,
    /// The journal's id.
    pub(crate) journal: [u8; 16],
    /// The next frame to apply: all of the journal before it is durable.
    pub(crate) next: Position,
    /// The last applied frame and the chain hash after it; none if there is none.
    pub(crate) last: Option<(Position, ChainHash)>,
}

/// What an index is being used for; a boot is named by the kernel's id of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing: it was closed in order.
    Closed,
    /// It is being opened in this boot. If that ends the process, it must not be tried again.
    Opening(String),
    /// It is open in this boot.
    Open(String),
    /// It failed, and is not to be used.
    Failed,
}

impl Mark {
    /// Reads the mark of the index in `folder`; none if there is none or it is damaged.
    pub(crate) fn read(folder: &Path) -> Option<Mark> {
        let text = crate::text_file::read(&folder.join(FILE), 4096).ok()?;
        let (body, sum) = text.trim_end().rsplit_once('\n')?;
        let sum = u32::from_str_radix(sum.strip_prefix("crc32c ")?, 16).ok()?;
        if sum != crc32c::crc32c(body.as_bytes()) {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let state = lines.next()?.strip_prefix("state ")?;
        let state = match state.split_once(' ') {
            None if state == "closed" => State::Closed,
            None if state == "failed" => State::Failed,
            Some(("opening", boot)) => State::Opening(boot.to_owned()),
            Some(("open", boot)) => State::Open(boot.to_owned()),
            _ => return None,
        };
        let journal = array(lines.next()?.strip_prefix("journal ")?)?;
        let next = Position::from_bytes(array(lines.next()?.strip_prefix("next ")?)?);
        let last = match lines.next()?.strip_prefix("last ")?.split_once(' ') {
            Some((position, chain)) => Some((Position::from_bytes(array(position)?), array(chain)?)),
            None => None,
        };
        Some(Mark { state, journal, next, last })
    }

    /// Puts the mark into `folder`, on stable storage.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let state = match &self.state {
            State::Closed => "closed".to_owned(),
            State::Failed => "failed".to_owned(),
            State::Opening(boot) => format!("opening {boot}"),
            State::Open(boot) => format!("open {boot}"),
        };
        let last = self.last.map_or("none".to_owned(), |(position, chain)| {
            format!("{} {}", hex::encode(position.to_bytes()), hex::encode(chain))
        });
        let journal = hex::encode(self.journal);
        let next = hex::encode(self.next.to_bytes());
        let body = format!("{TITLE}\nstate {state}\njournal {journal}\nnext {next}\nlast {last}");
        let text = format!("{body}\ncrc32c {:08x}\n", crc32c::crc32c(body.as_bytes()));
        durable::write(&folder.join(FILE), text.as_bytes(), Access::Public)
    }
}

fn array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_comes_back_as_written_and_no_flipped_bit_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let start = Position::start();
        for state in [State::Closed, State::Failed, State::Opening("b".into()), State::Open("b".into())] {
            for last in [None, Some((start, [7; 32]))] {
                let mark = Mark { state: state.clone(), journal: [3; 16], next: start, last };
                mark.write(folder.path()).unwrap();
                assert_eq!(Mark::read(folder.path()), Some(mark));
            }
        }
        let path = folder.path().join(FILE);
        let good = std::fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            durable::write(&path, &bad, Access::Public).unwrap();
            // The final line feed, and the case of hex digits, carry nothing.
            let read = Mark::read(folder.path());
            assert!(
                read.is_none()
                    || read
                        == Some(Mark {
                            state: State::Open("b".into()),
                            journal: [3; 16],
                            next: start,
                            last: Some((start, [7; 32]))
                        }),
                "bit {bit}"
            );
        }
    }
}
