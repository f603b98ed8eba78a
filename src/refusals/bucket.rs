//! Tokens that come back with the time.

use std::time::Instant;

/// At most so many tokens, and so many more each second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    most: f64,
    a_second: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new((most, a_second): (f64, f64), now: Instant) -> Self {
        Bucket { most, a_second, tokens: most, at: now }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.tokens = self.at_time(now);
        self.at = self.at.max(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Whether there is a token.
    pub(super) fn is_any(&self, now: Instant) -> bool {
        self.at_time(now) >= 1.0
    }

    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.at_time(now) >= self.most
    }

    fn at_time(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens + passed * self.a_second).min(self.most)
    }
}
