//! The status page at `/`, what it is made of, and the same for programs.
//!
//! | path | is |
//! |---|---|
//! | `/` | the page: one file without anything from elsewhere |
//! | `/status/events` | what it shows, as server-sent events: `history`, then `status` once a second and `samples` |
//! | `/status.json`, `/status/history.json` | the same for programs |
//!
//! The state is in the page as it is sent, so that it is read without JavaScript too; the rest comes by events. [`LISTENERS`]
//! may listen at a time. One that does not take what it is sent gets the newest when it does, and loses its connection when it
//! takes nothing for ten seconds.

use std::{
    convert::Infallible,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};

use super::patience::Patience;
use crate::{
    hash::sha256,
    status::{Condition, Snapshot, Status},
};

/// How many pages may be open at a time.
const LISTENERS: usize = 32;

/// How often an event is sent; a change of the daemon's state is sent at once.
const PACE: Duration = Duration::from_millis(950);

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

const READY_ICON: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48"><circle cx="24" cy="24" r="22" fill="#0a6b62"/><path d="M20.6 34.2L37 17.8l-3.4-3.4-13 13-6.2-6.2-3.4 3.4z" fill="#fff"/></svg>"##;
const NOT_READY_ICON: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48"><path d="M15 2h18l13 13v18L33 46H15L2 33V15z" fill="#b3261e"/><path d="M15 15l18 18M33 15L15 33" stroke="#fff" stroke-width="5"/></svg>"##;

/// Only this page's own style and script, by their hashes, and nothing of another origin; nobody may frame it.
static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(sha256(text.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    HeaderValue::from_str(&policy).ok()
});

/// A snapshot, and the octets of its event.
type Event = (Arc<Snapshot>, Bytes);

#[derive(Clone)]
struct Shared {
    status: Arc<Status>,
    listeners: Arc<Semaphore>,
    /// The event of the newest snapshot that was sent, for all listeners.
    event: Arc<Mutex<Option<Event>>>,
}

/// The paths of the status.
pub(super) fn routes(status: Arc<Status>) -> Router {
    let icon = |svg: &'static str| get(move || async move { ([(header::CONTENT_TYPE, "image/svg+xml")], svg) });
    Router::new()
        .route("/", get(page))
        .route("/status/ready.svg", icon(READY_ICON))
        .route("/status/not-ready.svg", icon(NOT_READY_ICON))
        .route("/status/events", get(events))
        .route("/status.json", get(snapshot))
        .route("/status/history.json", get(history))
        .with_state(Shared { status, listeners: Arc::new(Semaphore::new(LISTENERS)), event: Arc::default() })
}

async fn page(State(shared): State<Shared>) -> Response {
    let mut response = rendered(&*shared.status.recent().await).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    match &*POLICY {
        Some(policy) => headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone()),
        // Base64 is always a header.
        None => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    response
}

/// The page with the state of this moment in it.
fn rendered(snapshot: &Snapshot) -> String {
    let (class, state) = match (snapshot.ready, snapshot.warnings.is_empty()) {
        (true, true) => ("ready still", "Ready"),
        (true, false) => ("degraded still", "Ready, with a warning"),
        (false, _) => ("refusing still", "Not ready"),
    };
    let icon = if snapshot.ready { "/status/ready.svg" } else { "/status/not-ready.svg" };
    let line = |condition: &Condition| {
        format!("<li><b>{}</b>: {}</li>", escaped(&condition.component), escaped(&condition.cause))
    };
    let causes: String = snapshot.obstacles.iter().chain(&snapshot.warnings).map(line).collect();
    let mut page = String::with_capacity(PAGE.len() + STYLE.len() + SCRIPT.len() + causes.len());
    let mut rest = PAGE;
    // Each place once: what is put in is not looked at again.
    while let Some((before, (name, after))) =
        rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    {
        page.push_str(before);
        page.push_str(match name {
            "title" | "state" => state,
            "icon" => icon,
            "style" => STYLE,
            "script" => SCRIPT,
            "class" => class,
            "version" => snapshot.version,
            "causes" => &causes,
            _ => "",
        });
        rest = after;
    }
    page.push_str(rest);
    page
}

/// Text as HTML has it, inside and outside of attributes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

async fn snapshot(State(shared): State<Shared>) -> Response {
    json(&*shared.status.recent().await)
}

async fn history(State(shared): State<Shared>) -> Response {
    json(&shared.status.history())
}

fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => {
            let headers = [
                (header::CONTENT_TYPE, "application/json"),
                (header::CACHE_CONTROL, "no-store"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            (headers, text).into_response()
        }
        // Nothing in it can be no JSON.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn events(State(shared): State<Shared>, Extension(patience): Extension<Patience>) -> Response {
    let Ok(seat) = Arc::clone(&shared.listeners).try_acquire_owned() else {
        let message = format!("{LISTENERS} status pages are open, which is the most; try again later\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], message).into_response();
    };
    patience.take_little();
    let newest = shared.status.follow().await;
    let listener = Listener { shared, newest, sent: None, samples: None, _seat: seat };
    let frames = stream::unfold(listener, |mut listener| async move {
        let octets = listener.next().await?;
        Some((Ok::<_, Infallible>(octets), listener))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(frames)).into_response()
}

/// One open page.
struct Listener {
    shared: Shared,
    newest: watch::Receiver<Arc<Snapshot>>,
    /// What was sent last, and when.
    sent: Option<(Arc<Snapshot>, Instant)>,
    /// The moment of the newest sample that was sent; none: the history was not sent.
    samples: Option<jiff::Timestamp>,
    _seat: OwnedSemaphorePermit,
}

impl Listener {
    /// The next events; none when the daemon ends.
    async fn next(&mut self) -> Option<Bytes> {
        let Some((before, at)) = &self.sent else { return self.begin() };
        let due = *at + PACE;
        loop {
            self.newest.changed().await.ok()?;
            let newest = self.newest.borrow_and_update().clone();
            if Instant::now() >= due || !newest.says_the_same(before) {
                break;
            }
        }
        let mut octets = self.status().to_vec();
        let since = self.samples.unwrap_or_default();
        let samples = self.shared.status.history().samples;
        let new: Vec<_> = samples.into_iter().filter(|sample| sample.at > since).collect();
        if let Some(last) = new.last() {
            self.samples = Some(last.at);
            octets.extend_from_slice(&event("samples", &new));
        }
        Some(octets.into())
    }

    fn begin(&mut self) -> Option<Bytes> {
        let history = self.shared.status.history();
        self.samples = Some(history.samples.last().map_or(jiff::Timestamp::MIN, |sample| sample.at));
        let begin = [&self.status()[..], &event("history", &history)].concat();
        Some(begin.into())
    }

    /// The event of the newest snapshot, which listeners share.
    fn status(&mut self) -> Bytes {
        let newest = self.newest.borrow_and_update().clone();
        self.sent = Some((Arc::clone(&newest), Instant::now()));
        let mut shared = self.shared.event.lock();
        match &*shared {
            Some((of, octets)) if Arc::ptr_eq(of, &newest) => octets.clone(),
            _ => {
                let octets = Bytes::from(event("status", &*newest));
                *shared = Some((newest, octets.clone()));
                octets
            }
        }
    }
}

/// A server-sent event: JSON has no line breaks.
fn event(name: &str, data: &impl serde::Serialize) -> Vec<u8> {
    let mut octets = format!("event: {name}\ndata: ").into_bytes();
    // Nothing in it can be no JSON.
    let _ = serde_json::to_writer(&mut octets, data);
    octets.extend_from_slice(b"\n\n");
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page has no place left open, and what is put into it is text.
    #[test]
    fn page_is_whole_and_shows_causes_as_text() {
        let places: Vec<_> = PAGE.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
        let known = ["title", "icon", "style", "class", "version", "state", "causes", "script"];
        assert_eq!(places, known);
        assert_eq!(escaped("<img src='x' onerror=\"a&b\">"), "&lt;img src=&#39;x&#39; onerror=&quot;a&amp;b&quot;&gt;");
    }

    /// What comes from outside is never read as markup, and nothing is from elsewhere.
    #[test]
    fn script_makes_no_markup_and_asks_nobody_else() {
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "setAttribute(\"style"]
        {
            assert!(!SCRIPT.contains(forbidden), "{forbidden}");
        }
        for text in [PAGE, STYLE, SCRIPT] {
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("//www") && !elsewhere.contains("http:") && !elsewhere.contains("https:"));
            assert!(!text.contains("@import") && !text.contains("url("));
        }
        assert!(!STYLE.contains("</style") && !SCRIPT.contains("</script"));
        let policy = POLICY.as_ref().unwrap().to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
}
