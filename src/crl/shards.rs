//! How a CA's certificates are divided among its lists.

use std::ops::RangeInclusive;

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

    /// A single list.
    pub const ONE: Shards = Shards(1);

    /// This many; 1 is a single list for the whole issuer. `None` if it is 0 or more than [`Shards::MOST`].
    pub fn new(count: u16) -> Option<Shards> {
        (1..=Shards::MOST).contains(&count).then_some(Shards(count))
    }

    /// How many there are.
    pub fn count(self) -> u16 {
        self.0
    }

    /// What stands for `{crl_shard}`: the shard in decimal, always with as many digits as the greatest has.
    pub fn label(self, shard: u16) -> String {
        format!("{shard:0width$}", width = self.digits())
    }

    /// How many characters a label has.
    pub fn digits(self) -> usize {
        (self.0 - 1).checked_ilog10().unwrap_or(0) as usize + 1
    }

    /// The least and the greatest hash of a shard, as the first 32 bits of SHA-256.
    pub fn hashes(self, shard: u16) -> RangeInclusive<u32> {
        let first = |shard: u64| (shard << 32).div_ceil(u64::from(self.0));
        // The least hash of the next shard is above 0, and that of the one after the last is 2³².
        first(shard.into()) as u32..=(first(u64::from(shard) + 1) - 1) as u32
    }

    /// The shards in which certificates lie whose hash begins with these 12 bits.
    pub fn of_hashes(self, bits: u16) -> RangeInclusive<u16> {
        let first = u32::from(bits & 0xfff) << 20;
        self.of_hash(first)..=self.of_hash(first | 0xf_ffff)
    }

    fn of_hash(self, hash: u32) -> u16 {
        // Below the count, which fits.
        ((u64::from(hash) * u64::from(self.0)) >> 32) as u16
    }

    /// The shard of a certificate, counted from 0.
    pub fn of(self, serial_number: &SerialNumber) -> u16 {
        let [a, b, c, d, ..] = crate::hash::sha256(serial_number.as_bytes());
        self.of_hash(u32::from_be_bytes([a, b, c, d]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shards' ranges of hashes follow each other without a gap, for every number of shards.
    #[test]
    fn shards_share_out_every_hash() {
        for count in [1, 2, 3, 10, 64, 100, 1000, 4095, 4096] {
            let shards = Shards::new(count).unwrap();
            let mut next = 0_u64;
            for shard in 0..count {
                let hashes = shards.hashes(shard);
                assert_eq!(u64::from(*hashes.start()), next, "{count} {shard}");
                assert_eq!([*hashes.start(), *hashes.end()].map(|hash| shards.of_hash(hash)), [shard; 2]);
                assert!(shards.of_hashes((hashes.start() >> 20) as u16).contains(&shard));
                assert_eq!(shards.label(shard).len(), shards.digits());
                next = u64::from(*hashes.end()) + 1;
            }
            assert_eq!(next, 1 << 32);
        }
        assert_eq!([1, 10, 11, 100, 101].map(|count| Shards::new(count).unwrap().digits()), [1, 1, 2, 2, 3]);
    }

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
