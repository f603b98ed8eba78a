//! From when until when a profile's certificates are valid.

use jiff::{SignedDuration, Timestamp};

use super::error::ValidityError;
use crate::{ca::IssuingCa, config::WhenOutlivingIssuer, x509_time::Time};

#[derive(Clone, Copy, Debug)]
pub(super) struct Validity {
    pub(super) backdate: SignedDuration,
    pub(super) end: End,
    pub(super) when_outliving_issuer: WhenOutlivingIssuer,
}

/// When a certificate expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// This long after its notBefore.
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
    /// notBefore and notAfter of a certificate that is issued now. It is never valid before its issuer.
    pub(super) fn at(&self, now: Timestamp, issuer: &IssuingCa) -> Result<[Time; 2], ValidityError> {
        let name = || issuer.name().to_owned();
        if Time::from(now) < issuer.not_before() {
            return Err(ValidityError::NotYet { issuer: name(), not_before: issuer.not_before(), now });
        }
        let not_before = Time::from(now - self.backdate).max(issuer.not_before());
        let not_after = match self.end {
            End::After(duration) => not_before.plus(duration),
            End::At(moment) => moment,
            End::WithIssuer => issuer.not_after(),
        };
        let issuers = issuer.not_after();
        let not_after = match self.when_outliving_issuer {
            WhenOutlivingIssuer::Refuse if not_after > issuers => {
                return Err(ValidityError::OutlivesIssuer { not_after, issuer: name(), issuers, now });
            }
            WhenOutlivingIssuer::Shorten => not_after.min(issuers),
            WhenOutlivingIssuer::Refuse | WhenOutlivingIssuer::Allow => not_after,
        };
        if not_after <= Time::from(now) || Time::from(now) > issuers {
            return Err(ValidityError::Expired { not_after, issuer: name(), issuers, now });
        }
        Ok([not_before, not_after])
    }
}
