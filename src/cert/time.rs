//! The times of a certificate's validity (RFC 5280 section 4.1.2.5): whole seconds of UTC, up to the end of the year 9999.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use der::Decode;
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::Offset};

use crate::asn1::{GENERALIZED_TIME, UTC_TIME, primitive};

/// A moment in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(DateTime);

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

impl Time {
    /// 99991231235959Z, "no well-defined expiration date" (RFC 5280 section 4.1.2.5). It is beyond what
    /// [`Timestamp`] can hold.
    pub const NEVER: Time = Time(DateTime::constant(9999, 12, 31, 23, 59, 59, 0));

    /// Reads the time of a parsed certificate.
    pub(crate) fn of(time: x509_cert::time::Time) -> Time {
        Time::after_epoch(time.to_unix_duration())
    }

    fn after_epoch(duration: Duration) -> Time {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Time(EPOCH).plus(SignedDuration::from_secs(seconds))
    }

    /// The end of a DER certificate.
    ///
    /// # Errors
    /// If it is not valid DER.
    pub fn end_of(certificate: &[u8]) -> Result<Time, String> {
        let parsed = x509_cert::Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        Ok(Time::of(parsed.tbs_certificate().validity().not_after))
    }

    /// So much later, but no later than [`Time::NEVER`].
    pub fn plus(self, duration: SignedDuration) -> Time {
        Time(self.0.saturating_add(duration)).min(Time::NEVER)
    }

    /// How long after `now` it is; negative if it is past.
    pub fn since(self, now: Timestamp) -> SignedDuration {
        self.0.duration_since(Time::from(now).0)
    }

    /// The day alone.
    pub(crate) fn date(self) -> impl fmt::Display {
        self.0.strftime("%Y-%m-%d")
    }

    /// Appends it in DER: a UTCTime up to 2049, a GeneralizedTime from then on.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        if self.0.year() < 2050 {
            primitive(out, UTC_TIME, self.0.strftime("%y%m%d%H%M%SZ").to_string().as_bytes());
        } else {
            primitive(out, GENERALIZED_TIME, self.0.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes());
        }
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Time {
        let time = Offset::UTC.to_datetime(timestamp);
        Time(time.with().subsec_nanosecond(0).build().unwrap_or(time))
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Time {
        Time::after_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

impl From<Time> for SystemTime {
    fn from(time: Time) -> SystemTime {
        let seconds = time.since(Timestamp::UNIX_EPOCH).as_secs();
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_time_is_used_until_2049_and_generalized_time_from_2050() {
        for (moment, content) in [
            ("2026-01-02T03:04:05.9Z", "\x17\x0d260102030405Z"),
            ("2049-12-31T23:59:59Z", "\x17\x0d491231235959Z"),
            ("2050-01-01T00:00:00Z", "\x18\x0f20500101000000Z"),
        ] {
            let mut out = Vec::new();
            Time::from(moment.parse::<Timestamp>().unwrap()).encode(&mut out);
            assert_eq!(out, content.as_bytes(), "{moment}");
        }
        let mut out = Vec::new();
        Time::NEVER.plus(SignedDuration::from_secs(1)).encode(&mut out);
        assert_eq!(out, b"\x18\x0f99991231235959Z");
        assert_eq!(Time::from(SystemTime::from(Time::NEVER)), Time::NEVER);
    }
}
