//! The times of a certificate's validity (RFC 5280 section 4.1.2.5): whole seconds of UTC, up to the end of the year 9999.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::Offset};

use crate::asn1::{DerError, GENERALIZED_TIME, UTC_TIME, Value, primitive};

/// A moment in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(DateTime);

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

impl Time {
    /// 99991231235959Z, "no well-defined expiration date" (RFC 5280 section 4.1.2.5). It is beyond what
    /// [`Timestamp`] can hold.
    pub const NEVER: Time = Time(DateTime::constant(9999, 12, 31, 23, 59, 59, 0));

    /// Reads a UTCTime, or a GeneralizedTime of any year: RFC 5280 wants none before 2050, but verifiers take it.
    pub fn read(value: Value<'_>) -> Result<Time, DerError> {
        let wrong = DerError::Content("time");
        let text = std::str::from_utf8(value.content).ok().and_then(|text| text.strip_suffix('Z')).ok_or(wrong)?;
        let (year, rest) = match value.tag {
            UTC_TIME => text.split_at_checked(2),
            GENERALIZED_TIME => text.split_at_checked(4),
            _ => return Err(wrong),
        }
        .ok_or(wrong)?;
        if rest.len() != 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong);
        }
        let number = |text: &str| text.parse::<i8>().map_err(|_| wrong);
        let mut parts = [0; 5];
        for (part, digits) in parts.iter_mut().zip(rest.as_bytes().chunks(2)) {
            *part = number(std::str::from_utf8(digits).map_err(|_| wrong)?)?;
        }
        let year = match (value.tag, year.parse::<i16>().map_err(|_| wrong)?) {
            // Section 4.1.2.5.1.
            (UTC_TIME, year) if year < 50 => 2000 + year,
            (UTC_TIME, year) => 1900 + year,
            (_, year) => year,
        };
        let [month, day, hour, minute, second] = parts;
        DateTime::new(year, month, day, hour, minute, second, 0).map(Time).map_err(|_| wrong)
    }

    fn after_epoch(duration: Duration) -> Time {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Time(EPOCH).plus(SignedDuration::from_secs(seconds))
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
    pub fn date(self) -> impl fmt::Display {
        self.0.strftime("%Y-%m-%d")
    }

    /// Appends it in DER: a UTCTime up to 2049, a GeneralizedTime from then on.
    pub fn encode(self, out: &mut Vec<u8>) {
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
    use crate::asn1::UTF8_STRING;

    /// UTC time is used until 2049 and generalized time from 2050.
    #[test]
    fn time_until_2049_is_utc_and_from_2050_generalized() {
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

    #[test]
    fn time_of_either_type_and_any_year_is_read() {
        let read = |tag, text: &str| {
            let mut der = Vec::new();
            primitive(&mut der, tag, text.as_bytes());
            Time::read(Value::only(&der).unwrap()).map(|time| time.to_string()).ok()
        };
        for (tag, text, expected) in [
            (UTC_TIME, "260102030405Z", Some("2026-01-02T03:04:05Z")),
            (UTC_TIME, "500102030405Z", Some("1950-01-02T03:04:05Z")),
            (GENERALIZED_TIME, "20260102030405Z", Some("2026-01-02T03:04:05Z")),
            (GENERALIZED_TIME, "99991231235959Z", Some("9999-12-31T23:59:59Z")),
            (GENERALIZED_TIME, "19500102030405Z", Some("1950-01-02T03:04:05Z")),
            (UTC_TIME, "2601020304Z", None),
            (UTC_TIME, "260102030405+0000", None),
            (UTC_TIME, "261302030405Z", None),
            (UTC_TIME, "26010203040éZ", None),
            (GENERALIZED_TIME, "20260102030405.5Z", None),
            (GENERALIZED_TIME, "+0260102030405Z", None),
            (UTF8_STRING, "260102030405Z", None),
        ] {
            assert_eq!(read(tag, text).as_deref(), expected, "{text}");
        }
    }
}
