//! Pauses before another try.

use std::time::Duration;

/// The longest pause before connecting again. The actual pause is random below this, so that the stations of a hall do
/// not come back all at once.
const LONGEST: Duration = Duration::from_secs(5);

/// The first pause, doubled each time.
const SHORTEST: Duration = Duration::from_millis(100);

/// Full jitter: anything from nothing to an exponentially growing bound; `random` is from 0 to 1.
pub(crate) fn backoff(attempts: u32, random: f64) -> Duration {
    let bound = SHORTEST.saturating_mul(2_u32.saturating_pow(attempts)).min(LONGEST);
    bound.mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_five_seconds() {
        let bounds: Vec<_> = (0..8).map(|attempts| backoff(attempts, 1.0).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff(u32::MAX, 1.0), LONGEST);
        assert_eq!(backoff(3, 0.0), Duration::ZERO);
    }
}
