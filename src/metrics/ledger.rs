//! What a ledger that several daemons share sets.

use std::{collections::BTreeSet, time::Duration};

use metrics::{counter, gauge, histogram};
use parking_lot::Mutex;

use super::list;

/// How long a daemon waited for its turn to append.
pub(crate) fn ledger_lock_wait(elapsed: Duration) {
    histogram!(list::LEDGER_LOCK_WAIT).record(elapsed);
}

/// How long an append took, with the wait for its copies.
pub(crate) fn ledger_commit(elapsed: Duration) {
    histogram!(list::LEDGER_COMMIT_DURATION).record(elapsed);
}

/// An append that is tried again, as others came before.
pub(crate) fn ledger_retry() {
    counter!(list::LEDGER_RETRIES).increment(1);
}

/// What became of a COMMIT that was not answered.
pub(crate) fn ledger_unknown(happened: bool) {
    counter!(list::LEDGER_UNKNOWN, "happened" => if happened { "true" } else { "false" }).increment(1);
}

/// How many batches this daemon had not taken in.
pub(crate) fn ledger_follow_lag(batches: u64) {
    gauge!(list::LEDGER_FOLLOW_LAG).set(batches as f64);
}

/// The daemons that have not ended, each with the seconds since it was heard of.
pub(crate) fn ledger_daemons<'d>(daemons: impl Iterator<Item = (&'d str, f64)>) {
    static KNOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock();
    let mut gone = std::mem::take(&mut *known);
    for (name, age) in daemons {
        gauge!(list::LEDGER_DAEMON_AGE, "daemon" => name.to_owned()).set(age);
        gone.remove(name);
        known.insert(name.to_owned());
    }
    gauge!(list::LEDGER_DAEMONS).set(known.len() as f64);
    // One that has ended is not heard of, and its last age would look like news.
    gone.into_iter().for_each(|name| gauge!(list::LEDGER_DAEMON_AGE, "daemon" => name).set(f64::NAN));
}

/// The counters with labels, at 0.
pub(super) fn prepare() {
    for happened in ["true", "false"] {
        drop(counter!(list::LEDGER_UNKNOWN, "happened" => happened));
    }
}
