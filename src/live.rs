//! Values that are replaced while they are used: who took one keeps it until done.

use std::{fmt, sync::Arc};

use parking_lot::RwLock;

/// A value that may be replaced. The lock is held for as long as a pointer takes to be copied.
pub(crate) struct Live<T>(RwLock<Arc<T>>);

impl<T> Live<T> {
    pub(crate) fn new(value: Arc<T>) -> Arc<Live<T>> {
        Arc::new(Live(RwLock::new(value)))
    }

    /// The value of this moment.
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read())
    }

    /// From now on it is another one.
    pub(crate) fn set(&self, value: Arc<T>) {
        *self.0.write() = value;
    }
}

impl<T> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}
