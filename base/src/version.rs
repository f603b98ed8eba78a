//! Which version of Birthmark this is. All packages of the workspace have the same.

/// The version, with the commit if it is known: `0.1.0 (abc1234)`.
pub const VERSION: &str = env!("BIRTHMARK_VERSION");

/// The commit, or nothing: it is known if `BIRTHMARK_COMMIT` was set when this was built, as package builds do.
pub const COMMIT: &str = env!("BIRTHMARK_COMMIT");
