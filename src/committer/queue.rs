//! What waits for the one thread, and when it is enough for a batch.
//!
//! A batch costs a sync, however small it is, and a processor that syncs all the time has less left for signatures. So
//! the thread waits until a quarter of the requests in flight have gathered, or [`GATHER`] has passed: a lone request
//! is never delayed, and with hundreds in flight one sync serves many. Measured: 24 and 18 µs of the committer's thread
//! a certificate without, 10 and 11 µs with it; half instead of a quarter saves up to 15 µs more at half load, but adds
//! 0.1 to 0.3 ms to the median (benches/RESULTS.md).
//!
//! Why no channel of a library: none takes a batch once as many items are there as the consumer asks for.

use std::{sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// The longest that the first item waits for more.
const GATHER: Duration = Duration::from_millis(3);

/// A queue for one consumer, which takes batches. The producers keep it bounded (invariant 9).
pub(super) fn queue<T>() -> (Arc<Sender<T>>, Receiver<T>) {
    let inner = Inner { items: Vec::new(), wanted: usize::MAX, closed: false, ended: false };
    let shared = Arc::new(Shared { inner: Mutex::new(inner), enough: Condvar::new() });
    (Arc::new(Sender(Arc::clone(&shared))), Receiver(shared))
}

/// The producers' end. Dropped, it closes the queue.
#[derive(Debug)]
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// The consumer's end. Dropped, it drops what is in the queue and all that is pushed later.
#[derive(Debug)]
pub(super) struct Receiver<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    inner: Mutex<Inner<T>>,
    enough: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    items: Vec<T>,
    /// At how many items the thread wants to be woken; `usize::MAX` while it does not wait.
    wanted: usize,
    /// Nothing more comes.
    closed: bool,
    /// The receiver is gone.
    ended: bool,
}

impl<T> Sender<T> {
    /// Adds an item at the end.
    pub(super) fn push(&self, item: T) {
        let mut inner = self.0.lock();
        if inner.ended {
            return;
        }
        inner.items.push(item);
        if inner.items.len() >= inner.wanted {
            inner.wanted = usize::MAX;
            drop(inner);
            self.0.enough.notify_one();
        }
    }

    /// Lets the consumer finish once it has taken what is there.
    pub(super) fn close(&self) {
        self.0.lock().closed = true;
        self.0.enough.notify_one();
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Receiver<T> {
    /// Takes the oldest items, `most` at most, when there are enough of them; none if there is not one `within` this time. `None`
    /// when it is closed and empty.
    pub(super) fn take(&self, most: usize, in_flight: impl Fn() -> usize, within: Option<Duration>) -> Option<Vec<T>> {
        let Shared { enough, .. } = &*self.0;
        let mut inner = self.0.lock();
        inner.wanted = 1;
        let nothing = |inner: &mut Inner<T>| inner.items.is_empty() && !inner.closed;
        match within {
            None => enough.wait_while(&mut inner, nothing),
            Some(within) => {
                enough.wait_while_for(&mut inner, nothing, within);
                if nothing(&mut inner) {
                    inner.wanted = usize::MAX;
                    return Some(Vec::new());
                }
            }
        }
        let wanted = (in_flight() / 4).clamp(1, most);
        inner.wanted = wanted;
        enough.wait_while_for(&mut inner, |inner| inner.items.len() < wanted && !inner.closed, GATHER);
        inner.wanted = usize::MAX;
        let taken = inner.items.len().min(most);
        let rest = inner.items.split_off(taken);
        let items = std::mem::replace(&mut inner.items, rest);
        (!items.is_empty()).then_some(items)
    }

    /// Puts items back at the end, to be taken again; drops them if the queue is closed.
    pub(super) fn put_back(&self, items: impl IntoIterator<Item = T>) {
        let mut inner = self.0.lock();
        if !inner.closed {
            inner.items.extend(items);
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.ended = true;
        let items = std::mem::take(&mut inner.items);
        // Dropping them may push.
        drop(inner);
        drop(items);
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Instant};

    use super::*;

    #[test]
    fn batch_of_one_is_not_delayed_and_of_many_is_a_quarter() {
        let (sender, receiver) = queue();
        sender.push(0);
        assert_eq!(receiver.take(512, || 1, None), Some(vec![0]));
        (0..100).for_each(|number| sender.push(number));
        assert_eq!(receiver.take(64, || 100, None).map(|items| items.len()), Some(64));
        // Of a thousand in flight no more arrive.
        let began = Instant::now();
        assert_eq!(receiver.take(512, || 1000, None).map(|items| (items[0], items.len())), Some((64, 36)));
        assert!(began.elapsed() >= GATHER);
        // They come while it waits.
        let pushing = thread::spawn(move || {
            (0..300).for_each(|number| sender.push(number));
            sender
        });
        let mut taken = Vec::new();
        while taken.len() < 300 {
            taken.extend(receiver.take(512, || 40, None).unwrap());
        }
        assert!(taken.into_iter().eq(0..300));
        drop(pushing.join());
        assert_eq!(receiver.take(512, || 0, None), None);
    }

    #[test]
    fn queue_without_items_gives_none_in_time() {
        let (sender, receiver) = queue();
        assert_eq!(receiver.take(512, || 0, Some(Duration::from_millis(1))), Some(Vec::new()));
        sender.push(7);
        assert_eq!(receiver.take(512, || 0, Some(Duration::from_secs(60))), Some(vec![7]));
        sender.close();
        assert_eq!(receiver.take(512, || 0, Some(Duration::from_secs(60))), None);
    }

    #[test]
    fn closed_queue_gives_what_it_holds_first() {
        let (sender, receiver) = queue();
        sender.push("a");
        sender.close();
        assert_eq!(receiver.take(512, || 8192, None), Some(vec!["a"]));
        assert_eq!(receiver.take(512, || 8192, None), None);
    }

    #[test]
    fn items_put_back_are_taken_again_until_closed() {
        let (sender, receiver) = queue();
        sender.push("new");
        receiver.put_back(["back"]);
        assert_eq!(receiver.take(512, || 0, None), Some(vec!["new", "back"]));
        sender.close();
        receiver.put_back(["late"]);
        assert_eq!(receiver.take(512, || 0, None), None);
    }

    #[test]
    fn items_without_a_receiver_are_dropped() {
        let (sender, receiver) = queue();
        let item = Arc::new(());
        sender.push(Arc::clone(&item));
        drop(receiver);
        sender.push(Arc::clone(&item));
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
