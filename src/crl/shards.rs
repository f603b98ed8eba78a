//! How a CA's certificates are divided among its lists.

use crate::serial::SerialNumber;

/// How an issuer's certificates are divided among its lists.
///
/// The shard follows from the serial number alone, so that whoever reads the journal finds it too: SHA-256 of the serial
/// number's 20 octets, its first four octets as a big-endian number, times the number of shards, divided by 2³².
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards(u16);

impl Shards {
    /// The most shards that an issuer may have.
    pub const MOST: u16 = 4096;

    /// This many; 1 is a single list for the whole issuer. `None` if it is 0 or more than [`Shards::MOST`].
    pub fn new(count: u16) -> Option<Shards> {
        (1..=Shards::MOST).contains(&count).then_some(Shards(count))
    }

    /// How many there are.
    pub fn count(self) -> u16 {
        self.0
    }

    /// The shard of a certificate, counted from 0.
    pub fn of(self, serial_number: &SerialNumber) -> u16 {
        let [a, b, c, d, ..] = crate::hash::sha256(serial_number.as_bytes());
        let hash = u64::from(u32::from_be_bytes([a, b, c, d]));
        // Below the count, which fits.
        ((hash * u64::from(self.0)) >> 32) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each certificate is in one shard, all shards are used about equally, and the mapping never changes.
    #[test]
    fn shard_of_a_serial_number_is_fixed_and_even() {
        let shards = Shards::new(64).unwrap();
        let mut counts = [0_u32; 64];
        for number in 0..64_000_u32 {
            let mut octets = [1; 20];
            octets[16..].copy_from_slice(&number.to_be_bytes());
            counts[usize::from(shards.of(&SerialNumber::try_from(octets.as_slice()).unwrap()))] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        // As `printf '\x03%.0s' {1..20} | sha256sum` gives it: 0x… * 64 >> 32.
        let hash = crate::hash::sha256(&[3; 20]);
        assert_eq!(shards.of(&SerialNumber::try_from([3; 20].as_slice()).unwrap()), u16::from(hash[0] >> 2));
        assert_eq!(Shards::new(1).map(|one| one.of(&SerialNumber::try_from([3; 20].as_slice()).unwrap())), Some(0));
        assert_eq!((Shards::new(0), Shards::new(4097)), (None, None));
    }
}
