//! The bounded queue between those who want signatures and the threads that make them.
//!
//! The committer has a queue of its own (`committer/queue.rs`) because the two have nothing in common but a lock: there
//! one thread takes whole batches, and waits so that a batch grows; here many threads take one job each, as soon as
//! there is one, a job can come back before the others, and a thread that waits can be asked to do something else.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What waits in a [`Queue`].
pub(super) trait Job {
    /// Nobody waits for it any more: it is dropped instead of being handed out.
    fn is_cancelled(&self) -> bool;
}

/// What a thread does next.
pub(super) enum Next<J> {
    /// This job.
    Work(J),
    /// Nothing waits; see whether the session still signs.
    Probe,
    /// What the thread asked to be interrupted for.
    Interrupted,
    /// The queue is closed and empty.
    Closed,
}

/// Jobs in the order of their arrival; one that failed goes before the others.
///
/// Whoever puts in a new job must have a permit, so there are never more jobs than the bound, those that are being
/// worked on and those put back included (invariant 9).
pub(super) struct Queue<J> {
    permits: Arc<Semaphore>,
    inner: Mutex<Inner<J>>,
    /// Signalled when there is a job for a thread that waits, and when one may be interrupted.
    changed: Condvar,
}

struct Inner<J> {
    jobs: VecDeque<J>,
    /// Number of waiting threads, to skip the wake-up call when there are none.
    waiting: usize,
    closed: bool,
}

impl<J: Job> Queue<J> {
    /// A queue without capacity.
    pub(super) fn new() -> Self {
        Queue {
            permits: Arc::new(Semaphore::new(0)),
            inner: Mutex::new(Inner { jobs: VecDeque::new(), waiting: 0, closed: false }),
            changed: Condvar::new(),
        }
    }

    /// Adds permits for `jobs` more jobs.
    pub(super) fn add_capacity(&self, jobs: usize) {
        self.permits.add_permits(jobs);
    }

    /// Waits for a permit. `None` once the queue is closed.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Puts a new job at the end. A queue that is closed and empty drops it, because its threads may have ended;
    /// whoever waits for it hears that.
    pub(super) fn push(&self, job: J) {
        let mut inner = self.inner.lock();
        if inner.closed && inner.jobs.is_empty() {
            return;
        }
        inner.jobs.push_back(job);
        self.notify(&inner);
    }

    /// Puts a job that failed before the others.
    pub(super) fn put_back(&self, job: J) {
        let mut inner = self.inner.lock();
        inner.jobs.push_front(job);
        self.notify(&inner);
    }

    fn notify(&self, inner: &Inner<J>) {
        if inner.waiting > 0 {
            self.changed.notify_one();
        }
    }

    /// What a thread does next; waits for it. A job goes before a probe, and proves as much.
    pub(super) fn next(&self, interrupted: impl Fn() -> bool, probed: impl Fn() -> bool) -> Next<J> {
        let mut inner = self.inner.lock();
        loop {
            if interrupted() {
                // The signal for a job may have come to this thread.
                if !inner.jobs.is_empty() {
                    self.notify(&inner);
                }
                return Next::Interrupted;
            }
            match inner.jobs.pop_front() {
                Some(job) if job.is_cancelled() => continue,
                Some(job) => return Next::Work(job),
                None if inner.closed => return Next::Closed,
                None if probed() => return Next::Probe,
                None => {}
            }
            inner.waiting += 1;
            self.changed.wait(&mut inner);
            inner.waiting -= 1;
        }
    }

    /// Has every waiting thread ask again whether it is interrupted.
    pub(super) fn wake_all(&self) {
        // With the lock, so that a thread between asking and waiting does not miss it.
        let _inner = self.inner.lock();
        self.changed.notify_all();
    }

    /// Takes out all jobs.
    pub(super) fn drain(&self) -> VecDeque<J> {
        std::mem::take(&mut self.inner.lock().jobs)
    }

    pub(super) fn len(&self) -> usize {
        self.inner.lock().jobs.len()
    }

    /// Takes no new jobs; those in it are still handed out.
    pub(super) fn close(&self) {
        self.permits.close();
        self.inner.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }
}
