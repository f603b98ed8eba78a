//! Serial numbers of certificates as a ledger gives them: 20 octets, positive, in order.
//!
//! | octets | content |
//! |---|---|
//! | 0–5 | milliseconds since 1970, so that index inserts stay in order |
//! | 6–7 | a counter within the millisecond |
//! | 8–11 | the ledger's own random number, so that two ledgers cannot collide; where several daemons share a ledger, two octets of it and then two of the daemon's epoch |
//! | 12–19 | 64 bits from the CSPRNG (CA/Browser Forum BR 7.1, RFC 5280 section 4.1.2.2) |
//!
//! The first octet is 0x01 to 0x7f (from 2004 until the year 6429), so the DER INTEGER needs no padding and is
//! positive, and every serial number has the same length.

use std::{fmt, str::FromStr};

use jiff::Timestamp;

/// A certificate's serial number: the content octets of its INTEGER, big-endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SerialNumber([u8; SerialNumber::LENGTH]);

impl SerialNumber {
    /// Its length in octets.
    pub const LENGTH: usize = 20;

    /// One that no ledger gives, for sample certificates.
    pub fn sample() -> Self {
        SerialNumber([0x7f; Self::LENGTH])
    }

    /// Puts one together: milliseconds and counter as one number, what is the ledger's, and what is random. Only a ledger
    /// makes them, each greater than the one before.
    pub fn assembled(leading: u64, ledger: [u8; 4], random: [u8; 8]) -> Self {
        let mut octets = [0; Self::LENGTH];
        octets[..8].copy_from_slice(&leading.to_be_bytes());
        octets[8..12].copy_from_slice(&ledger);
        octets[12..].copy_from_slice(&random);
        SerialNumber(octets)
    }

    /// Milliseconds and counter, as one number.
    pub fn leading(&self) -> u64 {
        self.0[..8].iter().fold(0, |number, octet| number << 8 | u64::from(*octet))
    }

    /// Whether the ledger with this random id gives such serial numbers.
    pub fn is_of(&self, ledger: &[u8; 16]) -> bool {
        self.0[8..10] == ledger[..2]
    }

    /// About when it was given: its first octets, in milliseconds since 1970.
    pub fn given_at(&self) -> Timestamp {
        let [a, b, c, d, e, f, ..] = self.0;
        let milliseconds = i64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::MAX)
    }

    /// The octets, big-endian.
    pub fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl TryFrom<&[u8]> for SerialNumber {
    type Error = InvalidSerialNumber;

    fn try_from(octets: &[u8]) -> Result<Self, InvalidSerialNumber> {
        let octets: [u8; Self::LENGTH] = octets.try_into().map_err(|_| InvalidSerialNumber)?;
        if (0x01..=0x7f).contains(&octets[0]) { Ok(SerialNumber(octets)) } else { Err(InvalidSerialNumber) }
    }
}

impl FromStr for SerialNumber {
    type Err = InvalidSerialNumber;

    /// Reads hex of either case, with or without colons between the octets.
    fn from_str(text: &str) -> Result<Self, InvalidSerialNumber> {
        let octets = hex::decode(text.replace(':', "")).map_err(|_| InvalidSerialNumber)?;
        SerialNumber::try_from(octets.as_slice())
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The octets or the text are not a serial number that a ledger gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a serial number of this ledger, which has 20 octets (40 hex digits) and is positive")]
pub struct InvalidSerialNumber;

#[cfg(test)]
mod tests {
    use super::*;

    /// A serial number is read with colons and without.
    #[test]
    fn serial_number_with_and_without_colons_is_read() {
        let number = SerialNumber::assembled(1_790_000_000_000 << 16, [7; 4], [9; 8]);
        let text = number.to_string();
        let colons: Vec<_> =
            text.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
        assert_eq!(text.parse(), Ok(number));
        assert_eq!(colons.join(":").parse(), Ok(number));
        assert_eq!("00".repeat(20).parse::<SerialNumber>(), Err(InvalidSerialNumber));
        assert_eq!("01".repeat(19).parse::<SerialNumber>(), Err(InvalidSerialNumber));
    }
}
