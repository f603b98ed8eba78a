//! Epochs: the lives of the daemons that share a ledger.

use jiff::Timestamp;

use crate::serial::SerialNumber;

/// One daemon's life, from its start until it stops, is started again or is given up by the others.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Epoch {
    /// Counts the ledger's epochs from 1.
    pub number: u64,
    /// The daemon's name.
    pub daemon: String,
    /// When it began.
    pub opened: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

impl Epoch {
    /// Whether its daemon may write.
    pub fn is_open(&self) -> bool {
        self.ended.is_none()
    }
}

/// An epoch as a serial number carries it.
pub(super) fn tag(epoch: u64) -> [u8; 2] {
    let [.., high, low] = epoch.to_be_bytes();
    [high, low]
}

/// The tag of the epoch in which a serial number was given; any two octets if no epoch was open then.
pub(super) fn tag_of(serial: &SerialNumber) -> [u8; 2] {
    let octets = serial.as_bytes();
    [octets[10], octets[11]]
}
