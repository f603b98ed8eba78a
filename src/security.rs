//! What a security officer reads of the log: who was refused, who changed what.

/// The target of these events in the log: they are in it as all others are, and by themselves in the security log.
pub const TARGET: &str = "security";
