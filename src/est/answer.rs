//! The answers of EST: media types (RFC 7030 sections 4.1.3, 4.2.3 and 4.5.2), and the only mapping from errors to HTTP
//! statuses (section 4.2.3; RFC 9110 section 15).

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Method, Response, StatusCode, header},
};
use tonic::Code;

use super::message;
use crate::{
    csr::MAX_LENGTH,
    grpc::{RefusedRequest, RequestError, refused_request},
    issuer::IssueError,
    ledger::LedgerError,
    quote::quoted,
};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum EstError {
    #[error(
        "there is nothing here; EST is at /.well-known/est/[LABEL/]cacerts, csrattrs, simpleenroll and simplereenroll"
    )]
    NotFound,
    #[error("{0}")]
    Label(String),
    #[error("say which profile: /.well-known/est/PROFILE/… or /.well-known/est/PROFILE~ORDER/…")]
    NoLabel,
    #[error("there is no profile {}", quoted(.0))]
    ProfileUnknown(String),
    #[error("this takes {0} only")]
    Method(Method),
    #[error("the content type is {}; a CSR has application/pkcs10", quoted(.0))]
    ContentType(String),
    #[error("the body is not base64 of a PKCS#10 CSR")]
    NotBase64,
    #[error("the body is too long; a CSR has at most {MAX_LENGTH} bytes")]
    TooLong,
    #[error("the body did not arrive within {0:?}")]
    TooSlow(Duration),
    /// Who asks did not say who it is.
    #[error("{0}")]
    Unauthenticated(String),
    /// There were too many wrong codes.
    #[error("there were too many wrong codes; wait {} s", .0.as_secs() + 1)]
    Guesses(Duration),
    /// Who asks may not.
    #[error("{0}")]
    Forbidden(String),
    #[error("the CSR names no device: {0}")]
    NoDevice(String),
    #[error("there are too many enrolments at the moment")]
    Busy,
    #[error("the daemon is shutting down")]
    Draining,
    /// The rules that all requests share.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl From<IssueError> for EstError {
    fn from(error: IssueError) -> Self {
        EstError::Request(error.into())
    }
}

impl From<LedgerError> for EstError {
    fn from(error: LedgerError) -> Self {
        EstError::Request(RequestError::Storage(Arc::new(error)))
    }
}

/// The statuses of all answers.
pub(super) const STATUSES: [StatusCode; 13] = [
    StatusCode::OK,
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::CONFLICT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// Certificates as certs-only CMS.
pub(super) fn certificates<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Response<Body> {
    base64("application/pkcs7-mime; smime-type=certs-only", &message::certs_only(certificates))
}

pub(super) fn csr_attributes(der: Vec<u8>) -> Response<Body> {
    base64("application/csrattrs", &der)
}

fn base64(content_type: &'static str, der: &[u8]) -> Response<Body> {
    let mut response = Response::new(Body::from(message::encode(der)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // RFC 8951 has it ignored; clients from before look for it.
    headers.insert("content-transfer-encoding", HeaderValue::from_static("base64"));
    response
}

/// A sentence for people, with the reason for programs where there is one.
pub(super) fn refusal(error: &EstError) -> Response<Body> {
    let (status, text, retry_after) = match error {
        EstError::NotFound | EstError::ProfileUnknown(_) => (StatusCode::NOT_FOUND, error.to_string(), None),
        EstError::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, error.to_string(), None),
        EstError::ContentType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string(), None),
        EstError::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, error.to_string(), None),
        EstError::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, error.to_string(), None),
        EstError::Label(_) | EstError::NoLabel | EstError::NotBase64 | EstError::NoDevice(_) => {
            (StatusCode::BAD_REQUEST, error.to_string(), None)
        }
        EstError::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, error.to_string(), None),
        EstError::Forbidden(_) => (StatusCode::FORBIDDEN, error.to_string(), None),
        EstError::Guesses(wait) => (StatusCode::TOO_MANY_REQUESTS, error.to_string(), Some(*wait)),
        EstError::Busy | EstError::Draining => {
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string(), Some(Duration::from_secs(1)))
        }
        EstError::Request(error) => {
            let RefusedRequest { code, reason, message, retry_after } = refused_request(error);
            (status_of(code), format!("{message} ({reason})"), retry_after)
        }
    };
    let mut response = Response::new(Body::from(text + "\n"));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let EstError::Method(allowed) = error
        && let Ok(allowed) = HeaderValue::from_str(allowed.as_str())
    {
        headers.insert(header::ALLOW, allowed);
    }
    if status == StatusCode::UNAUTHORIZED {
        headers
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"birthmark\", charset=\"UTF-8\""));
    }
    if let Some(after) = retry_after {
        // Whole seconds (RFC 9110 section 10.2.3), and not before the daemon said.
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs_f64().ceil().max(1.0) as u64));
    }
    response
}

/// By gRPC's code: the reasons are the same.
fn status_of(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists => StatusCode::CONFLICT,
        Code::PermissionDenied | Code::FailedPrecondition | Code::ResourceExhausted => StatusCode::FORBIDDEN,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
