//! Whether the clock can be right. An entry that is written with a wrong time cannot be unwritten, so nothing new is
//! written at a time that something contradicts:
//!
//! | the clock is | judged by |
//! |---|---|
//! | before the newest entry | the journal |
//! | long after the newest entry, when the daemon starts | the journal: [`LONGEST_PAUSE`] |
//! | far from where it was, while the daemon runs | the system's monotonic clock: [`LONGEST_LEAP`] |
//! | not that of the database of a ledger that several daemons share | the database |
//! | before this program was built, or outside the time of the daemon's certificates | [`ClockBounds`] |
//!
//! What is judged wrong stops new reservations, orders, exports and checkpoints until the clock is right again. What
//! must not wait for that (the certificate of a reservation, its end, a revocation) is written with the newest
//! entry's time. `birthmark journal accept-clock` records that an operator has checked the clock and found it right.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

use super::refusal::Refusal;

/// How far the clock may be before the newest entry.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(5);

/// How long a ledger may have been without entries when a daemon starts.
pub(crate) const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How far the clock may get ahead of the monotonic clock while a daemon runs.
pub(crate) const LONGEST_LEAP: SignedDuration = SignedDuration::from_hours(24);

/// Moments between which the clock must be, each with its reason.
#[derive(Clone, Debug, Default)]
pub struct ClockBounds {
    /// The clock cannot be before.
    pub earliest: Option<(Timestamp, String)>,
    /// The clock cannot be after.
    pub latest: Option<(Timestamp, String)>,
}

/// As people tell it.
fn whole_seconds(duration: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(duration.as_secs())
}

/// What the clock is judged by.
#[derive(Debug)]
pub(super) struct Clock {
    bounds: ClockBounds,
    /// The time of the newest entry; none if there is no entry.
    newest: Option<Timestamp>,
    /// How far it is ahead of another clock that the ledger goes by, if it does.
    ahead: Option<SignedDuration>,
    /// A time that was good, and the monotonic clock then.
    good: Option<(Timestamp, Duration)>,
}

impl Clock {
    pub(super) fn new(bounds: ClockBounds, newest: Option<Timestamp>) -> Clock {
        Clock { bounds, newest, ahead: None, good: None }
    }

    /// The bounds are others from now on.
    pub(super) fn set_bounds(&mut self, bounds: ClockBounds) {
        self.bounds = bounds;
    }

    /// It is so far ahead of the clock that all daemons of the ledger go by.
    pub(super) fn compared(&mut self, ahead: SignedDuration) {
        self.ahead = Some(ahead);
    }

    /// What is wrong with the clock, if anything is.
    pub(super) fn refusal(&self, now: Timestamp) -> Option<Refusal> {
        self.judge(now, monotonic())
    }

    /// As [`Clock::refusal`]; a time that is good is remembered.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Refusal> {
        let monotonic = monotonic();
        let refusal = self.judge(now, monotonic);
        if refusal.is_none() {
            self.good = Some((now, monotonic));
        }
        refusal
    }

    /// An entry with this time was written.
    pub(super) fn wrote(&mut self, time: Timestamp) {
        self.newest = Some(time);
    }

    fn judge(&self, now: Timestamp, monotonic: Duration) -> Option<Refusal> {
        let implausible = |why: String| Some(Refusal::ClockImplausible { now, why });
        if let Some((earliest, what)) = self.bounds.earliest.as_ref().filter(|(earliest, _)| now < *earliest) {
            return implausible(format!("it is before {earliest}, {what}; set it right"));
        }
        if let Some(newest) = self.newest.filter(|newest| now + TOLERANCE < *newest) {
            return Some(Refusal::ClockBackwards { now, newest });
        }
        if let Some((latest, what)) = self.bounds.latest.as_ref().filter(|(latest, _)| now > *latest) {
            return implausible(format!(
                "it is after {latest}, {what}: either the clock is wrong, and has to be set right, or the certificate has \
                 expired, and has to be renewed: its files are taken as soon as they are replaced"
            ));
        }
        match self.ahead {
            Some(ahead) if ahead.abs() > TOLERANCE => {
                return implausible(format!(
                    "it differs by {:#} from that of the ledger's database; set it right",
                    whole_seconds(ahead)
                ));
            }
            // What only a second clock can tell, it has told.
            Some(_) => return None,
            None => {}
        }
        match (self.good, self.newest) {
            (Some((wall, then)), _) => {
                let passed = SignedDuration::try_from(monotonic.saturating_sub(then)).unwrap_or_default();
                let leap = now.duration_since(wall) - passed;
                if leap > LONGEST_LEAP {
                    return implausible(format!(
                        "it went ahead by {:#} while the daemon ran; set it right or, if it is right now, \
                         restart the daemon",
                        whole_seconds(leap)
                    ));
                }
            }
            (None, Some(newest)) if now.duration_since(newest) > LONGEST_PAUSE => {
                return implausible(format!(
                    "the ledger's newest entry is of {newest:.0}, more than {} days before; set it right or, if it is \
                     right, stop the daemon and use \"birthmark journal accept-clock\"",
                    LONGEST_PAUSE.as_hours() / 24
                ));
            }
            _ => {}
        }
        None
    }
}

/// It counts while the machine sleeps, and cannot be set.
fn monotonic() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap_or_default() + HOUR * i32::try_from(hours).unwrap()
    }

    fn monotonic_at(hours: u64) -> Duration {
        Duration::from_secs(hours * 3600)
    }

    fn implausible(refusal: Option<Refusal>, says: &str) {
        assert!(matches!(&refusal, Some(Refusal::ClockImplausible { why, .. }) if why.contains(says)), "{refusal:?}");
    }

    #[test]
    fn clock_outside_its_bounds_is_refused() {
        let bounds = ClockBounds {
            earliest: Some((at(0), "when the program was built".into())),
            latest: Some((at(100), "when its certificate expires".into())),
        };
        let clock = Clock::new(bounds, None);
        implausible(clock.refusal(at(-1)), "before");
        assert_eq!(clock.refusal(at(0)), None);
        assert_eq!(clock.refusal(at(100)), None);
        implausible(clock.refusal(at(101)), "certificate");
    }

    #[test]
    fn clock_before_or_long_after_the_newest_entry_is_refused() {
        let clock = Clock::new(ClockBounds::default(), Some(at(0)));
        assert!(matches!(clock.refusal(at(-1)), Some(Refusal::ClockBackwards { .. })));
        assert_eq!(clock.refusal(at(0) - SignedDuration::from_secs(4)), None);
        assert_eq!(clock.refusal(at(90 * 24)), None);
        implausible(clock.refusal(at(90 * 24 + 1)), "accept-clock");
        assert_eq!(Clock::new(ClockBounds::default(), None).refusal(at(90 * 24 + 1)), None);
    }

    #[test]
    fn clock_that_leaps_ahead_while_running_is_refused() {
        let mut clock = Clock::new(ClockBounds::default(), Some(at(0)));
        assert_eq!(clock.take(at(1)), None);
        clock.good = Some((at(1), monotonic_at(0)));
        // A pause of any length, as the monotonic clock counts it.
        assert_eq!(clock.judge(at(1 + 24 * 400), monotonic_at(24 * 400)), None);
        assert_eq!(clock.judge(at(1 + 24), monotonic_at(0)), None);
        implausible(clock.judge(at(1 + 25), monotonic_at(0)), "restart the daemon");
        // Set right again, it is good again.
        assert_eq!(clock.judge(at(2), monotonic_at(1)), None);
    }
}
