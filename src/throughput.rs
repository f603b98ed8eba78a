//! How many certificates are issued and how long each takes, counted for the status page: a few atomic numbers, so that the
//! path of a CSR waits for nobody who looks.
//!
//! The buckets are those of `birthmark_issue_duration_seconds`, and a quantile is estimated as Prometheus'
//! `histogram_quantile` does, so that page and dashboard show the same.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::metrics::SECONDS;

/// One more than the bounds: what took longer than the greatest.
const BUCKETS: usize = SECONDS.len() + 1;

/// Counts certificates by how long they took.
#[derive(Debug, Default)]
pub(crate) struct Throughput {
    replayed: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// What was counted up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Of all: those that had been issued before, and were given again.
    pub(crate) replayed: u64,
    buckets: [u64; BUCKETS],
}

impl Throughput {
    /// A certificate was given, `elapsed` after it was asked for.
    pub(crate) fn note(&self, replay: bool, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let bucket = SECONDS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        if replay {
            self.replayed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    pub(crate) fn counted(&self) -> Counted {
        let buckets = std::array::from_fn(|at| self.buckets.get(at).map_or(0, |bucket| bucket.load(Ordering::Relaxed)));
        Counted { replayed: self.replayed.load(Ordering::Relaxed), buckets }
    }
}

impl Counted {
    /// New certificates.
    pub(crate) fn issued(&self) -> u64 {
        self.all().saturating_sub(self.replayed)
    }

    /// All certificates that were given, those that were given again too.
    pub(crate) fn all(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What was counted since `before`.
    pub(crate) fn since(&self, before: &Counted) -> Counted {
        let mut buckets = self.buckets;
        buckets.iter_mut().zip(before.buckets).for_each(|(now, before)| *now = now.saturating_sub(before));
        Counted { replayed: self.replayed.saturating_sub(before.replayed), buckets }
    }

    /// How long all but a part of them took at most: `quantile(0.99)` is what one in a hundred exceeded. None if there were
    /// none. What took longer than the greatest bound counts as that.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<Duration> {
        let all = self.all();
        if all == 0 {
            return None;
        }
        let rank = quantile * all as f64;
        let (mut below, mut lower) = (0, 0.0);
        for (count, upper) in self.buckets.iter().zip(SECONDS) {
            if (below + count) as f64 >= rank && *count > 0 {
                let part = (rank - below as f64) / *count as f64;
                return Some(Duration::from_secs_f64((upper - lower).mul_add(part.clamp(0.0, 1.0), lower)));
            }
            (below, lower) = (below + count, upper);
        }
        SECONDS.last().map(|greatest| Duration::from_secs_f64(*greatest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `histogram_quantile` computes it: linear between the bounds of the bucket in which the rank lies.
    #[test]
    fn quantile_is_what_prometheus_would_say() {
        let throughput = Throughput::default();
        assert_eq!(throughput.counted().quantile(0.99), None);
        let before = throughput.counted();
        for _ in 0..50 {
            throughput.note(false, Duration::from_micros(1500));
            throughput.note(true, Duration::from_micros(4000));
        }
        let counted = throughput.counted().since(&before);
        assert_eq!((counted.all(), counted.replayed), (100, 50));
        let near = |quantile: f64, seconds: f64| {
            let found = counted.quantile(quantile).unwrap().as_secs_f64();
            assert!((found - seconds).abs() < 1e-9, "{quantile}: {found}");
        };
        near(0.5, 0.002);
        near(0.25, 0.0015);
        near(0.99, 0.002 + 0.003 * 0.98);
        assert_eq!(throughput.counted().since(&throughput.counted()).quantile(0.5), None);
        // A bound belongs to its bucket, and what is beyond all of them counts as the greatest.
        let throughput = Throughput::default();
        throughput.note(false, Duration::from_secs(3600));
        assert_eq!(throughput.counted().quantile(0.5), Some(Duration::from_secs(10)));
    }
}
