//! Work that reads much of the ledger, beside stations that issue: on threads of its own, which the system runs when others
//! leave it time.

use std::thread;

use tokio::{runtime::Handle, sync::oneshot};

use super::error::BatchError;

/// How nice these threads are (nice(2)): beside one thread of another kind they get a tenth of a processor.
const NICE: i32 = 10;

/// Lets the system prefer all other threads to this one.
pub(super) fn be_nice() {
    // Of this thread alone: on Linux each has a value of its own. Without it all are treated alike.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// Runs the work on such a thread.
///
/// # Errors
/// Those of the work; or it panicked, or there was no thread.
pub(crate) async fn in_background<T: Send + 'static, E: Into<BatchError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, BatchError> {
    let (sender, receiver) = oneshot::channel();
    let runtime = Handle::current();
    let run = move || {
        let _entered = runtime.enter();
        be_nice();
        // Whoever asked may have gone.
        let _ = sender.send(work());
    };
    let started = thread::Builder::new().name("export".into()).spawn(run);
    if let Err(error) = started {
        tracing::error!(%error, "no thread for a batch");
        return Err(BatchError::Internal);
    }
    // A panic drops the sender.
    receiver.await.map_err(|_| BatchError::Internal)?.map_err(Into::into)
}
