//! The bounded queue between those who want signatures and the threads that make them.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{key::SigningInput, module::lock, worker::Worker};
use crate::signer::SignError;

/// One message to sign, and who waits for it.
pub(super) struct Job {
    pub(super) input: SigningInput,
    /// What became of it. A job is answered once: the sender is used up by it.
    pub(super) reply: oneshot::Sender<Result<Made, SignError>>,
    /// When signing it failed first.
    pub(super) failed_at: Option<Instant>,
    /// Its place in the queue's bound, until it is answered.
    pub(super) room: OwnedSemaphorePermit,
}

/// A signature as the HSM gave it, not checked, and the thread that made it.
pub(super) struct Made {
    pub(super) signature: Vec<u8>,
    pub(super) by: Arc<Worker>,
    pub(super) room: OwnedSemaphorePermit,
}

/// What a thread does next.
pub(super) enum Next {
    /// Sign this.
    Sign(Job),
    /// Nothing waits; see whether the session still signs.
    Probe,
    /// The thread should stop, or the queue is closed and empty.
    Stop,
}

/// Jobs in the order of their arrival; one whose signing failed goes before the others.
///
/// Whoever puts in a new job must have room, so there are never more jobs than the bound, those that are being signed and
/// those put back included.
pub(super) struct Queue {
    room: Arc<Semaphore>,
    inner: Mutex<Inner>,
    /// Signalled when there is a job for a thread that waits, and when one may have to stop.
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Job>,
    /// How many threads wait: no system call for nobody.
    waiting: usize,
    closed: bool,
}

impl Queue {
    /// A queue without room.
    pub(super) fn new() -> Self {
        Queue { room: Arc::new(Semaphore::new(0)), inner: Mutex::default(), changed: Condvar::new() }
    }

    /// Makes room for so many more jobs.
    pub(super) fn widen(&self, jobs: usize) {
        self.room.add_permits(jobs);
    }

    /// Waits for room. `None` once the queue is closed.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    /// Puts a new job at the end. A queue that is closed and empty drops it, because its threads may have ended; whoever
    /// waits for it hears that.
    pub(super) fn push(&self, job: Job) {
        self.put(job, VecDeque::push_back);
    }

    /// Puts a job that was not signed, or wrongly, before the others.
    pub(super) fn put_back(&self, job: Job) {
        self.put(job, VecDeque::push_front);
    }

    fn put(&self, job: Job, put: fn(&mut VecDeque<Job>, Job)) {
        let mut inner = lock(&self.inner);
        if inner.closed && inner.jobs.is_empty() && job.failed_at.is_none() {
            return;
        }
        put(&mut inner.jobs, job);
        if inner.waiting > 0 {
            self.changed.notify_one();
        }
    }

    /// What a thread does next; waits for it. A job goes before a probe, and proves as much.
    pub(super) fn next(&self, stopped: impl Fn() -> bool, probed: impl Fn() -> bool) -> Next {
        let mut inner = lock(&self.inner);
        loop {
            if stopped() {
                // The signal for a job may have come to this thread.
                if !inner.jobs.is_empty() && inner.waiting > 0 {
                    self.changed.notify_one();
                }
                return Next::Stop;
            }
            match inner.jobs.pop_front() {
                // Whoever wanted it has gone.
                Some(job) if job.reply.is_closed() => continue,
                Some(job) => return Next::Sign(job),
                None if inner.closed => return Next::Stop,
                None if probed() => return Next::Probe,
                None => {}
            }
            inner.waiting += 1;
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.waiting -= 1;
        }
    }

    /// Has every waiting thread ask again whether it should stop.
    pub(super) fn wake_all(&self) {
        // With the lock, so that a thread between asking and waiting does not miss it.
        let _inner = lock(&self.inner);
        self.changed.notify_all();
    }

    /// Takes out all jobs.
    pub(super) fn drain(&self) -> VecDeque<Job> {
        std::mem::take(&mut lock(&self.inner).jobs)
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.inner).jobs.len()
    }

    /// Takes no new jobs; those in it are still handed out.
    pub(super) fn close(&self) {
        self.room.close();
        lock(&self.inner).closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }
}
