//! How many sessions sign with a token: what the configuration says, or what a measurement at the start says.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use super::{error::Error, key::Key, recovery::Recovery, token::Token, uri::KeyQuery};

/// The fewest and the most sessions that are tried by measurement. While a thread waits for its turn with a processor,
/// the HSM would do nothing for one session; no known HSM gains from more than the most.
const FEWEST: usize = 2;
const MOST: usize = 64;

/// How long each number of sessions is measured each time, how often in turn, and all of them together at most, unless the
/// HSM is slower. What else the machine does in one moment then hits no number alone, and what it does all the time counts for none
/// ([`Scheduled`]).
const STEP: Duration = Duration::from_millis(30);
const ROUNDS: usize = 5;
const TOGETHER: Duration = Duration::from_millis(1500);

/// What more sessions must gain, as a factor, to be worth having: less is noise, and another number at the next start.
const GAIN: f64 = 1.05;

/// What is signed to measure.
const PROBE: &[u8] = b"birthmark: how fast is this HSM?";

/// How many sessions sign with each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Two, and as many more as the token allows and gain something.
    Auto,
    /// This number, fewer if the token allows no more.
    Number(usize),
}

/// Sessions that were opened.
pub(super) struct Opened {
    /// Each with the key.
    pub(super) keys: Vec<Key>,
    /// How many there should be.
    pub(super) wanted: usize,
    /// Why there are no more, if the token refused one.
    pub(super) limit: Option<Error>,
}

/// Opens the sessions, `first` being one of them.
///
/// # Errors
/// If the token refuses the PIN, or signs in none of the sessions.
pub(super) fn open(token: &Arc<Token>, query: &KeyQuery, first: Key, sessions: Sessions) -> Result<Opened, Error> {
    // The anchor session counts too.
    let room = token.session_limit().map_or(usize::MAX, |limit| limit.saturating_sub(1).max(1));
    let mut opening = Opening { token, query, keys: vec![first], limit: None };
    let wanted = match sessions {
        Sessions::Number(number) => number.max(1),
        Sessions::Auto => {
            let number = opening.measure(room)?;
            opening.keys.truncate(number);
            number
        }
    };
    opening.extend(wanted.min(room))?;
    let Opening { keys, limit, .. } = opening;
    Ok(Opened { keys, wanted, limit })
}

/// The processor time of this thread.
fn computed() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

struct Opening<'a> {
    token: &'a Arc<Token>,
    query: &'a KeyQuery,
    /// Never empty.
    keys: Vec<Key>,
    limit: Option<Error>,
}

impl Opening<'_> {
    /// Opens sessions until there are `number`, or the token has no room: tokens say that in many codes, and those that
    /// are open go on signing whatever it was.
    fn extend(&mut self, number: usize) -> Result<(), Error> {
        while self.keys.len() < number && self.limit.is_none() {
            match Key::open_if_room(self.token, self.query) {
                Ok(key) => self.keys.push(key),
                Err(error) if error.recovery() == Recovery::Operator => return Err(error),
                Err(error) => self.limit = Some(error),
            }
        }
        Ok(())
    }

    /// The fewest sessions that sign as fast as any number does, within [`GAIN`]. Doubles them until that gained nothing
    /// twice, then measures all the numbers again in turn; each counts with its best. A module that computes on this
    /// machine's processors is given no more sessions than keep them busy: beside other programs more would seem to gain.
    fn measure(&mut self, room: usize) -> Result<usize, Error> {
        let began = Instant::now();
        let useful = self.useful_sessions()?;
        let best = |rates: &[(usize, f64)]| rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        let mut rates: Vec<(usize, f64)> = Vec::new();
        let mut number = FEWEST.min(room);
        let mut in_vain = 0;
        while number <= room.min(useful) && in_vain < 2 && began.elapsed() < TOGETHER {
            self.extend(number)?;
            // It may open fewer at once. One alone is measured all the same.
            if self.keys.len() < number && !rates.is_empty() {
                break;
            }
            let rate = self.rate(number)?;
            if self.keys.len() < number && !rates.is_empty() {
                // It opens this number, and does not sign with all of them at a time.
                break;
            }
            in_vain = if rate >= best(&rates) * GAIN { 0 } else { in_vain + 1 };
            rates.push((number, rate));
            number *= 2;
        }
        for _ in 1..ROUNDS {
            for (number, rate) in &mut rates {
                if began.elapsed() < TOGETHER && *number <= self.keys.len() {
                    *rate = self.rate(*number)?.max(*rate);
                }
            }
        }
        rates.retain(|(number, _)| *number <= self.keys.len());
        let enough = best(&rates) / GAIN;
        let fewest = rates.iter().find(|(_, rate)| *rate >= enough);
        let (number, rate) = fewest.copied().unwrap_or((self.keys.len(), 0.0));
        tracing::info!(
            token = self.token.identity().label,
            sessions = number,
            signatures_per_second = rate.round(),
            took_ms = began.elapsed().as_millis(),
            "measured how many sessions are best"
        );
        Ok(number)
    }

    /// How many sessions can be at work at the same time, by what one does alone: if a signature takes this machine's
    /// processors for all of its time, as many as there are processors; if for a tenth of it, ten times as many; [`MOST`] at
    /// most. The shortest signature counts, since the others may have waited for a processor.
    fn useful_sessions(&mut self) -> Result<usize, Error> {
        let Some(key) = self.keys.first() else { return Ok(MOST) };
        let (began, computed_before) = (Instant::now(), computed());
        let (mut signed, mut shortest) = (0_u32, Duration::MAX);
        while signed == 0 || began.elapsed() < STEP {
            let signing = Instant::now();
            // One that fails is closed by the measurement that follows.
            if key.sign(PROBE).is_err() {
                return Ok(MOST);
            }
            shortest = shortest.min(signing.elapsed());
            signed += 1;
        }
        let computed = computed().saturating_sub(computed_before) / signed;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let at_work = processors as f64 * shortest.as_secs_f64() / computed.as_secs_f64().max(f64::MIN_POSITIVE);
        let at_work = (at_work as usize).clamp(FEWEST, MOST);
        // They are doubled: where 20 can be at work 32 are tried, and not 16. One that computes gains nothing by more.
        Ok(if at_work > 2 * processors { at_work.next_power_of_two() } else { at_work })
    }

    /// Signatures a second with this number of keys at the same time. The threads sign no certificate, but one fixed text. A
    /// session that fails is closed; if none is left, that is an error.
    fn rate(&mut self, number: usize) -> Result<f64, Error> {
        let idle = self.keys.split_off(number.min(self.keys.len()));
        let began = Instant::now();
        let sign = |key: Key| {
            let mut signed = 0;
            let before = Scheduled::of_this_thread();
            let failure = loop {
                if let Err(error) = key.sign(PROBE) {
                    break Some(error);
                }
                signed += 1;
                if began.elapsed() >= STEP {
                    break None;
                }
            };
            (key, signed, failure, Scheduled::of_this_thread().since(before))
        };
        let outcomes: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = self.keys.drain(..).map(|key| scope.spawn(move || sign(key))).collect();
            // A panic has been reported by the panic hook.
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let (took, threads) = (began.elapsed(), outcomes.len());
        let mut signed = 0;
        let mut scheduled = Scheduled::default();
        for (key, signatures, error, time) in outcomes {
            signed += signatures;
            scheduled.add(time);
            match error {
                None => self.keys.push(key),
                Some(error) => {
                    key.discard(&error);
                    self.limit = Some(error);
                }
            }
        }
        self.keys.extend(idle);
        if self.keys.is_empty() {
            return Err(self.limit.take().unwrap_or_else(|| Error::Wrapper {
                doing: "measuring how many sessions are best",
                reason: "no session signed".into(),
            }));
        }
        Ok(f64::from(signed) / scheduled.free_of_others(took, threads).as_secs_f64())
    }
}

/// What the system has done with threads: how long they ran, and how long they waited for a processor.
#[derive(Clone, Copy, Debug, Default)]
struct Scheduled {
    ran: Duration,
    waited: Duration,
}

impl Scheduled {
    /// Nothing where the system does not say.
    fn of_this_thread() -> Scheduled {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let mut times = text.split_whitespace().map(|time| Duration::from_nanos(time.parse().unwrap_or_default()));
        Scheduled { ran: times.next().unwrap_or_default(), waited: times.next().unwrap_or_default() }
    }

    fn since(self, before: Scheduled) -> Scheduled {
        Scheduled { ran: self.ran.saturating_sub(before.ran), waited: self.waited.saturating_sub(before.waited) }
    }

    fn add(&mut self, other: Scheduled) {
        self.ran += other.ran;
        self.waited += other.waited;
    }

    /// How long these threads would have taken with the machine to themselves, when they took so long: without the time that they
    /// waited for a processor, but for what they need of all processors together. More threads have a greater share of a
    /// machine that others use, which makes no HSM faster.
    fn free_of_others(self, took: Duration, threads: usize) -> Duration {
        let number = |threads: usize| u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
        let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let alone = took.saturating_sub(self.waited / number(threads));
        alone.max(self.ran / number(processors)).clamp(Duration::from_micros(1), took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An HSM in this machine's memory signs as fast in two sessions as in sixteen, whatever share of the processors they got; one
    /// that is elsewhere is measured by the clock.
    #[test]
    fn rate_does_not_depend_on_what_else_the_machine_does() {
        let processors = u32::try_from(thread::available_parallelism().map_or(1, std::num::NonZero::get)).unwrap();
        let wall = Duration::from_millis(30);
        for share in [1, 2, 5] {
            // As many threads as processors, which get a part of them.
            let few =
                Scheduled { ran: wall * processors / share, waited: wall * processors - wall * processors / share };
            let needed = few.free_of_others(wall, processors as usize);
            assert!(needed.abs_diff(wall / share) < Duration::from_millis(1), "{share}: {needed:?}");
            // Eight times as many, which get all.
            let many = Scheduled { ran: wall * processors, waited: wall * processors * 7 };
            assert_eq!(many.free_of_others(wall, 8 * processors as usize), wall);
        }
        let elsewhere = Scheduled { ran: Duration::from_micros(300), waited: Duration::ZERO };
        assert_eq!(elsewhere.free_of_others(wall, 16), wall);
        assert_eq!(Scheduled::default().free_of_others(wall, 16), wall, "where the system does not say");
    }
}
