//! Why a call of AWS failed, and what follows from it.

use std::error::Error;

use aws_sdk_iot::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use crate::limits::Api;

/// What follows from a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No answer, or one that says that AWS itself has trouble: the same call may succeed later.
    Unavailable,
    /// Too many calls, or another change of the same resource at the same time: the same call will succeed later.
    Throttled,
    /// The credentials do not allow it: no other call of the kind will succeed either.
    Denied,
    /// The resource is not there.
    NotFound,
    /// It is there already.
    Exists,
    /// AWS does not take it.
    Refused,
}

/// A call that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{api}: {message} ({code})")]
pub struct CallError {
    /// Which call.
    pub api: Api,
    /// What follows.
    pub kind: Kind,
    /// AWS's own name of the error, or `NO_ANSWER`.
    pub code: String,
    /// AWS's own words.
    pub message: String,
}

impl CallError {
    /// What the SDK reports.
    pub(crate) fn new<E>(api: Api, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = error.code().unwrap_or(if status.is_some() { "NO_CODE" } else { "NO_ANSWER" }).to_owned();
        let message = error.message().map_or_else(|| DisplayErrorContext(error).to_string(), str::to_owned);
        let kind = kind(status, &code);
        CallError { api, kind, code, message: message.trim_end_matches('.').to_owned() }
    }

    /// What AWS answered is not what its documentation says.
    pub(crate) fn without(api: Api, field: &str) -> Self {
        let message = format!("the answer has no {field}");
        CallError { api, kind: Kind::Refused, code: "ANSWER_INCOMPLETE".into(), message }
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Throttled)
    }

    /// Whether no other device would fare better.
    pub fn is_general(&self) -> bool {
        self.is_transient() || self.kind == Kind::Denied
    }
}

/// From the HTTP status, if there was an answer, and AWS's own code.
fn kind(status: Option<u16>, code: &str) -> Kind {
    match (status, code) {
        (_, "ThrottlingException" | "ThrottledException" | "TooManyRequestsException" | "RequestLimitExceeded")
        | (_, "VersionConflictException" | "ConflictingResourceUpdateException")
        | (Some(429), _) => Kind::Throttled,
        (None, _) => Kind::Unavailable,
        (_, "AccessDeniedException" | "AccessDenied" | "UnauthorizedException" | "UnrecognizedClientException")
        | (_, "InvalidClientTokenId" | "InvalidSignatureException" | "SignatureDoesNotMatch" | "ForbiddenException")
        | (_, "ExpiredTokenException" | "ExpiredToken" | "MissingAuthenticationTokenException")
        | (Some(401 | 403), _) => Kind::Denied,
        (_, "ResourceNotFoundException") => Kind::NotFound,
        (_, "ResourceAlreadyExistsException") => Kind::Exists,
        (Some(500..), _) | (_, "ServiceUnavailableException" | "InternalFailureException") => Kind::Unavailable,
        _ => Kind::Refused,
    }
}

/// A failed call, if it is because the resource is not there, is none.
pub(crate) fn if_found<T>(result: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match result {
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is tried again is what may succeed then, and nothing else.
    #[test]
    fn failed_call_is_tried_again_only_if_it_may_succeed() {
        for (status, code, expected) in [
            (None, "NO_ANSWER", Kind::Unavailable),
            (Some(500), "NO_CODE", Kind::Unavailable),
            (Some(503), "ServiceUnavailableException", Kind::Unavailable),
            (Some(500), "InternalFailureException", Kind::Unavailable),
            (Some(429), "NO_CODE", Kind::Throttled),
            (Some(400), "ThrottlingException", Kind::Throttled),
            (Some(409), "VersionConflictException", Kind::Throttled),
            (Some(403), "AccessDeniedException", Kind::Denied),
            (Some(401), "UnauthorizedException", Kind::Denied),
            (Some(403), "ExpiredTokenException", Kind::Denied),
            (Some(404), "ResourceNotFoundException", Kind::NotFound),
            (Some(409), "ResourceAlreadyExistsException", Kind::Exists),
            (Some(400), "CertificateValidationException", Kind::Refused),
            (Some(410), "LimitExceededException", Kind::Refused),
            (Some(409), "CertificateConflictException", Kind::Refused),
        ] {
            assert_eq!(kind(status, code), expected, "{status:?} {code}");
        }
    }
}
