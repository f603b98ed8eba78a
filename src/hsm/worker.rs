//! What a thread that calls the HSM shows of itself: to the supervisor, and to whoever checks its signatures.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    module::{Module, WorkingSession},
    queue,
    signing_input::SigningInput,
};
use crate::signer::SignError;

/// One message to sign, and who waits for it.
pub(super) struct Job {
    pub(super) input: SigningInput,
    /// What became of it. A job is answered once: the sender is used up by it.
    pub(super) reply: oneshot::Sender<Result<RawSignature, SignError>>,
    /// When signing it failed first.
    pub(super) failed_at: Option<Instant>,
    /// When it came into the queue.
    pub(super) queued_at: Instant,
    /// Its share of the queue's bound, until it is answered.
    pub(super) permit: OwnedSemaphorePermit,
}

impl queue::Job for Job {
    fn is_cancelled(&self) -> bool {
        self.reply.is_closed()
    }
}

/// A signature as the HSM gave it, not verified, and who made it.
pub(super) struct RawSignature {
    pub(super) octets: Vec<u8>,
    pub(super) made_by: Arc<dyn SignatureMaker>,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Whoever made a [`RawSignature`] hears what it was worth.
pub(super) trait SignatureMaker: Send + Sync {
    /// It verified.
    fn signature_verified(&self);

    /// It did not verify.
    fn signature_rejected(&self);
}

/// A thread that calls the HSM, as the supervisor sees it.
pub(super) struct Worker {
    /// It signs; otherwise it opens sessions that are missing.
    pub(super) signs: bool,
    started: Instant,
    /// When its call began, in microseconds since `started`, plus one; 0 while it is not in a call.
    since: AtomicU64,
    /// What it signs. Whoever takes the job out answers it: the thread, or the supervisor when the call hangs.
    job: Mutex<Option<Job>>,
    /// Its call hung, and it was replaced: it only ends.
    abandoned: AtomicBool,
    /// It gave a wrong signature: it signs no more with this session.
    rejected: AtomicBool,
    /// Its session counts as one that works, until its thread ends or is abandoned, whichever is first.
    session: Mutex<Option<WorkingSession>>,
}

impl Worker {
    /// One that signs, in this module.
    pub(super) fn signing(module: &Arc<Module>) -> Arc<Worker> {
        Worker::new(Some(WorkingSession::new(module)))
    }

    /// One that opens sessions.
    pub(super) fn recovering() -> Arc<Worker> {
        Worker::new(None)
    }

    fn new(session: Option<WorkingSession>) -> Arc<Worker> {
        Arc::new(Worker {
            signs: session.is_some(),
            started: Instant::now(),
            since: AtomicU64::new(0),
            job: Mutex::default(),
            abandoned: AtomicBool::new(false),
            rejected: AtomicBool::new(false),
            session: Mutex::new(session),
        })
    }

    fn micros(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// A call begins.
    pub(super) fn begin_call(&self) {
        self.since.store(self.micros() + 1, Ordering::Release);
    }

    /// The call has returned.
    pub(super) fn end_call(&self) {
        self.since.store(0, Ordering::Release);
    }

    /// Whether it is in a call that takes longer than `limit`.
    pub(super) fn hangs(&self, limit: Duration) -> bool {
        self.stuck_since(limit).is_some()
    }

    /// When its call began, if that takes longer than `limit`.
    pub(super) fn stuck_since(&self, limit: Duration) -> Option<Instant> {
        let since = self.since.load(Ordering::Acquire).checked_sub(1)?;
        let began = self.started + Duration::from_micros(since);
        (began.elapsed() > limit).then_some(began)
    }

    /// Whether it is in a call.
    pub(super) fn is_busy(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    /// What it signs from now on.
    pub(super) fn set_job(&self, job: Job) {
        *self.job.lock() = Some(job);
    }

    /// What it signs, for whoever answers it.
    pub(super) fn take_job(&self) -> Option<Job> {
        self.job.lock().take()
    }

    /// Its call hangs. Gives what it was to sign.
    pub(super) fn abandon(&self) -> Option<Job> {
        self.abandoned.store(true, Ordering::Release);
        self.session_ended();
        self.take_job()
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Its session counts no more as one that works.
    pub(super) fn session_ended(&self) {
        self.session.lock().take();
    }

    /// It gave a wrong signature. Gives whether that is new.
    pub(super) fn reject(&self) -> bool {
        !self.rejected.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_rejected(&self) -> bool {
        self.rejected.load(Ordering::Acquire)
    }

    /// It has a new session, which was tested.
    pub(super) fn accept_again(&self) {
        self.rejected.store(false, Ordering::Release);
    }
}
