//! Checks the certificates of a profile before any device gets one (invariant 8).
//!
//! A sample certificate is made with a throw-away key and the profile's own code, parsed by code that is not the
//! writer's, and checked against the rules of its preset. The daemon does not start with a profile whose sample breaks one.

mod finding;
mod rules;
mod sample;

use jiff::{SignedDuration, Timestamp};

pub use self::{
    finding::{Finding, Severity},
    sample::{Sample, SampleError, sample},
};
use crate::{
    config,
    profile::{Profile, ProfileError, SubjectError},
};

/// How far ahead an expiring issuer is reported: half a year, in which a ceremony can be held.
const LOOKAHEAD: SignedDuration = SignedDuration::from_hours(180 * 24);

/// Lints a profile: once for its issuer of this moment, and once for each that takes over later.
pub fn profile(profile: &Profile, settings: &config::Profile, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    let moments = profile.issuers().filter_map(|(from, _)| from).filter(|from| *from > now);
    for moment in std::iter::once(now).chain(moments) {
        match sample(profile, None, moment) {
            Ok(sample) => findings.extend(rules::check(profile, settings, &sample)),
            Err(error) => findings.push(refused(&error, settings)),
        }
    }
    findings.dedup();
    if let Err(error @ SampleError::Refused(ProfileError::IssuerExpiring(_))) = sample(profile, None, now + LOOKAHEAD)
        && findings.iter().all(|finding| finding.severity == Severity::Warning)
    {
        let message = format!("soon every request will be refused: {error}");
        findings.push(Finding { severity: Severity::Warning, message, ..refused(&error, settings) });
    }
    findings
}

fn refused(error: &SampleError, settings: &config::Profile) -> Finding {
    let (key, rule) = match error {
        SampleError::Refused(ProfileError::IssuerExpiring(_)) => {
            (settings.validity_key(), "no certificate outlives its issuer")
        }
        SampleError::Refused(ProfileError::DeviceIdLikeCode { .. }) => ("device_id", "proof of possession of a CA"),
        SampleError::Refused(ProfileError::SubjectRefused(SubjectError::AltName(_))) => {
            ("subject_alt_names", "RFC 5280 section 4.2.1.6")
        }
        SampleError::Refused(ProfileError::SubjectRefused(SubjectError::InvalidBelowIssuer(error))) => {
            (finding::key_of(error), "RFC 5280 section 6")
        }
        _ => ("subject", "RFC 5280 appendix A.1"),
    };
    Finding { severity: Severity::Error, key, rule, message: error.to_string() }
}
