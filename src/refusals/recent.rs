//! Which refusals were told not long ago.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

/// A refusal is told again after one to two of these.
const AGE: Duration = Duration::from_secs(600);

/// How many are known of each age.
const MOST: usize = 65_536;

/// Hashes of refusals, in two generations: the older one is forgotten when the newer one is full or old.
#[derive(Debug, Default)]
pub(super) struct Recent {
    hasher: RandomState,
    newer: HashSet<u64>,
    older: HashSet<u64>,
    begun: Option<Instant>,
}

impl Recent {
    /// Whether it was not told lately; it is now.
    pub(super) fn is_new(&mut self, refusal: (&str, &str, &str, &str), now: Instant) -> bool {
        let age = now.saturating_duration_since(*self.begun.get_or_insert(now));
        if self.newer.len() >= MOST || age >= AGE {
            self.older = std::mem::take(&mut self.newer);
            self.begun = Some(now);
        }
        if age >= 2 * AGE {
            self.older.clear();
        }
        let hash = self.hasher.hash_one(refusal);
        self.newer.insert(hash) && !self.older.contains(&hash)
    }
}
