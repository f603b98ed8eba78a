//! What systemd is told (sd_notify(3), `Type=notify` or `notify-reload`): that the daemon listens, reads its configuration anew or shuts
//! down; in words, whether it issues; and, where the unit has `WatchdogSec`, that it is alive. Without a supervisor that
//! listens nothing is sent.
//!
//! The watchdog stands for the daemon's tasks only. What a disk or an HSM holds up is in the status and in `/readyz`:
//! a restart mends neither, and would take the stations' connections as well.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;

use crate::readiness::Readiness;

/// How often the status follows the readiness.
const INTERVAL: Duration = Duration::from_secs(1);

/// A supervisor that cannot be reached is no reason to stop; it will notice by itself.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the supervisor cannot be told");
    }
}

/// The daemon listens; after [`reloading`]: the configuration was read, or refused.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read anew; [`ready`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the supervisor cannot be told"),
    }
}

/// The daemon shuts down.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("shutting down: finishing what is reserved")]);
}

/// Tells what becomes of the readiness, and that the daemon is alive, until it is dropped; does nothing without a supervisor.
pub(super) async fn watch(readiness: Arc<Readiness>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let watchdog = sd_notify::watchdog_enabled();
    // Twice in the time that the supervisor allows.
    let mut interval = tokio::time::interval(watchdog.map_or(INTERVAL, |limit| INTERVAL.min(limit / 2)));
    let mut told = String::new();
    loop {
        interval.tick().await;
        let status = status(&readiness);
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        if watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// The readiness as one line.
fn status(readiness: &Readiness) -> String {
    let (obstacles, warnings) = (readiness.obstacles(), readiness.warnings());
    let status = match (obstacles.as_slice(), warnings.as_slice()) {
        ([], []) => "ready".to_owned(),
        ([], warnings) => format!("ready, degraded: {}", warnings.join("; ")),
        (obstacles, _) => format!("not ready: {}", obstacles.join("; ")),
    };
    status.replace(char::is_control, " ")
}
