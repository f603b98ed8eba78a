//! Revocation lists and CA certificates over HTTP (RFC 5280 section 4.2.1.13, RFC 2585), with what caches need
//! (RFC 9110, RFC 9111).

use std::{sync::Arc, time::SystemTime};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Response, StatusCode, header},
    routing::get,
};
use bytes::Bytes;
use jiff::{Timestamp, fmt::rfc2822};

use crate::{
    crl::{Directory, Document},
    hash::sha256,
    x509_time::Time,
};

/// The longest that a cache may serve a list without asking, in seconds: a revocation is not to wait longer.
const LONGEST_AGE: i64 = 3600;

/// For how long a cache may serve a CA certificate without asking, in seconds.
const CERTIFICATE_AGE: i64 = 86_400;

/// The paths `/crl/…` and `/ca/…`.
pub(super) fn routes(directory: Arc<Directory>) -> Router {
    let crl = |state: State<Arc<Directory>>, Path(path): Path<String>, headers: HeaderMap| async move {
        serve(&state, &format!("crl/{path}"), &headers)
    };
    let ca = |state: State<Arc<Directory>>, Path(path): Path<String>, headers: HeaderMap| async move {
        serve(&state, &format!("ca/{path}"), &headers)
    };
    Router::new().route("/crl/{*path}", get(crl)).route("/ca/{*path}", get(ca)).with_state(directory)
}

/// What is sent, and how long it may be kept.
struct Found {
    content: Bytes,
    content_type: &'static str,
    tag: String,
    modified: Option<SystemTime>,
    max_age: i64,
}

fn serve(directory: &Directory, path: &str, request: &HeaderMap) -> Response<Body> {
    match find(directory, path, Timestamp::now()) {
        Some(found) => answer(found, request),
        None => {
            let mut response = Response::new(Body::from("there is nothing at this path, or not yet\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

fn find(directory: &Directory, path: &str, now: Timestamp) -> Option<Found> {
    Some(match directory.find(path)? {
        Document::List(id) => {
            let list = directory.list(id)?;
            let left = list.next_update.since(now).as_secs();
            Found {
                content: list.der.clone(),
                content_type: "application/pkix-crl",
                tag: format!("\"{}\"", hex::encode(&list.sha256[..16])),
                modified: Some(list.this_update.into()),
                max_age: left.clamp(0, LONGEST_AGE),
            }
        }
        Document::Certificate(der) => Found {
            content: der.clone(),
            content_type: "application/pkix-cert",
            tag: format!("\"{}\"", hex::encode(&sha256(der)[..16])),
            modified: None,
            max_age: CERTIFICATE_AGE,
        },
    })
}

fn answer(found: Found, request: &HeaderMap) -> Response<Body> {
    let unchanged = is_unchanged(&found, request);
    let mut response = Response::builder()
        .status(if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK })
        .header(header::ETAG, &found.tag)
        .header(header::CACHE_CONTROL, format!("public, max-age={}", found.max_age));
    if let Some(date) = found.modified.and_then(http_date) {
        response = response.header(header::LAST_MODIFIED, date);
    }
    let body = match unchanged {
        true => Body::empty(),
        false => {
            response = response.header(header::CONTENT_TYPE, found.content_type);
            Body::from(found.content)
        }
    };
    // Nothing in it can be no header.
    response.body(body).unwrap_or_default()
}

/// RFC 9110 section 13.2.2: If-None-Match decides, where it is there.
fn is_unchanged(found: &Found, request: &HeaderMap) -> bool {
    let text = |name| request.get(name).and_then(|value| value.to_str().ok());
    if let Some(tags) = text(header::IF_NONE_MATCH) {
        return tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == found.tag);
    }
    let since =
        text(header::IF_MODIFIED_SINCE).and_then(|date| rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
    let modified = found.modified.map(|modified| Time::from(modified).since(Timestamp::UNIX_EPOCH).as_secs());
    matches!((since, modified), (Some(since), Some(modified)) if modified <= since.as_second())
}

/// RFC 9110 section 5.6.7.
fn http_date(time: SystemTime) -> Option<String> {
    let time = Timestamp::try_from(time).ok()?;
    Some(time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}
