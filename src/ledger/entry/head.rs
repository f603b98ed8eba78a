//! What an entry is about, without the rest of it.

use bytes::Bytes;
use prost::Message;

use super::invalid::InvalidEntry;
use crate::serial::SerialNumber;

/// What happened to which serial number, as far as it is needed to find a record in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryHead {
    /// [`Event::Reserved`](super::Event::Reserved).
    Reserved(SerialNumber),
    /// [`Event::Issued`](super::Event::Issued).
    Issued(SerialNumber),
    /// [`Event::Abandoned`](super::Event::Abandoned).
    Abandoned(SerialNumber),
    /// [`Event::ProofReserved`](super::Event::ProofReserved).
    ProofReserved(SerialNumber),
    /// Any other.
    Other,
}

/// `birthmark.journal.v1.Entry` with few of its fields.
#[derive(Clone, PartialEq, Message)]
struct WireHead {
    #[prost(oneof = "WireEvent", tags = "3, 4, 5, 14")]
    event: Option<WireEvent>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireEvent {
    #[prost(message, tag = "3")]
    Reserved(Subject),
    #[prost(message, tag = "4")]
    Issued(Subject),
    #[prost(message, tag = "5")]
    Abandoned(Subject),
    #[prost(message, tag = "14")]
    ProofReserved(Subject),
}

/// The serial number is the first field of all of these events.
#[derive(Clone, PartialEq, Message)]
struct Subject {
    #[prost(bytes = "bytes", tag = "1")]
    serial_number: Bytes,
}

impl EntryHead {
    /// Reads an encoded entry; of what it leaves out nothing is checked.
    pub(crate) fn decode(encoded: Bytes) -> Result<EntryHead, InvalidEntry> {
        let serial = |subject: Subject| SerialNumber::try_from(&*subject.serial_number);
        Ok(match WireHead::decode(encoded)?.event {
            Some(WireEvent::Reserved(of)) => EntryHead::Reserved(serial(of)?),
            Some(WireEvent::Issued(of)) => EntryHead::Issued(serial(of)?),
            Some(WireEvent::Abandoned(of)) => EntryHead::Abandoned(serial(of)?),
            Some(WireEvent::ProofReserved(of)) => EntryHead::ProofReserved(serial(of)?),
            None => EntryHead::Other,
        })
    }
}
