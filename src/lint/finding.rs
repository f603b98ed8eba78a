//! What is found in a profile.

use std::fmt;

use crate::path::{Fault, PathError};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The profile could only give invalid certificates.
    Error,
    /// Somebody may be surprised.
    Warning,
}

/// Something that is wrong with a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The key of the profile that decides about it.
    pub key: &'static str,
    /// The rule, by its place in the standard.
    pub rule: &'static str,
    /// The value, and what would be right.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.rule)
    }
}

/// The key of the profile that decides whether its certificates are valid below their issuer.
pub(super) fn key_of(error: &PathError) -> &'static str {
    match error.fault() {
        Fault::NameConstraints { below: 0, fault } if fault.in_alternative_names() => "subject_alt_names",
        Fault::NameConstraints { below: 0, .. } => "subject",
        Fault::Purposes(_) => "extended_key_usage",
        Fault::ExplicitPolicy(reason) if reason.is_of_end_entity() => "certificate_policies",
        _ => "issuer",
    }
}
