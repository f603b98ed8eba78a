//! Calls that may never return.

use std::{sync::mpsc, thread, time::Duration};

use super::error::Error;

/// Opens something of the HSM in a thread of its own, which is abandoned if it does not return.
///
/// # Errors
/// What `open` says, or [`Error::NoAnswer`] after the limit.
pub(crate) fn with_timeout<T: Send + 'static>(
    limit: Duration,
    open: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, opened) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("hsm-open".into()).spawn(move || {
        // Nobody waits for what comes too late; it is dropped.
        let _ = sender.send(open());
    });
    thread.map_err(Error::Thread)?;
    opened.recv_timeout(limit).unwrap_or(Err(Error::NoAnswer { limit }))
}
