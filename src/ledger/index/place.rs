//! Where the journal has what a key or a device names.

use super::run::{self, Value};
use crate::ledger::{journal::Position, overlay::RecordLocation};

/// Where a reservation is, or what else has the name, and its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Position,
    /// None: if there is one, the index does not have its place.
    pub(crate) issued: Option<Position>,
}

impl Place {
    /// Of something that has no certificate.
    pub(super) fn without_certificate(position: Position) -> Place {
        Place { position, issued: None }
    }

    pub(super) fn of(location: &RecordLocation) -> Place {
        Place { position: location.reserved, issued: location.issued }
    }

    /// As a run has it: the position, and how many bytes behind it the certificate is, big-endian; 0: in another file, or there is
    /// none.
    pub(super) fn encode(&self) -> Value {
        let mut value = Value::default();
        let distance = self.issued.and_then(|issued| issued.distance_from(self.position)).unwrap_or(0);
        value[..8].copy_from_slice(&self.position.to_bytes());
        value[8..].copy_from_slice(&distance.to_be_bytes());
        value
    }

    pub(super) fn decode(value: Value) -> Place {
        let position = run::position(&value);
        let distance = value.last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        Place { position, issued: (distance > 0).then(|| position.plus(distance)).flatten() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_of_a_certificate_in_another_file_is_left_out() {
        let at = |segment: u64, offset: u64| Position::from_number(segment << 32 | offset);
        let none = None::<Position>;
        let far = u64::from(u32::MAX);
        for (position, issued, found) in [
            (at(1, 72), Some(at(1, 900)), Some(at(1, 900))),
            (at(7, 0), Some(at(7, far)), Some(at(7, far))),
            (at(1, 72), Some(at(2, 900)), none),
            // What was found again: one entry has all of it.
            (at(1, 72), Some(at(1, 72)), none),
            (at(1, 72), None, none),
        ] {
            let place = Place { position, issued };
            assert_eq!(Place::decode(place.encode()), Place { position, issued: found }, "{place:?}");
        }
        // More than the file can have.
        let mut value = Place::without_certificate(at(1, 72)).encode();
        value[8..].fill(0xff);
        assert_eq!(Place::decode(value), Place::without_certificate(at(1, 72)));
    }
}
