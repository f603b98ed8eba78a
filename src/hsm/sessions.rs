//! How many sessions sign with a token: what the configuration says, or what a measurement at the start says.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{error::Error, key::Key, recovery::Recovery, token::Token, uri::KeyQuery};

/// The fewest and the most sessions that are tried by measurement. While a thread waits for its turn with a processor,
/// the HSM would do nothing for one session; no known HSM gains from more than the most.
const FEWEST: usize = 2;
const MOST: usize = 64;

/// How long each number of sessions is measured, twice, and all of them together at most, unless the HSM is slower.
const STEP: Duration = Duration::from_millis(40);
const TOGETHER: Duration = Duration::from_secs(1);

/// What more sessions must gain, as a factor, to be worth having.
const GAIN: f64 = 1.15;

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

    /// Doubles the sessions until that gained nothing twice: once may be what else the machine did.
    fn measure(&mut self, room: usize) -> Result<usize, Error> {
        let began = Instant::now();
        self.extend(FEWEST.min(room))?;
        let mut best = (self.keys.len(), self.best_rate()?);
        let mut number = 2 * best.0;
        let mut in_vain = 0;
        while number <= room.min(MOST) && in_vain < 2 && began.elapsed() < TOGETHER {
            self.extend(number)?;
            if self.keys.len() < number {
                break;
            }
            let rate = self.best_rate()?;
            if self.keys.len() < number {
                // It opens this number, and does not sign with all of them at a time.
                break;
            }
            if rate >= best.1 * GAIN {
                best = (number, rate);
                in_vain = 0;
            } else {
                in_vain += 1;
            }
            number *= 2;
        }
        let number = best.0.min(self.keys.len());
        tracing::info!(
            token = self.token.identity().label,
            sessions = number,
            signatures_per_second = best.1.round(),
            took = ?began.elapsed(),
            "measured how many sessions are best"
        );
        Ok(number)
    }

    /// The better of two measurements.
    fn best_rate(&mut self) -> Result<f64, Error> {
        Ok(self.rate()?.max(self.rate()?))
    }

    /// Signatures a second with all these keys at the same time. The threads sign no certificate, but one fixed text. A
    /// session that fails is closed; if none is left, that is an error.
    fn rate(&mut self) -> Result<f64, Error> {
        let began = Instant::now();
        let sign = |key: Key| {
            let mut signed = 0;
            loop {
                if let Err(error) = key.sign(b"birthmark: how fast is this HSM?") {
                    return (key, signed, Some(error));
                }
                signed += 1;
                if began.elapsed() >= STEP {
                    return (key, signed, None);
                }
            }
        };
        let outcomes: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = self.keys.drain(..).map(|key| scope.spawn(move || sign(key))).collect();
            // A panic has been reported by the panic hook.
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let took = began.elapsed().as_secs_f64();
        let mut signed = 0;
        for (key, signatures, error) in outcomes {
            signed += signatures;
            match error {
                None => self.keys.push(key),
                Some(error) => {
                    key.discard(&error);
                    self.limit = Some(error);
                }
            }
        }
        if self.keys.is_empty() {
            return Err(self.limit.take().unwrap_or_else(|| Error::Wrapper {
                doing: "measuring how many sessions are best",
                reason: "no session signed".into(),
            }));
        }
        Ok(f64::from(signed) / took)
    }
}
