//! A request taken apart: which operation (RFC 7030 section 3.2.2), under which label, and what it carries.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header},
};
use bytes::Bytes;
use tokio_stream::StreamExt;

use super::{
    answer::{self, EstError},
    enroll::{self, Caller},
    label::Label,
    message,
    operation::Operation,
    shared::Shared,
};
use crate::{connections::source, csr, metrics};

/// The longest body: a CSR in base64, with line breaks.
const LONGEST: usize = 2 * csr::MAX_LENGTH;

/// How much of a longer body is read, for the client to hear that it is too long.
const DISCARDED: usize = 1 << 20;

/// How long a body may take to arrive.
const ARRIVED: Duration = Duration::from_secs(10);

/// Where EST is (RFC 7030 section 3.2.2, RFC 8615).
const PREFIX: &str = "/.well-known/est/";

/// What is counted instead of an operation when none is named.
const OTHER: &str = "other";

/// Has requests counted from 0 on.
pub(super) fn prepare_metrics() {
    for operation in Operation::ALL.map(Operation::name).into_iter().chain([OTHER]) {
        metrics::known_est_statuses(operation, answer::STATUSES.iter().map(StatusCode::as_u16));
    }
}

/// Answers a request, and counts it.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    caller: &Caller,
    address: SocketAddr,
    request: Request<Body>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    // Also before a refusal: a client that is still sending would take it for a broken connection.
    let body = received(body).await;
    let asked = locate(&head.uri);
    let operation = asked.as_ref().map_or(OTHER, |(operation, _)| operation.name());
    let answered = match asked {
        Ok((operation, label)) => {
            fulfil(shared, caller, address, (operation, label), (head.method, head.headers, body)).await
        }
        Err(error) => Err(error),
    };
    let response = answered.unwrap_or_else(|error| {
        tracing::debug!(%address, %caller, operation, %error, "EST refused");
        answer::refusal(&error)
    });
    metrics::est_request(operation, response.status().as_u16());
    response
}

/// A body that arrives in time and is no longer than a CSR can be.
async fn received(body: Body) -> Result<Bytes, EstError> {
    let mut parts = body.into_data_stream();
    let read = async {
        let (mut octets, mut length) = (Vec::new(), 0);
        while let Some(part) = parts.next().await {
            // What the client breaks off it does not want to be answered.
            let part = part.map_err(|_| EstError::TooSlow(ARRIVED))?;
            length += part.len();
            if length <= LONGEST {
                octets.extend_from_slice(&part);
            } else if length > DISCARDED {
                break;
            }
        }
        if length > LONGEST { Err(EstError::TooLong) } else { Ok(Bytes::from(octets)) }
    };
    tokio::time::timeout(ARRIVED, read).await.map_err(|_| EstError::TooSlow(ARRIVED))?
}

fn locate(uri: &Uri) -> Result<(Operation, Option<Label>), EstError> {
    let rest = uri.path().strip_prefix(PREFIX).ok_or(EstError::NotFound)?;
    let (label, name) = match rest.split_once('/') {
        Some((label, name)) => (Some(label), name),
        None => (None, rest),
    };
    let operation = Operation::of(name).ok_or(EstError::NotFound)?;
    let label = label.map(|label| {
        let label = percent_encoding::percent_decode_str(label).decode_utf8_lossy();
        label.parse::<Label>().map_err(|error| EstError::Label(error.to_string()))
    });
    Ok((operation, label.transpose()?))
}

async fn fulfil(
    shared: &Arc<Shared>,
    caller: &Caller,
    address: SocketAddr,
    (operation, asked): (Operation, Option<Label>),
    (method, headers, body): (Method, HeaderMap, Result<Bytes, EstError>),
) -> Result<Response<Body>, EstError> {
    if method != operation.method() {
        return Err(EstError::Method(operation.method()));
    }
    let label = asked.clone().or_else(|| shared.est.settings.get().default_label.clone());
    match operation {
        Operation::CaCertificates => {
            let chains = enroll::ca_certificates(&shared.est.policy.get().profiles, label.as_ref())?;
            Ok(answer::certificates(chains.iter().map(Vec::as_slice)))
        }
        Operation::CsrAttributes => {
            let policy = shared.est.policy.get();
            let keys = enroll::profile(&policy.profiles, label.as_ref())?.keys();
            Ok(answer::csr_attributes(message::csr_attributes(keys)))
        }
        Operation::Enroll | Operation::Reenroll => {
            let code = match caller.is_stranger() {
                true => shared.codes.check(&shared.est.records, source(address.ip()), &headers).await?,
                false => None,
            };
            let certificate = match code {
                Some(code) => {
                    let csr = csr_of(&headers, &body?)?;
                    enroll::redeem(shared, code, asked.as_ref(), csr).await?
                }
                None => {
                    caller.check()?;
                    let csr = csr_of(&headers, &body?)?;
                    enroll::enroll(shared, caller, operation, label.as_ref(), csr).await?
                }
            };
            // Only the certificate that was issued (RFC 7030 section 4.2.3); its chain is at cacerts.
            Ok(answer::certificates([&*certificate]))
        }
    }
}

/// The CSR that a request carries, DER or PEM.
fn csr_of(headers: &HeaderMap, body: &[u8]) -> Result<Bytes, EstError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/pkcs10") {
        return Err(EstError::ContentType(content_type.to_owned()));
    }
    message::decode(body).map(Bytes::from).ok_or(EstError::NotBase64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_names_operation_and_label() {
        let located = |path: &str| locate(&path.parse().unwrap()).ok();
        let label = |text: &str| Some(text.parse::<Label>().unwrap());
        for (path, expected) in [
            ("/.well-known/est/cacerts", Some((Operation::CaCertificates, None))),
            ("/.well-known/est/device/simpleenroll", Some((Operation::Enroll, label("device")))),
            ("/.well-known/est/device~o1/simplereenroll", Some((Operation::Reenroll, label("device~o1")))),
            ("/.well-known/est/device%7Eo1/csrattrs?x=y", Some((Operation::CsrAttributes, label("device~o1")))),
            ("/.well-known/est/", None),
            ("/.well-known/est/serverkeygen", None),
            ("/.well-known/est/a/b/cacerts", None),
            ("/.well-known/est//cacerts", None),
            ("/cacerts", None),
        ] {
            assert_eq!(located(path), expected, "{path}");
        }
    }
}
