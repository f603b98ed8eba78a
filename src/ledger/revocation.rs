//! Why a certificate is revoked.

use std::{fmt, str::FromStr};

/// A reason of RFC 5280 section 5.3.1 that fits a device's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationReason {
    /// None is given.
    Unspecified,
    /// The private key is known to somebody else, or may be.
    KeyCompromise,
    /// What the certificate says of its holder changed.
    AffiliationChanged,
    /// A newer certificate takes its place.
    Superseded,
    /// The device is not used any more.
    CessationOfOperation,
    /// The device may not do any more what the certificate lets it do.
    PrivilegeWithdrawn,
}

/// The reasons with their numbers and names of the RFC.
const REASONS: [(RevocationReason, u32, &str); 6] = [
    (RevocationReason::Unspecified, 0, "unspecified"),
    (RevocationReason::KeyCompromise, 1, "keyCompromise"),
    (RevocationReason::AffiliationChanged, 3, "affiliationChanged"),
    (RevocationReason::Superseded, 4, "superseded"),
    (RevocationReason::CessationOfOperation, 5, "cessationOfOperation"),
    (RevocationReason::PrivilegeWithdrawn, 9, "privilegeWithdrawn"),
];

/// The reasons of the RFC that do not fit, and why.
const UNFIT: [(u32, &str, &str); 4] = [
    (2, "cACompromise", "is for CA certificates"),
    (6, "certificateHold", "is a revocation that can be lifted; here a revocation is final"),
    (8, "removeFromCRL", "lifts a revocation; here a revocation is final"),
    (10, "aACompromise", "is for attribute authorities"),
];

impl RevocationReason {
    /// The number of the RFC's `CRLReason`.
    pub fn code(self) -> u32 {
        self.entry().1
    }

    /// The name of the RFC's `CRLReason`.
    pub fn name(self) -> &'static str {
        self.entry().2
    }

    fn entry(self) -> (RevocationReason, u32, &'static str) {
        // The table has every reason.
        REASONS.into_iter().find(|(reason, ..)| *reason == self).unwrap_or(REASONS[0])
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<u32> for RevocationReason {
    type Error = ParseReasonError;

    fn try_from(code: u32) -> Result<Self, ParseReasonError> {
        let fit = REASONS.into_iter().find(|(_, known, _)| *known == code);
        let unfit = || UNFIT.into_iter().find(|(known, ..)| *known == code);
        fit.map(|(reason, ..)| reason).ok_or_else(|| ParseReasonError::new(code.to_string(), unfit()))
    }
}

impl FromStr for RevocationReason {
    type Err = ParseReasonError;

    fn from_str(text: &str) -> Result<Self, ParseReasonError> {
        let fit = REASONS.into_iter().find(|(.., name)| *name == text);
        let unfit = || UNFIT.into_iter().find(|(_, name, _)| *name == text);
        fit.map(|(reason, ..)| reason).ok_or_else(|| ParseReasonError::new(text.to_owned(), unfit()))
    }
}

/// The number or the name is not a reason for which a device's certificate is revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the revocation reason \"{what}\" {why}; it must be one of {}", REASONS.map(|(.., name)| name).join(", "))]
pub struct ParseReasonError {
    what: String,
    why: &'static str,
}

impl ParseReasonError {
    fn new(what: String, unfit: Option<(u32, &str, &'static str)>) -> Self {
        ParseReasonError { what, why: unfit.map_or("is not one of RFC 5280", |(.., why)| why) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reason of RFC 5280.
    #[test]
    fn revocation_reason_is_taken_or_refused_with_why() {
        for (reason, code, name) in REASONS {
            assert_eq!((reason.code(), reason.name()), (code, name));
            assert_eq!(RevocationReason::try_from(code), Ok(reason));
            assert_eq!(name.parse(), Ok(reason));
        }
        for (code, name, why) in UNFIT {
            for error in [RevocationReason::try_from(code).err(), name.parse::<RevocationReason>().err()] {
                assert!(error.is_some_and(|error| error.to_string().contains(why)), "{name}");
            }
        }
        let error = RevocationReason::try_from(7).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("\"7\" is not one of RFC 5280") && error.contains("keyCompromise"), "{error}");
    }
}
