//! Open orders, how fast each is worked off, and when it will be complete.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use super::snapshot::{Listed, OpenOrder, Orders};
use crate::ledger::{FirstPass, LedgerError, Order, Records};

/// How many open orders a snapshot has, those that are used before those that are not; the others are summed.
pub(super) const ORDERS: usize = 256;

/// Over how long the rate of an order is: stations pause between devices.
const WINDOW: Duration = Duration::from_secs(300);

/// How far apart two counts of an order are that a rate is made of.
const APART: Duration = Duration::from_secs(5);

/// What was known of the open orders.
#[derive(Default)]
pub(super) struct OrderRates {
    /// Since when orders are looked at.
    since: Option<Instant>,
    known: HashMap<String, Known>,
}

/// What was known of an order.
struct Known {
    /// How many certificates it had, when that changed, the oldest first.
    counts: VecDeque<(Instant, u64)>,
    /// When its count changed last while it was looked at.
    changed: Option<Instant>,
    /// The counts for which the yield was looked up, and what it was.
    passes: Option<([u64; 3], FirstPass)>,
}

impl OrderRates {
    /// The open orders at this moment.
    pub(super) fn read(
        &mut self,
        records: &dyn Records,
        now: Timestamp,
        at: Instant,
    ) -> Result<Listed<OpenOrder, Orders>, LedgerError> {
        let mut open: Vec<_> = records.orders()?.into_iter().filter(|order| !order.closed).collect();
        // One that was not there before began with nothing.
        let is_first_look = self.since.is_none();
        let since = *self.since.get_or_insert(at);
        let mut known = std::mem::take(&mut self.known);
        self.known = open
            .iter()
            .map(|order| {
                let id = order.terms.id.clone();
                let mut before =
                    known.remove(&id).unwrap_or_else(|| Known::new(at, if is_first_look { given(order) } else { 0 }));
                before.note(at, order);
                (id, before)
            })
            .collect();
        // Those that are worked on, then those that can be, then those that cannot; the newest first.
        open.sort_by_cached_key(|order| {
            let changed = self.known.get(&order.terms.id).and_then(|known| known.changed);
            (Reverse(changed), order.state(now) != "open", Reverse(order.created_at))
        });
        let rest = open.split_off(open.len().min(ORDERS));
        let mut others = Orders::default();
        for order in &rest {
            others.quantity += order.terms.quantity;
            others.issued += order.issued;
            others.left += order.left();
        }
        let looked = at.duration_since(since).min(WINDOW);
        let mut listed = Vec::with_capacity(open.len());
        for order in open {
            let Some(known) = self.known.get_mut(&order.terms.id) else { continue };
            let passes = known.first_pass(records, &order)?;
            listed.push(shown(order, known.rate(looked), passes, now));
        }
        Ok(Listed { listed, left_out: rest.len(), others })
    }
}

impl Known {
    fn new(at: Instant, given: u64) -> Known {
        Known { counts: VecDeque::from([(at, given)]), changed: None, passes: None }
    }

    fn note(&mut self, at: Instant, order: &Order) {
        let given = given(order);
        if self.counts.back().is_some_and(|(_, before)| *before != given) {
            self.changed = Some(at);
            // The newest count moves on until it is far enough from the one before.
            let moves = self.counts.len() > 1
                && self.counts.iter().rev().nth(1).is_some_and(|(before, _)| at.duration_since(*before) < APART);
            if moves {
                self.counts.pop_back();
            }
            self.counts.push_back((at, given));
        }
        // The count that the window begins with stays.
        while self.counts.get(1).is_some_and(|(second, _)| at.duration_since(*second) >= WINDOW) {
            self.counts.pop_front();
        }
    }

    /// Certificates a second over a time.
    fn rate(&self, over: Duration) -> f64 {
        let (Some((_, first)), Some((_, last))) = (self.counts.front(), self.counts.back()) else { return 0.0 };
        if over.is_zero() { 0.0 } else { last.saturating_sub(*first) as f64 / over.as_secs_f64() }
    }

    fn first_pass(&mut self, records: &dyn Records, order: &Order) -> Result<FirstPass, LedgerError> {
        let counts = [order.issued + order.scrapped, order.refused, order.refused_ever];
        match self.passes {
            Some((of, passes)) if of == counts => Ok(passes),
            _ => {
                let passes = FirstPass::sum(records.first_pass(Some(&order.terms.id))?.values());
                self.passes = Some((counts, passes));
                Ok(passes)
            }
        }
    }
}

/// How many certificates were ever recorded under it.
fn given(order: &Order) -> u64 {
    order.issued + order.scrapped
}

fn shown(order: Order, rate: f64, passes: FirstPass, now: Timestamp) -> OpenOrder {
    let (state, left) = (order.state(now), order.left());
    let missing = order.terms.quantity.saturating_sub(order.issued);
    let seconds = SignedDuration::try_from_secs_f64(missing as f64 / rate);
    let expected_end = seconds.ok().filter(|_| rate > 0.0 && missing > 0 && state == "open");
    let tried = passes.tried();
    OpenOrder {
        state,
        left,
        rate,
        expected_end: expected_end.and_then(|seconds| now.checked_add(seconds).ok()),
        first_pass_yield: (tried > 0).then(|| passes.first as f64 / tried as f64),
        tried,
        quantity: order.terms.quantity,
        issued: order.issued,
        reserved: order.reserved,
        confirmed: order.confirmed,
        scrapped: order.scrapped,
        revoked: order.revoked,
        paused_for: order.paused.map(|pause| pause.reason),
        id: order.terms.id,
        profile: order.terms.profile,
    }
}
