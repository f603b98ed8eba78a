//! The gRPC protocol, generated from `proto/birthmark/v1/`; the definitions there are its manual. With it the
//! conversions of its times, and how its values are shown to people and programs.

use std::fmt;

use jiff::Timestamp;

pub use self::generated::*;

#[expect(missing_docs, clippy::allow_attributes_without_reason, clippy::large_enum_variant, reason = "generated")]
#[cfg_attr(feature = "server", expect(clippy::allow_attributes, clippy::too_many_lines, reason = "generated"))]
mod generated {
    tonic::include_proto!("birthmark.v1");
}

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

impl Order {
    /// Its state at a moment, as people and programs are told it.
    pub fn state(&self, now: Timestamp) -> &'static str {
        let now = now.as_second();
        let terms = self.terms.as_ref();
        let not_before = terms.and_then(|terms| terms.not_before.as_ref()).map_or(i64::MIN, |time| time.seconds);
        let not_after = terms.and_then(|terms| terms.not_after.as_ref()).map_or(i64::MAX, |time| time.seconds);
        match self.closed {
            true => "closed",
            false if now >= not_after => "expired",
            false if self.devices_listed < terms.map_or(0, |terms| terms.devices) => "incomplete",
            false if self.left == 0 => "complete",
            false if self.paused_at.is_some() => "paused",
            false if now < not_before => "scheduled",
            false => "open",
        }
    }
}

/// A moment of the protocol as RFC 3339 in UTC, to the second; none if it is outside of the years -9999 to 9999.
pub fn rfc3339(time: &prost_types::Timestamp) -> Option<String> {
    Timestamp::from_second(time.seconds).ok().map(|time| time.to_string())
}

/// A time of the protocol that is none, or outside of the years -9999 to 9999.
#[derive(Debug, thiserror::Error)]
#[error("the time of {} seconds and {} nanoseconds is impossible: {source}", .time.seconds, .time.nanos)]
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
