//! How a session behaves.

use std::time::Duration;

/// How a session behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many requests may be unanswered, 1 to 4096.
    pub window: usize,
    /// How long to wait for a daemon that is away, cannot sign or does not answer; none: forever.
    pub give_up_after: Option<Duration>,
    /// A profile that the station must be allowed to use: asked for at each connection, so that a wrong name is found
    /// before the first request.
    pub profile: Option<String>,
    /// No request names an order: a profile that demands one is found as early.
    pub without_order: bool,
}

impl Default for Options {
    /// A window of 64, a minute of patience, and no profile that is looked for.
    fn default() -> Self {
        Options { window: 64, give_up_after: Some(Duration::from_secs(60)), profile: None, without_order: false }
    }
}

impl Options {
    /// Within its bounds.
    pub(super) fn window(&self) -> usize {
        self.window.clamp(1, 4096)
    }
}
