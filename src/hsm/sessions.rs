//! How many sessions sign with a token: what the configuration says, or what a measurement at the start says.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{Error, Key, KeyQuery, Token, ladder::Rung};

/// The fewest and the most sessions that are tried by measurement. While a thread waits for its turn with a processor, the
/// HSM would do nothing for one session; no known HSM gains from more than the most.
const FEWEST: usize = 2;
const MOST: usize = 64;

/// How long each number of sessions is measured, twice, and all of them together at most, unless the HSM is slower.
const STEP: Duration = Duration::from_millis(40);
const TOGETHER: Duration = Duration::from_secs(1);

/// What more sessions must gain, as a factor, to be worth having.
const GAIN: f64 = 1.15;

/// How many sessions sign with each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Two, and as many more as the token allows and gain something.
    Auto,
    /// So many, fewer if the token allows no more.
    Number(usize),
}

/// Opens the sessions, `first` being one of them. Gives how many were wanted, too.
pub(super) fn open(
    token: &Arc<Token>,
    query: &KeyQuery,
    first: Key,
    sessions: Sessions,
) -> Result<(Vec<Key>, usize), Error> {
    // The anchor session counts too.
    let room = token.session_limit().map_or(usize::MAX, |limit| limit.saturating_sub(1).max(1));
    let mut keys = vec![first];
    let wanted = match sessions {
        Sessions::Number(number) => number.max(1),
        Sessions::Auto => {
            let number = measure(token, query, &mut keys, room)?;
            keys.truncate(number);
            number
        }
    };
    extend(token, query, &mut keys, wanted.min(room))?;
    Ok((keys, wanted))
}

/// Opens sessions until there are so many, or the token has no room.
fn extend(token: &Arc<Token>, query: &KeyQuery, keys: &mut Vec<Key>, number: usize) -> Result<(), Error> {
    while keys.len() < number {
        match Key::open(token, query) {
            Ok(key) => keys.push(key),
            Err(error) if error.rung() == Rung::Capacity => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Doubles the sessions until that gained nothing twice: once may be what else the machine did.
fn measure(token: &Arc<Token>, query: &KeyQuery, keys: &mut Vec<Key>, room: usize) -> Result<usize, Error> {
    let began = Instant::now();
    extend(token, query, keys, FEWEST.min(room))?;
    let mut best = (keys.len(), best_rate(keys)?);
    let mut number = 2 * best.0;
    let mut in_vain = 0;
    while number <= room.min(MOST) && in_vain < 2 && began.elapsed() < TOGETHER {
        extend(token, query, keys, number)?;
        if keys.len() < number {
            break;
        }
        let rate = best_rate(keys)?;
        if rate >= best.1 * GAIN {
            best = (number, rate);
            in_vain = 0;
        } else {
            in_vain += 1;
        }
        number *= 2;
    }
    tracing::info!(
        token = token.identity().label,
        sessions = best.0,
        signatures_per_second = best.1.round(),
        took = ?began.elapsed(),
        "measured how many sessions are best"
    );
    Ok(best.0)
}

/// The better of two measurements.
fn best_rate(keys: &mut Vec<Key>) -> Result<f64, Error> {
    Ok(rate(keys)?.max(rate(keys)?))
}

/// Signatures a second with all these keys at the same time. The threads sign no certificate, but one fixed text.
fn rate(keys: &mut Vec<Key>) -> Result<f64, Error> {
    let began = Instant::now();
    let outcomes: Vec<(Key, Result<usize, Error>)> = thread::scope(|scope| {
        let threads: Vec<_> = keys
            .drain(..)
            .map(|key| {
                scope.spawn(move || {
                    let mut signed = 0;
                    loop {
                        if let Err(error) = key.sign(b"birthmark: how fast is this HSM?") {
                            return (key, Err(error));
                        }
                        signed += 1;
                        if began.elapsed() >= STEP {
                            return (key, Ok(signed));
                        }
                    }
                })
            })
            .collect();
        // A panic has been reported by the panic hook.
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let took = began.elapsed().as_secs_f64();
    let mut signed = 0;
    for (key, outcome) in outcomes {
        signed += outcome?;
        keys.push(key);
    }
    Ok(signed as f64 / took)
}
