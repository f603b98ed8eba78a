//! Requests for certificates that were refused.

use jiff::Timestamp;

/// The most devices that one entry names: each is looked for when it is applied.
pub const NAMED_DEVICES: usize = 64;

/// Requests of one actor that were refused alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestsRefused {
    /// The order that they named; empty: none, or none of that id is known.
    pub order: String,
    /// As in the protocol's ErrorInfo.
    pub reason: String,
    /// Whom it concerns.
    pub scope: RefusalScope,
    /// How many.
    pub count: u64,
    /// Their devices, but for those that were told before or are too many.
    pub devices: Vec<String>,
    /// When the first was refused.
    pub since: Timestamp,
    /// Requests of the actor that no entry tells.
    pub dropped: u64,
}

/// Whom a refusal concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalScope {
    /// The device: it counts against the first-pass yield.
    Device,
    /// The order, the profile or the station, whatever the device.
    Order,
    /// The daemon: its HSM, storage or clock.
    Daemon,
}

impl RefusalScope {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            RefusalScope::Device => "device",
            RefusalScope::Order => "order",
            RefusalScope::Daemon => "daemon",
        }
    }
}
