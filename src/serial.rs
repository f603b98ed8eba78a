//! Serial numbers: unpredictable, in order, and never the same from two daemons. Their octets are in the crate that the
//! clients share.

use jiff::Timestamp;

pub use birthmark_base::serial::{InvalidSerialNumber, SerialNumber};

/// The right to make one certificate with a serial number that is durably reserved (invariant 2). It cannot be cloned,
/// and `cert::Tbs::new` consumes it: two certificates with one serial number do not compile.
#[derive(Debug)]
pub struct ReservedSerial(SerialNumber);

impl ReservedSerial {
    /// Only the committer may call this, once for each reservation that is on stable storage; clippy holds it.
    pub(crate) fn new(serial_number: SerialNumber) -> Self {
        ReservedSerial(serial_number)
    }

    /// Spends the right.
    pub(crate) fn into_inner(self) -> SerialNumber {
        self.0
    }
}

/// Makes serial numbers, each greater than the one before.
#[derive(Debug)]
pub(crate) struct SerialNumbers {
    ledger: [u8; 4],
    /// Milliseconds and counter of the newest serial number, as one number: what the next one must exceed.
    newest: u64,
}

impl SerialNumbers {
    /// Goes on after `newest`, the greatest serial number of the ledger with this random id.
    pub(crate) fn resume([a, b, c, d, ..]: [u8; 16], newest: Option<SerialNumber>) -> Self {
        SerialNumbers { ledger: [a, b, c, d], newest: newest.map_or(0, |newest| newest.leading()) }
    }

    /// Those to come are given in this epoch of a ledger that several daemons share.
    pub(crate) fn set_epoch(&mut self, epoch: u64) {
        let [.., high, low] = epoch.to_be_bytes();
        (self.ledger[2], self.ledger[3]) = (high, low);
    }

    /// Those to come are greater than this one as well.
    pub(crate) fn pass(&mut self, serial: &SerialNumber) {
        self.newest = self.newest.max(serial.leading());
    }

    /// The next serial number.
    pub(crate) fn next(&mut self, now: Timestamp) -> SerialNumber {
        // 2^40 ms (November 2004) keeps the first octet above zero whatever the clock says.
        let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0).max(1 << 40);
        self.newest = (milliseconds << 16).max(self.newest + 1);
        SerialNumber::assembled(self.newest, self.ledger, rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_rise_whatever_the_clock_does() {
        let mut numbers = SerialNumbers::resume([7; 16], None);
        let mut newest = numbers.next(Timestamp::UNIX_EPOCH);
        for millisecond in [1_790_000_000_000, 1_790_000_000_000, 1_789_999_999_999, 0, 1_790_000_000_001, -5] {
            let next = numbers.next(Timestamp::from_millisecond(millisecond).unwrap_or_default());
            assert!(next > newest, "{next} after {newest}");
            assert_eq!(SerialNumber::try_from(next.as_bytes().as_slice()), Ok(next));
            newest = next;
        }
        let mut resumed = SerialNumbers::resume([7; 16], Some(newest));
        assert!(resumed.next(Timestamp::UNIX_EPOCH) > newest);
    }
}
