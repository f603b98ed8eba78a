//! What is tried again, and what people hear of it.

use std::time::Duration;

use tokio::time::sleep;

/// Tells people what goes on.
pub(super) type Report = dyn Fn(&str) + Send + Sync;

/// Growing pauses between attempts.
pub(super) struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(30);

    pub(super) fn new() -> Self {
        Backoff(Self::FIRST)
    }

    /// Waits, half of it by chance, so that not all come back at the same moment.
    pub(super) async fn pause(&mut self) {
        let pause = self.0.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.0 = (self.0 * 2).min(Self::LONGEST);
        sleep(pause).await;
    }
}
