//! The journal's entries as protobuf has them (`proto/birthmark/v1/journal.proto`), and their times.
#![expect(unreachable_pub, reason = "generated")]

use jiff::Timestamp;

include!(concat!(env!("OUT_DIR"), "/birthmark.journal.v1.rs"));

/// Not a time, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the impossible time {0}")]
pub struct ImpossibleTime(u64);

pub(super) fn to_micros(time: Timestamp) -> u64 {
    u64::try_from(time.as_microsecond()).unwrap_or(0)
}

pub(super) fn from_micros(micros: u64) -> Result<Timestamp, ImpossibleTime> {
    let time = i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    time.ok_or(ImpossibleTime(micros))
}

pub(super) fn from_optional_micros(micros: u64) -> Result<Option<Timestamp>, ImpossibleTime> {
    if micros == 0 { Ok(None) } else { from_micros(micros).map(Some) }
}
