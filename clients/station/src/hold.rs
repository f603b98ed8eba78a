//! The files of a watched folder that stay there for now, and when they are tried again.
//!
//! Two things hold a file: the whole order is refused (used up, closed, …), or its certificate cannot be written. While an
//! order is refused, one file at a time is sent as a probe.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

/// The interval at which a refused order is tried again.
const ORDER_AGAIN: Duration = Duration::from_secs(2);

/// When a certificate that could not be written is tried again.
const FILE_AGAIN: Duration = Duration::from_secs(10);

/// The files that are held. Shared by those who read CSRs and those who write certificates.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    /// With the time of the next try; none while a try is under way.
    files: HashMap<PathBuf, Option<Instant>>,
    order: Option<Order>,
}

/// A refused order.
#[derive(Debug)]
struct Order {
    /// Why; printed once.
    reason: String,
    again: Instant,
    /// The file that was last sent as a probe.
    probe: Option<PathBuf>,
}

/// Whether a file may be asked for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// It may.
    Open,
    /// No file may for now.
    Closed,
}

impl Holds {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock()
    }

    /// How many files are held.
    pub(crate) fn count(&self) -> u64 {
        self.held().files.len() as u64
    }

    /// The order is refused for `reason`. Whether that is new, and whether the file was not held before.
    pub(super) fn refuse_order(&self, file: &Path, reason: &str) -> (bool, bool) {
        let mut held = self.held();
        let (again, now) = (Instant::now() + ORDER_AGAIN, Instant::now());
        let first = held.files.insert(file.to_owned(), Some(now)).is_none();
        match &mut held.order {
            Some(order) if order.reason == reason => {
                order.again = again;
                (false, first)
            }
            order => {
                *order = Some(Order { reason: reason.to_owned(), again, probe: None });
                (true, first)
            }
        }
    }

    /// The file's certificate could not be written. Whether it was not held before.
    pub(super) fn not_written(&self, file: &Path) -> bool {
        self.held().files.insert(file.to_owned(), Some(Instant::now() + FILE_AGAIN)).is_none()
    }

    /// The file has its final answer. Whether the order, which was refused, is usable again.
    pub(super) fn release(&self, file: &Path, issued: bool) -> bool {
        let mut held = self.held();
        held.files.remove(file);
        let Some(order) = held.order.as_mut().filter(|order| order.probe.as_deref() == Some(file)) else {
            return false;
        };
        if issued {
            held.order = None;
        } else {
            // It says nothing about the order; the next file is the probe.
            order.again = Instant::now();
        }
        issued
    }

    /// Whether the file is held and its time has come.
    pub(super) fn is_due(&self, file: &Path) -> bool {
        self.held().files.get(file).is_some_and(|due| due.is_some_and(|due| due <= Instant::now()))
    }

    /// Asks to send the file. While an order is refused one may now and then.
    pub(super) fn gate(&self, file: &Path) -> Gate {
        let mut held = self.held();
        if let Some(order) = &mut held.order {
            if Instant::now() < order.again {
                return Gate::Closed;
            }
            order.again = Instant::now() + ORDER_AGAIN;
            order.probe = Some(file.to_owned());
        }
        if let Some(due) = held.files.get_mut(file) {
            *due = None;
        }
        Gate::Open
    }

    /// Forgets the files that were removed.
    pub(super) fn retain(&self, is_there: impl Fn(&Path) -> bool) {
        self.held().files.retain(|file, _| is_there(file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_order_is_tried_with_one_file_at_a_time() {
        let holds = Holds::default();
        let [a, b, c] = ["a", "b", "c"].map(Path::new);
        assert_eq!(holds.gate(a), Gate::Open);
        assert_eq!(holds.refuse_order(a, "ORDER_EXHAUSTED"), (true, true));
        assert_eq!(holds.refuse_order(b, "ORDER_EXHAUSTED"), (false, true));
        assert_eq!(holds.refuse_order(b, "ORDER_CLOSED"), (true, false));
        assert!(holds.is_due(a) && !holds.is_due(c));
        assert_eq!((holds.gate(a), holds.count()), (Gate::Closed, 2));
        // The pause is over.
        let over = |holds: &Holds| {
            if let Some(order) = &mut holds.held().order {
                order.again = Instant::now();
            }
        };
        over(&holds);
        assert_eq!([holds.gate(a), holds.gate(b)], [Gate::Open, Gate::Closed]);
        assert!(!holds.is_due(a), "it is being asked for");
        // A request that was under way before says nothing.
        assert!(!holds.release(c, true));
        assert_eq!(holds.gate(b), Gate::Closed);
        assert!(!holds.release(a, false), "a bad CSR says nothing of the order");
        assert_eq!(holds.gate(b), Gate::Open);
        assert!(holds.release(b, true));
        assert_eq!([holds.gate(a), holds.gate(c)], [Gate::Open, Gate::Open]);
        assert_eq!(holds.count(), 0);
    }

    #[test]
    fn unwritten_certificate_is_tried_again_later() {
        let holds = Holds::default();
        assert!(holds.not_written(Path::new("a")) && !holds.not_written(Path::new("a")));
        assert!(!holds.is_due(Path::new("a")));
        assert_eq!(holds.gate(Path::new("b")), Gate::Open);
    }
}
