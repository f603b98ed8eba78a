//! Which daemons live, as this one sees it. No clock decides: a daemon is given up when this one has seen nothing new of it for the
//! lease, counting only time in which the database answered.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::sql::DaemonRow;

/// When a daemon was heard of that has no row: never.
pub(super) const UNHEARD: i64 = i64::MIN;

/// The most that one look counts: what lies between two looks that are further apart may have been the database's silence.
const LOOK: Duration = Duration::from_secs(3);

/// What was seen of the other daemons.
#[derive(Debug, Default)]
pub(super) struct Lives {
    seen: BTreeMap<u64, Seen>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    renewed: i64,
    silent: Duration,
}

impl Lives {
    /// The database has told who was heard of when. `open` are the epochs that have not ended: of one without a row, which somebody
    /// has deleted, nothing is heard.
    pub(super) fn look(&mut self, daemons: &[DaemonRow], open: &[u64], now: Instant) {
        let passed = self.looked.map_or(Duration::ZERO, |looked| now.duration_since(looked)).min(LOOK);
        self.looked = Some(now);
        let unheard = open.iter().map(|epoch| (*epoch, UNHEARD));
        let heard: BTreeMap<_, _> =
            unheard.chain(daemons.iter().map(|daemon| (daemon.epoch, daemon.renewed))).collect();
        self.seen.retain(|epoch, _| heard.contains_key(epoch));
        for (epoch, renewed) in heard {
            let seen = self.seen.entry(epoch).or_insert(Seen { renewed, silent: Duration::ZERO });
            match seen.renewed == renewed {
                true => seen.silent += passed,
                false => *seen = Seen { renewed, silent: Duration::ZERO },
            }
        }
    }

    /// The database did not answer: until it does no time passes.
    pub(super) fn blind(&mut self) {
        self.looked = None;
    }

    /// Epochs of which nothing new was seen for the lease, each with what was seen last.
    pub(super) fn silent(&self, lease: Duration, mine: u64) -> Vec<(u64, i64)> {
        let silent = self.seen.iter().filter(|(epoch, seen)| **epoch != mine && seen.silent >= lease);
        silent.map(|(epoch, seen)| (*epoch, seen.renewed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: u64, renewed: i64) -> DaemonRow {
        DaemonRow { epoch, name: format!("daemon-{epoch}"), renewed, age: 0 }
    }

    /// An outage of the database ends nobody, and a daemon that renews is never silent.
    #[test]
    fn daemon_is_silent_only_while_the_database_answers() {
        let (mut lives, begun, lease) = (Lives::default(), Instant::now(), Duration::from_secs(60));
        let at = |seconds| begun + Duration::from_secs(seconds);
        for second in 0..=59 {
            lives.look(&[row(1, 7), row(2, second as i64)], &[1, 2, 3], at(second));
        }
        assert_eq!(lives.silent(lease, 9), []);
        // The database is away for ten minutes: that counts for as much as one look.
        lives.look(&[row(1, 7), row(2, 59)], &[1, 2, 3], at(659));
        // The third has no row.
        assert_eq!(lives.silent(lease, 9), [(1, 7), (3, UNHEARD)]);
        assert_eq!(lives.silent(lease, 1), [(3, UNHEARD)]);
        lives.look(&[row(1, 8), row(2, 60)], &[1, 2], at(660));
        assert_eq!(lives.silent(lease, 9), []);
        lives.blind();
        lives.look(&[row(1, 8)], &[1], at(2000));
        assert_eq!(lives.silent(Duration::from_secs(1), 9), []);
    }
}
