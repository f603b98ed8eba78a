//! Which daemons live, as this one sees it. No clock decides: a daemon is given up when this one has seen nothing new of it for the
//! lease, counting only time in which the database answered.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::sql::DaemonRow;

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
    /// The database has told who was heard of when.
    pub(super) fn look(&mut self, daemons: &[DaemonRow], now: Instant) {
        let passed = self.looked.map_or(Duration::ZERO, |looked| now.duration_since(looked)).min(LOOK);
        self.looked = Some(now);
        self.seen.retain(|epoch, _| daemons.iter().any(|daemon| daemon.epoch == *epoch));
        for daemon in daemons {
            let seen =
                self.seen.entry(daemon.epoch).or_insert(Seen { renewed: daemon.renewed, silent: Duration::ZERO });
            match seen.renewed == daemon.renewed {
                true => seen.silent += passed,
                false => *seen = Seen { renewed: daemon.renewed, silent: Duration::ZERO },
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
            lives.look(&[row(1, 7), row(2, second as i64)], at(second));
        }
        assert_eq!(lives.silent(lease, 9), []);
        // The database is away for ten minutes: that counts for as much as one look.
        lives.look(&[row(1, 7), row(2, 59)], at(659));
        assert_eq!(lives.silent(lease, 9), [(1, 7)]);
        assert_eq!(lives.silent(lease, 1), []);
        lives.look(&[row(1, 8), row(2, 60)], at(660));
        assert_eq!(lives.silent(lease, 9), []);
        lives.blind();
        lives.look(&[row(1, 8)], at(2000));
        assert_eq!(lives.silent(Duration::from_secs(1), 9), []);
    }
}
