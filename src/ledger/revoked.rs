//! The certificates that may stand on a certificate revocation list: those that were revoked, scrapped, or replaced.
//!
//! They are found by the name of their CA, which stands in them (RFC 5280 section 4.1.2.4), and among those in the order
//! of the hash of their serial number, so that the certificates of one shard lie together, however many shards there are.
//!
//! | key | octets |
//! |---|---|
//! | the CA: SHA-256 of its DER Name | the first 8 |
//! | SHA-256 of the serial number | the first 4 |
//! | the serial number | 20 |
//!
//! | value | octets |
//! |---|---|
//! | when it was revoked or scrapped, seconds since 1970 | 4 |
//! | why: 0x80 scrapped, 0x81 scrapped and replaced, else the CRLReason | 1 |
//! | when it expires, seconds since 1970; the greatest number: later than that can say | 4 |

use std::ops::RangeInclusive;

use jiff::Timestamp;

use super::revocation::RevocationReason;
use crate::{
    asn1::{DerError, INTEGER, Reader, SEQUENCE, Value, explicit},
    hash::sha256,
    serial::SerialNumber,
    x509_time::Time,
};

/// A CA, by its name: the first 16 octets of SHA-256 of its DER Name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaId(pub [u8; 16]);

impl CaId {
    /// The CA with this DER Name.
    pub fn new(name: &[u8]) -> CaId {
        let hash = sha256(name);
        CaId(hash.first_chunk().copied().unwrap_or_default())
    }

    fn short(&self) -> [u8; 8] {
        self.0.first_chunk().copied().unwrap_or_default()
    }
}

/// Why a certificate may stand on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokedCause {
    /// It was revoked.
    Revoked(RevocationReason),
    /// Its device is scrap.
    Scrapped,
    /// Its device is scrap, or was, and has another certificate.
    Replaced,
}

/// A certificate that may stand on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// Its serial number.
    pub serial_number: SerialNumber,
    /// When it was revoked or scrapped, to the second.
    pub at: Timestamp,
    /// Why.
    pub cause: RevokedCause,
    /// When it expires; `None`: in a century, or never.
    pub not_after: Option<Timestamp>,
}

const SCRAPPED: u8 = 0x80;
const REPLACED: u8 = 0x81;

/// How the index knows such a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RevokedKey([u8; RevokedKey::LENGTH]);

/// What it knows of it.
pub(super) type RevokedValue = [u8; 9];

impl RevokedKey {
    pub(super) const LENGTH: usize = 8 + 4 + SerialNumber::LENGTH;

    pub(super) fn new(ca: &CaId, serial_number: &SerialNumber) -> RevokedKey {
        let hash = sha256(serial_number.as_bytes());
        let mut key = [0; Self::LENGTH];
        key[..8].copy_from_slice(&ca.short());
        key[8..12].copy_from_slice(&hash[..4]);
        key[12..].copy_from_slice(serial_number.as_bytes());
        RevokedKey(key)
    }

    /// The first and the last key of a CA's certificates whose hash begins with these 32 bits.
    pub(super) fn range(ca: &CaId, hashes: &RangeInclusive<u32>) -> (RevokedKey, RevokedKey) {
        let end = |hash: u32, fill: u8| {
            let mut key = [fill; Self::LENGTH];
            key[..8].copy_from_slice(&ca.short());
            key[8..12].copy_from_slice(&hash.to_be_bytes());
            RevokedKey(key)
        };
        (end(*hashes.start(), 0), end(*hashes.end(), 0xff))
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<RevokedKey> {
        bytes.try_into().ok().map(RevokedKey)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The CA's octets and the hash of the serial number.
    pub(super) fn place(&self) -> ([u8; 8], u32) {
        let ca = self.0.first_chunk().copied().unwrap_or_default();
        let hash = self.0[8..].first_chunk().copied().unwrap_or_default();
        (ca, u32::from_be_bytes(hash))
    }
}

/// Whether a change at this place concerns a CA.
pub(super) fn concerns(ca: &CaId, place: [u8; 8]) -> bool {
    ca.short() == place
}

pub(super) fn encode(at: Timestamp, cause: RevokedCause, not_after: Time) -> RevokedValue {
    let mut value = [0; 9];
    value[..4].copy_from_slice(&seconds(at.as_second()).to_be_bytes());
    value[4] = match cause {
        RevokedCause::Scrapped => SCRAPPED,
        RevokedCause::Replaced => REPLACED,
        // CRLReason's numbers are all below 128.
        RevokedCause::Revoked(reason) => reason.code() as u8,
    };
    value[5..].copy_from_slice(&seconds(not_after.since(Timestamp::UNIX_EPOCH).as_secs()).to_be_bytes());
    value
}

/// A scrapped certificate whose device got another one; `None` if it is not only scrapped.
pub(super) fn replaced(value: &RevokedValue) -> Option<RevokedValue> {
    (value[4] == SCRAPPED).then(|| {
        let mut replaced = *value;
        replaced[4] = REPLACED;
        replaced
    })
}

/// None if it is none that was written.
pub(super) fn decode(key: &RevokedKey, value: &RevokedValue) -> Option<RevokedCertificate> {
    let [a, b, c, d, cause, not_after @ ..] = *value;
    let not_after = u32::from_be_bytes(not_after);
    let moment = |seconds: u32| Timestamp::from_second(i64::from(seconds)).ok();
    Some(RevokedCertificate {
        serial_number: SerialNumber::try_from(&key.0[12..]).ok()?,
        at: moment(u32::from_be_bytes([a, b, c, d]))?,
        cause: match cause {
            SCRAPPED => RevokedCause::Scrapped,
            REPLACED => RevokedCause::Replaced,
            reason => RevokedCause::Revoked(RevocationReason::try_from(u32::from(reason)).ok()?),
        },
        not_after: if not_after == u32::MAX { None } else { moment(not_after) },
    })
}

fn seconds(seconds: i64) -> u32 {
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
}

/// Whose certificate it is, and when it expires.
pub(super) fn ca_and_end(certificate: &[u8]) -> Result<(CaId, Time), DerError> {
    let mut outer = Reader::new(Value::only(certificate)?.of(SEQUENCE)?);
    let mut reader = Reader::new(outer.expect(SEQUENCE)?);
    reader.optional(explicit(0))?;
    reader.expect(INTEGER)?;
    reader.expect(SEQUENCE)?;
    let issuer = reader.value()?;
    issuer.of(SEQUENCE)?;
    let mut validity = Reader::new(reader.expect(SEQUENCE)?);
    validity.value()?;
    Ok((CaId::new(issuer.whole), Time::read(validity.value()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is read again, for every cause and at both ends of time.
    #[test]
    fn revoked_certificate_is_read_as_it_was_written() {
        let ca = CaId::new(&[0x30, 0]);
        let key = RevokedKey::new(&ca, &SerialNumber::sample());
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        for cause in [
            RevokedCause::Scrapped,
            RevokedCause::Replaced,
            RevokedCause::Revoked(RevocationReason::Unspecified),
            RevokedCause::Revoked(RevocationReason::PrivilegeWithdrawn),
        ] {
            let value = encode(at, cause, Time::from(at));
            let read = decode(&key, &value).unwrap();
            assert_eq!((read.serial_number, read.at, read.cause), (SerialNumber::sample(), at, cause));
            assert_eq!(read.not_after, Some(at));
            assert_eq!(replaced(&value).is_some(), cause == RevokedCause::Scrapped);
            assert_eq!(decode(&key, &encode(at, cause, Time::NEVER)).unwrap().not_after, None);
        }
        let (first, last) = RevokedKey::range(&ca, &(0..=u32::MAX));
        assert!(first < key && key < last);
        let (_, hash) = key.place();
        assert!(
            RevokedKey::range(&ca, &(0..=hash - 1)).1 < key && key < RevokedKey::range(&ca, &(hash + 1..=u32::MAX)).0
        );
    }
}
