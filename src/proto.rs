//! The gRPC protocol, generated from `proto/birthmark/v1/`; the definitions there are its manual. With it the
//! conversions of its times, and how its values are shown to people and programs.

use std::fmt;

use jiff::Timestamp;

pub use self::generated::*;

#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    clippy::too_many_lines,
    reason = "generated"
)]
mod generated {
    tonic::include_proto!("birthmark.v1");
}

/// The definitions in their binary form, as gRPC reflection serves them.
pub(crate) const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/protocol.binpb"));

impl fmt::Display for RecordState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RecordState::Unspecified => "unknown",
            RecordState::Reserved => "reserved",
            RecordState::Issued => "issued",
            RecordState::Abandoned => "abandoned",
            RecordState::Confirmed => "confirmed",
            RecordState::Scrapped => "scrapped",
            RecordState::Revoked => "revoked",
        })
    }
}

/// A moment of the protocol as RFC 3339 in UTC, to the second; none if it is outside of the years -9999 to 9999.
pub fn rfc3339(time: &prost_types::Timestamp) -> Option<String> {
    Timestamp::from_second(time.seconds).ok().map(|time| time.to_string())
}

/// A time of the protocol that is none, or outside of the years -9999 to 9999.
#[derive(Debug, thiserror::Error)]
#[error("the time {time:?} is impossible: {source}")]
pub struct InvalidTimestamp {
    time: prost_types::Timestamp,
    source: jiff::Error,
}

/// A moment as the protocol has it.
pub fn timestamp(moment: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: moment.as_second(), nanos: moment.subsec_nanosecond() }
}

/// The moment of a time of the protocol.
///
/// # Errors
/// [`InvalidTimestamp`].
pub fn moment(time: &prost_types::Timestamp) -> Result<Timestamp, InvalidTimestamp> {
    Timestamp::new(time.seconds, time.nanos).map_err(|source| InvalidTimestamp { time: *time, source })
}
