//! When a profile's certificates begin and end.

use jiff::{SignedDuration, Timestamp};

use crate::{ca::IssuingCa, config::WhenOutlivingIssuer, x509_time::Time};

#[derive(Clone, Copy, Debug)]
pub(super) struct Validity {
    pub(super) backdate: SignedDuration,
    pub(super) end: End,
    pub(super) when_outliving_issuer: WhenOutlivingIssuer,
}

/// When a certificate ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// So long after its beginning.
    After(SignedDuration),
    At(Time),
    WithIssuer,
}

impl End {
    /// Reads `issuer`, `99991231235959Z`, or a moment as RFC 3339 writes it.
    pub(super) fn parse(text: &str) -> Result<End, String> {
        match text {
            "issuer" => Ok(End::WithIssuer),
            "99991231235959Z" => Ok(End::At(Time::NEVER)),
            _ => text.parse::<Timestamp>().map(|moment| End::At(moment.into())).map_err(|_| {
                format!(
                    "\"{text}\" is none of \"issuer\", \"99991231235959Z\" or a moment such as \"2049-12-31T23:59:59Z\""
                )
            }),
        }
    }
}

impl Validity {
    /// Beginning and end of a certificate that is issued now. It never begins before its issuer.
    pub(super) fn at(&self, now: Timestamp, issuer: &IssuingCa) -> Result<[Time; 2], String> {
        if Time::from(now) < issuer.not_before() {
            return Err(format!(
                "the issuer \"{}\" is not valid before {}, and the clock says {now}",
                issuer.name(),
                issuer.not_before()
            ));
        }
        let not_before = Time::from(now - self.backdate).max(issuer.not_before());
        let not_after = match self.end {
            End::After(duration) => not_before.plus(duration),
            End::At(moment) => moment,
            End::WithIssuer => issuer.not_after(),
        };
        let not_after = match self.when_outliving_issuer {
            WhenOutlivingIssuer::Refuse if not_after > issuer.not_after() => {
                return Err(format!(
                    "a certificate made on {} would end at {not_after}, after its issuer \"{}\", which ends at {}; give it \
                     a shorter life, a new issuer, or say when_outliving_issuer = \"shorten\" or \"allow\"",
                    Time::from(now).date(),
                    issuer.name(),
                    issuer.not_after()
                ));
            }
            WhenOutlivingIssuer::Shorten => not_after.min(issuer.not_after()),
            WhenOutlivingIssuer::Refuse | WhenOutlivingIssuer::Allow => not_after,
        };
        if not_after <= Time::from(now) || Time::from(now) > issuer.not_after() {
            return Err(format!(
                "a certificate made on {} would have ended: it would end at {not_after}, its issuer \"{}\" at {}",
                Time::from(now).date(),
                issuer.name(),
                issuer.not_after()
            ));
        }
        Ok([not_before, not_after])
    }
}
