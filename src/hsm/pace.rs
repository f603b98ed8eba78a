//! How long a token's signatures take, so that a call that takes far longer is noticed long before the limit for calls.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A call that takes this many times as long as calls usually do, and this long at least, is stuck. As long as nothing was
/// signed since it began, the token does not count as one that signs. Whether it hangs is known only at the limit for calls.
const STUCK_FACTOR: u32 = 5;
const STUCK: Duration = Duration::from_millis(500);

/// The signatures of a token, test signatures included.
pub(super) struct Pace {
    started: Instant,
    /// How many microseconds one has taken of late; 0 before the first.
    usual: AtomicU64,
    /// When the newest one was made, in microseconds since `started`.
    newest: AtomicU64,
}

impl Pace {
    /// None was made yet.
    pub(super) fn new() -> Pace {
        Pace { started: Instant::now(), usual: AtomicU64::new(0), newest: AtomicU64::new(0) }
    }

    /// One was made, and took so long.
    pub(super) fn note(&self, took: Duration) {
        self.newest.store(self.started.elapsed().as_micros() as u64, Ordering::Relaxed);
        let usual = self.usual.load(Ordering::Relaxed);
        // One that was stuck says little of what is usual. What another thread notes in the same moment may be lost.
        let (took, bounded) = (took.as_micros() as u64, took.min(self.stuck_after()).as_micros() as u64);
        self.usual.store(if usual == 0 { took } else { (7 * usual + bounded) / 8 }, Ordering::Relaxed);
    }

    /// When the newest one was made.
    pub(super) fn newest(&self) -> Instant {
        self.started + Duration::from_micros(self.newest.load(Ordering::Relaxed))
    }

    /// How long a call takes that is stuck.
    pub(super) fn stuck_after(&self) -> Duration {
        (Duration::from_micros(self.usual.load(Ordering::Relaxed)) * STUCK_FACTOR).max(STUCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slow token is given its time from its first signature on, and a fast one that was stuck once is none.
    #[test]
    fn stuck_call_is_told_by_what_is_usual() {
        let slow = Pace::new();
        assert_eq!(slow.stuck_after(), STUCK);
        slow.note(Duration::from_secs(2));
        assert_eq!(slow.stuck_after(), Duration::from_secs(10));
        let fast = Pace::new();
        (0..100).for_each(|_| fast.note(Duration::from_millis(2)));
        fast.note(Duration::from_secs(60));
        assert_eq!(fast.stuck_after(), STUCK);
        // One that has become slow is known as such after a while.
        (0..100).for_each(|_| fast.note(Duration::from_millis(400)));
        assert!(fast.stuck_after() > Duration::from_millis(1900), "{:?}", fast.stuck_after());
    }
}
