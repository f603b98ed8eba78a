//! Who causes an entry.

use std::{fmt, sync::Arc};

/// Who causes an entry: `station:<line>/<station>`, `operator:<name>` or `daemon`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Actor(pub Arc<str>);

impl Actor {
    /// The daemon itself.
    pub fn daemon() -> Self {
        Actor("daemon".into())
    }

    /// The station's `<line>/<station>`, if it is one.
    pub fn station(&self) -> Option<&str> {
        self.0.strip_prefix("station:")
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
