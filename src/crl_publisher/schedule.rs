//! When which list is due.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{config::CrlTimes, crl::Shards};

/// The pauses between attempts: the first, and the longest after doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When the lists of an issuer are due.
pub(super) struct Schedule {
    shards: Shards,
    /// When each list was made by this process. What a process before has published may lack what was revoked since.
    made: BTreeMap<u16, Instant>,
    /// Since when there are revocations that are on no list.
    revoked: BTreeMap<u16, Instant>,
    /// After a failure: when to try again, and the pause after the next.
    retry: Option<(Instant, Duration)>,
}

impl Schedule {
    pub(super) fn new(shards: Shards) -> Schedule {
        Schedule { shards, made: BTreeMap::new(), revoked: BTreeMap::new(), retry: None }
    }

    /// Something was revoked whose hash begins with these bits.
    pub(super) fn revoked(&mut self, bits: u16, now: Instant) {
        for shard in self.shards.of_hashes(bits) {
            self.revoked.entry(shard).or_insert(now);
        }
    }

    /// A shard whose list is due, those with revocations first.
    pub(super) fn due(&self, times: &CrlTimes, now: Instant) -> Option<u16> {
        if self.retry.is_some_and(|(at, _)| now < at) {
            return None;
        }
        let gathered = self.revoked.iter().find(|(_, since)| now.duration_since(**since) >= times.gather);
        if let Some((shard, _)) = gathered {
            return Some(*shard);
        }
        let interval = times.interval.min(times.valid / 2);
        (0..self.shards.count())
            .find(|shard| self.made.get(shard).is_none_or(|made| now.duration_since(*made) >= interval))
    }

    /// A list is begun and published: what was revoked before is on it. Whether the attempt before had failed.
    pub(super) fn made(&mut self, shard: u16, begun: Instant) -> bool {
        self.made.insert(shard, begun);
        self.revoked.remove(&shard);
        self.retry.take().is_some()
    }

    /// A list could not be made. Whether it is the first failure of several.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        let pause = self.retry.map_or(FIRST_PAUSE, |(_, pause)| pause);
        self.retry.replace((now + pause, (pause * 2).min(LONGEST_PAUSE))).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: CrlTimes = CrlTimes {
        interval: Duration::from_secs(3600),
        valid: Duration::from_secs(5000),
        gather: Duration::from_secs(2),
    };

    /// Every list is made at the start, at half of its life at the latest, and soon after a revocation in its shard.
    #[test]
    fn list_is_due_at_start_at_interval_and_after_a_revocation() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(Shards::new(2).unwrap());
        for shard in [0, 1] {
            assert_eq!(schedule.due(&TIMES, now), Some(shard));
            assert!(!schedule.made(shard, now));
        }
        assert_eq!(schedule.due(&TIMES, now), None);
        schedule.revoked(0xfff, now);
        now += Duration::from_secs(1);
        schedule.revoked(0x800, now);
        assert_eq!(schedule.due(&TIMES, now), None);
        now += Duration::from_secs(1);
        assert_eq!(schedule.due(&TIMES, now), Some(1));
        schedule.made(1, now);
        assert_eq!(schedule.due(&TIMES, now), None);
        assert_eq!(schedule.due(&TIMES, now + Duration::from_secs(2499)), Some(0));
    }

    #[test]
    fn failed_list_is_tried_again_with_growing_pauses() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(Shards::new(1).unwrap());
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(schedule.failed(now), pause == 1);
            assert_eq!(schedule.due(&TIMES, now), None);
            now += Duration::from_secs(pause);
            assert_eq!(schedule.due(&TIMES, now), Some(0));
        }
        assert!(schedule.made(0, now));
    }
}
