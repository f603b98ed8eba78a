//! Equal shares for those who want the same thing at the same time, however many streams or calls they ask with.
//!
//! A request has a turn from before its first costly step until its result is durable; a confirmation has one turn to be looked up, and
//! another to be recorded. A lone asker may have many.
//! While several ask, none has more turns than the one that asks for least, or a floor that keeps the resource busy: so
//! what is under way is shared equally, and a newcomer waits for a few requests of the others, not for all that they
//! have sent. Equal askers (many stations with the same window) are not held up at all.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

/// How often the limit follows what is asked for.
const PERIOD: Duration = Duration::from_millis(100);

/// For how many periods a demand counts: a station may pause this long between two devices and keep its share.
const REMEMBERED: u8 = 10;

/// When no turn was finished for this long, the resource stands still (an HSM that is away, say). Then no request is
/// held back here: all of them should wait for the resource, and be refused there, at the same time.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Gives out turns.
#[derive(Debug)]
pub(crate) struct FairShare {
    floor: usize,
    alone: usize,
    inner: Mutex<Inner>,
}

/// The right to go on with one request; dropped, the next may.
#[derive(Debug)]
pub(crate) struct Turn {
    of: Arc<FairShare>,
    who: Arc<str>,
}

#[derive(Debug)]
struct Inner {
    /// All that have or want a turn, or did within [`REMEMBERED`].
    askers: HashMap<Arc<str>, Asker>,
    /// The most turns that one may have now.
    limit: usize,
    /// When the limit is computed again.
    next: Instant,
    /// When a turn was finished last.
    finished: Instant,
}

#[derive(Debug, Default)]
struct Asker {
    held: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
    /// The most that it had and wanted at once lately.
    demand: usize,
    /// Periods since then.
    age: u8,
}

/// Turns that are taken for those who wait, and are still to be sent to them.
type Granted = Vec<(Arc<str>, oneshot::Sender<Turn>)>;

impl Asker {
    fn wants(&self) -> usize {
        self.held + self.waiting.len()
    }

    fn note_demand(&mut self) {
        if self.wants() >= self.demand {
            (self.demand, self.age) = (self.wants(), 0);
        }
    }

    /// Takes turns for those who wait, while the limit allows it.
    fn grant(&mut self, who: &Arc<str>, limit: usize, granted: &mut Granted) {
        while self.held < limit
            && let Some(waiting) = self.waiting.pop_front()
        {
            if !waiting.is_closed() {
                self.held += 1;
                granted.push((Arc::clone(who), waiting));
            }
        }
    }
}

impl FairShare {
    /// A lone asker may have `alone` turns; of several, each may have at least `floor`.
    pub(crate) fn new(floor: usize, alone: usize) -> Arc<Self> {
        let alone = alone.max(1);
        let now = Instant::now();
        let inner = Inner { askers: HashMap::new(), limit: alone, next: now + PERIOD, finished: now };
        Arc::new(FairShare { floor: floor.clamp(1, alone), alone, inner: Mutex::new(inner) })
    }

    /// Waits for a turn. One asker's requests get theirs in the order in which they came.
    pub(crate) async fn turn(self: &Arc<Self>, who: &Arc<str>) -> Turn {
        let (waiting, granted) = self.ask(who);
        self.send(granted);
        let Some(mut waiting) = waiting else { return self.given(who) };
        loop {
            match tokio::time::timeout(STANDSTILL, &mut waiting).await {
                // The sender goes with a turn; without one it is dropped only together with `self`.
                Ok(given) => return given.unwrap_or_else(|_| self.given(who)),
                Err(_) => {
                    let granted = self.adjust(&mut self.lock(), Instant::now());
                    self.send(granted);
                }
            }
        }
    }

    /// Takes a turn, or joins the queue.
    fn ask(&self, who: &Arc<str>) -> (Option<oneshot::Receiver<Turn>>, Granted) {
        let mut inner = self.lock();
        let granted = self.adjust(&mut inner, Instant::now());
        let Inner { askers, limit, .. } = &mut *inner;
        if !askers.contains_key(who) {
            askers.insert(Arc::clone(who), Asker { demand: 1, ..Asker::default() });
            *limit = self.limit(askers);
        }
        let asker = askers.entry(Arc::clone(who)).or_default();
        let waiting = if asker.held < *limit && asker.waiting.is_empty() {
            asker.held += 1;
            None
        } else {
            let (sender, receiver) = oneshot::channel();
            asker.waiting.push_back(sender);
            Some(receiver)
        };
        asker.note_demand();
        (waiting, granted)
    }

    /// Takes a turn back for the next of the same asker.
    fn release(&self, who: &Arc<str>) -> Granted {
        let mut inner = self.lock();
        if let Some(asker) = inner.askers.get_mut(who) {
            asker.held = asker.held.saturating_sub(1);
        }
        let now = Instant::now();
        inner.finished = now;
        let mut granted = self.adjust(&mut inner, now);
        let Inner { askers, limit, .. } = &mut *inner;
        if let Some(asker) = askers.get_mut(who) {
            asker.grant(who, *limit, &mut granted);
        }
        granted
    }

    /// Once a period, lets the limit follow the demand.
    fn adjust(&self, inner: &mut Inner, now: Instant) -> Granted {
        let mut granted = Granted::new();
        if now < inner.next {
            return granted;
        }
        inner.next = now + PERIOD;
        inner.askers.retain(|_, asker| {
            asker.age += 1;
            asker.note_demand();
            if asker.age >= REMEMBERED {
                (asker.demand, asker.age) = (asker.wants(), 0);
            }
            asker.demand > 0
        });
        let standstill = now.saturating_duration_since(inner.finished) >= STANDSTILL;
        inner.limit = if standstill { self.alone } else { self.limit(&inner.askers) };
        for (who, asker) in &mut inner.askers {
            asker.grant(who, inner.limit, &mut granted);
        }
        granted
    }

    fn limit(&self, askers: &HashMap<Arc<str>, Asker>) -> usize {
        if askers.len() < 2 {
            return self.alone;
        }
        let least = askers.values().map(|asker| asker.demand).min().unwrap_or(0);
        least.clamp(self.floor, self.alone)
    }

    /// Without the lock: a turn that nobody takes any more gives itself back.
    fn send(self: &Arc<Self>, granted: Granted) {
        for (who, waiting) in granted {
            drop(waiting.send(self.given(&who)));
        }
    }

    fn given(self: &Arc<Self>, who: &Arc<str>) -> Turn {
        Turn { of: Arc::clone(self), who: Arc::clone(who) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let granted = self.of.release(&self.who);
        self.of.send(granted);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// As many turns as are given at once.
    fn take(share: &Arc<FairShare>, who: &Arc<str>, wanted: usize) -> Vec<Turn> {
        (0..wanted).filter_map(|_| share.turn(who).now_or_never()).collect()
    }

    /// Lets a period pass.
    fn pass(share: &Arc<FairShare>) {
        let mut inner = share.lock();
        inner.next = Instant::now();
        let granted = share.adjust(&mut inner, Instant::now());
        drop(inner);
        share.send(granted);
    }

    #[tokio::test]
    async fn share_of_one_alone_is_the_whole() {
        let (share, a) = (FairShare::new(2, 10), Arc::from("a"));
        assert_eq!(take(&share, &a, 20).len(), 10);
        assert_eq!(take(&share, &a, 20).len(), 10);
    }

    #[tokio::test]
    async fn share_of_a_flood_follows_who_asks_for_least() {
        let share = FairShare::new(2, 10);
        let [a, b, c] = ["a", "b", "c"].map(Arc::<str>::from);
        let mut flood = take(&share, &a, 10);
        assert_eq!(flood.len(), 10);
        let small = take(&share, &b, 2);
        assert_eq!(small.len(), 2, "nothing is known of a newcomer yet");
        let mut third = Box::pin(share.turn(&b));
        assert!(third.as_mut().now_or_never().is_none());
        pass(&share);
        let third = third.now_or_never();
        assert!(third.is_some(), "it had asked for three at once");
        flood.truncate(3);
        assert_eq!(take(&share, &a, 10).len(), 0);
        drop(flood);
        assert_eq!(take(&share, &a, 10).len(), 3, "as many as the other");
        assert_eq!(take(&share, &c, 10).len(), 2);
    }

    #[tokio::test]
    async fn share_of_equals_is_what_they_ask_for() {
        let share = FairShare::new(2, 100);
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        let futures: Vec<_> = (0..50).flat_map(|_| [share.turn(&a), share.turn(&b)]).map(Box::pin).collect();
        let mut all = Box::pin(futures_util::future::join_all(futures));
        assert!(all.as_mut().now_or_never().is_none());
        pass(&share);
        assert_eq!(all.as_mut().now_or_never().map(|turns| turns.len()), Some(100));
    }

    #[tokio::test]
    async fn share_is_the_whole_again_after_the_other_is_gone() {
        let share = FairShare::new(2, 10);
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        drop(take(&share, &b, 1));
        assert_eq!(take(&share, &a, 5).len(), 2);
        let held = take(&share, &a, 2);
        for _ in 0..=REMEMBERED {
            pass(&share);
        }
        assert_eq!(take(&share, &a, 20).len(), 8);
        drop(held);
    }

    /// After a standstill nobody is held back for what came before it.
    #[tokio::test]
    async fn turns_after_a_standstill_hold_nobody_back() {
        let share = FairShare::new(2, 10);
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        let held = [take(&share, &a, 1), take(&share, &b, 2)];
        let mut third = Box::pin(share.turn(&b));
        assert!(third.as_mut().now_or_never().is_none());
        share.lock().finished = Instant::now() - STANDSTILL;
        pass(&share);
        assert!(third.now_or_never().is_some());
        drop(held);
    }

    /// A turn whose request was abandoned goes to the next.
    #[tokio::test]
    async fn turn_that_was_abandoned_is_passed_on() {
        let (share, a) = (FairShare::new(1, 1), Arc::from("a"));
        let held = take(&share, &a, 1);
        let mut gone = Box::pin(share.turn(&a));
        let mut waits = Box::pin(share.turn(&a));
        assert!(gone.as_mut().now_or_never().is_none());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(held);
        // It has been given to the first, which goes without having taken it.
        drop(gone);
        assert!(waits.now_or_never().is_some());
    }
}
