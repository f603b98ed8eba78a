//! Whether the daemon issues certificates now: the one answer for `/readyz`, the gauge `birthmark_ready` and the log
//! (invariant 10).
//!
//! | what | while it lasts |
//! |---|---|
//! | shutting down | not ready |
//! | no token of an issuer signs | not ready |
//! | a profile can issue nothing, as its issuer has expired | not ready |
//! | the clock is implausible or before the newest entry, the disk is low, the journal cannot be written | not ready |
//! | the daemon's own TLS certificate, or every certificate of the station CA, is not valid | not ready |
//! | some tokens of an issuer sign and others do not; the audit key's does not | ready, degraded |
//! | some certificates of the station CA are not valid | ready, degraded |
//!
//! What refuses every request of one profile is reported as loudly as what refuses all: each profile of the
//! configuration is there because a line depends on it. What will expire is in `expiry.rs`.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use birthmark_base::console::plain;
use tokio::sync::watch;

use crate::security;

/// How often the log follows what has changed.
const INTERVAL: Duration = Duration::from_millis(200);

/// What keeps a component of the daemon from its work now, in words for people; `None` if nothing does.
pub(crate) type Check = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// A component of the daemon by its name, and its check.
pub(crate) type Component = (String, Check);

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The component's name.
    pub(crate) component: String,
    /// What is wrong, for people.
    pub(crate) cause: String,
}

impl From<(&str, String)> for Found {
    fn from((component, cause): (&str, String)) -> Self {
        Found { component: component.to_owned(), cause: plain(&cause) }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.component, self.cause)
    }
}

/// Whether the daemon issues certificates now.
pub(crate) struct Readiness {
    draining: watch::Receiver<bool>,
    checks: Vec<Component>,
    warnings: Vec<Component>,
}

impl Readiness {
    /// Ready unless draining, or one of `checks` says otherwise. What `warnings` say is in the way of nothing, yet.
    /// The names of the parts must differ within each list.
    pub(crate) fn new(draining: watch::Receiver<bool>, checks: Vec<Component>, warnings: Vec<Component>) -> Self {
        Readiness { draining, checks, warnings }
    }

    /// What is in the way of issuing, one line a component; empty if nothing is.
    pub(crate) fn obstacles(&self) -> Vec<String> {
        self.found_obstacles().iter().map(Found::to_string).collect()
    }

    /// What is in the way of nothing, yet, one line a component.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.found_warnings().iter().map(Found::to_string).collect()
    }

    /// The same as [`Readiness::obstacles`], component by component.
    pub(crate) fn found_obstacles(&self) -> Vec<Found> {
        self.failed_checks().map(Found::from).collect()
    }

    /// The same as [`Readiness::warnings`], component by component.
    pub(crate) fn found_warnings(&self) -> Vec<Found> {
        failed(&self.warnings).map(Found::from).collect()
    }

    fn failed_checks(&self) -> impl Iterator<Item = (&str, String)> {
        let draining = self.draining.borrow().then(|| ("draining", "the daemon is shutting down".to_owned()));
        draining.into_iter().chain(failed(&self.checks))
    }

    /// Logs what is so now. The future that it returns logs each change, when it begins and when it is over, until
    /// it is dropped.
    pub(crate) fn watch(self: Arc<Self>) -> impl Future<Output = ()> {
        let mut log = Log::default();
        log.follow(&self);
        async move {
            let mut interval = tokio::time::interval(INTERVAL);
            loop {
                interval.tick().await;
                // While it shuts down one thing after the other closes, on purpose.
                if !*self.draining.borrow() {
                    log.follow(&self);
                }
            }
        }
    }
}

fn failed(checks: &[Component]) -> impl Iterator<Item = (&str, String)> {
    checks.iter().filter_map(|(component, check)| Some((component.as_str(), check()?)))
}

/// What the log has said last.
#[derive(Debug, Default)]
struct Log {
    ready: bool,
    obstacles: BTreeMap<String, String>,
    warnings: BTreeMap<String, String>,
}

/// What has changed since: one line of the log.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Obstacle { component: String, cause: String },
    ObstacleGone { component: String },
    Warning { component: String, cause: String },
    WarningGone { component: String },
    Ready,
}

impl Log {
    fn follow(&mut self, readiness: &Readiness) {
        for change in self.changes(readiness) {
            match change {
                Change::Obstacle { component, cause } => {
                    tracing::error!(target: security::TARGET, component, cause, "not ready");
                }
                Change::ObstacleGone { component } => {
                    tracing::info!(target: security::TARGET, component, "no longer in the way of issuing");
                }
                Change::Warning { component, cause } => tracing::warn!(component, cause, "degraded"),
                Change::WarningGone { component } => tracing::info!(component, "no longer degraded"),
                Change::Ready => tracing::info!("ready"),
            }
        }
    }

    fn changes(&mut self, readiness: &Readiness) -> Vec<Change> {
        let named = |(component, cause): (&str, String)| (component.to_owned(), cause);
        let obstacles: BTreeMap<_, _> = readiness.failed_checks().map(named).collect();
        let warnings: BTreeMap<_, _> = failed(&readiness.warnings).map(named).collect();
        let mut changes = Vec::new();
        differ(&self.obstacles, &obstacles, &mut changes, Change::obstacle, |component| Change::ObstacleGone {
            component,
        });
        differ(&self.warnings, &warnings, &mut changes, Change::warning, |component| Change::WarningGone { component });
        let ready = obstacles.is_empty();
        if ready && !self.ready {
            changes.push(Change::Ready);
        }
        *self = Log { ready, obstacles, warnings };
        changes
    }
}

impl Change {
    fn obstacle(component: String, cause: String) -> Change {
        Change::Obstacle { component, cause }
    }

    fn warning(component: String, cause: String) -> Change {
        Change::Warning { component, cause }
    }
}

fn differ(
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
    changes: &mut Vec<Change>,
    begins: fn(String, String) -> Change,
    over: fn(String) -> Change,
) {
    let is_new =
        |component: &str, cause: &str| before.get(component).is_none_or(|before| !same_but_for_figures(before, cause));
    let begun = now.iter().filter(|(component, cause)| is_new(component, cause));
    changes.extend(begun.map(|(component, cause)| begins(component.clone(), cause.clone())));
    let gone = before.keys().filter(|component| !now.contains_key(*component));
    changes.extend(gone.map(|component| over(component.clone())));
}

/// A cause whose figures change (free bytes, the moment) is the same cause.
fn same_but_for_figures(left: &str, right: &str) -> bool {
    let words = |text: &str| text.chars().filter(|character| !character.is_ascii_digit()).collect::<String>();
    words(left) == words(right)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// The log has one line when a cause begins and one when it is gone.
    #[test]
    fn readiness_that_changes_is_one_line_in_the_log() {
        let cause = Arc::new(Mutex::new(None::<&str>));
        let check = {
            let cause = Arc::clone(&cause);
            move || cause.lock().unwrap().map(str::to_owned)
        };
        let (drain, draining) = watch::channel(false);
        let warning: Check = Box::new(check.clone());
        let readiness = Readiness::new(draining, vec![("disk".into(), Box::new(check))], vec![("w".into(), warning)]);
        let mut log = Log::default();
        assert_eq!(log.changes(&readiness), [Change::Ready]);
        assert_eq!(log.changes(&readiness), []);

        *cause.lock().unwrap() = Some("5 bytes");
        assert_eq!(readiness.obstacles(), ["disk: 5 bytes"]);
        let begun = [Change::obstacle("disk".into(), "5 bytes".into()), Change::warning("w".into(), "5 bytes".into())];
        assert_eq!(log.changes(&readiness), begun);
        *cause.lock().unwrap() = Some("4 bytes");
        assert_eq!(log.changes(&readiness), []);
        *cause.lock().unwrap() = Some("no clock");
        assert_eq!(log.changes(&readiness).len(), 2, "another cause in the same component");

        *cause.lock().unwrap() = None;
        let gone = [
            Change::ObstacleGone { component: "disk".into() },
            Change::WarningGone { component: "w".into() },
            Change::Ready,
        ];
        assert_eq!(log.changes(&readiness), gone);
        drain.send_replace(true);
        let draining = log.changes(&readiness);
        assert!(
            matches!(&draining[..], [Change::Obstacle { component, .. }] if component == "draining"),
            "{draining:?}"
        );
    }
}
