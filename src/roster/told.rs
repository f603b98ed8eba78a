//! Refusals for the log: summed by identity and reason, so that one tester in a loop does not fill the disk.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::security;

/// How often one identity's refusals of one reason are told.
const PAUSE: Duration = Duration::from_secs(60);

/// How many pairs of identity and reason are kept apart; those beyond are told as of others.
const KEPT: usize = 1024;

/// How much of a refusal's words is told, in octets.
const LONGEST: usize = 200;

const OTHERS: &str = "others";

/// What was refused to whom since it was told last.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    of: Mutex<HashMap<Arc<str>, HashMap<String, Sum>>>,
}

#[derive(Debug)]
struct Sum {
    number: u64,
    /// The words of the first of them.
    detail: String,
    told: Option<Instant>,
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) identity: Arc<str>,
    pub(super) reason: String,
    pub(super) number: u64,
    pub(super) detail: String,
}

impl Refusals {
    /// Notes a refusal.
    pub(crate) fn note(&self, identity: &Arc<str>, reason: &str, detail: &str) {
        let mut of = self.of.lock();
        let known = of.get_mut(identity).and_then(|reasons| reasons.get_mut(reason));
        if let Some(sum) = known {
            if sum.number == 0 {
                sum.detail = shortened(detail);
            }
            sum.number += 1;
            return;
        }
        let full = of.values().map(HashMap::len).sum::<usize>() >= KEPT;
        let identity = if full { Arc::from(OTHERS) } else { Arc::clone(identity) };
        let sum = of.entry(identity).or_default().entry(reason.to_owned());
        let sum = sum.or_insert_with(|| Sum { number: 0, detail: shortened(detail), told: None });
        sum.number += 1;
    }

    /// Tells what is due in the log.
    pub(super) fn tell(&self) {
        for Line { identity, reason, number, detail } in self.due(Instant::now()) {
            tracing::warn!(target: security::TARGET, %identity, reason, number, detail, "refused");
        }
    }

    /// What is to be told now; it counts as told.
    fn due(&self, now: Instant) -> Vec<Line> {
        let is_over = |told: Option<Instant>| told.is_none_or(|told| now.duration_since(told) >= PAUSE);
        let mut lines = Vec::new();
        let mut of = self.of.lock();
        for (identity, reasons) in of.iter_mut() {
            for (reason, sum) in reasons.iter_mut().filter(|(_, sum)| sum.number > 0 && is_over(sum.told)) {
                sum.told = Some(now);
                let (number, detail) = (std::mem::take(&mut sum.number), std::mem::take(&mut sum.detail));
                lines.push(Line { identity: Arc::clone(identity), reason: reason.clone(), number, detail });
            }
            reasons.retain(|_, sum| sum.number > 0 || !is_over(sum.told));
        }
        of.retain(|_, reasons| !reasons.is_empty());
        lines
    }
}

fn shortened(detail: &str) -> String {
    detail[..detail.floor_char_boundary(LONGEST)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(lines: Vec<Line>) -> Vec<(String, String, u64)> {
        let mut numbers: Vec<_> =
            lines.into_iter().map(|line| (line.identity.to_string(), line.reason, line.number)).collect();
        numbers.sort();
        numbers
    }

    /// One line at once, and one a minute with the sum.
    #[test]
    fn refusals_are_told_once_a_minute_with_their_sum() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let station: Arc<str> = "station:l/1".into();
        refusals.note(&station, "KEY_REUSED", "the key is bound to A");
        let first = refusals.due(start);
        assert_eq!(first[0].detail, "the key is bound to A");
        assert_eq!(numbers(first), [("station:l/1".into(), "KEY_REUSED".into(), 1)]);
        (0..5000).for_each(|_| refusals.note(&station, "KEY_REUSED", "again"));
        refusals.note(&station, "ORDER_CLOSED", "closed");
        assert_eq!(numbers(refusals.due(start)), [("station:l/1".into(), "ORDER_CLOSED".into(), 1)]);
        let later = refusals.due(start + PAUSE);
        assert_eq!(numbers(later), [("station:l/1".into(), "KEY_REUSED".into(), 5000)]);
        assert_eq!(refusals.due(start + 2 * PAUSE), []);
        assert!(refusals.of.lock().is_empty(), "what is over is forgotten");
    }

    /// Whoever makes up names does not make the daemon grow.
    #[test]
    fn refusals_of_many_identities_are_bounded() {
        let refusals = Refusals::default();
        for number in 0..3 * KEPT {
            refusals.note(&format!("station:l/{number}").into(), "ROLE_REQUIRED", &"ä".repeat(LONGEST));
        }
        let lines = refusals.due(Instant::now());
        assert_eq!(lines.len(), KEPT + 1);
        let others = lines.iter().find(|line| &*line.identity == OTHERS).unwrap();
        assert_eq!(others.number, 2 * KEPT as u64);
        assert!(lines.iter().all(|line| line.detail.len() <= LONGEST));
    }
}
