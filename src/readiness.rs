//! Whether the daemon issues certificates now: the one answer behind `/readyz`, the gauge `birthmark_ready` and the log.
//!
//! | what | while it lasts |
//! |---|---|
//! | shutting down | not ready |
//! | no token of an issuer signs | not ready |
//! | a profile can issue nothing, as its issuer has expired | not ready |
//! | the clock is behind the newest entry, the disk is low, the journal cannot be written | not ready |
//! | the daemon's own TLS certificate, or every certificate of the station CA, is not valid | not ready |
//! | some tokens of an issuer sign and others do not | ready, degraded |
//! | some certificates of the station CA are not valid | ready, degraded |
//!
//! What refuses every request of one profile is told as loudly as what refuses all: somebody counts on each profile of
//! the configuration. What will expire is in `expiry.rs`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::metrics;

/// How often the log and the gauge follow what has changed.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tells whether a part of the daemon can do its work now, or why not.
pub type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A part of the daemon by its name, and its check.
pub type Part = (String, Check);

/// Whether the daemon issues certificates now.
pub struct Readiness {
    draining: watch::Receiver<bool>,
    checks: Vec<Part>,
    warnings: Vec<Part>,
}

impl Readiness {
    /// Ready unless draining, or one of `checks` says otherwise. What `warnings` say is in the way of nothing, yet.
    /// The names of the parts must differ within each list.
    pub fn new(draining: watch::Receiver<bool>, checks: Vec<Part>, warnings: Vec<Part>) -> Self {
        Readiness { draining, checks, warnings }
    }

    /// What is in the way of issuing, one line a part; empty if nothing is.
    pub fn obstacles(&self) -> Vec<String> {
        self.failed_checks().map(|(part, cause)| format!("{part}: {cause}")).collect()
    }

    /// What is in the way of nothing, yet, one line a part.
    pub fn warnings(&self) -> Vec<String> {
        failed(&self.warnings).map(|(part, cause)| format!("{part}: {cause}")).collect()
    }

    fn failed_checks(&self) -> impl Iterator<Item = (&str, String)> {
        let draining = self.draining.borrow().then(|| ("draining", "the daemon is shutting down".to_owned()));
        draining.into_iter().chain(failed(&self.checks))
    }

    /// Logs what is so now. The future that it returns logs each change, once when it begins and once when it ends, and
    /// sets the gauge, until it is dropped.
    pub fn watch(self: Arc<Self>) -> impl Future<Output = ()> {
        let mut log = Log::default();
        log.follow(&self);
        async move {
            let mut interval = tokio::time::interval(INTERVAL);
            loop {
                interval.tick().await;
                log.follow(&self);
            }
        }
    }
}

fn failed(checks: &[Part]) -> impl Iterator<Item = (&str, String)> {
    checks.iter().filter_map(|(part, check)| Some((part.as_str(), check().err()?)))
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
    Obstacle { part: String, cause: String },
    ObstacleGone { part: String },
    Warning { part: String, cause: String },
    WarningGone { part: String },
    Ready,
}

impl Log {
    fn follow(&mut self, readiness: &Readiness) {
        for change in self.changes(readiness) {
            match change {
                Change::Obstacle { part, cause } => tracing::error!(part, cause, "not ready"),
                Change::ObstacleGone { part } => tracing::info!(part, "no longer in the way of issuing"),
                Change::Warning { part, cause } => tracing::warn!(part, cause, "degraded"),
                Change::WarningGone { part } => tracing::info!(part, "no longer degraded"),
                Change::Ready => tracing::info!("ready"),
            }
        }
        metrics::ready(self.ready);
    }

    fn changes(&mut self, readiness: &Readiness) -> Vec<Change> {
        let named = |(part, cause): (&str, String)| (part.to_owned(), cause);
        let obstacles: BTreeMap<_, _> = readiness.failed_checks().map(named).collect();
        let warnings: BTreeMap<_, _> = failed(&readiness.warnings).map(named).collect();
        let mut changes = Vec::new();
        differ(&self.obstacles, &obstacles, &mut changes, Change::obstacle, |part| Change::ObstacleGone { part });
        differ(&self.warnings, &warnings, &mut changes, Change::warning, |part| Change::WarningGone { part });
        let ready = obstacles.is_empty();
        if ready && !self.ready {
            changes.push(Change::Ready);
        }
        *self = Log { ready, obstacles, warnings };
        changes
    }
}

impl Change {
    fn obstacle(part: String, cause: String) -> Change {
        Change::Obstacle { part, cause }
    }

    fn warning(part: String, cause: String) -> Change {
        Change::Warning { part, cause }
    }
}

fn differ(
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
    changes: &mut Vec<Change>,
    begins: fn(String, String) -> Change,
    ends: fn(String) -> Change,
) {
    let is_new = |part: &str, cause: &str| before.get(part).is_none_or(|before| !same_but_for_figures(before, cause));
    let begun = now.iter().filter(|(part, cause)| is_new(part, cause));
    changes.extend(begun.map(|(part, cause)| begins(part.clone(), cause.clone())));
    let ended = before.keys().filter(|part| !now.contains_key(*part));
    changes.extend(ended.map(|part| ends(part.clone())));
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

    #[test]
    fn log_has_one_line_for_each_beginning_and_end() {
        let cause = Arc::new(Mutex::new(None::<&str>));
        let check = {
            let cause = Arc::clone(&cause);
            move || cause.lock().unwrap().map_or(Ok(()), |cause| Err(cause.to_owned()))
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
        assert_eq!(log.changes(&readiness).len(), 2, "another cause in the same part");

        *cause.lock().unwrap() = None;
        let ended =
            [Change::ObstacleGone { part: "disk".into() }, Change::WarningGone { part: "w".into() }, Change::Ready];
        assert_eq!(log.changes(&readiness), ended);
        drain.send_replace(true);
        let draining = log.changes(&readiness);
        assert!(matches!(&draining[..], [Change::Obstacle { part, .. }] if part == "draining"), "{draining:?}");
    }
}
