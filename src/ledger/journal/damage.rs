//! Where the journal is known to be damaged.

use std::collections::BTreeSet;

use parking_lot::{Mutex, MutexGuard};

use super::error::JournalError;

/// The number of places that are remembered: a disk with more than that is replaced, not repaired.
const REMEMBERED: usize = 100;

/// The places that were found to be damaged, as sentences with file and byte.
#[derive(Debug, Default)]
pub(super) struct Damage(Mutex<BTreeSet<String>>);

impl Damage {
    fn places(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock()
    }

    /// Remembers the damage that a read met, and logs it once.
    pub(super) fn note(&self, error: &JournalError) {
        if !error.is_damage() {
            return;
        }
        let mut places = self.places();
        if places.len() < REMEMBERED && places.insert(error.to_string()) {
            tracing::error!(%error, "the journal is damaged");
            crate::metrics::journal_damage(places.len());
        }
    }

    /// The damage that is known, as one sentence.
    pub(super) fn known(&self) -> Option<String> {
        let places = self.places();
        let first = places.first()?;
        Some(match places.len() {
            1 => first.clone(),
            number => format!("{first} (and {} more places)", number - 1),
        })
    }

    /// Everything was read: what is known of damage is what that found.
    pub(super) fn replace(&self, found: &[JournalError]) {
        let mut places = self.places();
        places.clear();
        places.extend(found.iter().take(REMEMBERED).map(ToString::to_string));
        crate::metrics::journal_damage(places.len());
    }
}
